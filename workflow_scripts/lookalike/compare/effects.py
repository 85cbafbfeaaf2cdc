"""Main effects of the settings of a varied model: every value of every key compared with the default value.

Pure functions of per-query outcomes. See docs/vary.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lookalike.compare.pairwise import Tested, rates_tested
from lookalike.io.formats.records import Effect
from lookalike.metrics.power import needed
from lookalike.metrics.rates import DECIMALS, Floats, Ints, holm, verdict


@dataclass(frozen=True)
class Choice:
    """One value of one key compared with the default: pairs of models that differ in nothing else."""

    key: str
    value: str
    own: str
    pairs: tuple[tuple[str, str], ...]  # (model with the value, model with the default)


def choices(design: Mapping[str, Mapping[str, str]]) -> list[Choice]:
    """All non-default values with their pairs of models, one pair per combination of the other keys.

    design: model -> key -> value, all combinations; the first model is the varied one and defines the defaults
    """
    defaults = next(iter(design.values()))
    by_values = {tuple(values.items()): model for model, values in design.items()}
    all_choices = []
    for key, default in defaults.items():
        for value in dict.fromkeys(values[key] for values in design.values()):
            if value != default:
                pairs = tuple(
                    (model, by_values[tuple({**values, key: default}.items())])
                    for model, values in design.items()
                    if values[key] == value
                )
                all_choices.append(Choice(key, value, default, pairs))
    return all_choices


def effects(
    index: str,
    metric: str,
    outcomes: Mapping[str, Floats | None],
    design: Mapping[str, Mapping[str, str]],
    groups: Ints,
) -> Iterator[Effect]:
    """The main effect of each choice on one metric, averaged per query over the combinations of the other keys.

    outcomes: model -> (q,) float64 in [0, 1], one per query, or None if the metric is not meaningful
    groups: (q,) int64, see ``rates.group_codes``
    design: see ``choices``

    Intervals and tests are those of two models, on the averages of each query, with Holm's correction over all choices.
    """
    all_choices = choices(design)
    tests = [_test(choice, outcomes, groups) for choice in all_choices]
    corrected = holm([tested.p for tested, _ in tests])
    for choice, (tested, each), p_holm in zip(all_choices, tests, corrected, strict=True):
        gap = tested.difference
        decision = verdict(gap, p_holm, tested.groups)
        enough = needed(gap.value, tested.spread, groups=tested.groups, queries=gap.n, tests=len(tests))
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
            p=tested.p,
            p_holm=p_holm,
            verdict=decision,
            queries_needed=enough.queries if enough and decision not in ("better", "worse") else None,
        )


def _test(choice: Choice, outcomes: Mapping[str, Floats | None], groups: Ints) -> tuple[Tested, list[float]]:
    """The test of a choice, and the difference of each pair."""
    chosen, own = (_stacked([outcomes[model] for model in side]) for side in zip(*choice.pairs, strict=True))
    if chosen is None or own is None or not len(groups):
        return rates_tested(None, None, groups), []
    each = [float(gap) for gap in (chosen - own).mean(axis=1)]
    return rates_tested(_average(chosen), _average(own), groups), each


def _average(side: Floats) -> Floats:
    """(q,) float64, rounded so that equal means compare as equal."""
    return np.asarray(np.round(side.mean(axis=0), DECIMALS), dtype=np.float64)


def _stacked(side: Sequence[Floats | None]) -> Floats | None:
    """(c, q) float64, a row per combination; None if any is None."""
    known = [outcomes for outcomes in side if outcomes is not None]
    return np.stack(known) if len(known) == len(side) else None
