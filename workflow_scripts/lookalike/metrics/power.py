"""How many queries would tell two models apart, if they differ as much as was seen."""

import math
from dataclasses import dataclass

from lookalike.metrics.intervals import Spread
from lookalike.metrics.rates import FEWEST, SIGNIFICANCE

POWER = 0.8


@dataclass(frozen=True)
class Needed:
    """The number of independent groups, and of queries if there are as many per group as now."""

    groups: int
    queries: int


def needed(gap: float | None, spread: Spread, *, groups: int, queries: int, tests: int = 1) -> Needed | None:
    """The queries with which a difference of this size would be significant in 80 of 100 repetitions.

    spread: of the difference, from ``groups`` groups with ``queries`` queries
    tests: number of tests that are corrected for; the smallest p value has to be below 0.05 / tests

    None if nothing can be said: no difference or no variance was seen.

    Cohen, Statistical Power Analysis for the Behavioral Sciences (1988), chapter 2; for McNemar's test this is
    Miettinen's formula (Biometrics 24, 1968, 339-352) with the variance of the paired differences.
    """
    from scipy.special import ndtri

    if not gap or spread.variance <= 0 or not groups:
        return None
    quantiles = float(ndtri(1 - SIGNIFICANCE / tests / 2) + ndtri(POWER))
    enough = math.ceil(quantiles**2 * spread.variance * groups / gap**2)
    # Never as many as there are: they did not tell.
    enough = max(enough, groups + 1, FEWEST)
    return Needed(enough, math.ceil(enough * queries / groups))
