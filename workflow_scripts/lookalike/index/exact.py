"""Exact search: one pass over the references in blocks, near the speed of the machine's matrix product.

A block's scores are one matrix product. What they add is found by one comparison: with the lowest score that could
still matter to a query, which rises as better pairs are found, so that almost nothing is left to sort.

A matrix product rounds by where a reference stands in its block, so that two identical references may differ in the
last bit, and a tie would be decided by their order. What is found is therefore scored once more, pair by pair.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from lookalike.errors import LookalikeError
from lookalike.index.pools import Pool

QUERIES = 1024  # in one product: with a block of references, their scores take 16 MB
FIRST = 16  # references in the first product, when every score is a new best; then twice as many as were seen
SLACK = 1e-5  # of the product of two lengths: more than a float32 product of a few thousand numbers is off by
PAIRS = 256  # scored once more at a time: they stay in the cache


class Nearest:
    """The k best references of each query so far; ``scores`` and ``rows`` are (q, k), best first.

    Where fewer than k were seen, rows are -1 and scores minus infinity.
    """

    def __init__(self, queries: int, k: int) -> None:
        self.scores = np.full((queries, k), -np.inf, np.float32)
        self.rows = np.full((queries, k), -1, np.int64)

    @property
    def low(self) -> NDArray[np.float32]:
        """What a score must exceed to be among a query's best, (q,)."""
        worst: NDArray[np.float32] = self.scores[:, -1]
        return worst

    def add(self, queries: NDArray[np.int64], rows: NDArray[np.int64], scores: NDArray[np.float32]) -> None:
        """Take in pairs, sorted by query, then row. At equal scores the reference that comes first stays first."""
        better = scores > self.low[queries]
        queries, rows, scores = queries[better], rows[better], scores[better]
        touched, first, counts = np.unique(queries, return_index=True, return_counts=True)
        if not len(touched):
            return
        k = self.scores.shape[1]
        column = k + np.arange(len(queries)) - np.repeat(first, counts)
        line = np.repeat(np.arange(len(touched)), counts)
        all_scores = np.full((len(touched), k + counts.max()), -np.inf, np.float32)
        all_rows = np.full(all_scores.shape, -1, np.int64)
        all_scores[:, :k], all_rows[:, :k] = self.scores[touched], self.rows[touched]
        all_scores[line, column], all_rows[line, column] = scores, rows
        order = np.argsort(-all_scores, axis=1, kind="stable")[:, :k]
        self.scores[touched] = np.take_along_axis(all_scores, order, 1)
        self.rows[touched] = np.take_along_axis(all_rows, order, 1)


def search(
    queries: NDArray[np.float32],
    blocks: Iterable[NDArray[np.float32]],
    k: int,
    own: NDArray[np.int64],
    pools: Sequence[Pool] = (),
) -> Nearest:
    """The k references with the largest inner product for each query; the best pairs of all queries go into ``pools``.

    queries: (q, d) float32; blocks: the references in order, (b, d) each; own: (q,) the reference that is the query
    itself and is left out, -1 where there is none. At equal scores the reference that comes first is first. Raises
    LookalikeError for a vector with NaN or infinite numbers, which would hide its whole block from every query.
    """
    nearest = Nearest(len(queries), k)
    slack = SLACK * _lengths(queries, "query", 0)
    seen = 0
    for block in blocks:
        start = 0
        while start < len(block):
            step = min(max(FIRST, seen), len(block) - start)
            part = block[start : start + step]
            _add(queries, part, seen, slack=slack, own=own, nearest=nearest, pools=pools)
            start, seen = start + step, seen + step
    return nearest


def _add(
    queries: NDArray[np.float32],
    references: NDArray[np.float32],
    first_row: int,
    *,
    slack: NDArray[np.float32],
    own: NDArray[np.int64],
    nearest: Nearest,
    pools: Sequence[Pool],
) -> None:
    longest = _lengths(references, "reference", first_row).max()
    for start in range(0, len(queries), QUERIES):
        part = slice(start, start + QUERIES)
        scores = queries[part] @ references.T
        self_match = own[part] - first_row
        mine = np.flatnonzero((self_match >= 0) & (self_match < len(references)))
        scores[mine, self_match[mine]] = -np.inf
        low = np.minimum.reduce([nearest.low[part], *(pool.low[part] for pool in pools)])
        hits = np.flatnonzero(scores > (low - slack[part] * longest)[:, None])
        if not len(hits):
            continue
        query, column = np.divmod(hits, len(references))
        found = _dots(queries[part], references, query, column)
        nearest.add(query + start, column + first_row, found)
        for pool in pools:
            pool.add(query + start, column + first_row, found)


def _lengths(vectors: NDArray[np.float32], what: str, first_row: int) -> NDArray[np.float32]:
    lengths: NDArray[np.float32] = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    if not (finite := np.isfinite(lengths)).all():
        raise LookalikeError(
            f"exact search: the vector of {what} {first_row + int(np.argmin(finite))} (counted from 0) is not a finite "
            "one. Build the index again: delete it and run again."
        )
    return lengths


def _dots(
    queries: NDArray[np.float32], references: NDArray[np.float32], query: NDArray[np.int64], column: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The inner product of each pair by itself, (pairs,): the same for the same two vectors, wherever they stand."""
    found = np.empty(len(query), np.float32)
    for start in range(0, len(query), PAIRS):
        part = slice(start, start + PAIRS)
        np.einsum("ij,ij->i", queries[query[part]], references[column[part]], out=found[part])
    return found
