"""Intervals and tests for metrics of one pooled list of predictions: a bootstrap over groups of queries.

Such a metric is no average over queries: a group that is drawn twice puts its predictions into the list twice, and
moves everybody else's. Drawing groups and building each list anew would take hours; here the list is sorted once, and
a draw is a weight for each group: cumulative sums of weights along the list give precision and recall of that draw.

Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 13 and 16.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.io.formats.records import Estimate
from lookalike.metrics.rates import CHUNK, FEW_GROUPS, NOTHING, SIGNIFICANCE, Floats, Ints, wider, wilson

Bools = npt.NDArray[np.bool_]

DRAWS = 5_000  # with fewer, no p value would be small enough to pass Holm's correction for the pairs of 15 models
DRAW_SEED = 20_240_603
WRONG_TO_RIGHT = 9  # as in ``pooled``; a test compares them


@dataclass(frozen=True)
class Draws:
    """What each draw of groups gives, the same draws for every list of the same groups.

    average_precision, recall: (DRAWS,) float64, of micro average precision and of recall at a precision of 90 %; NaN
    where a draw has no true pair
    """

    average_precision: Floats
    recall: Floats


@dataclass(frozen=True)
class Pooled:
    """A metric of a pooled list: its value, None where nothing can be said, and its values in every draw."""

    value: float | None
    draws: Floats


def draw_pools(predictions: Sequence[tuple[Bools, Ints]], matches: Ints, draws: int = DRAWS) -> list[Draws]:
    """Draw groups with replacement, and compute each pooled list's metrics for every draw.

    predictions: for every list (right, group), as in ``pooled.Predictions``: (p,) bool and (p,) int64, best first
    matches: (g,) int64, the true pairs of each group

    Memory is bounded by CHUNK weights at once and by one number for each right prediction and draw of a chunk.
    """
    lists = [_sparse(right, group, len(matches)) for right, group in predictions]
    found: list[list[tuple[Floats, Floats]]] = [[] for _ in lists]
    for weights in _weights(len(matches), draws):
        total = matches @ weights
        for results, (groups, wrong_before) in zip(found, lists, strict=True):
            results.append(_weighted(weights[groups], wrong_before @ weights, total))
    return [Draws(*(np.concatenate(parts) for parts in zip(*results, strict=True))) for results in found]


def _sparse(right: Bools, group: Ints, groups: int) -> tuple[Ints, Any]:
    """The group of each right prediction, and (right, g) how many wrong ones of each group stand just before it."""
    from scipy.sparse import coo_array

    before = np.cumsum(right)  # of a wrong prediction: the number of the right one that follows
    here = ~right & (before < before[-1]) if len(right) else right  # what stands behind the last changes nothing
    shape = (int(right.sum()), groups)
    ones = np.ones(int(here.sum()), dtype=np.float32)
    return group[right], coo_array((ones, (before[here], group[here])), shape=shape).tocsr()


def _weights(groups: int, draws: int) -> Iterator[npt.NDArray[np.float32]]:
    """Blocks of (g, draws) float32: how often each group was drawn, g groups a draw."""
    random = np.random.default_rng(DRAW_SEED)
    block = max(1, min(64, CHUNK // max(1, groups)))  # 64 draws side by side: their cumulative sums stay in the cache
    for start in range(0, draws, block):
        size = min(block, draws - start)
        drawn = random.integers(0, groups, size=(size, groups)) + groups * np.arange(size)[:, None]
        counts = np.bincount(drawn.reshape(-1), minlength=size * groups).reshape(size, groups)
        yield np.ascontiguousarray(counts.T, dtype=np.float32)


def _weighted(
    weight: npt.NDArray[np.float32], wrong_before: npt.NDArray[np.float32], total: npt.NDArray[Any]
) -> tuple[Floats, Floats]:
    """Both metrics of every draw; weight, wrong_before: (right, draws), total: (draws,) true pairs.

    A right prediction that was drawn w times stands w times at the same score; the mean of their precisions is nearly
    the precision at the middle one of them, and exactly that for w = 1.
    """
    right = np.cumsum(weight, axis=0, dtype=np.float64)
    wrong = np.cumsum(wrong_before, axis=0, dtype=np.float64)
    middle = right - (weight - 1) / 2
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 in a draw without any true pair, or before its first
        precision = np.where(weight > 0, middle / (middle + wrong), 0)
        average = np.einsum("ij,ij->j", weight, precision) / total
        recall = np.max(np.where(right >= WRONG_TO_RIGHT * wrong, right, 0), axis=0, initial=0) / total
    return average, recall


def pooled_estimate(one: Pooled, matches: Ints, n: int) -> Estimate:
    """A pooled metric with its 95 % interval: the percentiles of its draws.

    matches: (g,) int64, as in ``draw_pools``; n: queries in the pool

    Where the draws are all alike, and below FEW_GROUPS groups with a match, the wider of it and of Wilson's interval
    with a group as one observation, as in ``estimate``.
    """
    groups = int(np.count_nonzero(matches))
    value = one.value
    if value is None or not groups:
        return NOTHING
    low, high = _percentiles(one.draws)
    if groups < FEW_GROUPS or low == high:
        low, high = wider((low, high), wilson(value * groups, groups))
    return Estimate(value=value, low=min(low, value), high=max(high, value), n=n)


def pooled_difference(a: Pooled, b: Pooled, matches: Ints, n: int) -> tuple[Estimate, float]:
    """The difference a - b of two models' pooled metric with its 95 % interval, and the two-sided p of no difference.

    Both models' draws are of the same groups. p is twice the share of draws on the other side of zero, those at zero
    included, counted as (b + 1) / (m + 1); it is never below what the sign test gives where all groups favor one model.
    """
    groups = int(np.count_nonzero(matches))
    if a.value is None or b.value is None or not groups:
        return NOTHING, 1.0
    gap, draws = a.value - b.value, (a.draws - b.draws)[~np.isnan(a.draws)]
    low, high = _percentiles(draws)
    if groups < FEW_GROUPS or low == high:
        won = wilson((1 + gap) / 2 * groups, groups)
        low, high = wider((low, high), (2 * won[0] - 1, 2 * won[1] - 1))
    against = min(np.count_nonzero(draws <= 0), np.count_nonzero(draws >= 0))
    p = min(1.0, max(2 * (against + 1) / (len(draws) + 1), 2.0 ** (1 - groups)))
    return Estimate(value=gap, low=min(low, gap), high=max(high, gap), n=n), p


def _percentiles(draws: Floats) -> tuple[float, float]:
    low, high = np.nanquantile(draws, [SIGNIFICANCE / 2, 1 - SIGNIFICANCE / 2])
    return float(low), float(high)
