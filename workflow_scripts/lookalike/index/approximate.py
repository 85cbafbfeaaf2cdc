"""Search by asking a FAISS index, which may miss neighbors; in whole batches."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike.errors import LookalikeError
from lookalike.index.exact import Nearest
from lookalike.index.pools import Pool

WIDE = 100  # neighbors a query at first, when the pool is filled: few queries have more pairs in it
WIDER = 8  # times as many are asked for, of the queries whose last neighbor is still good enough for the pool
GPU_MOST = 2048  # neighbors that FAISS finds on a GPU


def search(index: Any, queries: NDArray[np.float32], k: int, own: NDArray[np.int64]) -> Nearest:
    """The k nearest that the index finds, itself left out (``exact.search``); at equal scores by row."""
    found = Nearest(len(queries), k)
    if len(queries):
        scores, rows = _ask(index, queries, k + bool((own >= 0).any()), own)
        found.scores[:], found.rows[:] = scores[:, :k], rows[:, :k]
    return found


def fill(pools: Sequence[Pool], indexes: Sequence[Any], queries: NDArray[np.float32], own: NDArray[np.int64]) -> None:
    """Show the pools the best pairs that the index finds.

    Every query's nearest 100 first; then more, of the queries whose last neighbor is better than a pool's threshold,
    until none is. ``indexes``: the one to ask, and, where it is on a GPU, the same one on the CPU, which finds more
    than 2,048 neighbors.
    """
    asked, *on_cpu = indexes
    pending = np.arange(len(queries))
    width = WIDE + 1
    while len(pending):
        if width > GPU_MOST and on_cpu:
            asked = on_cpu[0]
        width = min(width, asked.ntotal)
        scores, rows = _ask(asked, queries[pending], width, own[pending])
        line, column = np.nonzero(rows >= 0)
        for pool in pools:
            pool.forget(pending)
            pool.add(pending[line], rows[line, column], scores[line, column])
            pool.settle()
        if width == asked.ntotal:
            return
        # where the query itself was among them, one fewer is left: what lies beyond is not better than the last
        last = np.where(np.isfinite(scores), scores, np.inf).min(axis=1)
        found_all = (rows >= 0).sum(axis=1) >= width - (own[pending] >= 0)
        low = np.minimum.reduce([pool.low[pending] for pool in pools])
        pending = pending[found_all & (last > low)]
        width *= WIDER


def _ask(
    index: Any, queries: NDArray[np.float32], width: int, own: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scores and rows, best first, at equal scores by row; own pairs and empty places last, as -inf and -1."""
    scores, rows = index.search(np.ascontiguousarray(queries), min(width, index.ntotal))
    if np.isnan(scores[rows >= 0]).any():
        raise LookalikeError(
            "approximate search: the index gives scores that are not numbers, so it holds vectors that are not finite. "
            "Build it again: delete it and run again."
        )
    out = (rows < 0) | (rows == own[:, None])
    scores[out], rows[out] = -np.inf, -1
    order = np.lexsort((rows, -scores), axis=1)
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
