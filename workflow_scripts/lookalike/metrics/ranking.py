"""Metrics that are an average over queries: where the true references stand among each query's neighbors.

``rank`` joins neighbors and truth by id, once; every metric is then a few array operations on the ``Ranking``.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lookalike.metrics.joining import Bools, Floats, Ints, join


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

    def reciprocal_rank_at(self, k: int) -> Floats:
        """(q,) float64: one over the place of the first true reference; 0 if it is not among the first k neighbors."""
        inside = self._within(k)
        best = np.zeros(len(self.counted))
        np.maximum.at(best, self.found[inside], 1 / self.places[inside])
        return best

    def average_precision_at(self, k: int) -> Floats:
        """(q,) float64: the precision at each true reference, averaged over all of the query's true references.

        Those that are not among the first k neighbors count zero.
        """
        inside = self._within(k)
        order = np.lexsort((self.places[inside], self.found[inside]))
        query, place = self.found[inside][order], self.places[inside][order]
        rows = np.bincount(query, minlength=len(self.counted))
        hits = np.arange(1, len(query) + 1) - (np.cumsum(rows) - rows)[query]
        total = np.bincount(query, weights=hits / place, minlength=len(self.counted))
        return np.asarray(total / self.matches, dtype=np.float64)

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
    known = ranking.can_be_missed_at(k)
    outcomes[f"recall_at_{k}"] = ranking.recall_at(k) if known else None
    outcomes["mrr"] = ranking.reciprocal_rank_at(k) if known else None
    if np.any(ranking.matches > 1):  # with one true match a query, it is the reciprocal rank
        outcomes["map"] = ranking.average_precision_at(k) if known else None
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

    A query without neighbors has found nothing. Raises LookalikeError as ``join`` does.
    """
    ids = images["image_id"]
    joined = join(neighbors, truth, images, where)
    query, score, is_true = joined.query, joined.score, joined.right

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

    counted, matches = np.unique(joined.true_query, return_counts=True)
    hit = (is_true & proven)[order]
    return Ranking(
        counted=counted.astype(np.int64),
        matches=matches.astype(np.int64),
        found=np.searchsorted(counted, query[order][hit]).astype(np.int64),
        places=place[hit].astype(np.int64),
        wrong=candidates[counted] - matches,
        kept=kept,
    )
