"""Exact search: one pass over the references in blocks, near the speed of the machine's matrix product.

A block's scores are one matrix product. One comparison selects those above the lowest score that could still matter to
a query. That score rises as better pairs are found, so that almost nothing is left to sort.

A matrix product's rounding depends on a reference's position in its block: two identical references may differ in the
last bit, and their order would decide a tie. The selected pairs are therefore scored again, one by one, on the CPU: so
it changes no number where the products are computed (``exact_gpu``).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from lookalike.job.errors import LookalikeError
from lookalike.search.candidates import Candidates

if TYPE_CHECKING:
    import torch

QUERIES = 1024  # per product: with a block of references, their scores take 16 MB
FIRST = 16  # references in the first product, when every score is a new best; the total doubles with each product
SLACK = 1e-5  # relative to the product of two norms: exceeds the error of a float32 product of a few thousand numbers
PAIRS = 256  # rescored at a time, so that they stay in the cache


class Nearest:
    """The k best references of each query so far: ``scores`` (q, k) float32 and ``rows`` (q, k) int64, best first.

    Empty places have row -1 and score minus infinity.
    """

    def __init__(self, queries: int, k: int) -> None:
        self.scores = np.full((queries, k), -np.inf, np.float32)
        self.rows = np.full((queries, k), -1, np.int64)

    @property
    def low(self) -> NDArray[np.float32]:
        """Score that a reference must exceed to be among a query's best, (q,) float32."""
        worst: NDArray[np.float32] = self.scores[:, -1]
        return worst

    def add(self, queries: NDArray[np.int64], rows: NDArray[np.int64], scores: NDArray[np.float32]) -> None:
        """Add pairs, sorted by query, then row. Ties keep row order."""
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


class Products(Protocol):
    """Computes matrix products of the queries with blocks of references, and finds the scores above a limit."""

    rows: int  # queries per product

    def load(self, references: NDArray[np.float32]) -> None:
        """Take the next references (b, d), valid until the next call."""

    def hits(self, part: slice, own: NDArray[np.int64], limit: NDArray[np.float32]) -> Iterator[NDArray[np.int64]]:
        """Positions in the flattened scores of a part of the queries (p, b) that exceed ``limit`` (p,), increasing.

        ``own`` (p,): the reference of the block that is the query itself and never a hit; others are outside the block.
        """


class CpuProducts:
    """Products by NumPy."""

    rows = QUERIES

    def __init__(self, queries: NDArray[np.float32]) -> None:
        self.queries = queries

    def load(self, references: NDArray[np.float32]) -> None:
        """See ``Products``."""
        self.references = references

    def hits(self, part: slice, own: NDArray[np.int64], limit: NDArray[np.float32]) -> Iterator[NDArray[np.int64]]:
        """See ``Products``."""
        scores = self.queries[part] @ self.references.T
        mine = np.flatnonzero((own >= 0) & (own < len(self.references)))
        scores[mine, own[mine]] = -np.inf
        yield np.flatnonzero(scores > limit[:, None])


def search(
    queries: NDArray[np.float32],
    blocks: Iterable[NDArray[np.float32]],
    k: int,
    own: NDArray[np.int64],
    candidates: Sequence[Candidates] = (),
    *,
    device: "torch.device | None" = None,
    threads: int = 1,
) -> Nearest:
    """The k references with the largest inner product for each query; also adds the best pairs to ``candidates``.

    queries: (q, d) float32. blocks: the references in order, (b, d) float32 each. own: (q,) int64, the row of the
    reference that is the query itself and is excluded, or -1. device: a GPU for the products, from ``exact_gpu.find``.
    threads: how many score the selected pairs again; with a GPU, that takes longer than the products. Ties are in row
    order. Raises LookalikeError for a vector with NaN or infinite numbers, which would hide its whole
    block from every query.
    """
    nearest = Nearest(len(queries), k)
    slack = SLACK * _lengths(queries, "query", 0)
    products: Products = CpuProducts(queries)
    if device is not None:
        from lookalike.search import exact_gpu

        products = exact_gpu.GpuProducts(queries, device)
    seen = 0
    with ThreadPoolExecutor(threads) as pool:
        dots = partial(_dots, pool=pool, threads=threads)
        for block in blocks:
            start = 0
            while start < len(block):
                step = min(max(FIRST, seen), len(block) - start)
                part = block[start : start + step]
                _add(
                    queries,
                    part,
                    seen,
                    products=products,
                    slack=slack,
                    dots=dots,
                    own=own,
                    nearest=nearest,
                    candidates=candidates,
                )
                start, seen = start + step, seen + step
    return nearest


def _add(
    queries: NDArray[np.float32],
    references: NDArray[np.float32],
    first_row: int,
    *,
    products: Products,
    slack: NDArray[np.float32],
    dots: Callable[..., NDArray[np.float32]],
    own: NDArray[np.int64],
    nearest: Nearest,
    candidates: Sequence[Candidates],
) -> None:
    longest = _lengths(references, "reference", first_row).max()
    products.load(references)
    for start in range(0, len(queries), rows := products.rows):
        part = slice(start, min(start + rows, len(queries)))
        low = np.minimum.reduce([nearest.low[part], *(pairs.low[part] for pairs in candidates)])
        for hits in products.hits(part, own[part] - first_row, low - slack[part] * longest):
            if not len(hits):
                continue
            query, column = np.divmod(hits, len(references))
            rescored = dots(queries[part], references, query, column)
            nearest.add(query + start, column + first_row, rescored)
            for pairs in candidates:
                pairs.add(query + start, column + first_row, rescored)


def _lengths(vectors: NDArray[np.float32], what: str, first_row: int) -> NDArray[np.float32]:
    lengths: NDArray[np.float32] = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    if not (finite := np.isfinite(lengths)).all():
        raise LookalikeError(
            f"exact search: the vector of {what} {first_row + int(np.argmin(finite))} (counted from 0) is not finite. "
            "Delete the index and run again to rebuild it."
        )
    return lengths


def _dots(
    queries: NDArray[np.float32],
    references: NDArray[np.float32],
    query: NDArray[np.int64],
    column: NDArray[np.int64],
    *,
    pool: ThreadPoolExecutor,
    threads: int,
) -> NDArray[np.float32]:
    """The inner product of each pair, (pairs,) float32: equal vectors give equal scores, whatever their position."""
    scores = np.empty(len(query), np.float32)

    def score(first: int, last: int) -> None:
        for start in range(first, last, PAIRS):
            part = slice(start, min(start + PAIRS, last))
            np.einsum("ij,ij->i", queries[query[part]], references[column[part]], out=scores[part])

    each = PAIRS * -(-len(query) // (PAIRS * threads))  # pairs per thread
    starts = range(0, len(query), each)
    if len(starts) == 1:
        score(0, len(query))
    else:
        list(pool.map(lambda first: score(first, min(first + each, len(query))), starts))
    return scores
