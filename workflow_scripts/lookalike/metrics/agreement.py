"""Semantic agreement of neighbors with their query, judged by captions or object categories.

Where true matches are unknown, text replaces them: the captions of an image, or the categories of its objects. The
similarity of two images' texts is a neighbor's *gain*; a metric is a weighted sum of the first five gains. Two
baselines over the same queries bound each metric: chance (random neighbors) and the ceiling (the neighbors that the
text itself selects). See docs/metrics.md.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.io.formats.records import Baseline, Estimate
from lookalike.job.errors import LookalikeError
from lookalike.metrics.rates import DECIMALS, Floats, Ints, estimate, group_codes, ratio

AT = 5  # neighbors per query, as in the published comparisons
EQUAL = np.full(AT, 1 / AT)
# Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM Transactions on Information Systems
# 20 (2002), 422-446, with the discount log2(rank + 1), which is strictly monotonic from rank 1 on.
DISCOUNTED = 1 / np.log2(np.arange(2, AT + 2))
BLOCK = 4_000_000  # similarities in memory at once: 32 MB


@dataclass(frozen=True)
class Texts:
    """The text of every image as a bag of words.

    rows: (images, words) sparse float64: TF-IDF unit vectors for captions, 0 or 1 for categories
    sizes: (images,) float64, the number of categories of each image; None for captions
    """

    rows: Any
    sizes: Floats | None

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """(images,) bool: whether an image has any text."""
        return np.asarray(self.rows.getnnz(axis=1) > 0)

    def of_pairs(self, a: Ints, b: Ints) -> Floats:
        """(pairs,) float64 in [0, 1]: the similarity of images a[i] and b[i]."""
        dots = np.asarray(self.rows[a].multiply(self.rows[b]).sum(axis=1), dtype=np.float64).ravel()
        return self._similarity(dots, a, b)

    def to_all(self, a: Ints, b: Ints) -> Floats:
        """(len(a), len(b)) float64 in [0, 1]: the similarity of every image of a to every image of b."""
        return self._similarity((self.rows[a] @ self.rows[b].T).toarray(), a[:, None], b[None, :])

    def _similarity(self, dots: Floats, a: Ints, b: Ints) -> Floats:
        """Cosine similarity for captions, Jaccard index for categories."""
        if self.sizes is not None:
            union = self.sizes[a] + self.sizes[b] - dots
            dots = np.divide(dots, union, out=np.zeros_like(dots), where=union > 0)  # 0 if neither has a category
        return np.clip(np.round(dots, DECIMALS), 0, 1)  # rounding errors may exceed 1


@dataclass(frozen=True)
class Scale:
    """One metric: the queries that it counts, and its two baselines for each of them.

    counted: (q,) int64, rows of the images table, ascending
    chance, ceiling: (q,) float64 in [0, 1]
    weights: (AT,) float64, the weight of the gain at each rank
    best: (q,) float64, the normaliser of the weighted sum
    """

    texts: Texts
    counted: Ints
    chance: Floats
    ceiling: Floats
    weights: Floats
    best: Floats


def scales(images: pa.Table, k: int) -> dict[str, Scale]:
    """The metrics that an images table supports, by name; empty without captions and labels, or if k < AT.

    Queries without text (no category, or only stop words) are excluded, since nothing can agree with them; as
    neighbors, such images have gain 0. Empty if no query has more than AT references to choose from.
    """
    queries, references = (np.flatnonzero(images[role].to_numpy()) for role in ("query", "reference"))
    if k < AT or len(references) - np.isin(queries, references).all() <= AT:  # no image is its own neighbor
        return {}
    metrics: dict[str, Scale] = {}
    if (texts := _captions(images)) is not None:
        metrics["caption_agreement_at_5"] = _scales(texts, queries, references)[0]
    if (texts := _categories(images)) is not None:
        metrics["category_overlap_at_5"], metrics["category_ndcg_at_5"] = _scales(texts, queries, references)
    return {name: scale for name, scale in metrics.items() if len(scale.counted)}


def outcomes(scale: Scale, neighbors: pa.Table, images: pa.Table, *, searched: int, kept: int) -> Floats:
    """(q,) float64 in [0, 1], parallel to ``scale.counted``: the agreement of the first AT neighbors with the query.

    neighbors, images: NEIGHBORS and IMAGES tables, rows in any order; ``ranking.rank`` validates the neighbors
    searched: number of references in the index
    kept: number of neighbors that the search kept per query, more than AT

    Ties count against the model: at equal scores the neighbor with the lowest gain ranks first, and if the list was
    truncated within a tie, neighbors with its lowest score have gain 0, since other references may share that score.
    So constant scores earn nothing. A query without neighbors, such as a rejected one, scores 0.
    Raises LookalikeError if an image is its own neighbor.
    """
    ids = images["image_id"].combine_chunks()
    query, reference = (pc.index_in(neighbors[name], value_set=ids).to_numpy() for name in ("query_id", "reference_id"))
    if (is_self := query == reference).any():
        raise LookalikeError(
            f"query '{ids[int(query[is_self][0])]}' is its own neighbor. Delete its table of neighbors and run again."
        )
    counts = np.isin(query, scale.counted)
    query, reference = query[counts].astype(np.int64), reference[counts].astype(np.int64)
    score = neighbors["score"].to_numpy()[counts]
    gain = scale.texts.of_pairs(query, reference)

    order = np.lexsort((gain, -score, query))
    query, score, gain = query[order], score[order], gain[order]
    rows = np.bincount(query, minlength=len(ids))
    ends = np.cumsum(rows)
    place = np.arange(len(query)) - (ends - rows)[query]
    candidates = searched - images["reference"].to_numpy().astype(np.int64)
    cut = (rows >= kept) & (candidates > rows)
    unproven = cut[query] & (score == score[ends[query] - 1])

    first = (place < AT) & ~unproven
    sums = np.bincount(query[first], weights=gain[first] * scale.weights[place[first]], minlength=len(ids))
    return _as_share(np.asarray(sums[scale.counted], dtype=np.float64), scale.best)


def estimates(
    scales: Mapping[str, Scale], neighbors: pa.Table, images: pa.Table, *, searched: int, kept: int
) -> tuple[dict[str, Estimate], dict[str, Baseline]]:
    """Each metric's mean with its interval, and its baselines over the same queries."""
    metrics, baselines = {}, {}
    for name, scale in scales.items():
        values = outcomes(scale, neighbors, images, searched=searched, kept=kept)
        groups = groups_of(scale, images)
        metrics[name] = estimate(values, groups)
        baselines[name] = Baseline(
            floor=estimate(scale.chance, groups),
            ceiling=estimate(scale.ceiling, groups),
            reached=ratio(values - scale.chance, scale.ceiling - scale.chance, groups),
            not_counted=int(np.count_nonzero(images["query"].to_numpy())) - len(scale.counted),
        )
    return metrics, baselines


def groups_of(scale: Scale, images: pa.Table) -> Ints:
    """(q,) int64: ``rates.group_codes`` of ``scale.counted``."""
    return group_codes(images["group"].take(scale.counted).to_pylist())


def _captions(images: pa.Table) -> Texts | None:
    """TF-IDF unit vectors of each image's joined captions, without English stop words; None if no words remain.

    scikit-learn's smoothed IDF, 1 + ln((1 + n) / (1 + df)): Salton and Buckley, "Term-weighting approaches in
    automatic text retrieval", Information Processing & Management 24 (1988), 513-523.
    """
    texts = ["\n".join(captions) for captions in _lists(images, "captions")]
    if not any(texts):
        return None
    from sklearn.feature_extraction.text import TfidfVectorizer  # half a second

    return _texts(TfidfVectorizer(stop_words="english"), texts, weighted=True)


def _categories(images: pa.Table) -> Texts | None:
    """The set of categories of each image, ignoring repetition; None if it has no categories."""
    texts = _lists(images, "labels")
    if not any(texts):
        return None
    from sklearn.feature_extraction.text import CountVectorizer

    return _texts(CountVectorizer(analyzer=set, dtype=np.float64), texts, weighted=False)


def _texts(vectorizer: Any, texts: Sequence[Any], *, weighted: bool) -> Texts | None:
    analyze: Callable[[Any], Sequence[str]] = vectorizer.build_analyzer()
    if not any(map(analyze, texts)):
        return None
    rows = vectorizer.fit([text for text in texts if text]).transform(texts).tocsr()
    return Texts(rows, None if weighted else np.asarray(rows.sum(axis=1), dtype=np.float64).ravel())


def _lists(images: pa.Table, column: str) -> list[list[str]]:
    """The texts of every reference and query; empty lists for all other images, such as training images."""
    if column not in images.column_names:
        return []
    has_role = pc.or_(images["reference"], images["query"]).to_pylist()
    return [
        [text for text in (texts or []) if text] if relevant else []
        for texts, relevant in zip(images[column].to_pylist(), has_role, strict=True)
    ]


def _scales(texts: Texts, queries: Ints, references: Ints) -> tuple[Scale, Scale]:
    """Mean gain at AT, and nDCG at AT, which excludes queries that no reference agrees with.

    Chance is the exact expectation over random neighbors: every rank has the mean gain over all other references. The
    ceiling sorts references by decreasing gain.
    """
    queries = queries[texts.known[queries]]
    mean, top = _all_gains(texts, queries, references)
    ideal = top @ DISCOUNTED
    useful = ideal > 0
    return (
        Scale(texts, queries, mean, _as_share(top @ EQUAL, np.ones(len(queries))), EQUAL, np.ones(len(queries))),
        Scale(
            texts,
            queries[useful],
            _as_share(mean[useful] * DISCOUNTED.sum(), ideal[useful]),
            np.ones(int(useful.sum())),
            DISCOUNTED,
            ideal[useful],
        ),
    )


def _all_gains(texts: Texts, queries: Ints, references: Ints) -> tuple[Floats, Floats]:
    """Mean gain (q,) and the AT highest gains (q, AT), descending, over all references except the query itself."""
    means: list[Floats] = [np.empty(0)]
    tops: list[Floats] = [np.empty((0, AT))]
    is_reference = np.isin(queries, references)
    for block in _blocks(len(queries), len(references)):
        rows = queries[block]
        gains = texts.to_all(rows, references)
        columns = np.searchsorted(references, rows[is_reference[block]])  # of the query itself
        gains[np.flatnonzero(is_reference[block]), columns] = 0
        means.append(gains.sum(axis=1) / (len(references) - is_reference[block]))
        gains.partition(len(references) - AT, axis=1)
        tops.append(-np.sort(-gains[:, -AT:], axis=1))
    return np.concatenate(means).round(DECIMALS), np.concatenate(tops)


def _blocks(rows: int, width: int) -> Iterator[slice]:
    size = max(1, BLOCK // width)
    for start in range(0, rows, size):
        yield slice(start, start + size)


def _as_share(sums: Floats, best: Floats) -> Floats:
    return np.clip(np.round(sums / best, DECIMALS), 0, 1)
