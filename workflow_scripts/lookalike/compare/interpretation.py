"""Comparisons that need the neighbors of all models: semantic agreement, what models follow, published claims."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from lookalike.compare import follows
from lookalike.compare.pairwise import Pair, pairs_of, rates_tested
from lookalike.io import store
from lookalike.io.formats.records import Claim, Following, Metrics
from lookalike.io.formats.tables import NEIGHBORS
from lookalike.metrics import agreement
from lookalike.metrics.rates import Floats, Ints, group_codes


@dataclass(frozen=True)
class Interpretation:
    """The tests of agreement, and the corresponding parts of ``records.Comparisons``."""

    pairs: list[Pair]
    follows: list[Following]
    claims: list[Claim]


def interpret(
    records: Sequence[Metrics],
    neighbors: Sequence[str | Path],
    *,
    accuracy: Mapping[tuple[str, str], Floats | None],
    counted: Ints,
    truth: pa.Table,
    images: pa.Table,
    architectures: Mapping[str, str],
) -> Interpretation:
    """Compare all pairs of models by agreement, measure what each model follows, and test the published claims.

    records, neighbors: parallel, one per model and index
    accuracy: (index, model) -> (q,) float64 outcomes of the queries with a match
    counted: (q,) int64, the rows of ``images`` of these queries
    truth, images: TRUTH and IMAGES tables
    architectures: the architecture of some models (``plan.Plan.architectures``)
    """
    tables = {
        (record.index, record.model): store.read_table(path, NEIGHBORS)
        for record, path in zip(records, neighbors, strict=True)
    }
    colors = {index: tables[index, model] for index, model in tables if architectures.get(model) == follows.COLORS}
    footers = [store.read_provenance(path) for path in neighbors]
    k: int = footers[0]["k"]
    scales = agreement.scales(images, k)
    groups = {name: agreement.groups_of(scale, images) for name, scale in scales.items()}

    queries = images.take(counted)
    operations, query_groups = follows.single_operations(queries), group_codes(queries["group"].to_pylist())
    agreements: dict[str, dict[tuple[str, str], Floats]] = {name: {} for name in scales}
    models: dict[str, list[follows.Model]] = {}  # by index
    for record, footer in zip(records, footers, strict=True):
        table, architecture = tables[record.index, record.model], architectures.get(record.model, "")
        searched, kept = record.references - record.rejected_references, k + 1
        outcomes: dict[str, follows.Outcomes] = {}
        for name, scale in scales.items():
            values = agreement.outcomes(scale, table, images, searched=searched, kept=kept)
            agreements[name][record.index, record.model] = values
            outcomes[name] = follows.Outcomes(values, groups[name])
        if (correct := accuracy[record.index, record.model]) is not None:
            outcomes[follows.ACCURACY] = follows.Outcomes(correct, query_groups)
        if k >= follows.AT and record.index in colors and architecture != follows.COLORS:
            outcomes[follows.OVERLAP] = follows.overlaps(table, colors[record.index], truth, images)
        model = follows.Model(record.model, architecture, _dimensions(footer), outcomes)
        models.setdefault(record.index, []).append(model)

    return Interpretation(
        pairs=[pair for name, values in agreements.items() for pair in _pairs(name, values, groups[name])],
        follows=[row for index, searched in models.items() for row in follows.follow(index, searched, operations)],
        claims=follows.judge(models, operations),
    )


def _pairs(metric: str, outcomes: Mapping[tuple[str, str], Floats], groups: Ints) -> Iterator[Pair]:
    """All pairs of models, for every index."""
    for index in dict.fromkeys(index for index, _ in outcomes):
        by_model = {model: values for (other, model), values in outcomes.items() if other == index}
        yield from pairs_of(index, metric, by_model, partial(rates_tested, groups=groups))


def _dimensions(footer: Mapping[str, Any]) -> int | None:
    """Dimension of the searched vectors: the reduced one if the index reduces it, otherwise the model's."""
    factory = json.loads(footer.get("index_key", "{}")).get("factory", "")
    reduced = re.search(r"(?:PCAW?R?|OPQ\d+_)(\d+)", factory)
    return int(reduced[1]) if reduced else footer.get("dimension")
