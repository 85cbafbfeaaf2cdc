"""How far a query's neighbors mean the same as the query, judged by captions or object categories.

Where nobody knows true matches, text stands in for them: what people wrote of a picture, or the categories of the
objects in it. A similarity of two pictures' texts is a neighbor's *gain*; a metric is a weighted sum of the first five
gains. Each stands between two baselines of the same queries: the floor, random neighbors, and the ceiling, the
neighbors that the text itself would choose. docs/metrics.md explains both in plain words.
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
from lookalike.metrics.rates import Floats, Ints, estimate, group_codes, ratio

AT = 5  # neighbors that are looked at: as many as the articles show
EQUAL = np.full(AT, 1 / AT)
# Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM Transactions on Information Systems
# 20 (2002), 422-446, with the discount log2(rank + 1), which lets no two ranks weigh the same.
DISCOUNTED = 1 / np.log2(np.arange(2, AT + 2))
BLOCK = 4_000_000  # similarities held in memory at once: 32 MB
DECIMALS = 12  # sums that differ by rounding only are equal


@dataclass(frozen=True)
class Texts:
    """The text of every picture as a vector of weighted words.

    rows: (pictures, words) sparse float64: unit vectors for captions, ones and zeros for categories
    sizes: (pictures,) float64, how many categories each picture has; None for captions
    """

    rows: Any
    sizes: Floats | None

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """(pictures,) bool: whether there is anything to compare a picture by."""
        return np.asarray(self.rows.getnnz(axis=1) > 0)

    def of_pairs(self, a: Ints, b: Ints) -> Floats:
        """(pairs,) float64 in [0, 1]: the similarity of picture a[i] to picture b[i]."""
        dots = np.asarray(self.rows[a].multiply(self.rows[b]).sum(axis=1), dtype=np.float64).ravel()
        return self._similarity(dots, a, b)

    def to_all(self, a: Ints, b: Ints) -> Floats:
        """(a, b) float64 in [0, 1]: the similarity of every picture of a to every picture of b."""
        return self._similarity((self.rows[a] @ self.rows[b].T).toarray(), a[:, None], b[None, :])

    def _similarity(self, dots: Floats, a: Ints, b: Ints) -> Floats:
        """Cosine for captions; for categories Jaccard's overlap, shared ones as a share of all that either has."""
        if self.sizes is not None:
            either = self.sizes[a] + self.sizes[b] - dots
            # two pictures without any category share nothing
            dots = np.divide(dots, either, out=np.zeros_like(dots), where=either > 0)
        return np.clip(np.round(dots, DECIMALS), 0, 1)  # rounding must not lift a cosine above 1


@dataclass(frozen=True)
class Scale:
    """One metric: the queries that it counts, and where chance and the text itself put each of them.

    counted: (q,) int64, rows of the images table, rising
    floor, ceiling: (q,) float64 in [0, 1]
    weights: (AT,) float64, what a gain at each place counts
    best: (q,) float64, what the weighted sum of gains is divided by
    """

    texts: Texts
    counted: Ints
    floor: Floats
    ceiling: Floats
    weights: Floats
    best: Floats


def scales(images: pa.Table, k: int) -> dict[str, Scale]:
    """The metrics that an images table allows, by name; none without captions and labels, or with k below AT.

    A query without a caption (or category), or with stop words only, is not counted: nothing could agree with it. As a
    neighbor such a picture has gain 0. Nothing can be said where there are no more than AT references to choose from.
    """
    queries, references = (np.flatnonzero(images[role].to_numpy()) for role in ("query", "reference"))
    if k < AT or len(references) - np.isin(queries, references).all() <= AT:  # nothing is its own neighbor
        return {}
    found: dict[str, Scale] = {}
    if (texts := _captions(images)) is not None:
        found["caption_agreement_at_5"] = _scales(texts, queries, references)[0]
    if (texts := _categories(images)) is not None:
        found["category_overlap_at_5"], found["category_ndcg_at_5"] = _scales(texts, queries, references)
    return {name: scale for name, scale in found.items() if len(scale.counted)}


def outcomes(scale: Scale, neighbors: pa.Table, images: pa.Table, *, searched: int, kept: int) -> Floats:
    """(q,) float64 in [0, 1], one for each of ``scale.counted``: how far the query's first AT neighbors agree with it.

    neighbors, images: tables of these formats, rows in any order; ``ranking.rank`` checks the neighbors
    searched: how many of the references are in the index
    kept: how many neighbors the search kept per query, more than AT

    Equal scores count against the model: of neighbors with the same score, those that agree least come first, and
    where the list was cut within a tie, neighbors of its lowest score have no gain, since others that nobody kept may
    have it too. So constant scores earn nothing. A query without neighbors, such as a rejected one, has 0.
    Raises LookalikeError where a picture is its own neighbor.
    """
    ids = images["image_id"].combine_chunks()
    query, reference = (pc.index_in(neighbors[name], value_set=ids).to_numpy() for name in ("query_id", "reference_id"))
    if (own := query == reference).any():
        raise LookalikeError(
            f"query '{ids[int(query[own][0])]}' is its own neighbor. Delete the file of neighbors and run again."
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
    """A model's average of each metric with its interval, and what it stands between, over the same queries."""
    found, baselines = {}, {}
    for name, scale in scales.items():
        values = outcomes(scale, neighbors, images, searched=searched, kept=kept)
        groups = groups_of(scale, images)
        found[name] = estimate(values, groups)
        baselines[name] = Baseline(
            floor=estimate(scale.floor, groups),
            ceiling=estimate(scale.ceiling, groups),
            reached=ratio(values - scale.floor, scale.ceiling - scale.floor, groups),
            not_counted=int(np.count_nonzero(images["query"].to_numpy())) - len(scale.counted),
        )
    return found, baselines


def groups_of(scale: Scale, images: pa.Table) -> Ints:
    """(q,) int64: ``rates.group_codes`` of the queries that a metric counts."""
    return group_codes(images["group"].take(scale.counted).to_pylist())


def _captions(images: pa.Table) -> Texts | None:
    """All captions of a picture as one text: TF-IDF, English stop words left out, to unit length. None without words.

    scikit-learn's smoothed weight, 1 + ln((1 + n) / (1 + df)): Salton and Buckley, "Term-weighting approaches in
    automatic text retrieval", Information Processing & Management 24 (1988), 513-523.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = ["\n".join(captions) for captions in _lists(images, "captions")]
    return _texts(TfidfVectorizer(stop_words="english"), texts, weighted=True)


def _categories(images: pa.Table) -> Texts | None:
    """The set of categories in each picture: how often one occurs in it does not count. None without any."""
    from sklearn.feature_extraction.text import CountVectorizer

    return _texts(CountVectorizer(analyzer=set, dtype=np.float64), _lists(images, "labels"), weighted=False)


def _texts(vectorizer: Any, texts: Sequence[Any], *, weighted: bool) -> Texts | None:
    analyze: Callable[[Any], Sequence[str]] = vectorizer.build_analyzer()
    if not any(map(analyze, texts)):
        return None
    rows = vectorizer.fit([text for text in texts if text]).transform(texts).tocsr()
    return Texts(rows, None if weighted else np.asarray(rows.sum(axis=1), dtype=np.float64).ravel())


def _lists(images: pa.Table, column: str) -> list[list[str]]:
    """What is written of each picture that is searched or searched for; of all others, such as training, nothing."""
    if column not in images.column_names:
        return []
    takes_part = pc.or_(images["reference"], images["query"]).to_pylist()
    return [
        [one for one in (written or []) if one] if counts else []
        for written, counts in zip(images[column].to_pylist(), takes_part, strict=True)
    ]


def _scales(texts: Texts, queries: Ints, references: Ints) -> tuple[Scale, Scale]:
    """The mean gain at AT, and nDCG at AT. nDCG leaves out queries that no reference agrees with: no order is better.

    Floor: the expectation over random neighbors. It is exact, not drawn: each place then has the mean gain over all
    other references. Ceiling: the references by falling gain.
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
    """Over all references but the query itself: the mean gain (q,), and the AT highest ones (q, AT), falling."""
    means: list[Floats] = [np.empty(0)]
    tops: list[Floats] = [np.empty((0, AT))]
    is_reference = np.isin(queries, references)
    for block in _blocks(len(queries), len(references)):
        asked = queries[block]
        gains = texts.to_all(asked, references)
        # the query itself is never its own neighbor
        own = np.searchsorted(references, asked[is_reference[block]])
        gains[np.flatnonzero(is_reference[block]), own] = 0
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
