from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.job.errors import LookalikeError
from lookalike.metrics.ranking import Ranking, at_k, rank
from tables import images_table, neighbors_table, truth_table

Found = Mapping[str, Sequence[tuple[str, float]]]
REFERENCES = ["barn", "bridge", "cat", "dune", "elk"]


def ranking_of(
    found: Found, truth: Sequence[tuple[str, str]], references: Sequence[str], queries: Sequence[str], k: int
) -> Ranking:
    return rank(
        neighbors_table(found),
        truth_table(truth),
        images_table(references, queries),
        searched=len(references),
        kept=k + 1,
    )


def ranking(found: Sequence[tuple[str, float]], true: Sequence[str], k: int, references: Sequence[str] = REFERENCES):
    return ranking_of({"q": found}, [("q", name) for name in true], references, ["q"], k)


def mean(outcomes) -> float:
    return float(np.mean(outcomes))


def test_the_example_of_the_documentation() -> None:
    # docs/metrics.md, "An example by hand": five references, k = 3, so four neighbors are kept.
    found = {
        "q1": [("barn", 0.9), ("cat", 0.8), ("elk", 0.5), ("dune", 0.1)],  # barn is first
        "q2": [("dune", 0.7), ("bridge", 0.6), ("cat", 0.4), ("elk", 0.3)],  # bridge is second
        "q3": [("cat", 0.8), ("dune", 0.8), ("elk", 0.2), ("barn", 0.1)],  # cat ties with dune: second
        "q4": [("barn", 0.9), ("cat", 0.6), ("bridge", 0.5), ("dune", 0.4)],  # dune is fourth
        "q5": [("elk", 0.9), ("dune", 0.8), ("cat", 0.7), ("barn", 0.6)],  # has no match: not counted
    }
    truth = [("q1", "barn"), ("q2", "bridge"), ("q3", "cat"), ("q4", "dune")]
    outcomes = at_k(ranking_of(found, truth, REFERENCES, ["q1", "q2", "q3", "q4", "q5"], k=3), 3)
    assert outcomes["accuracy_at_1"].tolist() == [1, 0, 0, 0]
    assert outcomes["accuracy_at_3"].tolist() == [1, 1, 1, 0]
    assert {name: mean(values) for name, values in outcomes.items()} == {
        "accuracy_at_1": 1 / 4,
        "accuracy_at_3": 3 / 4,
        "recall_at_3": 3 / 4,
        "mrr": (1 + 1 / 2 + 1 / 2) / 4,
    }


def test_recall_is_the_share_of_a_querys_true_references() -> None:
    # docs/metrics.md, "Recall at k": barn and cat of {barn, cat, elk} are among the first three.
    result = ranking([("barn", 0.9), ("dune", 0.8), ("cat", 0.7), ("elk", 0.6)], ["barn", "cat", "elk"], k=3)
    assert result.recall_at(3).tolist() == [2 / 3]
    assert result.correct_at(1).tolist() == [True]


def test_the_reciprocal_rank_is_of_the_first_true_match() -> None:
    # docs/metrics.md, "MRR and mAP": barn is second, cat third; ranks beyond k do not count.
    found = [("dune", 0.9), ("barn", 0.8), ("cat", 0.7), ("elk", 0.6)]
    assert ranking(found, ["barn", "cat"], k=3).reciprocal_rank_at(3).tolist() == [1 / 2]
    assert ranking(found, ["elk"], k=3).reciprocal_rank_at(3).tolist() == [0]
    assert ranking([("dune", 0.9), ("barn", 0.9), ("cat", 0.7)], ["dune"], k=2).reciprocal_rank_at(2).tolist() == [
        1 / 2
    ]


def test_the_average_precision_counts_every_true_match() -> None:
    # docs/metrics.md, "MRR and mAP": barn first (1 of 1), cat third (2 of 3), elk not among the first three (0).
    found = [("barn", 0.9), ("dune", 0.8), ("cat", 0.7), ("elk", 0.6)]
    result = ranking(found, ["barn", "cat", "elk"], k=3)
    assert result.average_precision_at(3).tolist() == [pytest.approx((1 + 2 / 3 + 0) / 3)]
    assert at_k(result, 3)["map"] is None  # two wrong references cannot fill three ranks: every ranking has a match
    assert "map" not in at_k(ranking(found, ["barn"], k=3), 3)


def test_queries_without_a_match_are_not_counted() -> None:
    found = {"a": [("barn", 0.9), ("cat", 0.1)], "b": [("elk", 0.9), ("cat", 0.1)]}
    ranking = ranking_of(found, [("b", "elk")], REFERENCES, ["a", "b"], k=1)
    assert ranking.correct_at(1).tolist() == [True]


def test_a_query_without_neighbors_is_a_miss() -> None:
    ranking = ranking_of({"b": [("elk", 0.9)]}, [("a", "barn"), ("b", "elk")], REFERENCES, ["a", "b"], k=1)
    assert ranking.correct_at(1).tolist() == [False, True]
    assert ranking.recall_at(1).tolist() == [0, 1]


def test_without_any_neighbors_all_queries_are_misses() -> None:
    ranking = ranking_of({}, [("a", "barn")], REFERENCES, ["a"], k=1)
    assert ranking.recall_at(1).tolist() == [0]


def test_without_any_match_no_metric_has_a_value() -> None:
    ranking = ranking_of({"a": [("barn", 0.5)]}, [], REFERENCES, ["a"], k=1)
    assert at_k(ranking, 1) == {"accuracy_at_1": None, "recall_at_1": None, "mrr": None}


def test_a_tie_counts_against_the_model() -> None:
    assert not ranking([("barn", 0.9), ("cat", 0.9)], ["barn"], k=1).correct_at(1).any()
    assert ranking([("barn", 0.9), ("cat", 0.9), ("elk", 0.8), ("dune", 0.1)], ["barn"], k=3).places.tolist() == [2]


def test_a_tie_between_wrong_references_costs_nothing() -> None:
    assert ranking([("barn", 0.9), ("cat", 0.5), ("elk", 0.5)], ["barn"], k=2).correct_at(1).all()


def test_a_tie_across_the_boundary_is_a_miss() -> None:
    # cat, the match, and elk tie for rank 2 of 2; only the third row reveals the tie.
    assert not ranking([("barn", 0.9), ("cat", 0.5), ("elk", 0.5)], ["cat"], k=2).correct_at(2).any()


def test_a_tie_that_may_extend_beyond_the_kept_neighbors_is_a_miss() -> None:
    # All three kept neighbors are matches and tie: dune and elk, not kept, may share the score and rank first.
    tied = [("barn", 0.5), ("bridge", 0.5), ("cat", 0.5)]
    assert ranking(tied, ["barn", "bridge", "cat"], k=2).recall_at(2).tolist() == [0]
    # With only three references there are no others.
    complete = ranking(tied, ["barn", "bridge", "cat"], k=2, references=["barn", "bridge", "cat"])
    assert complete.recall_at(2).tolist() == [2 / 3]


@pytest.mark.parametrize("k", [1, 2, 3, 10])
@pytest.mark.parametrize("references", [1, 2, 3, 4, 5, 10, 11, 12, 13, 40])
def test_constant_scores_earn_nothing(k: int, references: int) -> None:
    names = [f"r{number}" for number in range(references)]
    kept = names[: k + 1]  # all tie: a search returns any k + 1, here including the match
    queries = [f"q{number}" for number in range(references)]
    found = {
        query: [(other, 0.25) for other in dict.fromkeys([true, *kept])][: k + 1]
        for query, true in zip(queries, names, strict=True)
    }
    ranking = ranking_of(found, list(zip(queries, names, strict=True)), names, queries, k)
    for outcomes in at_k(ranking, k).values():
        assert outcomes is None or not outcomes.any()


def test_if_every_ranking_finds_the_match_the_metric_has_no_value() -> None:
    # Three references, k = 10: the match is always among the first three.
    names = ["barn", "cat", "elk"]
    outcomes = at_k(ranking([("barn", 0.9), ("cat", 0.5), ("elk", 0.1)], ["barn"], k=10, references=names), 10)
    assert outcomes["accuracy_at_1"].tolist() == [1]
    assert outcomes["accuracy_at_3"] is None
    assert outcomes["recall_at_10"] is None
    assert outcomes["mrr"] is None


def test_an_image_in_both_roles_is_not_its_own_neighbor() -> None:
    # b can only find a and c: both are kept, so no tie was truncated.
    table = neighbors_table({"b": [("a", 0.9), ("c", 0.5)]})
    images = images_table(["a", "b", "c"], ["b"])
    ranking = rank(table, truth_table([("b", "a"), ("b", "c")]), images, searched=3, kept=2)
    assert ranking.recall_at(1).tolist() == [0.5]
    assert ranking.wrong.tolist() == [0]


def test_k_must_be_smaller_than_the_number_of_kept_neighbors() -> None:
    with pytest.raises(ValueError, match="k = 2 needs 3 neighbors"):
        ranking([("barn", 0.9), ("cat", 0.5)], ["barn"], k=1).correct_at(2)


@pytest.mark.parametrize(
    ("found", "truth", "message"),
    [
        ({"x": [("barn", 0.5)]}, [("q", "barn")], "neighbors.parquet: 'x' is not a query of the sample"),
        ({"barn": [("cat", 0.5)]}, [("q", "barn")], "neighbors.parquet: 'barn' is not a query of the sample"),
        ({"q": [("ant", 0.5)]}, [("q", "barn")], "neighbors.parquet: 'ant' is not a reference of the sample"),
        ({"q": [("q", 0.5)]}, [("q", "barn")], "neighbors.parquet: 'q' is not a reference of the sample"),
        ({}, [("x", "barn")], "truth: 'x' is not a query of the sample"),
        ({}, [("q", "ant")], "truth: 'ant' is not a reference of the sample"),
        (
            {"q": [("barn", 0.5), ("barn", 0.4)]},
            [("q", "barn")],
            "neighbors.parquet: query 'q' has reference 'barn' twice",
        ),
        ({"q": [("barn", 0.4), ("cat", 0.5)]}, [("q", "barn")], "scores of query 'q' increase with rank"),
        ({"q": [("barn", float("nan"))]}, [("q", "barn")], "1 scores are NaN, the first for query 'q'"),
    ],
)
def test_inconsistent_files_are_refused_by_name(found: Found, truth: list[tuple[str, str]], message: str) -> None:
    images = images_table(REFERENCES, ["q"])
    with pytest.raises(LookalikeError, match=message):
        rank(
            neighbors_table(found),
            truth_table(truth),
            images,
            searched=len(REFERENCES),
            kept=4,
            where="neighbors.parquet",
        )


@pytest.mark.parametrize("ranks", [[1, 3], [2, 3], [1, 1], [0, 1]])
def test_ranks_with_gaps_are_refused(ranks: list[int]) -> None:
    table = neighbors_table({"p": [("barn", 0.9)], "q": [("barn", 0.5), ("cat", 0.4)]})
    table = table.set_column(1, "rank", pa.array([1, *ranks], pa.int32()))
    with pytest.raises(LookalikeError, match="ranks of query 'q' are not 1, 2, 3"):
        rank(table, truth_table([]), images_table(REFERENCES, ["p", "q"]), searched=5, kept=4)


# --- compared with a naive implementation on random searches ---


@st.composite
def searches(draw: st.DrawFn):
    """Full score matrices with many ties: (scores (queries, references), truth pairs, k)."""
    queries, references = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    scores = draw(
        st.lists(
            st.lists(st.integers(0, 4), min_size=references, max_size=references), min_size=queries, max_size=queries
        )
    )
    every_pair = [(query, reference) for query in range(queries) for reference in range(references)]
    truth = draw(st.lists(st.sampled_from(every_pair), unique=True, max_size=8))
    return np.array(scores, dtype=np.float32), truth, draw(st.integers(1, 5))


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def search_of(scores, k: int, luck: int = 0) -> Found:
    """The k + 1 nearest references of each query; ``luck`` is the seed that orders equal scores."""
    tie = np.random.default_rng(luck).permutation(scores.shape[1])
    return {
        f"q{query}": [(f"r{reference}", float(row[reference])) for reference in np.lexsort((tie, -row))[: k + 1]]
        for query, row in enumerate(scores)
    }


def naive_places(scores, truth) -> dict[int, list[int]]:
    """Query -> ranks of its matches in the full ranking, after all wrong references with the same score."""
    places: dict[int, list[int]] = {}
    for query in sorted({query for query, _ in truth}):
        true = {reference for other, reference in truth if other == query}
        ordered = sorted(range(scores.shape[1]), key=lambda reference: (-scores[query, reference], reference in true))
        places[query] = [place for place, reference in enumerate(ordered, start=1) if reference in true]
    return places


@given(searches(), st.integers(0, 3))
def test_agrees_with_a_full_ranking(search, luck: int) -> None:
    scores, truth, k = search
    pairs = [(f"q{query}", f"r{reference}") for query, reference in truth]
    queries, references = names("q", scores.shape[0]), names("r", scores.shape[1])
    ranking = ranking_of(search_of(scores, k, luck), pairs, references, queries, k)
    places = naive_places(scores, truth)
    correct = [any(place <= k for place in ranks) for ranks in places.values()]
    recall = [np.mean([place <= k for place in ranks]) for ranks in places.values()]
    reciprocal = [max((1 / place for place in ranks if place <= k), default=0) for ranks in places.values()]
    precision = [
        sum((hit + 1) / place for hit, place in enumerate(ranks) if place <= k) / len(ranks)
        for ranks in places.values()
    ]
    true = np.array([len(ranks) for ranks in places.values()], dtype=int)
    # With one match, k + 1 neighbors determine the metrics. With several, a tie at the lowest kept score cannot be
    # resolved and does not count, so recall is at most that of the full ranking.
    exact = (true == 1) | (ranking.wrong + true <= k + 1)
    assert ranking.correct_at(k)[exact].tolist() == np.array(correct, bool)[exact].tolist()
    assert ranking.recall_at(k)[exact].tolist() == np.array(recall, float)[exact].tolist()
    assert ranking.reciprocal_rank_at(k)[exact].tolist() == np.array(reciprocal, float)[exact].tolist()
    assert ranking.average_precision_at(k)[exact] == pytest.approx(np.array(precision, float)[exact])
    assert np.all(ranking.recall_at(k) <= recall)
    if len(np.unique(scores)) == scores.size:
        assert ranking.recall_at(k).tolist() == recall


@given(searches(), st.randoms(use_true_random=False), st.sampled_from([0.125, 8.0]), st.sampled_from([-1.0, 0.5]))
def test_row_order_and_score_scale_do_not_matter(search, random, scale: float, shift: float) -> None:
    scores, truth, k = search
    pairs = [(f"q{query}", f"r{reference}") for query, reference in truth]
    queries, references = names("q", scores.shape[0]), names("r", scores.shape[1])

    def shuffled(table: pa.Table) -> pa.Table:
        return table.take(pa.array(random.sample(range(table.num_rows), table.num_rows), pa.int64()))

    def outcomes(neighbors: pa.Table, truth_: pa.Table, images: pa.Table) -> dict[str, tuple[bool, float]]:
        ranking = rank(neighbors, truth_, images, searched=len(references), kept=k + 1)
        ids = images["image_id"].take(ranking.counted).to_pylist()
        return {
            query: (bool(correct), float(recall))
            for query, correct, recall in zip(ids, ranking.correct_at(k), ranking.recall_at(k), strict=True)
        }

    neighbors, truth_, images = (
        neighbors_table(search_of(scores, k)),
        truth_table(pairs),
        images_table(references, queries),
    )
    before = outcomes(neighbors, truth_, images)
    assert outcomes(shuffled(neighbors), shuffled(truth_), shuffled(images)) == before
    scaled = neighbors_table(search_of(scores * np.float32(scale) + np.float32(shift), k))
    assert outcomes(scaled, truth_, images) == before


@given(searches())
def test_recall_never_decreases_with_k(search) -> None:
    scores, truth, k = search
    pairs = [(f"q{query}", f"r{reference}") for query, reference in truth]
    ranking = ranking_of(search_of(scores, k), pairs, names("r", scores.shape[1]), names("q", scores.shape[0]), k)
    recalls = [ranking.recall_at(cutoff) for cutoff in range(1, k + 1)]
    assert all(np.all(fewer <= more) for fewer, more in pairwise(recalls))
