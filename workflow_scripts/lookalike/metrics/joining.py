"""Predictions and truth joined by id, and what is wrong with tables that do not fit each other."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.job.errors import LookalikeError

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Predictions:
    """Predicted (query, reference) pairs, each known to be right or wrong; queries are rows of the images table.

    query: (p,) int64
    score: (p,) float32 or float64, higher is nearer
    right: (p,) bool
    true_query: (t,) int64, the query of every true pair, predicted or not
    """

    query: Ints
    score: Floats
    right: Bools
    true_query: Ints


def join(pairs: pa.Table, truth: pa.Table, images: pa.Table, where: object) -> Predictions:
    """Join predictions and truth by id.

    pairs, truth, images: tables of the formats neighbors, truth and images, rows in any order. Raises LookalikeError
    for an id that is not in the sample, for a pair that is predicted twice, for scores that are NaN or do not fall with
    rank, and for ranks with gaps.
    """
    ids = images["image_id"]
    query = _rows(pairs["query_id"], images, "query", where)
    reference = _rows(pairs["reference_id"], images, "reference", where)
    true_query = _rows(truth["query_id"], images, "query", "truth")
    true_reference = _rows(truth["reference_id"], images, "reference", "truth")
    score = pairs["score"].to_numpy()
    _check_ranks(query, pairs["rank"].to_numpy(), score, ids, where)
    pair = query * len(ids) + reference
    _check_no_duplicates(pair, ids, where)
    return Predictions(query, score, np.isin(pair, true_query * len(ids) + true_reference), true_query)


def _rows(ids: pa.ChunkedArray, images: pa.Table, role: str, where: object) -> Ints:
    """The rows of ``images`` that bear these ids, all in one role."""
    known = pc.if_else(images[role], images["image_id"], None).combine_chunks()
    rows = pc.index_in(ids, value_set=known, skip_nulls=True)
    if rows.null_count:
        stranger = ids.filter(pc.is_null(rows))[0]
        raise LookalikeError(
            f"{where}: '{stranger}' is not a {role} of the sample, so this file belongs to another sample. "
            "Delete it and run again."
        )
    return np.asarray(rows.to_numpy(), dtype=np.int64)


def _check_ranks(query: Ints, rank: npt.NDArray[np.int32], score: Floats, ids: pa.ChunkedArray, where: object) -> None:
    unknown = np.isnan(score)
    if unknown.any():
        raise LookalikeError(
            f"{where}: {unknown.sum()} scores are not numbers, the first of query '{ids[query[unknown][0]]}'. "
            "Look for NaN in that query's embedding."
        )
    order = np.lexsort((rank, query))
    same = query[order][1:] == query[order][:-1]
    rising = same & (score[order][1:] > score[order][:-1])
    if rising.any():
        raise LookalikeError(
            f"{where}: scores of query '{ids[query[order][1:][rising][0]]}' rise with rank. "
            "Rank 1 must have the highest score. Delete the file and run again."
        )
    # Ranks of one query are 1, 2, 3, ...: the first of each query is 1, and each next one is one more.
    step = np.diff(rank[order], prepend=0)
    step[1:][~same] = rank[order][1:][~same]
    if (step != 1).any():
        raise LookalikeError(
            f"{where}: ranks of query '{ids[query[order][step != 1][0]]}' are not 1, 2, 3, ... "
            "Delete the file and run again."
        )


def _check_no_duplicates(pair: Ints, ids: pa.ChunkedArray, where: object) -> None:
    ordered = np.sort(pair)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(repeated):
        query, reference = divmod(int(repeated[0]), len(ids))
        raise LookalikeError(
            f"{where}: query '{ids[query]}' has reference '{ids[reference]}' twice. "
            "Look for that picture twice in the index."
        )
