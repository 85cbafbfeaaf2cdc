"""The effect of each setting of a varied model: rows of the report's tables."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lookalike.io.formats.records import Effect
from lookalike.report.evidence import Evidence, Run


@dataclass(frozen=True)
class Row:
    """One value compared with the default: an effect per metric, relative speed and relative vector size."""

    value: str
    own: str
    effects: list[Effect]
    speed: float | None
    size: float | None


@dataclass(frozen=True)
class Table:
    """All settings with one index. ``reach`` is the largest absolute interval bound, which scales the plots."""

    index: str
    metrics: list[str]
    keys: dict[str, list[Row]]
    reach: float
    averaged: bool


def tables(evidence: Evidence) -> list[Table]:
    """One table per index, in the order of the comparisons."""
    return [
        _table(evidence, index, [effect for effect in evidence.effects if effect.index == index])
        for index in dict.fromkeys(effect.index for effect in evidence.effects)
    ]


def _table(evidence: Evidence, index: str, effects: list[Effect]) -> Table:
    by_choice: dict[tuple[str, str], list[Effect]] = {}
    for effect in effects:
        by_choice.setdefault((effect.key, effect.value), []).append(effect)
    runs = {run.model: run for run in evidence.runs if run.index == index}
    keys: dict[str, list[Row]] = {}
    for (key, value), per_metric in by_choice.items():
        pairs = [(runs[chosen], runs[own]) for chosen, own in per_metric[0].pairs]
        speed, size = (_ratio(pairs, quantity) for quantity in (_speed, _size))
        keys.setdefault(key, []).append(Row(value, per_metric[0].own, per_metric, speed, size))
    differences = [effect.difference for effect in effects]
    bounds = [bound for gap in differences for bound in (gap.low, gap.high) if bound is not None]
    return Table(
        index,
        list(dict.fromkeys(effect.metric for effect in effects)),
        keys,
        max([0.01, *map(abs, bounds)]),
        any(len(effect.pairs) > 1 for effect in effects),
    )


def _ratio(pairs: Sequence[tuple[Run, Run]], quantity: Callable[[Run], tuple[float, str]]) -> float | None:
    """Geometric mean over the pairs of the first run's quantity / the second's; None if any is unknown."""
    logs = []
    for chosen, own in pairs:
        (value, device), (baseline, baseline_device) = quantity(chosen), quantity(own)
        if not value or not baseline or device != baseline_device:
            return None
        logs.append(math.log(value / baseline))
    return math.exp(sum(logs) / len(logs))


def _speed(run: Run) -> tuple[float, str]:
    """Images per second and the device: speeds on different devices are not compared."""
    return (run.embed.images_per_second, run.embed.device) if run.embed else (0.0, "")


def _size(run: Run) -> tuple[float, str]:
    return (run.metrics.cost.vector_bytes if run.metrics.cost else 0.0, "")
