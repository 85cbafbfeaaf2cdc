"""The compare stage: the leaderboard of an experiment, and pairwise comparisons on the same queries.

It also measures the cost of approximate indexes (``approximation``), the effects of the settings of a varied model
(``effects``), semantic agreement and what models follow (``interpretation``, ``follows``).
"""

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.compare.answers import answers, headline_metrics
from lookalike.compare.approximation import approximations
from lookalike.compare.effects import effects
from lookalike.compare.interpretation import interpret
from lookalike.compare.pairwise import Pair, Tested, corrected, pairs_of, rates_tested
from lookalike.config.models import from_key
from lookalike.io import identity, store
from lookalike.io.formats.records import (
    LEADERBOARD_COLUMNS,
    Case,
    Cases,
    Comparisons,
    Effect,
    Estimate,
    Metrics,
)
from lookalike.io.formats.tables import IMAGES, TRUTH
from lookalike.job.errors import LookalikeError
from lookalike.metrics.evaluation import Evaluation, Results, evaluate, matches_of, pooled
from lookalike.metrics.jackknife import Pooled, pooled_difference
from lookalike.metrics.joining import Bools, Floats
from lookalike.metrics.rates import Ints, group_codes

MOST_QUERIES = 2_000  # listed per case, which keeps the file readable with 50,000 queries


@dataclass(frozen=True)
class Scores:
    """The comparable results of one model and index.

    outcomes: metric -> (q,) float64, one per query with a match, or None; the same queries for every model
    pooled: metric -> its value and influences; all models share the groups
    """

    outcomes: dict[str, Floats | None]
    pooled: dict[str, Pooled]


@dataclass(frozen=True)
class Queries:
    """The queries, which all models share.

    rows: (q,) int64, rows of the sample: the queries with a match
    ids: their image ids
    groups: (q,) int64, see ``rates.group_codes``
    matches: (g,) int64, the number of true pairs of each group
    total: number of queries with or without a match
    """

    rows: Ints
    ids: list[str]
    groups: Ints
    matches: Ints
    total: int


@dataclass(frozen=True)
class CompareJob:
    """The files and settings of one experiment to compare."""

    experiment: str
    metrics: Sequence[str | Path]
    results: Sequence[Results]
    truth: str | Path
    images: str | Path
    models: Sequence[str]
    architectures: Mapping[str, str]
    leaderboard_out: str | Path
    comparisons_out: str | Path
    design: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def compare(job: CompareJob) -> None:
    """Write the leaderboard (CSV) and the comparisons (JSON) of an experiment.

    ``metrics`` and ``results`` are parallel, one per model and index. ``models`` are all models of the experiment, in
    the order of the comparisons. ``architectures`` has the architecture of some models (``plan.Plan.architectures``),
    ``design`` the settings that a varied model and its variants have (``plan.Plan.design``). Raises LookalikeError if
    files are missing, damaged or of different searches, images or weights.
    """
    records = [store.read_json(path, Metrics) for path in job.metrics]
    _check_complete(records, job.models, job.experiment)
    hashes = {path: record.sample_sha256 for path, record in zip(job.metrics, records, strict=True)}
    sample_sha256 = identity.check_sample(job.images, job.truth, records=hashes)
    k = _matching_k(records, job.metrics, job.results)
    _check_weights([files.neighbors for files in job.results], job.experiment)
    images, truth = store.read_table(job.images, IMAGES), store.read_table(job.truth, TRUTH)

    scores: dict[tuple[str, str], Scores] = {}
    for record, files in zip(records, job.results, strict=True):
        searched = record.references - record.rejected_references
        evaluation = evaluate(files, truth, images, searched=searched, k=k)
        scores[record.index, record.model] = Scores(evaluation.outcomes, pooled(evaluation))
    queries = _queries(evaluation, images)  # the same for every model

    _write_leaderboard(records, job.leaderboard_out)
    costs = approximations(
        records,
        [files.neighbors for files in job.results],
        dict(zip(images["image_id"].to_pylist(), images["group"].to_pylist(), strict=True)),
        lambda metric, a, b: _test(metric, queries, scores[a], scores[b]).difference,
    )
    interpretation = interpret(
        records,
        [files.neighbors for files in job.results],
        accuracy={key: of_model.outcomes["accuracy_at_1"] for key, of_model in scores.items()},
        counted=queries.rows,
        truth=truth,
        images=images,
        architectures=job.architectures,
    )
    comparisons = corrected([*_pairs(scores, job.models, queries), *interpretation.pairs], headline_metrics(records))
    compared = Comparisons(
        experiment=job.experiment,
        comparisons=comparisons,
        answers=answers(records, comparisons),
        cases=list(_cases(scores, job.models, queries.ids)),
        approximations=list(costs),
        effects=_effects(scores, job.design, queries.groups),
        follows=interpretation.follows,
        claims=interpretation.claims,
        sample_sha256=sample_sha256,
        metrics={f"{record.model}/{record.index}": store.checksum(record) for record in records},
    )
    store.write_json(compared, job.comparisons_out)


def _queries(evaluation: Evaluation, images: pa.Table) -> Queries:
    rows = evaluation.ranking.counted
    counted = images.take(rows)
    total = int(pc.sum(images["query"]).as_py() or 0)
    groups = group_codes(counted["group"].to_pylist())
    return Queries(rows, counted["image_id"].to_pylist(), groups, matches_of(evaluation), total)


def _pairs(scores: dict[tuple[str, str], Scores], models: Sequence[str], queries: Queries) -> Iterator[Pair]:
    """All pairs of models, for every index and metric."""
    for index in dict.fromkeys(index for index, _ in scores):
        by_model = {model: scores[index, model] for model in models}
        first = by_model[models[0]]
        for metric in (*first.outcomes, *first.pooled):
            yield from pairs_of(index, metric, by_model, partial(_test, metric, queries))


def _effects(
    scores: dict[tuple[str, str], Scores], design: Mapping[str, Mapping[str, str]], groups: Ints
) -> list[Effect]:
    """The effect of each setting, for every index and metric; empty unless a model is varied."""
    if not design:
        return []
    base = next(iter(design))
    return [
        effect
        for index in dict.fromkeys(index for index, _ in scores)
        for metric in scores[index, base].outcomes
        for effect in effects(
            index, metric, {model: scores[index, model].outcomes[metric] for model in design}, design, groups
        )
    ]


def _test(metric: str, queries: Queries, a: Scores, b: Scores) -> Tested:
    if metric in a.pooled:
        tested = pooled_difference(a.pooled[metric], b.pooled[metric], queries.matches, queries.total)
        return Tested(*tested, int(np.count_nonzero(queries.matches)))
    return rates_tested(a.outcomes[metric], b.outcomes[metric], queries.groups)


def _cases(scores: dict[tuple[str, str], Scores], models: Sequence[str], ids: Sequence[str]) -> Iterator[Cases]:
    """The four cases of each pair of models and index; none if accuracy could not be measured."""
    for index in dict.fromkeys(index for index, _ in scores):
        for a, b in combinations(models, 2):
            of_a, of_b = scores[index, a].outcomes, scores[index, b].outcomes
            first_a, first_b = of_a["accuracy_at_1"], of_b["accuracy_at_1"]
            if first_a is None or first_b is None:
                continue
            only_a, only_b = (first_a > first_b), (first_b > first_a)
            near_a, near_b = of_a.get("accuracy_at_3"), of_b.get("accuracy_at_3")
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
    """The number and ids of queries; beyond MOST_QUERIES, the ids with the smallest hashes."""
    queries = [query for query, chosen in zip(ids, which.tolist(), strict=True) if chosen]
    listed = sorted(queries, key=lambda query: hashlib.sha256(query.encode()).digest())[:MOST_QUERIES]
    return Case(count=len(queries), queries=sorted(listed))


def _write_leaderboard(records: Sequence[Metrics], out: str | Path) -> None:
    """Tidy CSV: one row per model, index and metric, at full precision. Unknown numbers are empty cells."""
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
            for metric, baseline in record.baselines.items():
                estimates |= {f"{metric}_{name}": getattr(baseline, name) for name in ("floor", "ceiling", "reached")}
            for metric, number in (estimates | _costs(record)).items():
                writer.writerow([record.model, record.index, metric, number.value, number.low, number.high, number.n])


def _costs(record: Metrics) -> dict[str, Estimate]:
    """Costs other than embedding speed; they have no intervals. ``n`` of memory is the number of jobs."""
    embed, search, cost = record.timing.get("embed", {}), record.timing.get("search", {}), record.cost
    known: dict[str, tuple[float | None, int]] = {}
    for name in ("peak_memory_mb", "peak_gpu_memory_mb"):
        if embed.get(name) is not None:
            known[name] = embed[name], embed["jobs"]
        if search.get(name) is not None:
            known[f"search_{name}"] = search[name], 1
    if search:
        known["queries_per_second"] = search["queries_per_second"], search["queries"]
    for name in ("latency_median", "latency_p95"):
        if search.get(name) is not None:
            known[f"query_{name}_ms"] = 1000 * search[name], search["latency_queries"]
    if cost:
        known["dimension"] = cost.dimension, cost.vectors
        known["bytes_per_vector"] = cost.vector_bytes, cost.vectors
        known["index_bytes_per_vector"] = cost.indexed_bytes, cost.vectors
        known["index_bytes"] = cost.index_bytes, cost.vectors
    return {name: Estimate(value=value, low=None, high=None, n=n) for name, (value, n) in known.items()}


def _check_complete(records: Sequence[Metrics], models: Sequence[str], experiment: str) -> None:
    pairs = [(record.index, record.model) for record in records]
    expected = {(index, model) for index, _ in pairs for model in models}
    if sorted(pairs) != sorted(expected):
        duplicates = {pair for pair in pairs if pairs.count(pair) > 1}
        index, model = (sorted(expected.symmetric_difference(pairs)) or sorted(duplicates))[0]
        count = pairs.count((index, model))
        raise LookalikeError(
            f"experiments.{experiment}: expected one metrics file for each of {', '.join(models)}, got {count} for "
            f"model '{model}' with index '{index}'. Delete the experiment's report folder and run again."
        )


def _matching_k(records: Sequence[Metrics], metrics: Sequence[str | Path], results: Sequence[Results]) -> int:
    """The k of all searches. Raises LookalikeError if a file does not belong to its metrics file."""
    if len(metrics) != len(results):
        raise LookalikeError(f"expected one neighbors file per metrics file, got {len(results)} for {len(metrics)}.")
    first = store.read_provenance(results[0].neighbors)
    for record, files, path in zip(records, results, metrics, strict=True):
        if record.dataset != records[0].dataset:
            raise LookalikeError(
                f"{path}: belongs to data set '{record.dataset}', but {metrics[0]} to '{records[0].dataset}'. "
                "Models must be compared on the same queries: list models of one data set."
            )
        for file in files.files:
            _check_footer(file, store.read_provenance(file), record, first, records[0].model)
        if record.made_from != files.identities():
            raise LookalikeError(
                f"{path}: was measured from other versions of {files.neighbors} or the files next to it. "
                f"Delete {path} and run again."
            )
    return int(first["k"])


def _check_footer(
    path: str | Path, footer: dict[str, Any], record: Metrics, first: dict[str, Any], first_model: str
) -> None:
    recorded = (footer.get("model"), footer.get("index"), footer.get("k"))
    expected = (record.model, record.index, first.get("k"))
    if recorded != expected or recorded[2] is None:
        raise LookalikeError(
            f"{path}: was made for model '{recorded[0]}', index '{recorded[1]}' and k = {recorded[2]}, "
            f"expected '{expected[0]}', '{expected[1]}' and {expected[2]}. Delete it and run again."
        )
    if footer.get("images_sha256") != first.get("images_sha256"):
        raise LookalikeError(
            f"{path}: model '{record.model}' read other image files than '{first_model}': files changed "
            "or disappeared in between. Embed both from the same files: --forcerun sample; if that is not enough, "
            f"--forcerun {from_key(footer['key']).weights_file()}"
        )


def _check_weights(neighbors: Sequence[str | Path], experiment: str) -> None:
    """Check that models with the same source of weights used the same weights, so that only their settings differ.

    Raises LookalikeError if a branch moved or a file was replaced between their embedding jobs.
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
        source = settings.get("checkpoint") or settings.get("path") or settings.get("factory") or settings["family"]
        raise LookalikeError(
            f"experiments.{experiment}: models '{models[0]}' and '{models[1]}' both use the weights of {source}, but "
            f"different versions: {first_path} used {_weights(first, footer)}, {path} used "
            f"{_weights(footer, first)}. Fetch the weights again: --forcerun {entry.weights_file()}; to prevent this, "
            "pin the model's revision to a commit."
        )


def _weights(footer: dict[str, Any], other: dict[str, Any]) -> str:
    """How a footer's weights differ from those of another."""
    ours, theirs = footer.get("weights", {}), other.get("weights", {})
    if ours.get("revision") != theirs.get("revision"):
        return f"revision {ours.get('revision')}"
    files = ours.get("files", {})
    changed = [name for name in files if files[name] != theirs.get("files", {}).get(name)]
    return ", ".join(f"{name} {files[name][:12]}" for name in changed[:3]) or f"{len(files)} files"
