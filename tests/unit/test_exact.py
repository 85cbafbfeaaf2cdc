"""Exact search and the pool of candidates, against arithmetic that leaves nothing out."""

from collections.abc import Iterator

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lookalike.job.errors import LookalikeError
from lookalike.search import approximate, exact
from lookalike.search.candidates import Candidates

Floats = NDArray[np.float32]


def whole(draw: np.random.Generator, count: int, dimension: int = 3) -> Floats:
    """Vectors of small whole numbers: their products are exact, and many are tied."""
    return draw.integers(-2, 3, (count, dimension)).astype(np.float32)


def plain(queries: Floats, references: Floats, own: NDArray[np.int64]) -> Floats:
    scores = queries @ references.T
    inside = np.flatnonzero(own >= 0)
    scores[inside, own[inside]] = -np.inf
    return scores


def plain_pool(scores: Floats, shift: Floats, size: int) -> set[tuple[int, int]]:
    """DISC21's rule, word by word: the best `size` pairs, and none of those tied with the first that is left out."""
    shifted = scores - shift[:, None]
    ranked = np.sort(shifted[np.isfinite(shifted)])[::-1]
    cut = ranked[size] if len(ranked) > size else -np.inf
    return set(zip(*(part.tolist() for part in np.nonzero(shifted > cut)), strict=True))


def in_blocks(references: Floats, size: int) -> Iterator[Floats]:
    return (references[start : start + size] for start in range(0, len(references), size))


def pairs_of(pool: Candidates) -> set[tuple[int, int]]:
    queries, rows, _, _ = pool.pairs()
    return set(zip(queries.tolist(), rows.tolist(), strict=True))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    counts=st.tuples(st.integers(1, 9), st.integers(1, 400)),
    k=st.integers(1, 12),
    size=st.integers(0, 60),
    block=st.integers(1, 400),
)
def test_neighbors_and_pools_are_those_of_plain_arithmetic_ties_included(
    seed: int, counts: tuple[int, int], k: int, size: int, block: int
) -> None:
    draw = np.random.default_rng(seed)
    queries, references = (whole(draw, count) for count in counts)
    own = draw.integers(-1, len(references), len(queries))
    shifts = np.zeros(len(queries), np.float32), draw.integers(-3, 3, len(queries)).astype(np.float32) / 4
    pools = [Candidates(size, shift) for shift in shifts]
    k = min(k, len(references))
    found = exact.search(queries, in_blocks(references, block), k, own, pools)

    scores = plain(queries, references, own)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    expected = np.take_along_axis(scores, order, 1)
    np.testing.assert_array_equal(found.scores, expected)
    np.testing.assert_array_equal(found.rows, np.where(np.isfinite(expected), order, -1))
    for pool, shift in zip(pools, shifts, strict=True):
        assert pairs_of(pool) == plain_pool(scores, shift, size)
        pair_queries, rows, ranks, pair_scores = pool.pairs()
        np.testing.assert_array_equal(pair_scores, scores[pair_queries, rows] - shift[pair_queries])
        for query in set(pair_queries.tolist()):
            mine = pair_queries == query
            assert ranks[mine].tolist() == list(range(1, mine.sum() + 1))
            assert (np.diff(pair_scores[mine]) <= 0).all()


@pytest.mark.parametrize("queries", [1, 3, 100])
@pytest.mark.parametrize("references", [65, 129, 4097])
def test_identical_references_tie_wherever_they_stand(queries: int, references: int) -> None:
    """A matrix product rounds differently at the edge of a block: a tie would be hidden, and won by rounding."""
    draw = np.random.default_rng(0)
    asked, known = (draw.normal(size=(count, 512)).astype(np.float32) for count in (queries, references))
    known[[5, references // 2, -1]] = known[0]
    pools = [Candidates(10 * queries, np.zeros(queries, np.float32))]
    found = exact.search(asked, in_blocks(known, 4096), references, np.full(queries, -1), pools)
    scores = np.empty((queries, references), np.float32)
    np.put_along_axis(scores, found.rows, found.scores, axis=1)
    assert (scores[:, [5, references // 2, -1]] == scores[:, [0]]).all()
    in_pool = pairs_of(pools[0])
    for query in range(queries):
        assert len({(query, row) in in_pool for row in (0, 5, references // 2, references - 1)}) == 1
    shuffled = draw.permutation(references)
    again = exact.search(asked, in_blocks(known[shuffled], 4096), references, np.full(queries, -1))
    np.testing.assert_array_equal(again.scores, found.scores)


@pytest.mark.parametrize("gpu_most", [2048, 300])
def test_an_index_that_is_asked_fills_the_pool_with_the_same_pairs(
    gpu_most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One query has far more than 100 good pairs, so that more must be asked for; FAISS' own flat index is exact."""
    monkeypatch.setattr(approximate, "GPU_MOST", gpu_most)
    draw = np.random.default_rng(0)
    queries, references = draw.normal(size=(90, 16)).astype(np.float32), draw.normal(size=(5000, 16)).astype(np.float32)
    queries[7] *= 30
    own = draw.integers(-1, 5000, 90)
    index = faiss.IndexFlatIP(16)
    index.add(references)
    scores = plain(queries, references, own)
    shifts = np.zeros(90, np.float32), draw.normal(size=90).astype(np.float32)
    pools = [Candidates(900, shift) for shift in shifts]
    approximate.fill(pools, [index, index], queries, own)
    for pool, shift in zip(pools, shifts, strict=True):
        expected = plain_pool(scores, shift, 900)
        assert len(pairs_of(pool)) == 900
        assert len(pairs_of(pool) ^ expected) <= 2  # sums are rounded otherwise at the cut-off
        assert sum(query == 7 for query, _ in expected) > 100
    found = approximate.search(index, queries, 11, own)
    np.testing.assert_array_equal(found.rows, exact.search(queries, in_blocks(references, 4096), 11, own).rows)


def test_a_model_that_finds_everything_equally_near_has_an_empty_pool() -> None:
    ones = np.ones((200, 4), np.float32)
    pool = Candidates(30, np.zeros(3, np.float32))
    exact.search(ones[:3], [ones], 5, np.full(3, -1), [pool])
    assert pairs_of(pool) == set()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_vector_that_is_not_finite_hides_no_other_from_the_queries(value: float) -> None:
    draw = np.random.default_rng(0)
    references, queries = whole(draw, 5000), whole(draw, 3)
    nobody = np.full(3, -1)
    references[4200, 1] = value
    with pytest.raises(LookalikeError, match=r"the vector of reference 4200 \(counted from 0\) is not a finite one"):
        exact.search(queries, in_blocks(references, 4096), 5, nobody)
    queries[2, 0] = value
    with pytest.raises(LookalikeError, match=r"the vector of query 2 \(counted from 0\) is not a finite one"):
        exact.search(queries, in_blocks(whole(draw, 50), 4096), 5, nobody)
