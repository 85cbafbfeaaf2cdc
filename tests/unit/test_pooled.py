"""The pooled metrics: uAP, recall at a precision of 90 %, score normalisation, thresholds."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lookalike.config.indexes import Normalise
from lookalike.io.formats.tables import NEIGHBORS, TRUTH
from lookalike.job.errors import LookalikeError
from lookalike.metrics import jackknife
from lookalike.metrics.evaluation import pooled_of
from lookalike.metrics.intervals import wilson
from lookalike.metrics.jackknife import Pooled, influences, pooled_difference, pooled_estimate
from lookalike.metrics.pooled import (
    Cut,
    Predictions,
    best_cut,
    curve,
    first_of_each,
    groups_of,
    held_out,
    micro_average_precision,
    normalise,
    predictions_of,
    recall_at,
)
from lookalike.metrics.ranking import rank as ranking_of
from tables import candidates_table, images_table, neighbors_table, truth_table

Found = Mapping[str, Sequence[tuple[str, float]]]
REFERENCES = ["barn", "bridge", "cat", "dune", "elk"]
# docs/metrics.md, "An example by hand": q3 has a tie, q4's match is fourth, and q5 has no match.
FOUND: dict[str, list[tuple[str, float]]] = {
    "q1": [("barn", 0.9), ("cat", 0.8), ("elk", 0.5), ("dune", 0.1)],
    "q2": [("dune", 0.7), ("bridge", 0.6), ("cat", 0.4), ("elk", 0.3)],
    "q3": [("cat", 0.8), ("dune", 0.8), ("elk", 0.2), ("barn", 0.1)],
    "q4": [("barn", 0.9), ("cat", 0.6), ("bridge", 0.5), ("dune", 0.4)],
    "q5": [("elk", 0.9), ("dune", 0.8), ("cat", 0.7), ("barn", 0.6)],
}
TRUE = [("q1", "barn"), ("q2", "bridge"), ("q3", "cat"), ("q4", "dune")]


def pooled(
    found: Found, truth: Sequence[tuple[str, str]], queries: Sequence[str] = (), **images: object
) -> Predictions:
    sample = images_table(REFERENCES, list(queries) or list(found), **images)  # type: ignore[arg-type]
    return predictions_of(neighbors_table(found), truth_table(truth), sample, groups_of(sample))


def uap(found: Found, truth: Sequence[tuple[str, str]], queries: Sequence[str] = ()) -> float | None:
    return micro_average_precision(pooled(found, truth, queries))


def predictions(right: Sequence[int], scores: Sequence[float] | None = None, matches: int | None = None) -> Predictions:
    """Predictions, best first, each in its own group."""
    flags = np.array(right, dtype=bool)
    score = np.array(scores if scores is not None else np.linspace(1, 0, len(right)), dtype=float)
    total = flags.astype(np.int64)
    total[-1:] += (matches or flags.sum()) - flags.sum()
    return Predictions(score, flags, np.arange(len(flags)), total)


# --- micro average precision ---


def test_the_example_of_the_documentation() -> None:
    # Pooled, wrong ones first at equal scores: 0.9 elk (q5), barn (q4), *barn* (q1): 1 of 3; 0.8 cat (q1), dune (q3),
    # dune (q5), *cat* (q3): 2 of 7; 0.7 two wrong; 0.6 cat (q4), barn (q5), *bridge* (q2): 3 of 12; 0.5 two wrong;
    # 0.4 cat (q2), *dune* (q4): 4 of 16.
    assert uap(FOUND, TRUE) == pytest.approx((1 / 3 + 2 / 7 + 3 / 12 + 4 / 16) / 4)
    assert best_cut(pooled(FOUND, TRUE)) is None
    # without q5, which has no match: *barn* 1 of 2, *cat* 2 of 5, *bridge* 3 of 8, *dune* 4 of 12
    four = {query: pairs for query, pairs in FOUND.items() if query != "q5"}
    assert uap(four, TRUE) == pytest.approx((1 / 2 + 2 / 5 + 3 / 8 + 4 / 12) / 4)


def test_a_tie_between_queries_counts_against_the_model() -> None:
    assert uap({"a": [("barn", 0.5)], "b": [("cat", 0.5)]}, [("a", "barn")]) == 1 / 2
    assert uap({"a": [("barn", 0.6)], "b": [("cat", 0.5)]}, [("a", "barn")]) == 1


def test_pairs_that_were_not_retrieved_count_zero() -> None:
    assert uap({"a": [("barn", 0.9)]}, [("a", "barn"), ("a", "cat"), ("b", "elk")], ["a", "b"]) == 1 / 3


def test_a_distractor_that_scores_high_costs_precision() -> None:
    found = {"a": [("barn", 0.8)], "distractor": [("elk", 0.9)]}
    assert uap(found, [("a", "barn")]) == 1 / 2
    assert uap({**found, "distractor": [("elk", 0.7)]}, [("a", "barn")]) == 1


def test_a_duplicate_pair_is_an_error() -> None:
    with pytest.raises(LookalikeError, match="query 'a' has reference 'barn' twice"):
        uap({"a": [("barn", 0.9), ("barn", 0.8)]}, [("a", "barn")])


def test_a_list_may_be_shorter_than_the_rule_allows() -> None:
    assert len(candidates_table(FOUND, queries=5)) == 20
    assert uap({}, [("a", "barn")], ["a"]) == 0


def test_without_true_pairs_metrics_have_no_value() -> None:
    empty = pooled(FOUND, [])
    assert micro_average_precision(empty) is None
    assert recall_at(best_cut(empty), empty) is None
    assert curve(empty) == []


def test_constant_scores_earn_nothing() -> None:
    """All pairs tie with an excluded pair, so all are excluded, under both rules."""
    references = [f"r{number}" for number in range(12)]
    found = {f"q{number}": [(reference, 0.25) for reference in references] for number in range(4)}
    truth = truth_table([(query, references[int(query[1:])]) for query in found])
    images = images_table(references, list(found))
    for pairs in (candidates_table(found, queries=4), first_of_each(neighbors_table(found), 10)):
        assert micro_average_precision(predictions_of(pairs, truth, images, groups_of(images))) == 0


def test_ten_per_query_exclude_ties_with_the_eleventh() -> None:
    found = {
        "a": [(f"r{number}", 0.9 - number / 100) for number in range(11)],
        "b": [(f"r{number}", 0.9 if number < 8 else 0.5) for number in range(11)],
        "c": [("r1", 0.9)],
    }
    kept = first_of_each(neighbors_table(found), 10)["query_id"].to_pylist()
    assert {query: kept.count(query) for query in found} == {"a": 10, "b": 8, "c": 1}


# --- recall at a precision of 90 %, and its threshold ---


def test_recall_is_the_highest_at_ninety_percent_precision() -> None:
    # nine right, one wrong: precision 0.9; the tenth right one makes 10 of 11
    cut = best_cut(predictions([1] * 9 + [0, 1, 0, 0, 1], matches=20))
    assert cut is not None
    assert (cut.recall, cut.precision) == (10 / 20, pytest.approx(10 / 11))
    assert best_cut(predictions([1] * 9 + [0] * 2, matches=20)).recall == 9 / 20  # type: ignore[union-attr]
    late = best_cut(predictions([0, *[1] * 9, 0, 0], matches=10))  # below 90 % at first, exactly 90 % at the ninth
    assert late is not None
    assert (late.precision, late.recall) == (0.9, 0.9)


def test_an_unreachable_precision_has_no_threshold() -> None:
    never = predictions([0, 1, 1, 1])
    assert best_cut(never) is None
    assert recall_at(None, never) == 0


def test_a_threshold_accepts_all_pairs_of_its_score() -> None:
    found = {"a": [("barn", 0.5)], "b": [("cat", 0.5), ("elk", 0.25)], "c": [("dune", 0.5)]}
    together = pooled(found, [("a", "barn"), ("b", "cat"), ("c", "dune"), ("b", "elk")])
    assert best_cut(together) == Cut(0.25, 1.0, 1.0)
    nine = {f"q{number}": [("barn", 0.5)] for number in range(10)}
    cut = best_cut(pooled(nine, [(query, "barn") for query in list(nine)[:9]]))
    assert cut == Cut(0.5, 0.9, 1.0)
    assert best_cut(pooled(nine, [(query, "barn") for query in list(nine)[:8]])) is None


def test_the_curve_has_few_points_and_includes_the_threshold() -> None:
    draw = np.random.default_rng(0)
    big = predictions(draw.random(5000) < np.linspace(1.0, 0.2, 5000))
    points = curve(big)
    assert best_cut(big) in points
    assert len(points) <= 201
    assert [cut.score for cut in points] == sorted((cut.score for cut in points), reverse=True)
    for cut in points[::20]:
        accepted = big.right[big.score >= cut.score]
        assert (cut.precision, cut.recall) == pytest.approx((accepted.mean(), accepted.sum() / big.right.sum()))


def test_the_held_out_half_keeps_groups_together_and_is_reproducible() -> None:
    queries = [f"q{number}" for number in range(200)]
    named = {query: f"g{number // 4}" for number, query in enumerate(queries)}
    groups = groups_of(images_table(REFERENCES, queries, groups=named))
    assert len(groups.names) == 50
    half = held_out(groups)
    assert 10 < half.sum() < 40
    fewer = groups_of(images_table(REFERENCES, queries[:100][::-1], groups=named))
    again = dict(zip(groups.names, half, strict=True))
    assert [again[name] for name in fewer.names] == held_out(fewer).tolist()


def test_a_query_and_a_group_of_the_same_name_are_two_groups() -> None:
    groups = groups_of(images_table(REFERENCES, ["a", "b"], groups={"b": "a"}))
    assert len(groups.names) == 2


# --- score normalisation ---


def test_normalisation_subtracts_the_mean_of_the_three_nearest_training_images() -> None:
    # docs/metrics.md, "Score normalisation": q resembles everything; its wrong 0.8 must not precede p's right 0.7
    found = {"q": [("elk", 0.8)], "p": [("barn", 0.7)]}
    training = neighbors_table(
        {"q": [("t1", 0.75), ("t2", 0.7), ("t3", 0.65)], "p": [("t1", 0.3), ("t2", 0.2), ("t3", 0.1)]}
    )
    scores = normalise(neighbors_table(found), training, Normalise())["score"].to_pylist()
    assert scores == pytest.approx([0.1, 0.5], abs=1e-6)
    assert uap(found, [("p", "barn")]) == 1 / 2
    sample = images_table(REFERENCES, ["p", "q"])
    after = predictions_of(
        normalise(neighbors_table(found), training, Normalise()),
        truth_table([("p", "barn")]),
        sample,
        groups_of(sample),
    )
    assert micro_average_precision(after) == 1
    other = normalise(neighbors_table(found), training, Normalise(beta=0.5, first=2, last=3))
    assert other["score"].to_pylist() == pytest.approx([0.8 - 0.675 / 2, 0.7 - 0.15 / 2])


def test_a_query_without_training_neighbors_is_refused() -> None:
    with pytest.raises(LookalikeError, match="has no training neighbors for query 'q2'"):
        normalise(neighbors_table(FOUND), neighbors_table({"q1": [("t", 0.5)]}), Normalise())


# --- compared with naive implementations ---


@st.composite
def lists(draw: st.DrawFn) -> tuple[dict[str, dict[str, float]], list[tuple[str, str]]]:
    """Query -> reference -> score, with many ties; and true pairs, some of which are not predicted."""
    queries = [f"q{number}" for number in range(draw(st.integers(1, 5)))]
    scores = {
        query: draw(st.dictionaries(st.sampled_from(REFERENCES), st.integers(0, 4).map(float), max_size=5))
        for query in queries
    }
    pairs = [(query, reference) for query in queries for reference in REFERENCES]
    return scores, draw(st.lists(st.sampled_from(pairs), unique=True, min_size=1, max_size=6))


def sorted_pairs(scores: Mapping[str, Mapping[str, float]]) -> dict[str, list[tuple[str, float]]]:
    return {query: sorted(pairs.items(), key=lambda pair: -pair[1]) for query, pairs in scores.items()}


def naive(scores: Mapping[str, Mapping[str, float]], truth: list[tuple[str, str]]) -> tuple[float, float]:
    """uAP and recall at 90 % precision, prediction by prediction."""
    predictions = [
        (score, (query, reference) in truth) for query, row in scores.items() for reference, score in row.items()
    ]
    predictions.sort(key=lambda row: (-row[0], row[1]))
    right, area, recall = 0, 0.0, 0.0
    for place, (_, is_right) in enumerate(predictions, start=1):
        right += is_right
        area += right / place if is_right else 0
        if 10 * right >= 9 * place:
            recall = right / len(truth)
    return area / len(truth), recall


@given(lists())
def test_agrees_with_walking_down_the_list(case) -> None:
    scores, truth = case
    found = pooled(sorted_pairs(scores), truth, list(scores))
    assert (micro_average_precision(found), recall_at(best_cut(found), found)) == pytest.approx(naive(*case))


def test_agrees_with_scikit_learn_where_nothing_ties() -> None:
    from sklearn.metrics import average_precision_score

    draw = np.random.default_rng(1)
    right = draw.random(500) < 0.2
    scores = draw.permutation(500) / 500
    order = np.argsort(-scores)
    ours = micro_average_precision(predictions(right[order].astype(int).tolist()))
    assert ours == pytest.approx(average_precision_score(right, scores))


@given(lists(), st.randoms(use_true_random=False), st.sampled_from([0.125, 8.0]), st.sampled_from([-1.0, 0.5]))
def test_row_order_and_score_scale_do_not_matter(case, random, scale: float, shift: float) -> None:
    scores, truth = case

    def numbers(tables: Sequence[pa.Table]) -> object:
        neighbors, matches, images = tables
        pool = predictions_of(neighbors, matches, images, groups_of(images))
        influence = influences(pool.right, pool.group, pool.matches) if pool.matches.any() else ()
        cut = best_cut(pool)
        return (
            micro_average_precision(pool),
            cut and (cut.precision, cut.recall),
            [np.asarray(values).tolist() for values in influence],
            held_out(groups_of(images)).tolist(),
        )

    def tables(factor: float, offset: float) -> list[pa.Table]:
        scaled = {
            query: [(reference, score * factor + offset) for reference, score in pairs]
            for query, pairs in sorted_pairs(scores).items()
        }
        return [neighbors_table(scaled), truth_table(truth), images_table(REFERENCES, list(scores))]

    before = numbers(tables(1, 0))
    shuffled = [
        table.take(pa.array(random.sample(range(table.num_rows), table.num_rows), pa.int64())) for table in tables(1, 0)
    ]
    assert numbers(shuffled) == before
    assert numbers(tables(scale, shift)) == before


def test_fifty_thousand_queries_are_scored_in_seconds() -> None:
    draw = np.random.default_rng(2)
    queries, references, k = 50_000, 150_000, 10
    rank = np.tile(np.arange(1, k + 1, dtype=np.int32), queries)
    score = np.sort(draw.random((queries, k), dtype=np.float32), axis=1)[:, ::-1].reshape(-1)
    reference = (np.arange(queries)[:, None] + np.arange(k) * 7).reshape(-1)
    names = pa.array([f"Q{number:05d}" for number in range(queries)])
    known = pa.array([f"R{number:06d}" for number in range(references)])
    neighbors = pa.table(
        {
            "query_id": names.take(pa.array(np.repeat(np.arange(queries), k))),
            "rank": rank,
            "reference_id": known.take(pa.array(reference)),
            "score": score,
        },
        schema=NEIGHBORS.schema(),
    )
    truth = pa.table({"query_id": names[:10_000], "reference_id": known[:10_000]}, schema=TRUTH.schema())
    images = images_table(known.to_pylist(), names.to_pylist())
    started = time.process_time()
    ranking = ranking_of(neighbors, truth, images, searched=references, kept=k)
    pool = predictions_of(neighbors, truth, images, groups_of(images))
    assert ranking.correct_at(1).all()
    assert micro_average_precision(pool) is not None
    assert len(curve(pool)) > 100
    # about 2 s of CPU; a Python loop over predictions would take far longer
    influences(pool.right, pool.group, pool.matches)
    assert time.process_time() - started < 20


# --- intervals and tests ---


def without(pool: Predictions, groups: Sequence[int]) -> Predictions:
    kept = np.ones(len(pool.matches), dtype=np.bool_)
    kept[list(groups)] = False
    return pool.among(kept)


def random_pool(groups: int, seed: int = 3) -> Predictions:
    draw = np.random.default_rng(seed)
    right, group = draw.random(5 * groups) < 0.6, draw.integers(0, groups, 5 * groups)
    score = np.sort(draw.random(5 * groups))[::-1]
    return Predictions(score, right, group, np.bincount(group[right], minlength=groups) + 1)


def test_the_influence_of_a_group_is_the_change_without_it() -> None:
    pool = random_pool(12)
    average, recall, _ = influences(pool.right, pool.group, pool.matches)
    for influence, metric in (
        (average, micro_average_precision),
        (recall, lambda part: recall_at(best_cut(part), part)),
    ):
        left_out = np.array([metric(without(pool, [group])) for group in range(12)])
        assert influence == pytest.approx((left_out.mean() - left_out)[None] * 11 / 12)


def test_the_influence_from_one_pass_agrees_with_leaving_groups_out(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = random_pool(300)
    in_one_pass, *_ = influences(pool.right, pool.group, pool.matches)
    monkeypatch.setattr(jackknife, "EXACT_GROUPS", 300)
    exact, *_ = influences(pool.right, pool.group, pool.matches)
    assert np.corrcoef(in_one_pass, exact)[0, 1] > 0.999
    assert np.std(in_one_pass) == pytest.approx(np.std(exact), rel=0.02)


def test_blocks_of_many_groups_are_left_out_for_recall() -> None:
    pool = random_pool(40)
    _, recall, _ = influences(pool.right, pool.group, pool.matches)
    assert recall.shape == (jackknife.PARTITIONS, jackknife.BLOCKS)
    blocks, _ = jackknife.partitions(40)[2]
    parts = [without(pool, np.flatnonzero(blocks == block).tolist()) for block in range(jackknife.BLOCKS)]
    left_out = np.array([recall_at(best_cut(part), part) for part in parts])
    assert recall[2] == pytest.approx((left_out.mean() - left_out) * 14 / 15)


def test_intervals_cover_the_true_value_about_95_percent_of_the_time() -> None:
    """The interval of a sample of 200 queries contains the value of 200,000 in about 19 of 20 samples."""
    draw = np.random.default_rng(4)

    def sample(size: int) -> tuple[np.ndarray, np.ndarray]:
        found = draw.random(size) < 0.6
        score = np.where(found, draw.normal(0.6, 0.15, size), draw.normal(0.4, 0.15, size))
        order = np.argsort(-score)
        return found[order], order

    right, group = sample(200_000)
    truth = micro_average_precision(Predictions(np.zeros(0), right, group, np.ones(200_000, int)))
    assert truth is not None
    inside = 0
    for _ in range(120):
        right, group = sample(200)
        pool = Predictions(np.zeros(0), right, group, np.ones(200, int))
        influence, *_ = influences(right, group, pool.matches)
        interval = pooled_estimate(Pooled(micro_average_precision(pool), influence), pool.matches, 200)
        assert interval.low is not None
        assert interval.high is not None
        inside += interval.low <= truth <= interval.high
    assert inside >= 105


def test_recall_at_a_precision_may_be_0_where_no_threshold_is_shown_to_be_precise() -> None:
    """20 right pairs and nothing else: the precision could still be 86 %. 60 show that it is at least 90 %."""
    for size, shown in ((20, False), (60, True)):
        pool = Predictions(np.linspace(1, 0.5, size), np.ones(size, bool), np.arange(size), np.ones(size, int))
        average, recall = pooled_of(pool)
        assert (average.value, recall.value) == (1, 1)
        assert recall.positive == shown
        found = pooled_estimate(recall, pool.matches, size)
        assert (found.low, found.high) == (wilson(size, size)[0] if shown else 0, 1)
        assert pooled_estimate(average, pool.matches, size).low == pytest.approx(wilson(size, size)[0])


def test_the_interval_of_uap_allows_for_its_optimism_in_small_samples() -> None:
    """Wrong pairs of other queries push right ones down: with 20 of 2,000 queries most of them are missing."""
    draw = np.random.default_rng(3)
    queries = 4000
    score = np.concatenate([draw.normal(1.5, 1, queries), draw.normal(0, 1, 5 * queries)])
    query = np.concatenate([np.arange(queries), np.repeat(np.arange(queries), 5)])

    def pool(chosen: NDArray[np.int64]) -> Predictions:
        code = np.full(queries, -1)
        code[chosen] = np.arange(len(chosen))
        rows = np.flatnonzero(code[query] >= 0)
        rows = rows[np.argsort(-score[rows])]
        return Predictions(score[rows], rows < queries, code[query[rows]], np.ones(len(chosen), int))

    truth = micro_average_precision(pool(np.arange(queries)))
    found = [pooled_of(pool(draw.permutation(queries)[:20]))[0] for _ in range(60)]
    assert truth is not None
    bias = np.mean([one.value or 0 for one in found]) - truth
    assert bias > 0.01
    assert np.mean([one.optimism or 0 for one in found]) == pytest.approx(bias, rel=0.75)
    matches = np.ones(20, int)
    for one in found:
        narrow = pooled_estimate(replace(one, optimism=None), matches, 20)
        wide = pooled_estimate(one, matches, 20)
        assert (wide.value, wide.high) == (narrow.value, narrow.high)
        assert wide.low is not None
        assert narrow.low is not None
        assert wide.low < narrow.low


def test_equal_models_rarely_differ_significantly() -> None:
    draw = np.random.default_rng(5)
    rejected = 0
    for _ in range(120):
        lists, values = [], []
        for _ in range(2):
            found = draw.random(60) < 0.6
            order = np.argsort(-np.where(found, draw.normal(0.6, 0.15, 60), draw.normal(0.4, 0.15, 60)))
            lists.append((found[order], order))
            values.append(micro_average_precision(Predictions(np.zeros(0), found[order], order, np.ones(60, int))))
        a, b = (
            Pooled(value, influences(*pairs, np.ones(60, int))[0]) for value, pairs in zip(values, lists, strict=True)
        )
        rejected += pooled_difference(a, b, np.ones(60, int), 60)[1] < 0.05
    assert rejected <= 14  # expected: six


def test_a_better_model_is_significantly_better_but_not_than_itself() -> None:
    matches = np.ones(40, int)
    good, bad = np.repeat([True, False], [36, 4]), np.repeat([True, False], [10, 30])
    a, b = (Pooled(value, influences(right, np.arange(40), matches)[0]) for value, right in ((0.9, good), (0.25, bad)))
    gap, p, _ = pooled_difference(a, b, matches, 40)
    assert (gap.value, gap.n) == (pytest.approx(0.65), 40)
    assert gap.low is not None
    assert gap.low > 0.4
    assert p < 1e-5
    turned, same, _ = pooled_difference(b, a, matches, 40)
    assert (turned.value, turned.low, turned.high) == pytest.approx((-gap.value, -gap.high, -gap.low))  # type: ignore[operator]
    assert same == p
    alike, none, _ = pooled_difference(a, a, matches, 40)
    assert (alike.value, none) == (0, 1)
    assert alike.low == pytest.approx(-alike.high)  # type: ignore[operator]
    assert alike.low < 0


def test_few_groups_give_wide_intervals_and_large_p_values() -> None:
    matches = np.array([5, 5, 5, 5])
    right, wrong = np.ones(20, bool), np.zeros(20, bool)
    a, b = (Pooled(value, influences(of, np.arange(20) % 4, matches)[0]) for value, of in ((1, right), (0, wrong)))
    gap, p, _ = pooled_difference(a, b, matches, 20)
    assert p == 2 / 2**4
    assert (gap.low, gap.high) == (pytest.approx(2 * wilson(4, 4)[0] - 1), 1)
    perfect = pooled_estimate(a, matches, 20)
    assert (perfect.low, perfect.high) == wilson(4, 4)


def test_groups_without_a_match_are_no_observations() -> None:
    matches = np.array([1, *[0] * 30])
    influence, *_ = influences(np.array([True]), np.array([0]), matches)
    estimate = pooled_estimate(Pooled(1.0, influence), matches, 31)
    assert (estimate.low, estimate.high) == wilson(1, 1)
