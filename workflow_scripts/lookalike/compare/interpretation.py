"""What all models' neighbors of an experiment say together: who agrees most with the text, and who follows what.

The compare stage's part that needs every model's neighbors at once; it is written to the comparisons.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from lookalike.compare import follows
from lookalike.compare.pairwise import every_two
from lookalike.io import store
from lookalike.io.formats.records import Claim, Comparison, Estimate, Following, Metrics
from lookalike.io.formats.tables import NEIGHBORS
from lookalike.metrics import agreement
from lookalike.metrics.rates import Floats, Ints, difference, group_codes, sign_flip


@dataclass(frozen=True)
class Interpretation:
    """What goes into ``records.Comparisons``."""

    comparisons: list[Comparison]
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
    """Compare every two models by agreement, say what each model follows, and test the articles' sentences.

    ``records`` and ``neighbors`` are parallel and of the same models and indexes. ``accuracy`` has, by index and model,
    (q,) outcomes of the queries with a match, which are the rows ``counted`` of ``images``. ``architectures`` says
    of some models what they are (``plan.Plan.architectures``).
    """
    tables = {
        (one.index, one.model): store.read_table(path, NEIGHBORS) for one, path in zip(records, neighbors, strict=True)
    }
    colors = {index: tables[index, model] for index, model in tables if architectures.get(model) == follows.COLORS}
    footers = [store.read_provenance(path) for path in neighbors]
    k: int = footers[0]["k"]
    scales = agreement.scales(images, k)
    groups = {name: agreement.groups_of(scale, images) for name, scale in scales.items()}

    asked = images.take(counted)
    operations, asked_groups = follows.single_operations(asked), group_codes(asked["group"].to_pylist())
    agreed: dict[str, dict[tuple[str, str], Floats]] = {name: {} for name in scales}
    seen: dict[str, list[follows.Seen]] = {}
    for record, footer in zip(records, footers, strict=True):
        table, kind = tables[record.index, record.model], architectures.get(record.model, "")
        searched, kept = record.references - record.rejected_references, k + 1
        known: dict[str, follows.Outcomes] = {}
        for name, scale in scales.items():
            values = agreement.outcomes(scale, table, images, searched=searched, kept=kept)
            agreed[name][record.index, record.model] = values
            known[name] = follows.Outcomes(values, groups[name])
        if (correct := accuracy[record.index, record.model]) is not None:
            known[follows.ACCURACY] = follows.Outcomes(correct, asked_groups)
        if k >= follows.AT and record.index in colors and kind != follows.COLORS:
            known[follows.OVERLAP] = follows.overlaps(table, colors[record.index], truth, images)
        seen.setdefault(record.index, []).append(follows.Seen(record.model, kind, _dimensions(footer), known))

    return Interpretation(
        comparisons=[one for name, values in agreed.items() for one in _comparisons(name, values, groups[name])],
        follows=[row for index, models in seen.items() for row in follows.follow(index, models, operations)],
        claims=follows.judge(seen, operations),
    )


def _comparisons(metric: str, outcomes: Mapping[tuple[str, str], Floats], groups: Ints) -> Iterator[Comparison]:
    """Every two models, for every index."""

    def test(a: Floats, b: Floats) -> tuple[Estimate, float]:
        return difference(a, b, groups), sign_flip(a, b, groups)

    for index in dict.fromkeys(index for index, _ in outcomes):
        of = {model: values for (its, model), values in outcomes.items() if its == index}
        yield from every_two(index, metric, of, test)


def _dimensions(footer: Mapping[str, Any]) -> int | None:
    """Length of the vectors that were searched: what the index reduces them to, or else the model's."""
    factory = json.loads(footer.get("index_key", "{}")).get("factory", "")
    reduced = re.search(r"(?:PCAW?R?|OPQ\d+_)(\d+)", factory)
    return int(reduced[1]) if reduced else footer.get("dimension")
