"""Means over queries with 95 % intervals, and tests that compare two models on the same queries.

Queries of one group (tiles of one photograph) tend to succeed and fail together, so the group is the independent
observation: variances are those of groups, and the permutation test flips groups. A query without a group is its own
group.

Results do not depend on the order of the queries and are reproducible: random draws have fixed seeds.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from lookalike.io.formats.records import Estimate
from lookalike.metrics import intervals

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SIGNIFICANCE = 0.05
FEWEST = 6  # groups for a verdict: with five, the smallest p of a sign test is 2 / 2^5 = 0.06
FLIPS = 20_000
FLIP_SEED = 20_240_602
EXACT_LIMIT = 2**20  # sign patterns enumerated exactly; beyond, FLIPS of them are drawn
CHUNK = 4_000_000  # random numbers drawn at once, bounds the memory
DECIMALS = 12  # differences below are rounding errors

TOO_FEW = "too few groups"
NOTHING = Estimate(value=None, low=None, high=None, n=0)


def group_codes(groups: Sequence[str | None]) -> Ints:
    """(q,) int64: one code per group; a query whose group is None has its own code."""
    codes: dict[object, int] = {}
    return np.array(
        [codes.setdefault((row,) if group is None else group, len(codes)) for row, group in enumerate(groups)],
        dtype=np.int64,
    )


def estimate(values: Floats, groups: Ints) -> Estimate:
    """The mean of outcomes with its 95 % interval.

    values: (q,) float64 in [0, 1], one per query
    groups: (q,) int64, see ``group_codes``

    ``intervals.proportion`` for binary outcomes of independent queries; otherwise from the influence of each group.
    """
    if not len(values):
        return NOTHING
    mean = _mean(values)
    sums, sizes = _totals(values, groups)
    if np.all(sizes == 1) and np.all((values == 0) | (values == 1)):
        low, high = intervals.proportion(int(sums.sum()), len(values))
    else:
        low, high = intervals.of_share(mean, _spread(sums, sizes, mean), intervals.effective_groups(sizes))
    return Estimate(value=mean, low=min(low, mean), high=max(high, mean), n=len(values))


def difference(a: Floats, b: Floats, groups: Ints) -> Estimate:
    """The mean of a - b on the same queries with its 95 % interval, from the influence of each group.

    a, b: (q,) float64 in [0, 1], outcomes of two models, one per query
    groups: (q,) int64, see ``group_codes``
    """
    if not len(a):
        return NOTHING
    mean = _mean(a - b)
    _, sizes = _totals(a - b, groups)
    spread = spread_of_difference(a, b, groups)
    low, high = intervals.of_difference(mean, spread, intervals.effective_groups(sizes))
    return Estimate(value=mean, low=min(low, mean), high=max(high, mean), n=len(a))


def spread_of_difference(a: Floats, b: Floats, groups: Ints) -> intervals.Spread:
    """The variance of the mean of a - b; arguments as in ``difference``."""
    return _spread(*_totals(a - b, groups), _mean(a - b))


def ratio(part: Floats, whole: Floats, groups: Ints) -> Estimate:
    """The mean of ``part`` as a share of the mean of ``whole`` on the same queries, with its 95 % interval.

    part: (q,) float64 of either sign, such as a model's outcome minus chance
    whole: (q,) float64, at least 0, such as the ceiling minus chance
    groups: (q,) int64, see ``group_codes``

    No interval with fewer than FEWEST groups, and no value if ``whole`` sums to zero.
    """
    if not len(part) or not whole.sum() > 0:
        return NOTHING
    value = math.fsum(part.tolist()) / math.fsum(whole.tolist())
    low = high = None
    parts, sizes = _totals(part, groups)
    if len(sizes) >= FEWEST:
        low, high = intervals.of_ratio(value, _spread(parts, _totals(whole, groups)[0], value))
    return Estimate(value=value, low=low, high=high, n=len(part))


def contrast(a: Estimate, b: Estimate) -> Estimate:
    """The difference a - b of means over different queries, with its 95 % interval from the intervals of a and b.

    Newcombe, "Interval estimation for the difference between independent proportions", Statistics in Medicine 17
    (1998), 873-890, method 10; for any two means Zou and Donner, Statistics in Medicine 27 (2008), 1693-1702.
    Conservative if both contain queries of the same groups.
    """
    if a.value is None or a.low is None or a.high is None:
        return NOTHING
    if b.value is None or b.low is None or b.high is None:
        return NOTHING
    gap = a.value - b.value
    low = gap - math.hypot(a.value - a.low, b.high - b.value)
    high = gap + math.hypot(a.high - a.value, b.value - b.low)
    return Estimate(value=gap, low=low, high=high, n=a.n)


def shuffled(values: Floats, among: npt.NDArray[np.bool_]) -> float:
    """Two-sided p value of "membership in ``among`` does not affect a query": a permutation test.

    values: (q,) float64, one per query
    among: (q,) bool, assigned at random, as the operations of copies are

    Membership is redrawn FLIPS times; p is the share of draws whose two means differ at least as much as observed.
    Groups are not needed, since membership is assigned per query. Queries of equal value are exchangeable, so it
    suffices to draw how many of each value are members.

    Fisher, The Design of Experiments (1935), section 21; Phipson and Smyth (2010), see ``sign_flip``.
    """
    size = int(np.count_nonzero(among))
    if size in (0, len(values)):
        return 1.0
    kinds, counts = np.unique(np.round(values, DECIMALS), return_counts=True)
    expected = float(kinds @ counts) * size / len(values)
    observed = abs(float(np.round(values, DECIMALS)[among].sum()) - expected) - 10.0**-DECIMALS * (len(values) + 1)
    random = np.random.default_rng(FLIP_SEED)
    as_large = 0
    for rows in _chunks(FLIPS, len(kinds)):
        sums = random.multivariate_hypergeometric(counts, size, size=rows) @ kinds
        as_large += int(np.count_nonzero(np.abs(sums - expected) >= observed))
    return (as_large + 1) / (FLIPS + 1)


def sign_flip(a: Floats, b: Floats, groups: Ints) -> float:
    """Two-sided p value of "no difference between a and b": a sign-flip permutation test over groups.

    a, b: (q,) float64 in [0, 1], outcomes of two models, one per query
    groups: (q,) int64, see ``group_codes``

    Under the null hypothesis each group's difference is as likely to have the other sign; p is the share of sign
    patterns whose total is at least as far from zero. With one query per group and binary outcomes this is McNemar's
    exact test.

    Groups with equal absolute differences are exchangeable, so patterns are counted by the number of flips, which stays
    exact for far more groups than enumeration would. Beyond EXACT_LIMIT, FLIPS patterns are drawn and p is
    (b + 1) / (m + 1), which is never zero.

    Fisher, The Design of Experiments (1935), section 21; McNemar, Psychometrika 12 (1947), 153-157;
    Phipson and Smyth, Statistical Applications in Genetics and Molecular Biology 9 (2010), article 39.
    """
    sums, _ = _totals(a - b, groups)
    amounts, counts = np.unique(np.abs(sums[sums != 0]), return_counts=True)
    observed = abs(float(sums.sum())) - 10.0**-DECIMALS * (len(sums) + 1)
    if math.prod(int(count) + 1 for count in counts) <= EXACT_LIMIT:
        totals, chances = np.zeros(1), np.ones(1)
        for amount, count in zip(amounts, counts, strict=True):
            positive = np.arange(count + 1)
            totals = np.add.outer(totals, amount * (2 * positive - count)).ravel()
            chances = np.multiply.outer(chances, _fair_binomial(int(count))).ravel()
        return min(1.0, float(chances[np.abs(totals) >= observed].sum()))
    random = np.random.default_rng(FLIP_SEED)
    as_large = 0
    alone, shared = amounts[counts == 1], counts > 1  # random bits are far cheaper than binomials
    for size in _chunks(FLIPS, len(amounts)):
        positive = random.binomial(counts[shared], 0.5, size=(size, int(shared.sum())))
        coins = np.frombuffer(random.bytes(size * -(-len(alone) // 8)), dtype=np.uint8).reshape(size, -1)
        heads = np.unpackbits(coins, axis=1, count=len(alone)).astype(np.float64)
        totals = (2 * positive - counts[shared]) @ amounts[shared] + 2 * heads @ alone - alone.sum()
        as_large += int(np.count_nonzero(np.abs(totals) >= observed))
    return (as_large + 1) / (FLIPS + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction for multiple tests: adjusted p values, in the given order.

    The smallest p is multiplied by m, the next by m - 1, and so on; adjusted p values are monotonic.
    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979), 65-70.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for step, position in enumerate(sorted(range(len(p_values)), key=lambda position: p_values[position])):
        highest = max(highest, min(1.0, (len(p_values) - step) * p_values[position]))
        adjusted[position] = highest
    return adjusted


def verdict(difference: Estimate, p_holm: float, groups: int = FEWEST) -> str:
    """The first model is significantly ``better`` or ``worse``, or ``cannot tell``; or there are ``too few groups``.

    Significant is what the corrected test and the interval agree on: they come from two methods.
    """
    if difference.value is not None and groups < FEWEST:
        return TOO_FEW
    if difference.value is None or difference.value == 0 or p_holm >= SIGNIFICANCE:
        return "cannot tell"
    if difference.low is not None and difference.high is not None and difference.low <= 0 <= difference.high:
        return "cannot tell"
    return "better" if difference.value > 0 else "worse"


def _mean(values: Floats) -> float:
    # fsum is independent of the order of the terms
    return math.fsum(values.tolist()) / len(values)


def _totals(values: Floats, groups: Ints) -> tuple[Floats, Ints]:
    """Sum and number of the values of each non-empty group."""
    sizes = np.bincount(groups)
    sums = np.bincount(groups, weights=values)
    return np.round(sums[sizes > 0], DECIMALS), sizes[sizes > 0]


def _spread(sums: Floats, sizes: Floats | Ints, value: float) -> intervals.Spread:
    """The spread of a ratio of sums over groups."""
    influence = np.round((sums - value * sizes) / sizes.sum(), DECIMALS)
    return intervals.spread(np.sort(influence))  # sorted, so that the order of queries does not change the last digit


def _chunks(total: int, width: int) -> Iterator[int]:
    """Block sizes that add up to ``total``, with block x width at most CHUNK."""
    rows = max(1, CHUNK // width)
    for start in range(0, total, rows):
        yield min(rows, total - start)


def _fair_binomial(n: int) -> Floats:
    """(n + 1,) float64: the probabilities of 0, 1, ..., n heads in n fair coin tosses."""
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    return np.asarray(np.exp(log_factorial[n] - log_factorial - log_factorial[::-1] - n * math.log(2)))
