"""Approximate search: query a FAISS index, which may miss neighbors, in batches."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike.config.factories import reason
from lookalike.io import faiss_index
from lookalike.job.errors import LookalikeError
from lookalike.search.candidates import Candidates
from lookalike.search.exact import Nearest

log = logging.getLogger(__name__)
WIDE = 100  # neighbors per query in the first pass for candidates: few queries contribute more pairs
WIDER = 8  # factor for the next pass, for queries whose last neighbor still qualifies as a candidate


def search(indexes: list[Any], queries: NDArray[np.float32], k: int, own: NDArray[np.int64]) -> Nearest:
    """The k nearest references that the index finds, excluding ``own`` (``exact.search``); ties in row order.

    ``indexes``: the index to query and, if it is on a GPU, the same index on the CPU, which is searched for more than
    2,048 neighbors. If the GPU fails, with too little memory for example, its copy is removed from the list and the CPU
    continues.
    """
    nearest = Nearest(len(queries), k)
    if len(queries):
        scores, rows = _query(indexes, queries, k + bool((own >= 0).any()), own)
        nearest.scores[:], nearest.rows[:] = scores[:, :k], rows[:, :k]
    return nearest


def fill(
    candidates: Sequence[Candidates], indexes: list[Any], queries: NDArray[np.float32], own: NDArray[np.int64]
) -> None:
    """Add the best pairs that the index finds to the candidates.

    Starts with every query's nearest 100, and continues with more neighbors of those queries whose last neighbor
    exceeds the candidates' threshold, until no such query remains. ``indexes`` as in ``search``.
    """
    total = indexes[-1].ntotal
    pending = np.arange(len(queries))
    width = WIDE + 1
    while len(pending):
        width = min(width, total)
        scores, rows = _query(indexes, queries[pending], width, own[pending])
        line, column = np.nonzero(rows >= 0)
        for pairs in candidates:
            pairs.forget(pending)
            pairs.add(pending[line], rows[line, column], scores[line, column])
            pairs.settle()
        if width == total:
            return
        # no further neighbor scores above the last one; the query itself may have taken one of the places
        last = np.where(np.isfinite(scores), scores, np.inf).min(axis=1)
        is_full = (rows >= 0).sum(axis=1) >= width - (own[pending] >= 0)
        low = np.minimum.reduce([pairs.low[pending] for pairs in candidates])
        pending = pending[is_full & (last > low)]
        width *= WIDER


def _query(
    indexes: list[Any], queries: NDArray[np.float32], width: int, own: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scores and rows, best first, ties in row order; own pairs and empty places last, as -inf and -1."""
    width = min(width, indexes[-1].ntotal)
    if width > faiss_index.GPU_MOST:
        indexes = indexes[-1:]
    try:
        scores, rows = indexes[0].search(np.ascontiguousarray(queries), width)
    except RuntimeError as error:
        if len(indexes) == 1:
            raise
        log.warning("searching on a GPU failed (%s); searching on the CPU", reason(error))
        del indexes[0]
        scores, rows = indexes[0].search(np.ascontiguousarray(queries), width)
    if np.isnan(scores[rows >= 0]).any():
        raise LookalikeError(
            "approximate search: the index returns NaN scores, so it holds vectors that are not finite. Delete the "
            "index and run again to rebuild it."
        )
    excluded = (rows < 0) | (rows == own[:, None])
    scores[excluded], rows[excluded] = -np.inf, -1
    order = np.lexsort((rows, -scores), axis=1)
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
