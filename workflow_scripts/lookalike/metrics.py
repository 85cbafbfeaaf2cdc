"""How well the neighbors match the truth: pure functions that give one outcome per query.

``rank`` joins neighbors and truth by id, once; every metric is then a few array operations on the ``Ranking``.
``statistics`` turns outcomes into averages with intervals. docs/metrics.md explains each metric in plain words.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.errors import LookalikeError

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Ranking:
    """Where the true references stand among the neighbors; only queries that have a true match are in it.

    counted: (q,) int64, rows of the images table: the queries that have a match
    matches: (q,) int64, how many true references each of them has
    found: (f,) int64, for every true reference among the neighbors, its query as a position in ``counted``
    places: (f,) int64, and its place, from 1; ties count against the model
    wrong: (q,) int64, how many wrong references each of them could find: all in the index but its matches and itself
    kept: neighbors that the search kept per query, one more than any k that is asked for
    """

    counted: Ints
    matches: Ints
    found: Ints
    places: Ints
    wrong: Ints
    kept: int

    def correct_at(self, k: int) -> Bools:
        """(q,) bool: whether a true reference is among the first k neighbors."""
        correct = np.zeros(len(self.counted), dtype=np.bool_)
        correct[self.found[self._within(k)]] = True
        return correct

    def recall_at(self, k: int) -> Floats:
        """(q,) float64: the share of the query's true references that are among the first k neighbors."""
        hits = np.bincount(self.found[self._within(k)], minlength=len(self.counted))
        return np.asarray(hits / self.matches, dtype=np.float64)

    def can_be_missed_at(self, k: int) -> bool:
        """Whether, for any query, there are k wrong references to fill the first k places with.

        If not, every order of the references finds a match for every query, and a number would say nothing.
        """
        return bool(np.any(self.wrong >= k))

    def _within(self, k: int) -> Bools:
        if k >= self.kept:
            raise ValueError(f"k = {k} needs {k + 1} neighbors per query, to see ties across the boundary")
        return np.asarray(self.places <= k, dtype=np.bool_)


def at_k(ranking: Ranking, k: int) -> dict[str, Floats | None]:
    """The metrics that are an average over queries: name -> (q,) float64 outcomes, all in [0, 1].

    None where the index holds too few references for the metric to say anything.
    """
    outcomes: dict[str, Floats | None] = {}
    for cutoff in (1, 3):
        if cutoff <= k:
            known = ranking.can_be_missed_at(cutoff)
            outcomes[f"accuracy_at_{cutoff}"] = ranking.correct_at(cutoff).astype(np.float64) if known else None
    outcomes[f"recall_at_{k}"] = ranking.recall_at(k) if ranking.can_be_missed_at(k) else None
    return outcomes


def rank(
    neighbors: pa.Table,
    truth: pa.Table,
    images: pa.Table,
    *,
    searched: int,
    kept: int,
    where: object = "neighbors",
) -> Ranking:
    """Find the place of every true reference among its query's neighbors.

    neighbors, truth, images: tables of these formats, rows in any order
    searched: how many of the references are in the index
    kept: how many neighbors the search kept per query
    where: what to call the neighbors in errors, such as their path

    A query without neighbors has found nothing. Raises LookalikeError for an id that is not in the sample, for a
    (query, reference) pair that is predicted twice, and for scores that are NaN or do not fall with rank.
    """
    ids = images["image_id"]
    query = _rows(neighbors["query_id"], images, "query", where)
    reference = _rows(neighbors["reference_id"], images, "reference", where)
    true_query = _rows(truth["query_id"], images, "query", "truth")
    true_reference = _rows(truth["reference_id"], images, "reference", "truth")
    score = neighbors["score"].to_numpy()
    _check_ranks(query, neighbors["rank"].to_numpy(), score, ids, where)

    pair = query * len(ids) + reference
    _check_no_duplicates(pair, ids, where)
    is_true = np.isin(pair, true_query * len(ids) + true_reference)

    # Equal scores: wrong references rank first, so that constant scores earn nothing.
    order = np.lexsort((is_true, -score, query))
    rows = np.bincount(query, minlength=len(ids))
    ends = np.cumsum(rows)
    place = np.arange(1, len(order) + 1) - (ends - rows)[query[order]]

    # Where the list was cut, wrong references that nobody kept may have its lowest score too: a true reference at that
    # score counts as not found. One that stands alone there is in place k + 1 anyway.
    lowest = np.full(len(ids), -np.inf, dtype=score.dtype)
    lowest[rows > 0] = score[order][ends[rows > 0] - 1]
    candidates = searched - images["reference"].to_numpy().astype(np.int64)  # nothing is its own neighbor
    cut = (rows >= kept) & (candidates > rows)
    proven = ~(cut[query] & (score == lowest[query]))

    counted, matches = np.unique(true_query, return_counts=True)
    hit = (is_true & proven)[order]
    return Ranking(
        counted=counted.astype(np.int64),
        matches=matches.astype(np.int64),
        found=np.searchsorted(counted, query[order][hit]).astype(np.int64),
        places=place[hit].astype(np.int64),
        wrong=candidates[counted] - matches,
        kept=kept,
    )


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


def _check_ranks(
    query: Ints, rank: npt.NDArray[np.int32], score: npt.NDArray[np.float32], ids: pa.ChunkedArray, where: object
) -> None:
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
