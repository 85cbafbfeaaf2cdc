"""Intervals and tests for metrics of a pooled list of predictions: the jackknife over groups of queries.

Such a metric is not an average over queries: leaving a group out shifts all other predictions in the list.

- uAP is smooth. Up to EXACT_GROUPS groups, it is computed anew without each of them; for more, the influence of every
  group follows from one pass along the list.
- Recall at 90 % precision is not: where the threshold lies may hang on a single wrong pair. Leaving out one query of
  many would understate its variance, so blocks of groups are left out, for several random ways to form BLOCKS of them.

In small samples uAP is too high on average, as a list of few queries holds few wrong pairs that rank high. The same
blocks say by how much. The value is not corrected, so that it is that of other evaluators, but the interval's lower end
allows for it.

Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 11; Shao and Wu, "A general theory for jackknife
variance estimation", Annals of Statistics 17 (1989), 1176-1197, for blocks.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lookalike.io.formats.records import Estimate
from lookalike.metrics import intervals
from lookalike.metrics.joining import Bools, Floats, Ints
from lookalike.metrics.pooled import WRONG_TO_RIGHT
from lookalike.metrics.rates import NOTHING

EXACT_GROUPS = 64
BLOCKS, PARTITIONS = 15, 8
ROUGH_DF = 6  # of a variance from blocks of a metric that is not smooth; see docs/calibration.md
BLOCK_SEED = 20_240_603


@dataclass(frozen=True)
class Pooled:
    """A metric of a pooled list: its value, None if there are no true pairs, and the influence of groups on it.

    influence: (k, b) float64, see ``intervals.spread``; models with the same queries have the same groups and blocks
    most_df: degrees of freedom of the variance, at most
    optimism: how much too high the value is on average; None where that is not estimated
    positive: whether the true value is shown not to be 0. Recall at a precision is 0 where no threshold is as precise,
        however high it was in a sample; then the interval begins at 0
    """

    value: float | None
    influence: Floats
    most_df: float = math.inf
    optimism: float | None = None
    positive: bool = True


def influences(right: Bools, group: Ints, matches: Ints) -> tuple[Floats, Floats, float]:
    """The influence of groups on uAP, (1, g), and on recall at 90 % precision, (k, b); groups without queries included.

    The third is how much too high uAP is on average, in points, and at least 0.

    right, group: (p,) bool and (p,) int64 as in ``pooled.Predictions``, best first
    matches: (g,) int64, the number of true pairs of each group
    """
    groups = len(matches)
    if groups <= EXACT_GROUPS:
        average = _left_out(*_without(right, group, matches, groups), _average_precision)
    else:
        average = influence_of_average_precision(right, group, matches)
    recall, optimism = [], []
    place = np.flatnonzero(right) + 1
    value = (np.arange(1, len(place) + 1) / place).sum() / matches.sum()
    for blocks, count in partitions(groups):
        left = _without(right, blocks[group], np.bincount(blocks, matches, count), count)
        recall.append(_left_out(*left, _recall))
        optimism.append((count - 1) * (_average_precision(*left).mean() - value))
    return average[None, :], np.stack(recall), max(0.0, float(np.mean(optimism)))


def partitions(groups: int) -> list[tuple[Ints, int]]:
    """The blocks of each group, (g,) int64, and their number: single groups if there are no more than BLOCKS."""
    if groups <= BLOCKS:
        return [(np.arange(groups), groups)]
    random = np.random.default_rng(BLOCK_SEED)
    return [(random.permutation(groups) % BLOCKS, BLOCKS) for _ in range(PARTITIONS)]


Counts = npt.NDArray[np.float64]  # (right, blocks)
Metric = Callable[[Counts, Counts, Bools, Floats], Floats]


def _without(right: Bools, block: Ints, matches: Floats | Ints, blocks: int) -> tuple[Counts, Counts, Bools, Floats]:
    """For each right prediction and left out block: the right and wrong predictions up to it, and if it is left.

    Also the number of true pairs that are left, (blocks,).
    """
    place = np.flatnonzero(right)
    number = np.cumsum(right)
    own = np.zeros((len(place), blocks))
    own[np.arange(len(place)), block[place]] = 1
    wrong = np.flatnonzero(~right)
    wrong = wrong[number[wrong] < len(place)]  # after the last right one they do not count
    own_wrong = np.bincount(number[wrong] * blocks + block[wrong], minlength=len(place) * blocks)
    all_right = np.arange(1, len(place) + 1)
    rights = np.asarray(all_right[:, None] - np.cumsum(own, axis=0), dtype=np.float64)
    left_wrong = (place + 1 - all_right)[:, None] - np.cumsum(own_wrong.reshape(len(place), blocks), axis=0)
    wrongs, left = np.asarray(left_wrong, dtype=np.float64), np.asarray(own == 0, dtype=np.bool_)
    return rights, wrongs, left, np.asarray(matches.sum() - matches, dtype=np.float64)


def _average_precision(rights: Counts, wrongs: Counts, left: Bools, total: Floats) -> Floats:
    precision = rights / np.maximum(rights + wrongs, 1)
    return np.asarray(np.where(left, precision, 0).sum(axis=0) / np.maximum(total, 1))


def _recall(rights: Counts, wrongs: Counts, left: Bools, total: Floats) -> Floats:
    accepted = np.where(left & (rights >= WRONG_TO_RIGHT * wrongs), rights, 0)
    return np.asarray(accepted.max(axis=0, initial=0) / np.maximum(total, 1))


def _left_out(rights: Counts, wrongs: Counts, left: Bools, total: Floats, metric: Metric) -> Floats:
    """(b,) influence of each block: minus the change of the metric without it, in the scale of ``intervals.spread``."""
    values = metric(rights, wrongs, left, total)
    scale = (len(values) - 1) / len(values)
    return np.asarray((values.mean() - values) * scale)


def influence_of_average_precision(right: Bools, group: Ints, matches: Ints) -> Floats:
    """(g,) first-order influence of each group on uAP, from one pass along the list.

    The derivative of uAP in the weight of a group, at weights of 1. With R right and W wrong predictions up to a right
    prediction, its precision R / (R + W) changes by W / (R + W)^2 with each right one before it and by -R / (R + W)^2
    with each wrong one. The true pairs of the group enlarge the total that the precisions are averaged over.
    """
    place = np.flatnonzero(right)
    total = matches.sum()
    count = np.arange(1, len(place) + 1)
    precision = count / (place + 1)
    square = (place + 1.0) ** 2
    by_right = np.append(np.cumsum(((place + 1 - count) / square)[::-1])[::-1], 0)  # sums over this and all below
    by_wrong = np.append(np.cumsum((count / square)[::-1])[::-1], 0)
    change = np.empty(len(right))
    change[place] = precision + by_right[:-1]
    change[~right] = -by_wrong[np.cumsum(right)[~right]]
    sums = np.bincount(group, change, minlength=len(matches))
    return np.asarray((sums - precision.sum() / total * matches) / total)


def pooled_estimate(metric: Pooled, matches: Ints, n: int) -> Estimate:
    """A pooled metric with its 95 % interval.

    matches: (g,) int64, the number of true pairs of each group
    n: number of queries
    """
    if metric.value is None or not matches.any():
        return NOTHING
    spread = intervals.spread(metric.influence, metric.most_df)
    groups = intervals.effective_groups(matches)
    low, high = intervals.of_share(metric.value, spread, groups)
    if metric.optimism is not None:
        # one wrong pair of an unseen group may rank first, and costs 1 / i at the right pair i behind it
        unseen = intervals.UNSEEN * (1 + math.log(groups))
        low = min(low, intervals.of_share(max(0.0, metric.value - metric.optimism), spread, groups, unseen)[0])
    low = low if metric.positive else 0.0
    return Estimate(value=metric.value, low=min(low, metric.value), high=max(high, metric.value), n=n)


def pooled_difference(a: Pooled, b: Pooled, matches: Ints, n: int) -> tuple[Estimate, float, intervals.Spread]:
    """The difference a - b with its 95 % interval, the two-sided p value of "no difference", and the spread of both."""
    if a.value is None or b.value is None or not matches.any():
        return NOTHING, 1.0, intervals.Spread(0.0, 1.0)
    gap = a.value - b.value
    spread = intervals.spread(a.influence - b.influence, min(a.most_df, b.most_df))
    groups = intervals.effective_groups(matches)
    low, high = intervals.of_difference(gap, spread, groups)
    p = intervals.t_test(gap, spread, groups, int(np.count_nonzero(matches)))
    if not (a.positive or b.positive):  # both may truly be 0
        low, high, p = min(low, 0.0), max(high, 0.0), 1.0
    return Estimate(value=gap, low=min(low, gap), high=max(high, gap), n=n), p, spread
