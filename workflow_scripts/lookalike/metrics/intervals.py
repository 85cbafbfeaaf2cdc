"""95 % intervals from influence values: how far each independent group moves a number.

One construction serves all metrics and any number of groups. The variance of a number comes from the influence of each
group. To it is added what one unseen group could change, which vanishes as groups are added, and it is judged with
Student's t. Its degrees of freedom follow from the kurtosis of the influences: if three groups of a
hundred carry all of the variance, it is known no better than from a handful of groups. An interval of a share is
Wilson's with the number of observations that would have this variance.

``benchmarks/calibration.py`` measures what these intervals cover.

Korn and Graubard, "Confidence intervals for proportions with small expected number of positive counts estimated from
survey data", Survey Methodology 24 (1998), 193-201 (effective sample size); Efron and Tibshirani, An Introduction to
the Bootstrap (1993), chapter 11 (jackknife); Satterthwaite, Biometrics Bulletin 2 (1946), 110-114.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

Z = 1.959963984540054  # normal quantile at 1 - 0.05 / 2
TAIL = 0.025
# Variance that one unseen group adds, as a share of that of a group which is right or wrong as a whole. The difference
# of two models varies less: what is hard for one is hard for the other.
UNSEEN, UNSEEN_DIFFERENCE = 1.0, 0.25
# Lower bounds of the rate of a Poisson count of 1, 2 and 3: chi-squared quantiles at 0.05, halved.
POISSON = {1: 0.0512932944, 2: 0.3553615107, 3: 0.8176914447}
FEW_CASES = 50  # observations up to which POISSON is used for counts of 2; above, for 3 as well


@dataclass(frozen=True)
class Spread:
    """The variance of a number, and the degrees of freedom with which it is known."""

    variance: float
    df: float


def wilson(successes: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion: within [0, 1] and valid for small n and proportions of 0 and 1.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927), 209-212;
    as method 3 in Newcombe, Statistics in Medicine 17 (1998), 857-872.
    """
    share = successes / n
    middle = share + Z * Z / (2 * n)
    half = Z * math.sqrt(max(0.0, share * (1 - share)) / n + Z * Z / (4 * n * n))
    scale = 1 + Z * Z / n
    # For 0 and n the bounds are exactly 0 and 1; avoid rounding errors.
    low = 0.0 if successes <= 0 else max(0.0, (middle - half) / scale)
    high = 1.0 if successes >= n else min(1.0, (middle + half) / scale)
    return low, high


def proportion(successes: int, n: int) -> tuple[float, float]:
    """The 95 % interval of right answers among n independent ones: Wilson's, with its known dips removed.

    With one, two or three of n right (or wrong), Wilson's bound on that side covers a true rate near 0 (or 1) as rarely
    as 84 times in 100. An exact Poisson bound replaces it there.

    Brown, Cai and DasGupta, "Interval estimation for a binomial proportion", Statistical Science 16 (2001), 101-133,
    section 4.1.1.
    """
    low, high = wilson(successes, n)
    most = 2 if n <= FEW_CASES else 3
    if 1 <= successes <= min(most, n - 1):
        low = min(low, POISSON[successes] / n)
    if 1 <= n - successes <= min(most, n - 1):
        high = max(high, 1 - POISSON[n - successes] / n)
    return low, high


def spread(influence: Floats, most_df: float = math.inf) -> Spread:
    """The variance of a number from the influence of each group on it.

    influence: (b,) or (k, b) float64: the first-order change of the number if a group is counted once more, for each of
        b groups. The rows are k ways to form the groups, whose variances are averaged.
    most_df: degrees of freedom at most

    A normal sample of b groups has b - 1 degrees of freedom, one with kurtosis K about 2 b / (K - 1).
    """
    rows = np.atleast_2d(influence)
    rows = rows - rows.mean(axis=1, keepdims=True)
    b = rows.shape[1]
    squares = (rows**2).sum(axis=1)
    if b < 2 or not squares.any():
        return Spread(0.0, max(1.0, b - 1.0))
    kurtosis = b * (rows**4).sum() / (squares @ squares) if len(rows) == 1 else 3.0
    df = min(b - 1.0, 2 * b / max(kurtosis - 1, 1e-9), most_df)
    return Spread(float(squares.mean()) * b / (b - 1), float(max(1.0, df)))


def effective_groups(sizes: npt.NDArray[Any]) -> float:
    """The number of groups of equal size that would weigh as much: Kish, Survey Sampling (1965), section 8.2."""
    return float(sizes.sum() ** 2 / (sizes.astype(np.float64) ** 2).sum())


def of_share(value: float, spread: Spread, groups: float, unseen: float = UNSEEN) -> tuple[float, float]:
    """The 95 % interval of a number between 0 and 1; ``groups`` as counted by ``effective_groups``."""
    possible = value * (1 - value)
    if spread.variance <= 0 or possible <= 0 or groups < 2:
        # All groups agree, which says little about the next: each counts as one observation.
        return wilson(value * groups, groups)
    variance = spread.variance + unseen * possible / groups**2
    effective = possible / variance * (Z / t_quantile(spread.df)) ** 2
    return wilson(value * effective, effective)


def of_difference(value: float, spread: Spread, groups: float) -> tuple[float, float]:
    """The 95 % interval of a difference between -1 and 1, as that of the share (1 + difference) / 2."""
    if spread.variance <= 0 and value == 0:
        # Models that agreed on all groups may still differ on the next, in either direction.
        high = wilson(0, groups)[1]
        return -high, high
    share = Spread(spread.variance / 4, spread.df)
    low, high = of_share((1 + value) / 2, share, groups, UNSEEN_DIFFERENCE)
    return 2 * low - 1, 2 * high - 1


def of_ratio(value: float, spread: Spread) -> tuple[float, float]:
    """The 95 % interval of a number without bounds."""
    half = t_quantile(spread.df) * math.sqrt(spread.variance)
    return value - half, value + half


def t_test(value: float, spread: Spread, groups: float, coins: int) -> float:
    """Two-sided p value of "the difference is 0": Student's t.

    coins: number of groups; p is never smaller than that of a sign test in which all of them favor one model
    """
    from scipy.special import stdtr

    least = 2.0 ** (1 - coins)
    if spread.variance <= 0:
        return 1.0 if value == 0 else least
    variance = spread.variance + UNSEEN_DIFFERENCE * max(0.0, 1 - value**2) / groups**2
    p = 2 * float(stdtr(spread.df, -abs(value) / math.sqrt(variance)))
    return min(1.0, max(p, least))


def t_quantile(df: float) -> float:
    """The quantile of Student's t at 97.5 %."""
    from scipy.special import stdtrit

    return float(stdtrit(df, 1 - TAIL))
