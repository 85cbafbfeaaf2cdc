"""Predictions and truth joined by id, with errors for inconsistent tables."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.io import relevance
from lookalike.job.errors import LookalikeError

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Joined:
    """Predicted (query, reference) pairs, marked right or wrong; queries are rows of the images table.

    query, reference: (p,) int64
    score: (p,) float32 or float64, higher is more similar
    right: (p,) bool
    matches: (images,) int64, the number of true pairs of each image as a query, predicted or not
    true_query, true_reference: (t,) int64, the true pairs, predicted or not; none in a labelled collection
    """

    query: Ints
    reference: Ints
    score: Floats
    right: Bools
    matches: Ints
    true_query: Ints
    true_reference: Ints


def join(pairs: pa.Table, truth: pa.Table, images: pa.Table, where: object) -> Joined:
    """Join predictions and truth by id.

    pairs, truth, images: NEIGHBORS, TRUTH and IMAGES tables, rows in any order
    where: what to call ``pairs`` in errors, such as their path

    Raises LookalikeError for ids outside the sample, duplicate pairs, NaN scores, scores that increase with rank, and
    ranks with gaps.
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
    right = np.isin(pair, true_query * len(ids) + true_reference)
    if relevance.is_labelled(images):
        right = relevance.is_right(query, reference, relevance.classes(images))
    return Joined(query, reference, score, right, relevance.matches(truth, images), true_query, true_reference)


def _rows(ids: pa.ChunkedArray, images: pa.Table, role: str, where: object) -> Ints:
    """The rows of ``images`` with these ids, all in one role."""
    known = pc.if_else(images[role], images["image_id"], None).combine_chunks()
    rows = pc.index_in(ids, value_set=known, skip_nulls=True)
    if rows.null_count:
        unknown = ids.filter(pc.is_null(rows))[0]
        raise LookalikeError(
            f"{where}: '{unknown}' is not a {role} of the sample, so this file belongs to another sample. "
            "Delete it and run again."
        )
    return np.asarray(rows.to_numpy(), dtype=np.int64)


def _check_ranks(query: Ints, rank: npt.NDArray[np.int32], score: Floats, ids: pa.ChunkedArray, where: object) -> None:
    unknown = np.isnan(score)
    if unknown.any():
        raise LookalikeError(
            f"{where}: {unknown.sum()} scores are NaN, the first for query '{ids[query[unknown][0]]}'. "
            "Check that query's embedding for NaN."
        )
    order = np.lexsort((rank, query))
    same = query[order][1:] == query[order][:-1]
    rising = same & (score[order][1:] > score[order][:-1])
    if rising.any():
        raise LookalikeError(
            f"{where}: scores of query '{ids[query[order][1:][rising][0]]}' increase with rank. "
            "Rank 1 must have the highest score. Delete the file and run again."
        )
    # Ranks of a query must be 1, 2, 3, ...: start at 1 and increase by 1.
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
            f"{where}: query '{ids[query]}' has reference '{ids[reference]}' twice. Check the index for duplicate ids."
        )
