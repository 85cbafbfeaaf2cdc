"""Exact search and the candidates, compared with brute force."""

from collections.abc import Iterator

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lookalike.io import faiss_index
from lookalike.job.errors import LookalikeError
from lookalike.search import approximate, exact
from lookalike.search.candidates import Candidates

Floats = NDArray[np.float32]


def integer_vectors(rng: np.random.Generator, count: int, dimension: int = 3) -> Floats:
    """Vectors of small integers: their products are exact, and there are many ties."""
    return rng.integers(-2, 3, (count, dimension)).astype(np.float32)


def plain_scores(queries: Floats, references: Floats, own: NDArray[np.int64]) -> Floats:
    scores = queries @ references.T
    inside = np.flatnonzero(own >= 0)
    scores[inside, own[inside]] = -np.inf
    return scores


def expected_candidates(scores: Floats, shift: Floats, size: int) -> set[tuple[int, int]]:
    """DISC21's rule, literally: the best `size` pairs without any that tie with the best excluded pair."""
    shifted = scores - shift[:, None]
    ranked = np.sort(shifted[np.isfinite(shifted)])[::-1]
    cut = ranked[size] if len(ranked) > size else -np.inf
    return set(zip(*(part.tolist() for part in np.nonzero(shifted > cut)), strict=True))


def in_blocks(references: Floats, size: int) -> Iterator[Floats]:
    return (references[start : start + size] for start in range(0, len(references), size))


def pairs_of(candidates: Candidates) -> set[tuple[int, int]]:
    queries, rows, _, _ = candidates.pairs()
    return set(zip(queries.tolist(), rows.tolist(), strict=True))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    counts=st.tuples(st.integers(1, 9), st.integers(1, 400)),
    k=st.integers(1, 12),
    size=st.integers(0, 60),
    block=st.integers(1, 400),
)
def test_neighbors_and_candidates_equal_brute_force_including_ties(
    seed: int, counts: tuple[int, int], k: int, size: int, block: int
) -> None:
    rng = np.random.default_rng(seed)
    queries, references = (integer_vectors(rng, count) for count in counts)
    own = rng.integers(-1, len(references), len(queries))
    shifts = np.zeros(len(queries), np.float32), rng.integers(-3, 3, len(queries)).astype(np.float32) / 4
    all_candidates = [Candidates(size, shift) for shift in shifts]
    k = min(k, len(references))
    result = exact.search(queries, in_blocks(references, block), k, own, all_candidates)

    scores = plain_scores(queries, references, own)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    expected = np.take_along_axis(scores, order, 1)
    np.testing.assert_array_equal(result.scores, expected)
    np.testing.assert_array_equal(result.rows, np.where(np.isfinite(expected), order, -1))
    for candidates, shift in zip(all_candidates, shifts, strict=True):
        assert pairs_of(candidates) == expected_candidates(scores, shift, size)
        pair_queries, rows, ranks, pair_scores = candidates.pairs()
        np.testing.assert_array_equal(pair_scores, scores[pair_queries, rows] - shift[pair_queries])
        for query in set(pair_queries.tolist()):
            own_pairs = pair_queries == query
            assert ranks[own_pairs].tolist() == list(range(1, own_pairs.sum() + 1))
            assert (np.diff(pair_scores[own_pairs]) <= 0).all()


@pytest.mark.parametrize("query_count", [1, 3, 100])
@pytest.mark.parametrize("reference_count", [65, 129, 4097])
def test_identical_references_tie_at_any_position(query_count: int, reference_count: int) -> None:
    """A matrix product rounds differently at the edge of a block, which would decide the tie by position."""
    rng = np.random.default_rng(0)
    queries, references = (rng.normal(size=(count, 512)).astype(np.float32) for count in (query_count, reference_count))
    references[[5, reference_count // 2, -1]] = references[0]
    all_candidates = [Candidates(10 * query_count, np.zeros(query_count, np.float32))]
    not_own = np.full(query_count, -1)
    result = exact.search(queries, in_blocks(references, 4096), reference_count, not_own, all_candidates)
    scores = np.empty((query_count, reference_count), np.float32)
    np.put_along_axis(scores, result.rows, result.scores, axis=1)
    assert (scores[:, [5, reference_count // 2, -1]] == scores[:, [0]]).all()
    kept = pairs_of(all_candidates[0])
    for query in range(query_count):
        assert len({(query, row) in kept for row in (0, 5, reference_count // 2, reference_count - 1)}) == 1
    shuffled = rng.permutation(reference_count)
    again = exact.search(queries, in_blocks(references[shuffled], 4096), reference_count, not_own, threads=3)
    np.testing.assert_array_equal(again.scores, result.scores)


@pytest.mark.parametrize("gpu_most", [2048, 300])
def test_approximate_fill_of_an_exact_index_finds_the_same_candidates(
    gpu_most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One query has far more than 100 good pairs, so that several passes are needed; FAISS' flat index is exact."""
    monkeypatch.setattr(faiss_index, "GPU_MOST", gpu_most)
    rng = np.random.default_rng(0)
    queries, references = rng.normal(size=(90, 16)).astype(np.float32), rng.normal(size=(5000, 16)).astype(np.float32)
    queries[7] *= 30
    own = rng.integers(-1, 5000, 90)
    index = faiss.IndexFlatIP(16)
    index.add(references)
    scores = plain_scores(queries, references, own)
    shifts = np.zeros(90, np.float32), rng.normal(size=90).astype(np.float32)
    all_candidates = [Candidates(900, shift) for shift in shifts]
    approximate.fill(all_candidates, [index, index], queries, own)
    for candidates, shift in zip(all_candidates, shifts, strict=True):
        expected = expected_candidates(scores, shift, 900)
        assert len(pairs_of(candidates)) == 900
        assert len(pairs_of(candidates) ^ expected) <= 2  # sums may round differently at the cut-off
        assert sum(query == 7 for query, _ in expected) > 100
    result = approximate.search([index], queries, 11, own)
    np.testing.assert_array_equal(result.rows, exact.search(queries, in_blocks(references, 4096), 11, own).rows)


class FailingIndex:
    """A copy on a GPU that runs out of memory with many neighbors, as FAISS reports it."""

    def __init__(self, index: faiss.Index, most: int) -> None:
        self.index, self.most = index, most

    def search(self, queries: Floats, k: int) -> tuple[Floats, NDArray[np.int64]]:
        if k > self.most:
            raise RuntimeError("Error: 'err == cudaSuccess' failed: out of memory")
        found: tuple[Floats, NDArray[np.int64]] = self.index.search(queries, k)
        return found


@pytest.mark.parametrize(("most", "works"), [(0, False), (100, True)])
def test_a_gpu_that_fails_during_the_search_is_replaced_by_the_cpu_with_one_warning(
    most: int, works: bool, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    queries, references = rng.normal(size=(90, 16)).astype(np.float32), rng.normal(size=(5000, 16)).astype(np.float32)
    queries[7] *= 30
    own = rng.integers(-1, 5000, 90)
    index = faiss.IndexFlatIP(16)
    index.add(references)
    results = []
    for indexes in ([index], [FailingIndex(index, most), index]):
        candidates = Candidates(900, np.zeros(90, np.float32))
        with caplog.at_level("WARNING", "lookalike"):
            neighbors = approximate.search(indexes, queries, 11, own)
            assert len(indexes) == (2 if works and indexes[0] is not index else 1)
            approximate.fill([candidates], indexes, queries, own)
        results.append((neighbors.rows.tolist(), pairs_of(candidates)))
        assert indexes == [index]
    assert results[0] == results[1]
    assert [record.message for record in caplog.records] == [
        "searching on a GPU failed (out of memory); searching on the CPU"
    ]


def test_a_model_with_constant_scores_has_no_candidates() -> None:
    ones = np.ones((200, 4), np.float32)
    candidates = Candidates(30, np.zeros(3, np.float32))
    exact.search(ones[:3], [ones], 5, np.full(3, -1), [candidates])
    assert pairs_of(candidates) == set()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_is_an_error_that_names_its_row(value: float) -> None:
    rng = np.random.default_rng(0)
    references, queries = integer_vectors(rng, 5000), integer_vectors(rng, 3)
    not_own = np.full(3, -1)
    references[4200, 1] = value
    with pytest.raises(LookalikeError, match=r"the vector of reference 4200 \(counted from 0\) is not finite"):
        exact.search(queries, in_blocks(references, 4096), 5, not_own)
    queries[2, 0] = value
    with pytest.raises(LookalikeError, match=r"the vector of query 2 \(counted from 0\) is not finite"):
        exact.search(queries, in_blocks(integer_vectors(rng, 50), 4096), 5, not_own)
