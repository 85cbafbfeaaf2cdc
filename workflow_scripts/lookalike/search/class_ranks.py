"""How much of its class each query of a labelled collection finds among its first R neighbors, R being their number.

A class may have far more images than the neighbors that a search keeps. So every query is searched once more, as deep
as its class is large, and only three numbers of it are kept: memory is bounded, and no pair is written.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lookalike.io import relevance
from lookalike.io.formats.tables import CLASS_RANKS
from lookalike.search.exact import Nearest

PAIRS = 1 << 21  # (query, neighbor) pairs in memory at a time
DEEPER = 4  # factor for the next search of queries whose first R neighbors are not certain, as more references tie

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Search = Callable[[Floats, int, Rows], Nearest]  # of vectors: their k nearest references, their own rows excluded


def class_ranks(
    search: Search, images: pa.Table, *, query_ids: pa.Array, queries: Floats, own: Rows, reference_ids: pa.Array
) -> pa.Table:
    """The CLASS_RANKS table of the embedded queries that have a match.

    images: image_id, reference, query and class of the sample
    queries: (q, d) float32, the vectors of ``query_ids``
    own: (q,) int64, each query's row among ``reference_ids``, or -1
    """
    rows = {image_id: row for row, image_id in enumerate(images["image_id"].to_pylist())}
    of_query, of_reference = (
        np.array([rows[image_id] for image_id in ids.to_pylist()], np.int64) for ids in (query_ids, reference_ids)
    )
    code = relevance.classes(images)
    relevant = relevance.class_matches(images)[of_query]
    found, precision = np.zeros(len(query_ids), np.int64), np.zeros(len(query_ids))
    others = len(reference_ids) - (own >= 0)
    depth = relevant + 1  # one more, to see a tie across the boundary; all that tie are then needed
    pending = np.flatnonzero(relevant)
    while len(pending):
        tied = []
        for chunk in _chunks(pending, depth):
            k = min(int(depth[chunk].max()), len(reference_ids))
            nearest = search(queries[chunk], k, own[chunk])
            right = (code[of_reference[nearest.rows]] == code[of_query[chunk]][:, None]) & (nearest.rows >= 0)
            found[chunk], precision[chunk] = _within_r(nearest.scores, right, relevant[chunk])
            last = np.take_along_axis(nearest.scores, np.minimum(relevant[chunk], k)[:, None] - 1, 1)[:, 0]
            is_full = (nearest.rows[:, -1] >= 0) & (others[chunk] > k)
            tied.append(chunk[is_full & (nearest.scores[:, -1] == last)])
        depth *= DEEPER
        pending = np.concatenate(tied)
    counted = np.flatnonzero(relevant)
    columns = (
        query_ids.take(pa.array(counted)),
        *(pa.array(values[counted], kind) for values, kind in ((relevant, pa.int32()), (found, pa.int32()))),
        pa.array(precision[counted]),
    )
    return pa.table(dict(zip(CLASS_RANKS.columns, columns, strict=True)), CLASS_RANKS.schema())


def _chunks(rows: Rows, depth: Rows) -> Iterator[Rows]:
    """The queries of ``rows``, those of similar depths together, so that their neighbors fit into memory."""
    order = rows[np.argsort(-depth[rows], kind="stable")]
    start = 0
    while start < len(order):
        size = max(1, PAIRS // int(depth[order[start]]))
        yield order[start : start + size]
        start += size


def _within_r(scores: Floats, right: NDArray[np.bool_], relevant: Rows) -> tuple[Rows, NDArray[np.float64]]:
    """For each query the number of right references among its first R, and the sum of the precision at their ranks.

    scores, right: (q, k) of its nearest references; relevant: (q,) R of each query. Equal scores: wrong references rank
    first, as in ``metrics.ranking``.
    """
    order = np.lexsort((right, -scores), axis=1)
    place = np.arange(1, scores.shape[1] + 1)
    inside = np.take_along_axis(right, order, 1) & (place <= relevant[:, None])
    precision = np.where(inside, np.cumsum(inside, axis=1) / place, 0).sum(axis=1)
    return inside.sum(axis=1).astype(np.int64), precision
