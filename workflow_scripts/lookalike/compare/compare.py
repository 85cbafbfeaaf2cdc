"""The compare stage: all models of an experiment in one table, and every two of them on the same queries.

Besides: what an approximate index costs (``approximation``), what each choice does where one model is varied
(``effects``), and what models follow, and whether their neighbors mean the same (``follows``, ``interpretation``).
"""

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lookalike.compare.approximation import approximations
from lookalike.compare.effects import effects
from lookalike.compare.interpretation import interpret
from lookalike.compare.pairwise import every_two
from lookalike.config.models import from_key
from lookalike.io import identity, store
from lookalike.io.formats.records import (
    LEADERBOARD_COLUMNS,
    Case,
    Cases,
    Comparison,
    Comparisons,
    Effect,
    Estimate,
    Metrics,
)
from lookalike.io.formats.tables import IMAGES, TRUTH
from lookalike.job.errors import LookalikeError
from lookalike.metrics.draws import Pooled, pooled_difference
from lookalike.metrics.evaluation import Evaluation, Results, evaluate, matches_of, pooled
from lookalike.metrics.joining import Bools, Floats
from lookalike.metrics.rates import NOTHING, Ints, difference, group_codes, sign_flip

MOST_QUERIES = 2_000  # that are listed of each case: all of 1,448, and of 50,000 what a file can still be read with


@dataclass(frozen=True)
class Answers:
    """How one model and index did, in the form that two of them are compared in.

    outcomes: metric -> (q,) float64, one for every query with a match, or None; the same queries for every model
    pooled: metric -> its value and draws, the same draws of groups for every model
    """

    outcomes: dict[str, Floats | None]
    pooled: dict[str, Pooled]


@dataclass(frozen=True)
class Asked:
    """What all models were asked, the same for all.

    rows: (q,) int64, of the sample: the queries with a match; ids: theirs, and groups: (q,) int64 which belong together
    matches: (g,) int64, the true pairs of every group of queries, and queries: how many, those without a match too
    """

    rows: Ints
    ids: list[str]
    groups: Ints
    matches: Ints
    queries: int


@dataclass(frozen=True)
class CompareJob:
    """One experiment to compare: its files, and what it asks."""

    experiment: str
    metrics: Sequence[str | Path]
    results: Sequence[Results]
    truth: str | Path
    images: str | Path
    models: Sequence[str]
    architectures: Mapping[str, str]
    leaderboard_out: str | Path
    comparisons_out: str | Path
    design: str = "{}"


def compare(job: CompareJob) -> None:
    """Write the leaderboard (CSV) and the comparisons (JSON) of an experiment.

    ``metrics`` and ``results`` are parallel: one of each for every model and index. ``models`` are all of the
    experiment's, in the order in which they are compared. ``architectures`` says of some what they are
    (``plan.Plan.architectures``), ``design`` how they vary one (``plan.Plan.design``).
    """
    records = [store.read_json(path, Metrics) for path in job.metrics]
    _check_complete(records, job.models, job.experiment)
    of_records = {path: record.sample_sha256 for path, record in zip(job.metrics, records, strict=True)}
    sample_sha256 = identity.check_sample(job.images, job.truth, records=of_records)
    k = _matching_k(records, job.metrics, job.results)
    _check_weights([files.neighbors for files in job.results], job.experiment)
    sample, matches = store.read_table(job.images, IMAGES), store.read_table(job.truth, TRUTH)

    answers: dict[tuple[str, str], Answers] = {}
    for record, files in zip(records, job.results, strict=True):
        searched = record.references - record.rejected_references
        found = evaluate(files, matches, sample, searched=searched, k=k)
        answers[record.index, record.model] = Answers(found.outcomes, pooled(found))
    asked = _asked(found, sample)  # by the last model; the others were asked the same

    _write_leaderboard(records, job.leaderboard_out)
    costs = approximations(
        records,
        [files.neighbors for files in job.results],
        dict(zip(sample["image_id"].to_pylist(), sample["group"].to_pylist(), strict=True)),
        lambda metric, a, b: _test(metric, asked, answers[a], answers[b])[0],
    )
    more = interpret(
        records,
        [files.neighbors for files in job.results],
        accuracy={key: one.outcomes["accuracy_at_1"] for key, one in answers.items()},
        counted=asked.rows,
        truth=matches,
        images=sample,
        architectures=job.architectures,
    )
    compared = Comparisons(
        experiment=job.experiment,
        comparisons=[*_comparisons(answers, job.models, asked), *more.comparisons],
        cases=list(_cases(answers, job.models, asked.ids)),
        approximations=list(costs),
        effects=_effects(answers, json.loads(job.design), asked.groups),
        follows=more.follows,
        claims=more.claims,
        sample_sha256=sample_sha256,
        metrics={f"{record.model}/{record.index}": store.checksum(record) for record in records},
    )
    store.write_json(compared, job.comparisons_out)


def _asked(evaluation: Evaluation, sample: pa.Table) -> Asked:
    rows = evaluation.ranking.counted
    counted = sample.take(rows)
    queries = int(pc.sum(sample["query"]).as_py() or 0)
    groups = group_codes(counted["group"].to_pylist())
    return Asked(rows, counted["image_id"].to_pylist(), groups, matches_of(evaluation), queries)


def _comparisons(answers: dict[tuple[str, str], Answers], models: Sequence[str], asked: Asked) -> Iterator[Comparison]:
    """Every two models, for every index and metric."""
    for index in dict.fromkeys(index for index, _ in answers):
        of = {model: answers[index, model] for model in models}
        for metric in (*of[models[0]].outcomes, *of[models[0]].pooled):
            yield from every_two(index, metric, of, partial(_test, metric, asked))


def _effects(answers: dict[tuple[str, str], Answers], design: dict[str, dict[str, str]], groups: Ints) -> list[Effect]:
    """What each choice does, for every index and metric, where one model is varied; else nothing."""
    if not design:
        return []
    base = next(iter(design))
    return [
        effect
        for index in dict.fromkeys(index for index, _ in answers)
        for metric in answers[index, base].outcomes
        for effect in effects(
            index, metric, {model: answers[index, model].outcomes[metric] for model in design}, design, groups
        )
    ]


def _test(metric: str, asked: Asked, a: Answers, b: Answers) -> tuple[Estimate, float]:
    if metric in a.pooled:
        return pooled_difference(a.pooled[metric], b.pooled[metric], asked.matches, asked.queries)
    one, other = a.outcomes[metric], b.outcomes[metric]
    if one is None or other is None:
        return NOTHING, 1.0
    return difference(one, other, asked.groups), sign_flip(one, other, asked.groups)


def _cases(answers: dict[tuple[str, str], Answers], models: Sequence[str], ids: Sequence[str]) -> Iterator[Cases]:
    """The four cases of every two models and index; none where a model's accuracy could not be measured."""
    for index in dict.fromkeys(index for index, _ in answers):
        for a, b in combinations(models, 2):
            ones, others = answers[index, a].outcomes, answers[index, b].outcomes
            first_a, first_b = ones["accuracy_at_1"], others["accuracy_at_1"]
            if first_a is None or first_b is None:
                continue
            only_a, only_b = (first_a > first_b), (first_b > first_a)
            near_a, near_b = ones.get("accuracy_at_3"), others.get("accuracy_at_3")
            yield Cases(
                index=index,
                a=a,
                b=b,
                both=_case(ids, (first_a == 1) & (first_b == 1)),
                neither=_case(ids, (first_a == 0) & (first_b == 0)),
                only_a=_case(ids, only_a),
                only_b=_case(ids, only_b),
                only_a_b_near=None if near_b is None else _case(ids, only_a & (near_b == 1)),
                only_b_a_near=None if near_a is None else _case(ids, only_b & (near_a == 1)),
            )


def _case(ids: Sequence[str], which: Bools) -> Case:
    """Count queries and list them by id: all, or those MOST_QUERIES whose ids have the smallest hashes."""
    queries = [query for query, chosen in zip(ids, which.tolist(), strict=True) if chosen]
    listed = sorted(queries, key=lambda query: hashlib.sha256(query.encode()).digest())[:MOST_QUERIES]
    return Case(count=len(queries), queries=sorted(listed))


def _write_leaderboard(records: Sequence[Metrics], out: str | Path) -> None:
    """Tidy: one row per model, index and metric, at full precision. An empty cell is a number that is not known."""
    with store.atomic(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(LEADERBOARD_COLUMNS)
        for record in records:
            estimates = dict(record.metrics)
            embed = record.timing.get("embed")
            if embed:
                estimates["images_per_second"] = Estimate(
                    value=embed["images_per_second"], low=None, high=None, n=embed["images"]
                )
            for metric, between in record.baselines.items():
                estimates |= {f"{metric}_{name}": getattr(between, name) for name in ("floor", "ceiling", "reached")}
            for metric, one in (estimates | _costs(record)).items():
                writer.writerow([record.model, record.index, metric, one.value, one.low, one.high, one.n])


def _costs(record: Metrics) -> dict[str, Estimate]:
    """What a model costs besides embedding; a cost has no interval."""
    search, cost = record.timing.get("search"), record.cost
    known: dict[str, tuple[float | None, int]] = {}
    if search:
        known["queries_per_second"] = search["queries_per_second"], search["queries"]
    if cost:
        known["dimension"] = cost.dimension, cost.vectors
        known["bytes_per_vector"] = cost.vector_bytes, cost.vectors
        known["index_bytes_per_vector"] = cost.indexed_bytes, cost.vectors
        known["index_bytes"] = cost.index_bytes, cost.vectors
    return {name: Estimate(value=value, low=None, high=None, n=n) for name, (value, n) in known.items()}


def _check_complete(records: Sequence[Metrics], models: Sequence[str], experiment: str) -> None:
    found = [(record.index, record.model) for record in records]
    expected = {(index, model) for index, _ in found for model in models}
    if sorted(found) != sorted(expected):
        odd = sorted(expected.symmetric_difference(found)) or sorted({one for one in found if found.count(one) > 1})
        index, model = odd[0]
        count = found.count((index, model))
        raise LookalikeError(
            f"experiments.{experiment}: expected one metrics file for each of {', '.join(models)}, found {count} of "
            f"model '{model}' with index '{index}'. Delete the experiment's report folder and run again."
        )


def _matching_k(records: Sequence[Metrics], metrics: Sequence[str | Path], results: Sequence[Results]) -> int:
    """The k of all searches. Each file must be of the same model and index as the metrics file at its place."""
    if len(metrics) != len(results):
        raise LookalikeError(f"expected one neighbors file per metrics file, got {len(results)} for {len(metrics)}.")
    first = store.read_provenance(results[0].neighbors)
    for record, files, path in zip(records, results, metrics, strict=True):
        if record.dataset != records[0].dataset:
            raise LookalikeError(
                f"{path}: is of data set '{record.dataset}', but {metrics[0]} is of '{records[0].dataset}'. "
                "Models are compared on the same queries only: list models of one data set."
            )
        for file in files.files:
            _check_footer(file, store.read_provenance(file), record, first, records[0].model)
        if record.made_from != files.identities():
            raise LookalikeError(
                f"{path}: was not measured from {files.neighbors} and the files beside it. Delete it and run again."
            )
    return int(first["k"])


def _check_footer(
    path: str | Path, footer: dict[str, Any], record: Metrics, first: dict[str, Any], first_model: str
) -> None:
    made_for = (footer.get("model"), footer.get("index"), footer.get("k"))
    expected = (record.model, record.index, first.get("k"))
    if made_for != expected or made_for[2] is None:
        raise LookalikeError(
            f"{path}: was made for model '{made_for[0]}', index '{made_for[1]}' and k = {made_for[2]}, "
            f"expected '{expected[0]}', '{expected[1]}' and {expected[2]}. Delete it and run again."
        )
    if footer.get("pictures_sha256") != first.get("pictures_sha256"):
        raise LookalikeError(
            f"{path}: model '{record.model}' saw other pictures than '{first_model}': a file was changed, or was gone, "
            "between the two. Embed both from the same pictures: look again with --forcerun sample; if that is not "
            f"enough, --forcerun {from_key(footer['key']).weights_file()}"
        )


def _check_weights(neighbors: Sequence[str | Path], experiment: str) -> None:
    """Models that take their weights from one place must have the same: else their settings are not all that differs.

    Raises LookalikeError where a branch moved, or a file was replaced, between the embedding of the one and the other.
    """
    known: dict[str, tuple[str | Path, dict[str, Any]]] = {}
    for path in neighbors:
        footer = store.read_provenance(path)
        entry = from_key(footer["key"])
        first_path, first = known.setdefault(entry.weights_key(), (path, footer))
        if footer.get("weights_sha256") == first.get("weights_sha256"):
            continue
        models = first["model"], footer["model"]
        settings = json.loads(footer["key"])
        where = settings.get("checkpoint") or settings.get("path") or settings.get("factory") or settings["family"]
        raise LookalikeError(
            f"experiments.{experiment}: models '{models[0]}' and '{models[1]}' both have the weights of {where}, but "
            f"were embedded with different ones: {first_path} with {_weights(first, footer)}, {path} with "
            f"{_weights(footer, first)}. Fetch them again: --forcerun {entry.weights_file()}; a commit "
            "as the model's revision keeps them the same."
        )


def _weights(footer: dict[str, Any], other: dict[str, Any]) -> str:
    """What tells a footer's weights from those of another."""
    ours, theirs = footer.get("weights", {}), other.get("weights", {})
    if ours.get("revision") != theirs.get("revision"):
        return f"revision {ours.get('revision')}"
    files = ours.get("files", {})
    changed = [name for name in files if files[name] != theirs.get("files", {}).get(name)]
    return ", ".join(f"{name} {files[name][:12]}" for name in changed[:3]) or f"{len(files)} files"
