"""Every two models by one metric, tested on the same queries."""

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import TypeVar

from lookalike.io.formats.records import Comparison, Estimate
from lookalike.metrics.rates import holm, verdict

T = TypeVar("T")


def every_two(
    index: str, metric: str, answers: Mapping[str, T], test: Callable[[T, T], tuple[Estimate, float]]
) -> Iterator[Comparison]:
    """Compare every two models, whose ``answers`` are in the form that ``test`` takes two of.

    ``test`` gives their difference, the first minus the second, and its p. Holm's correction is over all pairs.
    """
    pairs = list(combinations(answers, 2))
    tests = [test(answers[a], answers[b]) for a, b in pairs]
    corrected = holm([p for _, p in tests])
    for (a, b), (gap, p), p_holm in zip(pairs, tests, corrected, strict=True):
        yield Comparison(
            index=index, metric=metric, a=a, b=b, difference=gap, p=p, p_holm=p_holm, verdict=verdict(gap, p_holm)
        )
