"""Pairwise comparison of models by one metric on the same queries."""

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import TypeVar

from lookalike.io.formats.records import Comparison, Estimate
from lookalike.metrics.rates import holm, verdict

T = TypeVar("T")


def compare_pairs(
    index: str, metric: str, outcomes: Mapping[str, T], test: Callable[[T, T], tuple[Estimate, float]]
) -> Iterator[Comparison]:
    """Compare all pairs of models, with Holm's correction over the pairs.

    outcomes: model -> whatever ``test`` compares
    test: returns the difference, the first minus the second, and its p value
    """
    pairs = list(combinations(outcomes, 2))
    tests = [test(outcomes[a], outcomes[b]) for a, b in pairs]
    corrected = holm([p for _, p in tests])
    for (a, b), (gap, p), p_holm in zip(pairs, tests, corrected, strict=True):
        yield Comparison(
            index=index, metric=metric, a=a, b=b, difference=gap, p=p, p_holm=p_holm, verdict=verdict(gap, p_holm)
        )
