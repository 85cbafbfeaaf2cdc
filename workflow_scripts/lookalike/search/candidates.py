"""Candidates: the best (query, reference) pairs over all queries, for DISC21's micro average precision (uAP)."""

import numpy as np
from numpy.typing import NDArray

PAIRS_PER_QUERY = 10  # DISC21: at most 500,000 pairs for 50,000 queries


class Candidates:
    """The best ``size`` pairs of those added, without any that tie with the best excluded pair.

    A pair's score is its similarity minus its query's ``shift``, (q,) float32: zero, or the score normalisation term.
    """

    def __init__(self, size: int, shift: NDArray[np.float32]) -> None:
        self.size = size
        self.shift = shift
        self.threshold = np.float32(-np.inf)
        self.queries = np.empty(0, np.int64)
        self.rows = np.empty(0, np.int64)
        self.scores = np.empty(0, np.float32)
        self._new: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []
        self._waiting = 0

    @property
    def low(self) -> NDArray[np.float32]:
        """Similarity that a query's pair must exceed to qualify, (q,) float32; rounded down, so that none is missed."""
        exact = np.float64(self.threshold) + self.shift
        near = exact.astype(np.float32)
        rounded_down: NDArray[np.float32] = np.where(near > exact, np.nextafter(near, np.float32(-np.inf)), near)
        return rounded_down

    def add(self, queries: NDArray[np.int64], rows: NDArray[np.int64], similarities: NDArray[np.float32]) -> None:
        """Add pairs that have not been added before."""
        scores = similarities - self.shift[queries]
        better = scores > self.threshold
        self._new.append((queries[better], rows[better], scores[better]))
        self._waiting += len(self._new[-1][0])
        if self._waiting > max(self.size // 2, 1 << 12):
            self.settle()

    def forget(self, queries: NDArray[np.int64]) -> None:
        """Remove all pairs of these queries, before they are searched again."""
        self.settle()
        self._keep(~np.isin(self.queries, queries))

    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Queries, rows, ranks within the query (from 1) and scores; grouped by query, best first."""
        self.settle()
        order = np.lexsort((self.rows, -self.scores, self.queries))
        queries = self.queries[order]
        _, first, counts = np.unique(queries, return_index=True, return_counts=True)
        rank = 1 + np.arange(len(queries)) - np.repeat(first, counts)
        return queries, self.rows[order], rank, self.scores[order]

    def settle(self) -> None:
        """Merge the added pairs, and raise the threshold if there are more than ``size``."""
        columns = zip((self.queries, self.rows, self.scores), *self._new, strict=True)
        self.queries, self.rows, self.scores = (np.concatenate(parts) for parts in columns)
        self._new, self._waiting = [], 0
        if len(self.scores) > self.size:
            cut = len(self.scores) - self.size - 1
            self.threshold = np.partition(self.scores, cut)[cut]
            self._keep(self.scores > self.threshold)

    def _keep(self, kept: NDArray[np.bool_]) -> None:
        self.queries, self.rows, self.scores = self.queries[kept], self.rows[kept], self.scores[kept]
