"""The compare stage: all models of an experiment in one table, and every two of them on the same queries."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from lookalike import formats, store
from lookalike.errors import LookalikeError
from lookalike.formats import Comparison, Comparisons, Estimate, Metrics
from lookalike.interpretation import interpret
from lookalike.metrics import Floats, at_k, rank
from lookalike.statistics import NOTHING, Ints, difference, group_codes, holm, sign_flip, verdict

Outcomes = dict[str, Floats | None]


def compare(
    *,
    experiment: str,
    metrics: Sequence[str | Path],
    neighbors: Sequence[str | Path],
    truth: str | Path,
    images: str | Path,
    models: Sequence[str],
    kinds: Mapping[str, str],
    leaderboard_out: str | Path,
    comparisons_out: str | Path,
) -> None:
    """Write the leaderboard (CSV) and the comparisons (JSON) of an experiment.

    ``metrics`` and ``neighbors`` are parallel: one file of each for every model and index. ``models`` are all of the
    experiment's, in the order in which they are compared. ``kinds`` says of some what they are (``plan.Plan.kinds``).
    """
    records = [store.read_json(path, Metrics) for path in metrics]
    _check_complete(records, models, experiment)
    footers = _matching_footers(records, metrics, neighbors)
    sample, matches = store.read_table(images, formats.IMAGES), store.read_table(truth, formats.TRUTH)

    groups: Ints = group_codes([])
    outcomes: dict[tuple[str, str], Outcomes] = {}
    for record, footer, path in zip(records, footers, neighbors, strict=True):
        ranking = rank(
            store.read_table(path, formats.NEIGHBORS),
            matches,
            sample,
            searched=record.references - record.rejected_references,
            kept=footer["k"] + 1,
            where=path,
        )
        groups = group_codes(sample["group"].take(ranking.counted).to_pylist())  # the same queries for every model
        outcomes[record.index, record.model] = at_k(ranking, footer["k"])

    _write_leaderboard(records, leaderboard_out)
    comparisons = list(_comparisons(outcomes, models, groups))
    more = interpret(records, neighbors, truth=matches, images=sample, kinds=kinds)
    comparisons += more.comparisons
    store.write_json(
        Comparisons(experiment=experiment, comparisons=comparisons, follows=more.follows, claims=more.claims),
        comparisons_out,
    )


def _comparisons(
    outcomes: dict[tuple[str, str], Outcomes], models: Sequence[str], groups: Ints
) -> Iterator[Comparison]:
    """Every two models, for every index and metric; Holm's correction is over the pairs of one index and metric."""
    for index in dict.fromkeys(index for index, _ in outcomes):
        for metric in outcomes[index, models[0]]:
            pairs = list(combinations(models, 2))
            tests = [_test(outcomes[index, a][metric], outcomes[index, b][metric], groups) for a, b in pairs]
            corrected = holm([p for _, p in tests])
            for (a, b), (gap, p), p_holm in zip(pairs, tests, corrected, strict=True):
                yield Comparison(
                    index=index,
                    metric=metric,
                    a=a,
                    b=b,
                    difference=gap,
                    p=p,
                    p_holm=p_holm,
                    verdict=verdict(gap, p_holm),
                )


def _test(a: Floats | None, b: Floats | None, groups: Ints) -> tuple[Estimate, float]:
    if a is None or b is None:
        return NOTHING, 1.0
    return difference(a, b, groups), sign_flip(a, b, groups)


def _write_leaderboard(records: Sequence[Metrics], out: str | Path) -> None:
    """Tidy: one row per model, index and metric, at full precision. An empty cell is a number that is not known."""
    with store.atomic(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(formats.LEADERBOARD_COLUMNS)
        for record in records:
            estimates = dict(record.metrics)
            embed = record.timing.get("embed")
            if embed:
                estimates["images_per_second"] = Estimate(
                    value=embed["images_per_second"], low=None, high=None, n=embed["images"]
                )
            for metric, between in record.baselines.items():
                estimates |= {f"{metric}_{name}": getattr(between, name) for name in ("floor", "ceiling", "reached")}
            for metric, one in estimates.items():
                writer.writerow([record.model, record.index, metric, one.value, one.low, one.high, one.n])


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


def _matching_footers(
    records: Sequence[Metrics], metrics: Sequence[str | Path], neighbors: Sequence[str | Path]
) -> list[dict[str, Any]]:
    """The provenance of each neighbors file, which names the same model and index as the metrics file at its place."""
    if len(metrics) != len(neighbors):
        raise LookalikeError(f"expected one neighbors file per metrics file, got {len(neighbors)} for {len(metrics)}.")
    footers = [store.read_provenance(path) for path in neighbors]
    for record, footer, path, neighbors_path in zip(records, footers, metrics, neighbors, strict=True):
        if record.dataset != records[0].dataset:
            raise LookalikeError(
                f"{path}: is of data set '{record.dataset}', but {metrics[0]} is of '{records[0].dataset}'. "
                "Models are compared on the same queries only: list models of one data set."
            )
        made_for = (footer.get("model"), footer.get("index"), footer.get("k"))
        expected = (record.model, record.index, footers[0].get("k"))
        if made_for != expected or made_for[2] is None:
            raise LookalikeError(
                f"{neighbors_path}: was made for model '{made_for[0]}', index '{made_for[1]}' and k = {made_for[2]}, "
                f"expected '{expected[0]}', '{expected[1]}' and {expected[2]}. Delete it and run again."
            )
        if footer.get("pictures_sha256") != footers[0].get("pictures_sha256"):
            raise LookalikeError(
                f"{neighbors_path}: model '{record.model}' saw other pictures than '{records[0].model}': a file was "
                "changed, or was gone, between the two. Embed both from the same pictures: look again with "
                f"--forcerun sample; if that is not enough, --forcerun results/weights/{record.model}.json"
            )
    return footers
