"""Pairwise comparison of models on the same queries, corrected for the number of tests."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

import numpy as np

from lookalike.io.formats.records import Comparison, Estimate
from lookalike.metrics.intervals import Spread
from lookalike.metrics.power import needed
from lookalike.metrics.rates import NOTHING, Floats, Ints, difference, holm, sign_flip, spread_of_difference, verdict
from lookalike.metrics.scenes import SCENE

T = TypeVar("T")


@dataclass(frozen=True)
class Tested:
    """The difference of two models, its p value and spread, and the number of independent groups."""

    difference: Estimate
    p: float
    spread: Spread
    groups: int


@dataclass(frozen=True)
class Pair:
    """The test of two models by one metric with one index."""

    index: str
    metric: str
    a: str
    b: str
    tested: Tested


def rates_tested(a: Floats | None, b: Floats | None, groups: Ints) -> Tested:
    """The test of outcomes per query, see ``rates.difference``; without a value if the metric is undefined."""
    if a is None or b is None or not len(a):
        return Tested(NOTHING, 1.0, Spread(0.0, 1.0), 0)
    spread = spread_of_difference(a, b, groups)
    return Tested(difference(a, b, groups), sign_flip(a, b, groups), spread, len(np.unique(groups)))


def pairs_of(index: str, metric: str, outcomes: Mapping[str, T], test: Callable[[T, T], Tested]) -> Iterator[Pair]:
    """Test all pairs of models; outcomes: model -> whatever ``test`` compares, the first minus the second."""
    for a, b in combinations(outcomes, 2):
        yield Pair(index, metric, a, b, test(outcomes[a], outcomes[b]))


def corrected(pairs: Iterable[Pair], headline: Iterable[str]) -> list[Comparison]:
    """The comparisons with verdicts, after Holm's correction.

    headline: the metrics that the first sentence of the report may speak of. All their tests, of all indexes, form one
        family, so that at most 5 % of reports on equal models begin with a false statement. Every other metric is a
        family with each index: its tables are exploratory.

    A metric of scenes whose tests are those of the strict metric, as nothing is junk, is the same hypothesis: it is
    not tested again and has the same verdicts.
    """
    pairs, named = list(pairs), frozenset(headline)
    strict = {(pair.index, pair.metric, pair.a, pair.b): row for row, pair in enumerate(pairs)}
    same = {
        row: strict[key]
        for row, pair in enumerate(pairs)
        if pair.metric.endswith(SCENE)
        and (key := (pair.index, pair.metric.removesuffix(SCENE), pair.a, pair.b)) in strict
        and pairs[strict[key]].tested == pair.tested
    }
    families: dict[tuple[str, ...], list[int]] = {}
    for row, pair in enumerate(pairs):
        if row not in same and (pair.tested.difference.value is not None or pair.metric not in named):
            family = () if pair.metric in named else (pair.index, pair.metric)
            families.setdefault(family, []).append(row)
    p_holm, tests = [1.0] * len(pairs), [1] * len(pairs)
    for rows in families.values():
        for row, p in zip(rows, holm([pairs[row].tested.p for row in rows]), strict=True):
            p_holm[row], tests[row] = p, len(rows)
    for row, of_strict in same.items():
        p_holm[row], tests[row] = p_holm[of_strict], tests[of_strict]
    return [_comparison(*row) for row in zip(pairs, p_holm, tests, strict=True)]


def _comparison(pair: Pair, p_holm: float, tests: int) -> Comparison:
    tested = pair.tested
    decision = verdict(tested.difference, p_holm, tested.groups)
    enough = (
        None
        if decision in ("better", "worse")
        else needed(
            tested.difference.value, tested.spread, groups=tested.groups, queries=tested.difference.n, tests=tests
        )
    )
    return Comparison(
        index=pair.index,
        metric=pair.metric,
        a=pair.a,
        b=pair.b,
        difference=tested.difference,
        p=tested.p,
        p_holm=p_holm,
        tests=tests,
        verdict=decision,
        queries_needed=enough.queries if enough else None,
        groups_needed=enough.groups if enough else None,
    )
