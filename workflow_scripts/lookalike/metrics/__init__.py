"""How well predictions match the truth: pure functions on tables and arrays.

``ranking`` looks at each query by itself (accuracy, recall, MRR, mAP); ``pooled`` at the predictions of all queries in
one list (micro average precision, recall at a precision, the score threshold), with or without score normalisation;
``breakdowns`` says which queries to look at together.
``statistics`` turns both into numbers with intervals. docs/metrics.md explains each metric in plain words.
"""

from lookalike.metrics.breakdowns import CHAIN, break_down, by_operation
from lookalike.metrics.joining import Bools, Floats, Ints
from lookalike.metrics.pooled import (
    Cut,
    Groups,
    Pool,
    best_cut,
    curve,
    first_of_each,
    groups_of,
    held_out,
    micro_average_precision,
    normalise,
    pool,
    recall_at,
)
from lookalike.metrics.ranking import Ranking, at_k, rank

__all__ = [
    "CHAIN",
    "Bools",
    "Cut",
    "Floats",
    "Groups",
    "Ints",
    "Pool",
    "Ranking",
    "at_k",
    "best_cut",
    "break_down",
    "by_operation",
    "curve",
    "first_of_each",
    "groups_of",
    "held_out",
    "micro_average_precision",
    "normalise",
    "pool",
    "rank",
    "recall_at",
]
