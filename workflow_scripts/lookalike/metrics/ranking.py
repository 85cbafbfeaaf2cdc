"""Metrics averaged over queries, from the ranks of the true references among each query's neighbors.

``rank`` joins neighbors and truth once; every metric is then a few array operations on the ``Ranking``.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lookalike.metrics.joining import Bools, Floats, Ints, join


@dataclass(frozen=True)
class Ranking:
    """The ranks of the true references among the neighbors, for the queries with a match.

    counted: (q,) int64, rows of the images table: the queries with a match
    matches: (q,) int64, the number of true references of each
    query: (f,) int64, for each true reference among the neighbors, its query as a position in ``counted``
    places: (f,) int64, its rank, from 1; ties count against the model
    wrong: (q,) int64, the number of wrong references in the index: all except the matches and the query itself
    kept: number of neighbors that the search kept per query, greater than any k
    """

    counted: Ints
    matches: Ints
    query: Ints
    places: Ints
    wrong: Ints
    kept: int

    def correct_at(self, k: int) -> Bools:
        """(q,) bool: whether a true reference is among the first k neighbors."""
        correct = np.zeros(len(self.counted), dtype=np.bool_)
        correct[self.query[self._within(k)]] = True
        return correct

    def recall_at(self, k: int) -> Floats:
        """(q,) float64: the share of the query's true references that are among the first k neighbors."""
        hits = np.bincount(self.query[self._within(k)], minlength=len(self.counted))
        return np.asarray(hits / self.matches, dtype=np.float64)

    def reciprocal_rank_at(self, k: int) -> Floats:
        """(q,) float64: 1 / rank of the first true reference; 0 if it is not among the first k neighbors."""
        inside = self._within(k)
        best = np.zeros(len(self.counted))
        np.maximum.at(best, self.query[inside], 1 / self.places[inside])
        return best

    def average_precision_at(self, k: int) -> Floats:
        """(q,) float64: the precision at each true reference, averaged over all of the query's true references.

        True references that are not among the first k neighbors count 0.
        """
        inside = self._within(k)
        order = np.lexsort((self.places[inside], self.query[inside]))
        query, place = self.query[inside][order], self.places[inside][order]
        rows = np.bincount(query, minlength=len(self.counted))
        hits = np.arange(1, len(query) + 1) - (np.cumsum(rows) - rows)[query]
        total = np.bincount(query, weights=hits / place, minlength=len(self.counted))
        return np.asarray(total / self.matches, dtype=np.float64)

    def can_be_missed_at(self, k: int) -> bool:
        """Whether any query has k wrong references, enough to fill the first k ranks.

        Otherwise every ranking contains a match for every query, so the metric would be meaningless.
        """
        return bool(np.any(self.wrong >= k))

    def _within(self, k: int) -> Bools:
        if k >= self.kept:
            raise ValueError(f"k = {k} needs {k + 1} neighbors per query, to see ties across the boundary")
        return np.asarray(self.places <= k, dtype=np.bool_)


def at_k(ranking: Ranking, k: int) -> dict[str, Floats | None]:
    """The metrics averaged over queries: name -> (q,) float64 outcomes in [0, 1].

    None if the index has too few references for the metric to be meaningful.
    """
    outcomes: dict[str, Floats | None] = {}
    for cutoff in (1, 3):
        if cutoff <= k:
            meaningful = ranking.can_be_missed_at(cutoff)
            outcomes[f"accuracy_at_{cutoff}"] = ranking.correct_at(cutoff).astype(np.float64) if meaningful else None
    meaningful = ranking.can_be_missed_at(k)
    outcomes[f"recall_at_{k}"] = ranking.recall_at(k) if meaningful else None
    outcomes["mrr"] = ranking.reciprocal_rank_at(k) if meaningful else None
    if np.any(ranking.matches > 1):  # with one match per query it equals the reciprocal rank
        outcomes["map"] = ranking.average_precision_at(k) if meaningful else None
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
    """Rank the true references among each query's neighbors.

    neighbors, truth, images: NEIGHBORS, TRUTH and IMAGES tables, rows in any order
    searched: number of references in the index
    kept: number of neighbors that the search kept per query
    where: what to call the neighbors in errors, such as their path

    A query without neighbors is a miss. Raises LookalikeError as ``join`` does.
    """
    ids = images["image_id"]
    joined = join(neighbors, truth, images, where)
    query, score, is_true = joined.query, joined.score, joined.right

    # Equal scores: wrong references rank first, so that constant scores earn nothing.
    order = np.lexsort((is_true, -score, query))
    rows = np.bincount(query, minlength=len(ids))
    ends = np.cumsum(rows)
    place = np.arange(1, len(order) + 1) - (ends - rows)[query[order]]

    # If the list was truncated, wrong references beyond it may share its lowest score, so a true reference with that
    # score counts as not found. Without a tie it has rank k + 1 anyway.
    lowest = np.full(len(ids), -np.inf, dtype=score.dtype)
    lowest[rows > 0] = score[order][ends[rows > 0] - 1]
    candidates = searched - images["reference"].to_numpy().astype(np.int64)  # no image is its own neighbor
    truncated = (rows >= kept) & (candidates > rows)
    proven = ~(truncated[query] & (score == lowest[query]))

    counted = np.flatnonzero(joined.matches)
    matches = joined.matches[counted]
    hit = (is_true & proven)[order]
    return Ranking(
        counted=counted,
        matches=matches,
        query=np.searchsorted(counted, query[order][hit]).astype(np.int64),
        places=place[hit].astype(np.int64),
        wrong=candidates[counted] - matches,
        kept=kept,
    )
