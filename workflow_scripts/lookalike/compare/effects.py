"""What each choice does: one model varied, and what every value of every key changes against the model's own value.

Pure functions over per-query outcomes. docs/vary.md explains them in plain words.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lookalike.io.formats.records import Effect, Estimate
from lookalike.metrics.rates import DECIMALS, NOTHING, Floats, Ints, difference, holm, sign_flip, verdict


@dataclass(frozen=True)
class Choice:
    """One value of one key against the model's own: pairs of models that differ in nothing else."""

    key: str
    value: str
    own: str
    pairs: tuple[tuple[str, str], ...]  # with the value, with the own value


def choices(design: Mapping[str, Mapping[str, str]]) -> list[Choice]:
    """Every key's values but the own one, each with its pairs of models: one for each combination of the other keys.

    design: model -> key -> value, all combinations; the model that is varied stands first, so its values are the own
    """
    own = next(iter(design.values()))
    by_values = {tuple(values.items()): model for model, values in design.items()}
    found = []
    for key, own_value in own.items():
        for value in dict.fromkeys(values[key] for values in design.values()):
            if value != own_value:
                pairs = tuple(
                    (model, by_values[tuple({**values, key: own_value}.items())])
                    for model, values in design.items()
                    if values[key] == value
                )
                found.append(Choice(key, value, own_value, pairs))
    return found


def effects(
    index: str,
    metric: str,
    outcomes: Mapping[str, Floats | None],
    design: Mapping[str, Mapping[str, str]],
    groups: Ints,
) -> Iterator[Effect]:
    """The main effect of every choice on one metric: query by query, averaged over the other keys' combinations.

    outcomes: model -> (q,) float64 in [0, 1], one per query, or None where the metric says nothing
    groups: (q,) int64, see ``rates.group_codes``

    Intervals and tests are those of two models, on each query's averages. Holm's correction is over all choices.
    """
    made = choices(design)
    tests = [_test(choice, outcomes, groups) for choice in made]
    corrected = holm([p for _, p, _ in tests])
    for choice, (gap, p, each), p_holm in zip(made, tests, corrected, strict=True):
        yield Effect(
            index=index,
            metric=metric,
            key=choice.key,
            value=choice.value,
            own=choice.own,
            difference=gap,
            least=None if gap.value is None else min(each),
            most=None if gap.value is None else max(each),
            pairs=list(choice.pairs),
            p=p,
            p_holm=p_holm,
            verdict=verdict(gap, p_holm),
        )


def _test(choice: Choice, outcomes: Mapping[str, Floats | None], groups: Ints) -> tuple[Estimate, float, list[float]]:
    """The difference, its p, and the differences within each pair."""
    chosen, own = (_known([outcomes[model] for model in side]) for side in zip(*choice.pairs, strict=True))
    if chosen is None or own is None or not len(groups):
        return NOTHING, 1.0, []
    each = [float(gap) for gap in (chosen - own).mean(axis=1)]
    a, b = _average(chosen), _average(own)
    return difference(a, b, groups), sign_flip(a, b, groups), each


def _average(side: Floats) -> Floats:
    """(q,) float64; rounded, since thirds that add up to the same must count as equal."""
    return np.asarray(np.round(side.mean(axis=0), DECIMALS), dtype=np.float64)


def _known(side: Sequence[Floats | None]) -> Floats | None:
    """(c, q) float64: a row for each combination; None where any says nothing."""
    known = [one for one in side if one is not None]
    return np.stack(known) if len(known) == len(side) else None
