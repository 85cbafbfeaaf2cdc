"""Metrics of the pooled predictions of all queries: does one score threshold fit every query?

A copy detector acts on scores, not ranks. So the predictions (query, reference) of all queries, including those without
a match, are sorted by score into one list, in which right predictions should precede wrong ones.

Micro average precision is DISC21's metric: Douze et al., "The 2021 Image Similarity Dataset and Challenge",
arXiv:2106.09672. Score normalisation follows Pizzi et al., "A Self-Supervised Descriptor for Image Copy Detection",
CVPR 2022, equation 8.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.config.indexes import Normalise
from lookalike.job.errors import LookalikeError
from lookalike.metrics.joining import Bools, Floats, Ints, join

WRONG_TO_RIGHT = 9  # precision >= 0.9 in integers: nine right predictions per wrong one


@dataclass(frozen=True)
class Groups:
    """The independent units of the bootstrap: groups of queries; a query without a group is its own group.

    code: (images,) int64, the group of each query, -1 for other images
    names: group names in the order of the codes, independent of the row order
    """

    code: Ints
    names: list[str]


def groups_of(images: pa.Table) -> Groups:
    """The groups of all queries, with or without a match."""
    group = pc.binary_join_element_wise("group", images["group"], " ")
    single = pc.binary_join_element_wise("query", images["image_id"], " ")
    names = pc.if_else(images["query"], pc.coalesce(group, single), "").to_numpy().astype(str)
    distinct, code = np.unique(names, return_inverse=True)
    others = int(bool(len(distinct)) and distinct[0] == "")  # images that are not queries sort first
    return Groups(code.astype(np.int64) - others, distinct[others:].tolist())


def held_out(groups: Groups) -> Bools:
    """(g,) bool: about half of the groups, chosen by a hash of the name and so independent of other images."""
    return np.array([hashlib.sha256(name.encode()).digest()[0] & 1 for name in groups.names], dtype=np.bool_)


@dataclass(frozen=True)
class Predictions:
    """The predictions of all queries, best first; at equal scores wrong predictions rank first.

    score: (p,) float64, descending
    right: (p,) bool
    group: (p,) int64, the group of each prediction's query
    matches: (g,) int64, the number of true pairs of each group, predicted or not
    """

    score: Floats
    right: Bools
    group: Ints
    matches: Ints

    def among(self, groups: Bools) -> "Predictions":
        """The predictions of some groups; ``groups`` is (g,) bool."""
        kept = groups[self.group]
        return Predictions(self.score[kept], self.right[kept], self.group[kept], np.where(groups, self.matches, 0))


def predictions_of(
    pairs: pa.Table, truth: pa.Table, images: pa.Table, groups: Groups, where: object = "predictions"
) -> Predictions:
    """Pool the predictions of all queries into one list.

    pairs: a NEIGHBORS table; its writer decides which pairs it contains

    Raises LookalikeError as ``join`` does.
    """
    joined = join(pairs, truth, images, where)
    group = groups.code[joined.query]
    score = joined.score.astype(np.float64)
    # Equal scores: wrong predictions rank first, so ties earn nothing. Sorting by group makes the row order irrelevant.
    order = np.lexsort((group, joined.right, -score))
    matched = np.flatnonzero(joined.matches)
    matches = np.bincount(groups.code[matched], joined.matches[matched], minlength=len(groups.names))
    return Predictions(score[order], joined.right[order], group[order], matches.astype(np.int64))


def first_of_each(neighbors: pa.Table, count: int) -> pa.Table:
    """The first ``count`` predictions of every query; the table has to contain one more per query, if there are more.

    Pairs that tie with the first excluded pair are excluded too, since their order is arbitrary.
    """
    rank, score = neighbors["rank"].to_numpy(), neighbors["score"].to_numpy()
    codes = pc.dictionary_encode(neighbors["query_id"]).combine_chunks().indices.to_numpy()
    cutoff = np.full(codes.max(initial=-1) + 1, -np.inf)
    excluded = rank == count + 1
    cutoff[codes[excluded]] = score[excluded]
    return neighbors.filter(pa.array((rank <= count) & (score > cutoff[codes])))


def normalise(
    pairs: pa.Table, training: pa.Table, settings: Normalise, where: object = "training neighbors"
) -> pa.Table:
    """Subtract from each query's scores its mean similarity to its nearest training images.

    pairs, training: NEIGHBORS tables; the references of ``training`` are training images

    Queries that resemble everything get lower scores; the ranking within a query does not change. Raises
    LookalikeError for a query without training neighbors.
    """
    rank = training["rank"]
    near = training.filter(pc.and_(pc.greater_equal(rank, settings.first), pc.less_equal(rank, settings.last)))
    mean = near.group_by("query_id", use_threads=False).aggregate([("score", "mean")])
    row = pc.index_in(pairs["query_id"], value_set=mean["query_id"].combine_chunks())
    if row.null_count:
        query = pairs["query_id"].filter(pc.is_null(row))[0]
        raise LookalikeError(f"{where}: has no training neighbors for query '{query}'. Delete it and run again.")
    shift = pc.multiply(settings.beta, mean["score_mean"].take(row))
    score = pc.subtract(pairs["score"].cast(pa.float64()), shift)
    return pairs.set_column(pairs.column_names.index("score"), "score", score)


def micro_average_precision(predictions: Predictions) -> float | None:
    """uAP: the precision at each right prediction, averaged over all true pairs; pairs not predicted count 0.

    Without interpolation. None if there are no true pairs.
    """
    total = int(predictions.matches.sum())
    place = np.flatnonzero(predictions.right) + 1
    return float(np.sum(np.arange(1, len(place) + 1) / place)) / total if total else None


@dataclass(frozen=True)
class Cut:
    """A threshold: pairs with at least ``score`` are accepted."""

    score: float
    precision: float
    recall: float


def best_cut(predictions: Predictions, percent: int = 90) -> Cut | None:
    """The threshold of highest recall with a precision of at least ``percent``; None if no threshold reaches it."""
    place = np.flatnonzero(predictions.right) + 1
    right = np.arange(1, len(place) + 1)
    good = np.flatnonzero(right * (100 - percent) >= percent * (place - right))  # precision in integers
    # At equal scores right predictions come last, and precision rises along them: if it suffices at one of them, it
    # does at the last, so the best cut never separates pairs of equal score.
    return _cut(predictions, place, int(good[-1])) if len(good) else None


def recall_at(cut: Cut | None, predictions: Predictions) -> float | None:
    """The recall of a cut: 0 without a cut, None without true pairs."""
    return None if not predictions.matches.sum() else 0.0 if cut is None else cut.recall


def curve(predictions: Predictions, points: int = 200) -> list[Cut]:
    """Precision and recall at about ``points`` thresholds, including the best cut; highest score first.

    Pairs of equal score are accepted together, as by any threshold.
    """
    place = np.flatnonzero(predictions.right) + 1
    ends = np.flatnonzero(np.diff(predictions.score[place - 1], append=-np.inf))
    chosen = {int(ends[round(step)]) for step in np.linspace(0, len(ends) - 1, min(points, len(ends)))}
    cuts = [_cut(predictions, place, row) for row in sorted(chosen)]
    best = best_cut(predictions)
    if best is not None and best not in cuts:
        cuts.append(best)
    return sorted(cuts, key=lambda cut: -cut.score)


def _cut(predictions: Predictions, place: Ints, row: int) -> Cut:
    """The cut after right prediction number ``row``, at position ``place[row]`` of the list."""
    return Cut(
        float(predictions.score[place[row] - 1]),
        float((row + 1) / place[row]),
        float((row + 1) / predictions.matches.sum()),
    )
