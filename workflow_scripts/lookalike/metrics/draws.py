"""Intervals and tests for metrics of a pooled list of predictions: a bootstrap over groups of queries.

Such a metric is not an average over queries: a group drawn twice enters its predictions into the list twice and shifts
all others. Rebuilding the list for each draw would take hours. Instead the list is sorted once, and a draw assigns a
weight to each group: cumulative sums of weights along the list give the precision and recall of the draw.

Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 13 and 16.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.io.formats.records import Estimate
from lookalike.metrics.joining import Bools
from lookalike.metrics.pooled import WRONG_TO_RIGHT
from lookalike.metrics.rates import CHUNK, FEW_GROUPS, NOTHING, SIGNIFICANCE, Floats, Ints, wider, wilson

DRAWS = 5_000  # fewer could not give p values that survive Holm's correction for the pairs of 15 models
DRAW_SEED = 20_240_603


@dataclass(frozen=True)
class Draws:
    """Both metrics for every draw of groups; lists of the same groups share the draws.

    average_precision: (DRAWS,) float64, micro average precision; NaN if a draw has no true pair
    recall: (DRAWS,) float64, recall at 90 % precision; NaN likewise
    """

    average_precision: Floats
    recall: Floats


@dataclass(frozen=True)
class Pooled:
    """A metric of a pooled list: its value, None if there are no true pairs, and its value in every draw."""

    value: float | None
    draws: Floats


def draw_pools(predictions: Sequence[tuple[Bools, Ints]], matches: Ints, draws: int = DRAWS) -> list[Draws]:
    """Draw groups with replacement and compute the metrics of each pooled list for every draw.

    predictions: (right, group) of each list as in ``pooled.Predictions``: (p,) bool and (p,) int64, best first
    matches: (g,) int64, the number of true pairs of each group

    Memory is bounded by CHUNK weights and by one number per right prediction and draw of a block.
    """
    lists = [_sparse(right, group, len(matches)) for right, group in predictions]
    blocks: list[list[tuple[Floats, Floats]]] = [[] for _ in lists]
    for weights in _weights(len(matches), draws):
        total = matches @ weights
        for of_list, (groups, wrong_before) in zip(blocks, lists, strict=True):
            of_list.append(_weighted(weights[groups], wrong_before @ weights, total))
    return [Draws(*(np.concatenate(parts) for parts in zip(*of_list, strict=True))) for of_list in blocks]


def _sparse(right: Bools, group: Ints, groups: int) -> tuple[Ints, Any]:
    """The group of each right prediction, and (right, g) the wrong predictions of each group directly before it."""
    from scipy.sparse import coo_array

    following = np.cumsum(right)  # for a wrong prediction, the index of the next right one
    wrong = ~right & (following < following[-1]) if len(right) else right  # after the last right one they do not count
    shape = (int(right.sum()), groups)
    ones = np.ones(int(wrong.sum()), dtype=np.float32)
    return group[right], coo_array((ones, (following[wrong], group[wrong])), shape=shape).tocsr()


def _weights(groups: int, draws: int) -> Iterator[npt.NDArray[np.float32]]:
    """Blocks of (g, draws) float32: how often each draw of g groups contains each group."""
    random = np.random.default_rng(DRAW_SEED)
    block = max(1, min(64, CHUNK // max(1, groups)))  # cumulative sums of 64 draws fit the CPU cache
    for start in range(0, draws, block):
        size = min(block, draws - start)
        drawn = random.integers(0, groups, size=(size, groups)) + groups * np.arange(size)[:, None]
        counts = np.bincount(drawn.reshape(-1), minlength=size * groups).reshape(size, groups)
        yield np.ascontiguousarray(counts.T, dtype=np.float32)


def _weighted(
    weight: npt.NDArray[np.float32], wrong_before: npt.NDArray[np.float32], total: npt.NDArray[Any]
) -> tuple[Floats, Floats]:
    """Both metrics of every draw.

    weight, wrong_before: (right, draws) float32
    total: (draws,) true pairs

    A right prediction drawn w times occurs w times at the same score. The precision at the middle occurrence
    approximates their mean precision, exactly so for w = 1.
    """
    right = np.cumsum(weight, axis=0, dtype=np.float64)
    wrong = np.cumsum(wrong_before, axis=0, dtype=np.float64)
    middle = right - (weight - 1) / 2
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 without a true pair, or before the first one
        precision = np.where(weight > 0, middle / (middle + wrong), 0)
        average = np.einsum("ij,ij->j", weight, precision) / total
        recall = np.max(np.where(right >= WRONG_TO_RIGHT * wrong, right, 0), axis=0, initial=0) / total
    return average, recall


def pooled_estimate(metric: Pooled, matches: Ints, n: int) -> Estimate:
    """A pooled metric with its 95 % percentile interval.

    matches: (g,) int64, as in ``draw_pools``
    n: number of queries

    If all draws are equal, or with fewer than FEW_GROUPS groups with a match, the wider of that interval and Wilson's
    interval with groups as observations, as in ``rates.estimate``.
    """
    groups = int(np.count_nonzero(matches))
    value = metric.value
    if value is None or not groups:
        return NOTHING
    low, high = _percentiles(metric.draws)
    if groups < FEW_GROUPS or low == high:
        low, high = wider((low, high), wilson(value * groups, groups))
    return Estimate(value=value, low=min(low, value), high=max(high, value), n=n)


def pooled_difference(a: Pooled, b: Pooled, matches: Ints, n: int) -> tuple[Estimate, float]:
    """The difference a - b of a pooled metric with its 95 % interval, and the two-sided p value of "no difference".

    Both models share the draws. p is twice the share of draws at or beyond zero, counted as (b + 1) / (m + 1), and at
    least the p value of a sign test in which all groups favor one model.
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
