"""Numbers with 95 % intervals, and tests that compare two models on the same queries.

``rates`` is for metrics that are an average over queries, ``pooled`` for those of one list of all queries' predictions.
"""

from lookalike.statistics.pooled import DRAWS, Draws, Pooled, draw_pools, pooled_difference, pooled_estimate
from lookalike.statistics.rates import (
    FEW_GROUPS,
    NOTHING,
    SIGNIFICANCE,
    Floats,
    Ints,
    contrast,
    difference,
    estimate,
    group_codes,
    holm,
    ratio,
    shuffled,
    sign_flip,
    verdict,
    wilson,
)

__all__ = [
    "DRAWS",
    "FEW_GROUPS",
    "NOTHING",
    "SIGNIFICANCE",
    "Draws",
    "Floats",
    "Ints",
    "Pooled",
    "contrast",
    "difference",
    "draw_pools",
    "estimate",
    "group_codes",
    "holm",
    "pooled_difference",
    "pooled_estimate",
    "ratio",
    "shuffled",
    "sign_flip",
    "verdict",
    "wilson",
]
