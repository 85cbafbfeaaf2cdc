"""Averages over queries with 95 % intervals, and tests that compare two models on the same queries.

Queries of one group (tiles of one photograph) succeed and fail together, so the group is what is counted as an
independent observation: groups are resampled, and groups are flipped. A query without a group is a group of its own.

Every result is independent of the order of the queries, and the same in every run: random draws have fixed seeds.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from lookalike.io.formats.records import Estimate

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SIGNIFICANCE = 0.05
FEW_GROUPS = 10  # below it, a bootstrap of groups claims far more than so few observations can show
Z = 1.959963984540054  # the normal distribution's quantile at 1 - 0.05 / 2
RESAMPLES = 2_000
BOOTSTRAP_SEED = 20_240_601
FLIPS = 20_000
FLIP_SEED = 20_240_602
EXACT_LIMIT = 2**20  # sign patterns that are counted one by one; beyond, FLIPS of them are drawn
CHUNK = 4_000_000  # random numbers drawn at once, to bound memory
DECIMALS = 12  # sums that differ by rounding only are equal

NOTHING = Estimate(value=None, low=None, high=None, n=0)


def group_codes(groups: Sequence[str | None]) -> Ints:
    """(q,) int64: equal numbers for queries of one group; a query whose group is None has a number of its own."""
    codes: dict[object, int] = {}
    return np.array(
        [codes.setdefault((row,) if group is None else group, len(codes)) for row, group in enumerate(groups)],
        dtype=np.int64,
    )


def wilson(successes: float, n: int) -> tuple[float, float]:
    """The 95 % score interval of a share, inside [0, 1] and sound for few observations and for shares of 0 and 1.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927), 209-212;
    as method 3 in Newcombe, Statistics in Medicine 17 (1998), 857-872.
    """
    share = successes / n
    middle = share + Z * Z / (2 * n)
    half = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    scale = 1 + Z * Z / n
    # At 0 and n the bounds are exactly 0 and 1; rounding must not move them to the wrong side.
    low = 0.0 if successes <= 0 else max(0.0, (middle - half) / scale)
    high = 1.0 if successes >= n else min(1.0, (middle + half) / scale)
    return low, high


def estimate(values: Floats, groups: Ints) -> Estimate:
    """The mean of outcomes with its 95 % interval.

    values: (q,) float64 in [0, 1], one per query
    groups: (q,) int64, see ``group_codes``

    Wilson's interval for hits and misses of independent queries; else a percentile bootstrap over groups. Below
    FEW_GROUPS, the wider of the bootstrap and of Wilson's interval with a group as one observation.
    """
    if not len(values):
        return NOTHING
    mean = _mean(values)
    sums, sizes = _totals(values, groups)
    if np.all(sizes == 1) and np.all((values == 0) | (values == 1)):
        low, high = wilson(float(sums.sum()), len(values))
    elif _all_alike(sums, sizes):
        # Every resample of equal groups has the same mean: the bootstrap would claim certainty after any number of
        # observations. Wilson's interval with a group as one observation is honest about how few there were.
        low, high = wilson(mean * len(sums), len(sums))
    else:
        low, high = _bootstrap(sums, sizes)
        if len(sums) < FEW_GROUPS:
            # Drawn again, three groups at 79, 80 and 81 % stay between 79 and 81 %; a fourth may be anywhere.
            low, high = wider((low, high), wilson(mean * len(sums), len(sums)))
    return Estimate(value=mean, low=low, high=high, n=len(values))


def difference(a: Floats, b: Floats, groups: Ints) -> Estimate:
    """The mean of a - b on the same queries with its 95 % interval, a paired percentile bootstrap over groups.

    a, b: (q,) float64 in [0, 1], outcomes of two models, one per query

    Below FEW_GROUPS, the wider of it and of Wilson's interval as if each group were won or lost as a whole.
    """
    if not len(a):
        return NOTHING
    mean = _mean(a - b)
    sums, sizes = _totals(a - b, groups)
    if not _all_alike(sums, sizes):
        low, high = _bootstrap(sums, sizes)
    else:
        # As in `estimate`. Models that never differed on g groups may still differ on the next, in either direction.
        low, high = wilson(abs(mean) * len(sums), len(sums))
        low, high = (-high, high) if mean == 0 else (low, high) if mean > 0 else (-high, -low)
    if len(sums) < FEW_GROUPS:
        # A difference of -1 to 1 as a share of groups won: 0 is a half. No groups spread more than those do.
        won = wilson((1 + mean) / 2 * len(sums), len(sums))
        low, high = wider((low, high), (2 * won[0] - 1, 2 * won[1] - 1))
    return Estimate(value=mean, low=low, high=high, n=len(a))


def ratio(part: Floats, whole: Floats, groups: Ints) -> Estimate:
    """The mean of ``part`` as a share of the mean of ``whole`` on the same queries, with its 95 % interval.

    part: (q,) float64, of either sign, such as how far above chance a model is
    whole: (q,) float64, at least 0, such as how far above chance one can be

    A percentile bootstrap over groups; no interval below FEW_GROUPS, where it would claim more than so few can show,
    and nothing at all where there is nothing to have a share of.
    """
    if not len(part) or not whole.sum() > 0:
        return NOTHING
    value = math.fsum(part.tolist()) / math.fsum(whole.tolist())
    low = high = None
    parts, sizes = _totals(part, groups)
    if len(sizes) >= FEW_GROUPS:
        low, high = _bootstrap(parts, _totals(whole, groups)[0])
    return Estimate(value=value, low=low, high=high, n=len(part))


def contrast(one: Estimate, other: Estimate) -> Estimate:
    """The difference of two means over different queries, with its 95 % interval from the two means' own intervals.

    Newcombe, "Interval estimation for the difference between independent proportions", Statistics in Medicine 17
    (1998), 873-890, method 10; for any two means Zou and Donner, Statistics in Medicine 27 (2008), 1693-1702. Where
    both have queries of the same groups, which are found or missed together, it is wider than need be.
    """
    if one.value is None or one.low is None or one.high is None:
        return NOTHING
    if other.value is None or other.low is None or other.high is None:
        return NOTHING
    gap = one.value - other.value
    low = gap - math.hypot(one.value - one.low, other.high - other.value)
    high = gap + math.hypot(one.high - one.value, other.value - other.low)
    return Estimate(value=gap, low=low, high=high, n=one.n)


def shuffled(values: Floats, among: npt.NDArray[np.bool_]) -> float:
    """Two-sided p of "it makes no difference to a query whether it is in ``among``": a permutation test.

    values: (q,) float64, one per query; among: (q,) bool, drawn at random in the first place, as operations are

    Which queries are in ``among`` is drawn anew FLIPS times; p is the share of draws whose two means differ as much as
    those seen. It needs no groups: the draw was made for each query by itself. Queries of equal value are
    exchangeable, so only how many of each kind are drawn is drawn.

    Fisher, The Design of Experiments (1935), section 21; Phipson and Smyth (2010), as above.
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
    """Two-sided p of "no difference between a and b": how often chance gives a difference as large as the one seen.

    If the models are alike, each group's difference could as well have the other sign; the p value is the share of
    sign patterns whose total is at least as far from zero. With one query per group and outcomes of 0 and 1 this is
    McNemar's exact test.

    Groups that differ by the same amount are exchangeable, so patterns are counted by how many of them flip, which is
    exact far beyond what listing patterns one by one could do. Where even that is too much, FLIPS patterns are drawn
    and p is (b + 1) / (m + 1), which never is zero.

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
    alone, shared = amounts[counts == 1], counts > 1  # one coin each: a random bit is far cheaper than a binomial
    for size in _chunks(FLIPS, len(amounts)):
        positive = random.binomial(counts[shared], 0.5, size=(size, int(shared.sum())))
        coins = np.frombuffer(random.bytes(size * -(-len(alone) // 8)), dtype=np.uint8).reshape(size, -1)
        heads = np.unpackbits(coins, axis=1, count=len(alone)).astype(np.float64)
        totals = (2 * positive - counts[shared]) @ amounts[shared] + 2 * heads @ alone - alone.sum()
        as_large += int(np.count_nonzero(np.abs(totals) >= observed))
    return (as_large + 1) / (FLIPS + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction for several tests: adjusted p values, in the order given.

    The smallest p is multiplied by m, the next by m - 1, and so on; an adjusted p is never below a smaller p's.
    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979), 65-70.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for step, position in enumerate(sorted(range(len(p_values)), key=lambda position: p_values[position])):
        highest = max(highest, min(1.0, (len(p_values) - step) * p_values[position]))
        adjusted[position] = highest
    return adjusted


def verdict(difference: Estimate, p_holm: float) -> str:
    """What may be said of the first model: ``better``, ``worse`` or ``cannot tell``."""
    if difference.value is None or difference.value == 0 or p_holm >= SIGNIFICANCE:
        return "cannot tell"
    return "better" if difference.value > 0 else "worse"


def wider(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """The longer of two intervals."""
    return max(one, other, key=lambda bounds: bounds[1] - bounds[0])


def _mean(values: Floats) -> float:
    # fsum does not depend on the order of its terms
    return math.fsum(values.tolist()) / len(values)


def _totals(values: Floats, groups: Ints) -> tuple[Floats, Ints]:
    """Sum and number of the values of each group that has any."""
    sizes = np.bincount(groups)
    sums = np.bincount(groups, weights=values)
    return np.round(sums[sizes > 0], DECIMALS), sizes[sizes > 0]


def _all_alike(sums: Floats, sizes: Ints) -> bool:
    means = sums / sizes
    return bool(np.ptp(means) < 10.0 ** (1 - DECIMALS))


def _bootstrap(sums: Floats, sizes: Floats | Ints) -> tuple[float, float]:
    """95 % percentile interval of the mean (ratio of sums) when whole groups are drawn with replacement.

    Groups with the same sum and size are exchangeable: how often each such kind is drawn is multinomial, and there are
    few kinds, so 50,000 queries cost no more than 50.

    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13; Davison and Hinkley, Bootstrap Methods
    and their Application (1997), section 3.8 for whole groups.
    """
    kinds, counts = np.unique(np.column_stack([sums, sizes]), axis=0, return_counts=True)
    random = np.random.default_rng(BOOTSTRAP_SEED)
    means = []
    for size in _chunks(RESAMPLES, len(kinds)):
        drawn = random.multinomial(len(sums), counts / len(sums), size=size) @ kinds
        drawn = drawn[drawn[:, 1] > 0]  # `ratio`: a draw with nothing to have a share of says nothing
        means.append(drawn[:, 0] / drawn[:, 1])
    low, high = np.quantile(np.concatenate(means), [SIGNIFICANCE / 2, 1 - SIGNIFICANCE / 2])
    return float(low), float(high)


def _chunks(total: int, width: int) -> Iterator[int]:
    """Numbers of rows that add up to ``total``, each block of rows x width within CHUNK."""
    rows = max(1, CHUNK // width)
    for start in range(0, total, rows):
        yield min(rows, total - start)


def _fair_binomial(n: int) -> Floats:
    """(n + 1,) float64: the chance of 0, 1, ..., n heads in n tosses of a fair coin."""
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    return np.asarray(np.exp(log_factorial[n] - log_factorial - log_factorial[::-1] - n * math.log(2)))
