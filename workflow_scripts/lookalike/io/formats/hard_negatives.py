"""Queries without a match whose nearest reference scores as high as a threshold that accepts matches."""

from lookalike.io.formats.base import Record


class HardNegative(Record):
    """A query without a match, and the reference that scores highest with it."""

    query: str
    reference: str
    score: float


class HardNegatives(Record):
    """``hard_negatives`` in the metrics, by the name of the threshold.

    ``above`` of the ``queries`` without a match have a reference that scores at least ``threshold``: a system would
    accept it. ``closest`` are those with the highest scores, above the threshold or not, at most 20.
    """

    threshold: float
    queries: int
    above: int
    closest: list[HardNegative]
