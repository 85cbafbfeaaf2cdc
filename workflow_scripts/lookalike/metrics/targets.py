"""Score thresholds for a target precision: the one seen, a safe one, and how thresholds transfer to other queries.

The lowest score that reached a precision of 90 % on some queries was chosen to suit them. A safe threshold is one whose
precision is shown to be at least 90 % by a test with an error of 5 %; it exists only if enough independent groups
support it.

Fixed-sequence testing: Angelopoulos et al., "Learn then Test", Annals of Applied Statistics 19 (2025), section 3.2.
Exact bound: Clopper and Pearson, Biometrika 26 (1934), 404-413, with the effective sample size of Korn and Graubard
(see ``intervals``).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lookalike.io.formats.base import Estimate
from lookalike.io.formats.thresholds import Safe, Seen, Target, Transfer
from lookalike.metrics import intervals
from lookalike.metrics.joining import Bools, Floats, Ints
from lookalike.metrics.pooled import Predictions, best_cut
from lookalike.metrics.rates import NOTHING

TARGETS = (90, 95, 99)  # percent
ERROR = 0.05  # probability that the precision of a safe threshold is below the target
STEP = 1.05  # from one tested cut to the next: accepted groups
SPARE = 3  # wrong groups that the first cut may contain, if there are enough groups
FEW_GROUPS = 10  # accepted groups whose precision says something about that of more queries
FEW_PREDICTIONS, SPLITS, FEW_SPLITS = 50_000, 100, 20  # random halvings, fewer above so many predictions
SPLIT_SEED = 20_240_604

HOLDS, DOES_NOT_HOLD, TOO_FEW = "holds", "does not hold", "too few queries"


def target(predictions: Predictions, percent: int, *, queries: int, with_match: int) -> Target:
    """The thresholds for one target precision.

    queries, with_match: number of queries, and of those that have a match
    """
    best = best_cut(predictions, percent)
    seen = Seen(score=best.score, precision=best.precision, recall=best.recall) if best else None
    cuts = _cuts(predictions)
    safe, transfer = _safe(predictions, cuts, percent), _transfer(predictions, percent)
    threshold = safe or seen
    wrong = None if threshold is None else int(np.count_nonzero(~predictions.right[: _end(predictions, threshold)]))
    needed = None if safe else _needed(predictions, cuts, transfer, percent)
    verdict = HOLDS if safe else _without_safe(predictions, needed, transfer, percent)
    return Target(
        seen=seen,
        safe=safe,
        transfer=transfer,
        verdict=verdict,
        queries_needed=needed and max(queries + 1, int(np.ceil(needed * queries / len(predictions.matches)))),
        false_matches_per_query=None if wrong is None else wrong / queries,
        share_with_match=with_match / queries,
    )


def safe_threshold(predictions: Predictions, percent: int) -> Safe | None:
    """The lowest score at which the precision is shown to reach the target; None if it is shown nowhere."""
    return _safe(predictions, _cuts(predictions), percent)


def _end(predictions: Predictions, threshold: Seen | Safe) -> int:
    """How many predictions have at least this score."""
    return int(np.searchsorted(-predictions.score, -threshold.score, side="right"))


@lru_cache
def fewest(percent: int, wrong: int = 0) -> int:
    """The smallest number of groups of which ``wrong`` may be wrong for the bound to reach the target: 29 for 90 %."""
    sizes = np.arange(wrong + 1, 2_000)
    return int(sizes[np.argmax(_bound(sizes - wrong, sizes) >= percent / 100)])


def _bound(right: Floats | Ints, total: Floats | Ints) -> Floats:
    """One-sided 95 % lower bound of a share; numbers need not be whole."""
    from scipy.special import betaincinv

    return np.asarray(betaincinv(np.maximum(right, 1e-9), total - right + 1, ERROR), dtype=np.float64)


@dataclass(frozen=True)
class Cuts:
    """All places where the list can be cut, between different scores.

    place: (c,) int64, the last accepted prediction; right: (c,) right ones among the accepted
    groups: (c,) int64, distinct groups among the accepted; effective: (c,) float64, independent observations
    """

    place: Ints
    right: Ints
    groups: Ints
    effective: Floats

    @property
    def precision(self) -> Floats:
        """(c,) float64."""
        return np.asarray(self.right / (self.place + 1), dtype=np.float64)


def _cuts(predictions: Predictions) -> Cuts:
    right, group = predictions.right.astype(np.int64), predictions.group
    place = np.flatnonzero(np.diff(predictions.score, append=-np.inf))
    # Of the group of each prediction, those accepted before it: all, and right ones.
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    of_group = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(order)))
    before, right_before = np.empty_like(right), np.empty_like(right)
    before[order] = np.arange(len(order)) - starts[of_group]
    running = np.cumsum(right[order]) - right[order]
    right_before[order] = running - running[starts][of_group]
    # Sums over groups of (right - precision x accepted)^2 from sums of squares and products along the list.
    accepted2 = np.cumsum(2 * before + 1)[place]
    right2 = np.cumsum(right * (2 * right_before + 1))[place]
    product = np.cumsum(right_before + right * (before + 1))[place]
    rights, groups = np.cumsum(right)[place], np.cumsum(before == 0)[place]
    precision = rights / (place + 1)
    squares = right2 - 2 * precision * product + precision**2 * accepted2
    with np.errstate(divide="ignore", invalid="ignore"):
        effective = precision * (1 - precision) * (place + 1.0) ** 2 / squares
    effective = np.where((squares > 1e-9) & (rights <= place), np.minimum(effective, groups), groups)
    return Cuts(place, rights, groups, np.asarray(effective, dtype=np.float64))


def _safe(predictions: Predictions, cuts: Cuts, percent: int) -> Safe | None:
    """The cut of highest recall that passes, where cuts are tested from the highest score to the first failure.

    The order is that of the number of accepted groups, which does not depend on what is right. The first cut has room
    for SPARE wrong groups if half of the groups with a match allow that, and for fewer otherwise.
    """
    most = int(cuts.groups[-1]) if len(cuts.groups) else 0
    sizes = [_first(predictions, percent)]
    while sizes[-1] < most:
        sizes.append(max(sizes[-1] + 1, int(sizes[-1] * STEP)))
    rows = np.unique(np.searchsorted(cuts.groups, [size for size in sizes if size <= most]))
    bounds = _bound(cuts.precision[rows] * cuts.effective[rows], cuts.effective[rows])
    passed = int(np.argmin(np.append(bounds >= percent / 100, False)))
    if not passed:
        return None
    # The precision holds at every cut that passed. Of those of highest recall, the first accepts fewest wrong pairs.
    number = int(np.searchsorted(cuts.right[rows[:passed]], cuts.right[rows[passed - 1]]))
    row = rows[number]
    return Safe(
        score=float(predictions.score[cuts.place[row]]),
        precision=float(cuts.precision[row]),
        bound=float(bounds[number]),
        recall=float(cuts.right[row] / predictions.matches.sum()),
        groups=int(cuts.groups[row]),
    )


def _first(predictions: Predictions, percent: int) -> int:
    """The accepted groups at the first cut."""
    half = np.count_nonzero(predictions.matches) // 2
    return next((size for wrong in range(SPARE, 0, -1) if (size := fewest(percent, wrong)) <= half), fewest(percent))


def _transfer(predictions: Predictions, percent: int) -> Transfer:
    """Choose a threshold on each of two random halves of the groups and apply it to the other half, many times."""
    groups = len(predictions.matches)
    random = np.random.default_rng(SPLIT_SEED)
    splits = SPLITS if len(predictions.score) <= FEW_PREDICTIONS else FEW_SPLITS
    right, accepted, recalls, without = np.zeros(groups), np.zeros(groups), [], 0
    for _ in range(splits):
        chosen = random.permutation(groups) < groups // 2
        for half in (chosen, ~chosen):
            end = _chosen_on(predictions, half, percent)
            without += end == 0
            tested = ~half[predictions.group[:end]]
            codes, hits = predictions.group[:end][tested], predictions.right[:end][tested]
            accepted += np.bincount(codes, minlength=groups)
            right += np.bincount(codes[hits], minlength=groups)
            if total := predictions.matches[~half].sum():
                recalls.append(np.count_nonzero(hits) / total)
    precision, total = NOTHING, accepted.sum()
    if total:
        value = float(right.sum() / total)
        spread = intervals.spread(((right - value * accepted) / total)[accepted > 0])
        low, high = intervals.of_share(value, spread, intervals.effective_groups(accepted))
        per_half = round(total / (2 * splits))
        precision = Estimate(value=value, low=min(low, value), high=max(high, value), n=max(1, per_half))
    return Transfer(
        precision=precision,
        recall=float(np.mean(recalls)) if recalls else 0.0,
        without=without / (2 * splits),
        halves=2 * splits,
    )


def _chosen_on(predictions: Predictions, half: Bools, percent: int) -> int:
    """How many predictions of all groups the best threshold of some groups accepts."""
    of_half = half[predictions.group]
    hits = np.flatnonzero(of_half & predictions.right)
    place = np.cumsum(of_half)[hits]
    count = np.arange(1, len(hits) + 1)
    good = np.flatnonzero(count * (100 - percent) >= percent * (place - count))
    if not len(good):
        return 0
    score = predictions.score[hits[good[-1]]]
    return int(np.searchsorted(-predictions.score, -score, side="right"))


def _without_safe(predictions: Predictions, needed: int | None, transfer: Transfer, percent: int) -> str:
    if np.count_nonzero(predictions.matches) < fewest(percent):
        return TOO_FEW
    high = transfer.precision.high
    refuted = high is not None and high < percent / 100
    return DOES_NOT_HOLD if needed is None or refuted else TOO_FEW


def _needed(predictions: Predictions, cuts: Cuts, transfer: Transfer, percent: int) -> int | None:
    """With how many groups some cut would pass, at least, if it stays as precise as it was seen to be.

    None if no cut that accepts enough groups to say so was more precise than the target. FEW_GROUPS are enough where
    thresholds of other halves reached it: with more queries, as many groups as a test needs have such scores.
    """
    groups, half = len(predictions.matches), int(np.count_nonzero(predictions.matches)) // 2
    least = min(_first(predictions, percent), max(1, half))
    if (transfer.precision.value or 0.0) >= percent / 100:
        least = min(least, FEW_GROUPS)
    enough_groups = cuts.groups >= least
    rows = np.flatnonzero(enough_groups & (cuts.precision > percent / 100))
    if not len(rows):
        return None
    rows = rows[np.linspace(0, len(rows) - 1, min(200, len(rows))).astype(np.int64)]
    sizes = np.unique(np.geomspace(fewest(percent), 1e6, 300).astype(np.int64))
    precision = cuts.precision[rows][:, None]
    passes = _bound(precision * sizes, np.broadcast_to(sizes, (len(rows), len(sizes)))) >= percent / 100
    accepted = np.where(passes.any(axis=1), sizes[np.argmax(passes, axis=1)], np.inf)
    enough = float(np.min(accepted * groups / cuts.groups[rows]))
    return int(np.ceil(enough)) if np.isfinite(enough) else None
