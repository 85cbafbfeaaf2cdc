"""Metrics of the predictions of all queries in one list: does one score threshold fit every query?

A copy detector acts on a score, not on a rank. So all (query, reference) predictions are sorted together by score,
those of queries without a match too; what counts is how many right ones stand before the first wrong ones.
Micro average precision is DISC21's metric: Douze et al., "The 2021 Image Similarity Dataset and Challenge",
arXiv:2106.09672; score normalisation is that of Pizzi et al., "A Self-Supervised Descriptor for Image Copy
Detection", CVPR 2022, equation 8.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.config import Normalise
from lookalike.errors import LookalikeError
from lookalike.metrics.joining import Bools, Floats, Ints, join

WRONG_TO_RIGHT = 9  # precision is at least 0.9 where there are nine right ones for every wrong one, in whole numbers


@dataclass(frozen=True)
class Groups:
    """What may be drawn again independently: the queries of one group together, one without a group by itself.

    code: (images,) int64, the group of every picture that is a query, -1 for the others
    names: the groups in the order of their codes, which depends on no order of rows
    """

    code: Ints
    names: list[str]


def groups_of(images: pa.Table) -> Groups:
    """The groups of all queries, those without a match included."""
    named = pc.binary_join_element_wise("group", images["group"], " ")
    alone = pc.binary_join_element_wise("query", images["image_id"], " ")
    names = pc.if_else(images["query"], pc.coalesce(named, alone), "").to_numpy().astype(str)
    distinct, code = np.unique(names, return_inverse=True)
    outside = int(bool(len(distinct)) and distinct[0] == "")  # pictures that are no queries sort first
    return Groups(code.astype(np.int64) - outside, distinct[outside:].tolist())


def held_out(groups: Groups) -> Bools:
    """(g,) bool: about half of the groups, chosen by a hash of their names, so that no other picture changes it."""
    return np.array([hashlib.sha256(name.encode()).digest()[0] & 1 for name in groups.names], dtype=np.bool_)


@dataclass(frozen=True)
class Pool:
    """The predictions of all queries, best first; at equal scores wrong ones come first.

    score: (p,) float64, falling
    right: (p,) bool
    group: (p,) int64, the group of each prediction's query
    matches: (g,) int64, the true pairs of each group, predicted or not
    """

    score: Floats
    right: Bools
    group: Ints
    matches: Ints

    def among(self, groups: Bools) -> "Pool":
        """The pool of some groups only; ``groups`` is (g,) bool."""
        kept = groups[self.group]
        return Pool(self.score[kept], self.right[kept], self.group[kept], np.where(groups, self.matches, 0))


def pool(pairs: pa.Table, truth: pa.Table, images: pa.Table, groups: Groups, where: object = "predictions") -> Pool:
    """Put the predictions of all queries into one list.

    pairs: a table of neighbors: which pairs are in it is the policy of who wrote it. Raises LookalikeError as ``join``
    does.
    """
    joined = join(pairs, truth, images, where)
    group = groups.code[joined.query]
    score = joined.score.astype(np.float64)
    # Equal scores: wrong ones first, so that ties earn nothing. The group decides last, so that no order of rows does.
    order = np.lexsort((group, joined.right, -score))
    matches = np.bincount(groups.code[joined.true_query], minlength=len(groups.names))
    return Pool(score[order], joined.right[order], group[order], matches.astype(np.int64))


def first_of_each(neighbors: pa.Table, count: int) -> pa.Table:
    """The first ``count`` predictions of every query, of a table that holds at least one more where there are more.

    All pairs that tie with the first one that is left out stay out as well: which of them the search happened to list
    first says nothing.
    """
    rank, score = neighbors["rank"].to_numpy(), neighbors["score"].to_numpy()
    codes = pc.dictionary_encode(neighbors["query_id"]).combine_chunks().indices.to_numpy()
    bar = np.full(codes.max(initial=-1) + 1, -np.inf)
    next_one = rank == count + 1
    bar[codes[next_one]] = score[next_one]
    return neighbors.filter(pa.array((rank <= count) & (score > bar[codes])))


def normalise(
    pairs: pa.Table, training: pa.Table, settings: Normalise, where: object = "training neighbors"
) -> pa.Table:
    """Take off each query's scores what its nearest training images score.

    pairs, training: tables of neighbors; in ``training``, references are training images. A query that is like
    everything gets lower scores; the order of its own predictions stays. Raises LookalikeError for a query without
    training neighbors.
    """
    rank = training["rank"]
    near = training.filter(pc.and_(pc.greater_equal(rank, settings.first), pc.less_equal(rank, settings.last)))
    mean = near.group_by("query_id", use_threads=False).aggregate([("score", "mean")])
    row = pc.index_in(pairs["query_id"], value_set=mean["query_id"].combine_chunks())
    if row.null_count:
        query = pairs["query_id"].filter(pc.is_null(row))[0]
        raise LookalikeError(f"{where}: has no training images for query '{query}'. Delete it and run again.")
    shift = pc.multiply(settings.beta, mean["score_mean"].take(row))
    score = pc.subtract(pairs["score"].cast(pa.float64()), shift)
    return pairs.set_column(pairs.column_names.index("score"), "score", score)


def micro_average_precision(pool: Pool) -> float | None:
    """uAP: the precision at each right prediction, averaged over all true pairs; those not predicted count zero.

    No interpolation. None where there is no true pair.
    """
    total = int(pool.matches.sum())
    place = np.flatnonzero(pool.right) + 1
    return float(np.sum(np.arange(1, len(place) + 1) / place)) / total if total else None


@dataclass(frozen=True)
class Cut:
    """A pool cut at a score: all pairs that score at least ``score`` are accepted."""

    score: float
    precision: float
    recall: float


def best_cut(pool: Pool) -> Cut | None:
    """The cut of the highest recall at which precision is at least 90 %; None where there is none."""
    place = np.flatnonzero(pool.right) + 1
    right = np.arange(1, len(place) + 1)
    good = np.flatnonzero(right >= WRONG_TO_RIGHT * (place - right))
    # Within pairs of one score the right ones come last: if precision suffices at one of them, it does at the last,
    # so the best cut never parts pairs of equal score.
    return _cut(pool, place, int(good[-1])) if len(good) else None


def recall_at(cut: Cut | None, pool: Pool) -> float | None:
    """The recall of a cut: 0 where none has the precision, None where there is nothing to find."""
    return None if not pool.matches.sum() else 0.0 if cut is None else cut.recall


def curve(pool: Pool, points: int = 200) -> list[Cut]:
    """Precision and recall at about ``points`` scores, the best cut among them; highest score first.

    Only cuts that a threshold can make: pairs of equal score are accepted together.
    """
    place = np.flatnonzero(pool.right) + 1
    ends = np.flatnonzero(np.diff(pool.score[place - 1], append=-np.inf))
    chosen = {int(ends[round(step)]) for step in np.linspace(0, len(ends) - 1, min(points, len(ends)))}
    cuts = [_cut(pool, place, row) for row in sorted(chosen)]
    best = best_cut(pool)
    if best is not None and best not in cuts:
        cuts.append(best)
    return sorted(cuts, key=lambda one: -one.score)


def _cut(pool: Pool, place: Ints, row: int) -> Cut:
    """The cut behind the right prediction number ``row``, which stands at ``place[row]``."""
    return Cut(float(pool.score[place[row] - 1]), float((row + 1) / place[row]), float((row + 1) / pool.matches.sum()))
