"""What each choice does: the rows of a varied model's table."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lookalike.io.formats.records import Effect
from lookalike.report.evidence import Evidence, Run


@dataclass(frozen=True)
class Row:
    """One value against the model's own: an effect for each metric, and how many times as fast and as large it is."""

    value: str
    own: str
    effects: list[Effect]
    speed: float | None
    size: float | None


@dataclass(frozen=True)
class Table:
    """All choices with one index. ``reach`` is the largest bound of an interval: the scale of the drawn differences."""

    index: str
    metrics: list[str]
    keys: dict[str, list[Row]]
    reach: float
    averaged: bool


def tables(evidence: Evidence) -> list[Table]:
    """One table for each index, in the order of the comparisons."""
    return [
        _table(evidence, index, [one for one in evidence.effects if one.index == index])
        for index in dict.fromkeys(one.index for one in evidence.effects)
    ]


def _table(evidence: Evidence, index: str, effects: list[Effect]) -> Table:
    by_choice: dict[tuple[str, str], list[Effect]] = {}
    for one in effects:
        by_choice.setdefault((one.key, one.value), []).append(one)
    runs = {run.model: run for run in evidence.runs if run.index == index}
    keys: dict[str, list[Row]] = {}
    for (key, value), found in by_choice.items():
        pairs = [(runs[chosen], runs[own]) for chosen, own in found[0].pairs]
        keys.setdefault(key, []).append(Row(value, found[0].own, found, *(_ratio(pairs, of) for of in (_speed, _size))))
    bounds = [bound for one in effects for bound in (one.difference.low, one.difference.high) if bound is not None]
    return Table(
        index,
        list(dict.fromkeys(one.metric for one in effects)),
        keys,
        max([0.01, *map(abs, bounds)]),
        any(len(one.pairs) > 1 for one in effects),
    )


def _ratio(pairs: Sequence[tuple[Run, Run]], of: Callable[[Run], tuple[float, str]]) -> float | None:
    """How many times as much the first of each pair has: the geometric mean; None where any is not known."""
    logs = []
    for chosen, own in pairs:
        (here, place), (there, other_place) = of(chosen), of(own)
        if not here or not there or place != other_place:
            return None
        logs.append(math.log(here / there))
    return math.exp(sum(logs) / len(logs))


def _speed(run: Run) -> tuple[float, str]:
    """Images a second, and on what: speeds of several devices are not compared."""
    return (run.embed.images_per_second, run.embed.device) if run.embed else (0.0, "")


def _size(run: Run) -> tuple[float, str]:
    return (run.metrics.cost.vector_bytes if run.metrics.cost else 0.0, "")
