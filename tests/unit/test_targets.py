"""Thresholds for a target precision: what is safe, what transfers, and how many queries a verdict needs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from lookalike.metrics.pooled import Predictions
from lookalike.metrics.targets import _cuts, fewest, safe_threshold, target


def predictions(right: list[int] | np.ndarray, groups: list[int] | np.ndarray | None = None) -> Predictions:
    """A list with falling scores; each prediction is of a group of its own unless ``groups`` says otherwise."""
    flags = np.array(right, dtype=np.bool_)
    group = np.arange(len(flags)) if groups is None else np.array(groups, dtype=np.int64)
    matches = np.bincount(group[flags], minlength=int(group.max()) + 1)
    return Predictions(np.linspace(0.9, 0.1, len(flags)), flags, group, matches)


def test_the_example_of_the_documentation() -> None:
    # docs/thresholds.md: 100 queries with one pair each; of the pairs, 40 are right, one wrong, 18 right, 41 wrong.
    pool = predictions([1] * 40 + [0] + [1] * 18 + [0] * 41)
    found, stricter = (target(pool, percent, queries=100, with_match=58) for percent in (90, 95))
    assert found.seen is not None
    assert found.safe is not None
    assert (found.verdict, found.seen.recall, round(found.seen.precision, 3)) == ("holds", 1, 0.983)
    assert (found.safe.groups, found.safe.precision, round(found.safe.bound, 3)) == (40, 1, 0.928)
    assert (round(found.safe.recall, 2), found.false_matches_per_query) == (0.69, 0)
    bounds = [
        binomtest(right, all_, alternative="greater").proportion_ci(0.95).low for right, all_ in ((29, 29), (40, 41))
    ]
    assert [round(bound, 3) for bound in bounds] == [0.902, 0.889]
    assert (stricter.verdict, stricter.queries_needed) == ("too few queries", 148)


@pytest.mark.parametrize(("percent", "groups"), [(90, 29), (95, 59), (99, 299)])
def test_without_any_error_a_target_needs_this_many_groups(percent: int, groups: int) -> None:
    assert fewest(percent) == groups
    enough = target(predictions([1] * groups), percent, queries=groups, with_match=groups)
    assert (enough.verdict, enough.queries_needed) == ("holds", None)
    few = target(predictions([1] * (groups - 1)), percent, queries=groups - 1, with_match=groups - 1)
    assert (few.verdict, few.safe) == ("too few queries", None)
    assert few.queries_needed == groups


def test_copies_of_few_images_are_few_observations() -> None:
    pool = predictions([1] * 290, np.arange(290) % 10)
    found = target(pool, 90, queries=290, with_match=290)
    assert (found.verdict, found.safe, found.queries_needed) == ("too few queries", None, 29 * 29)


@given(st.lists(st.booleans(), min_size=1, max_size=150))
def test_nothing_holds_with_19_groups(right: list[bool]) -> None:
    pool = predictions([*right, True], np.arange(len(right) + 1) % 19)
    assert target(pool, 90, queries=200, with_match=200).verdict == "too few queries"


def test_the_bound_is_clopper_and_pearsons_where_every_pair_is_of_another_query() -> None:
    safe = safe_threshold(predictions([1] * 70 + [0] + [1] * 60 + [0] * 80), 90)
    assert safe is not None
    accepted, right = safe.groups, round(safe.precision * safe.groups)
    assert safe.bound == pytest.approx(binomtest(right, accepted, alternative="greater").proportion_ci(0.95).low)
    assert safe.bound >= 0.9


def test_cuts_are_tested_from_the_highest_and_stop_at_the_first_failure() -> None:
    # After 90 right pairs, 20 are wrong; the 400 right ones below would make the precision 96 % again.
    stopped = safe_threshold(predictions([1] * 90 + [0] * 20 + [1] * 400), 90)
    assert stopped is not None
    assert 76 <= stopped.groups <= 95  # the first cut has room for three wrong groups
    assert safe_threshold(predictions([0] * 12 + [1] * 460), 90) is None


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=1, max_size=40),
    st.randoms(use_true_random=False),
)
def test_cuts_agree_with_counting(rows: list[tuple[bool, int]], random) -> None:
    right, group = (np.array(column) for column in zip(*rows, strict=True))
    score = np.array(sorted((random.randint(1, 6) / 8 for _ in rows), reverse=True))
    cuts = _cuts(Predictions(score, right, group, np.ones(5, dtype=np.int64)))
    ends = [row for row in range(len(rows)) if row + 1 == len(rows) or score[row + 1] < score[row]]
    assert cuts.place.tolist() == ends
    for row, end in enumerate(ends):
        hits, codes = right[: end + 1], group[: end + 1]
        assert cuts.right[row] == hits.sum()
        assert cuts.groups[row] == len(set(codes.tolist()))
        share = hits.mean()
        squares = sum((hits[codes == code] - share).sum() ** 2 for code in set(codes.tolist()))
        expected = len(set(codes.tolist()))
        if 0 < share < 1 and squares > 1e-9:
            expected = min(expected, share * (1 - share) * (end + 1) ** 2 / squares)
        elif share == 0 and squares > 1e-9:
            expected = 0
        assert cuts.effective[row] == pytest.approx(expected)


def test_a_safe_threshold_is_rarely_unsafe() -> None:
    """The true precision of accepting all is 89 %: in at most about 5 of 100 samples, it is declared to be 90 %."""
    random = np.random.default_rng(4)
    declared = [safe_threshold(predictions(random.random(400) < 0.89), 90) is not None for _ in range(400)]
    assert np.mean(declared) < 0.075


def test_a_threshold_that_only_suited_these_queries_does_not_hold() -> None:
    random = np.random.default_rng(1)
    right = random.random(600) < 0.75  # scores say nothing; the first 30 are right by luck
    right[:30] = True
    found = target(predictions(right), 90, queries=600, with_match=400)
    assert found.seen is not None
    assert found.seen.precision >= 0.9
    assert found.transfer.precision.value is not None
    assert found.transfer.precision.value < 0.9
    assert found.verdict == "does not hold"


def test_a_precise_cut_that_accepts_too_few_groups_needs_more_queries() -> None:
    # 95 % needs 59 groups without an error, and 30 are accepted; of twice as many queries, 60 would be
    found = target(predictions([1] * 30 + [0] * 40 + [1] * 40), 95, queries=110, with_match=70)
    assert found.transfer.precision.value is not None
    assert found.transfer.precision.value > 0.95
    assert (found.safe, found.verdict, found.queries_needed) == (None, "too few queries", 217)


def test_without_a_precise_cut_nothing_can_be_used() -> None:
    found = target(predictions([0] * 40 + [1] * 40), 90, queries=80, with_match=40)
    assert (found.seen, found.safe, found.verdict) == (None, None, "does not hold")
    assert (found.queries_needed, found.false_matches_per_query) == (None, None)
    assert (found.transfer.precision.value, found.transfer.without) == (None, 1)


def test_wrong_matches_are_counted_per_query() -> None:
    found = target(predictions([1] * 45 + [0] * 2 + [1] * 20), 90, queries=80, with_match=65)
    assert found.share_with_match == 65 / 80
    assert found.safe is not None
    wrong = 2 if found.safe.groups > 47 else max(0, found.safe.groups - 45)
    assert found.false_matches_per_query == wrong / 80


def test_transfer_is_close_to_the_precision_on_new_queries() -> None:
    """Thresholds of halves of 200 queries, compared with the precision of such thresholds on 100,000 new ones."""
    random = np.random.default_rng(3)

    def sample(size: int) -> Predictions:
        right = random.random(size) < 0.7
        score = np.where(right, random.normal(0.7, 0.1, size), random.normal(0.5, 0.1, size))
        order = np.argsort(-score)
        return Predictions(score[order], right[order], order, right.astype(np.int64))

    everything = sample(100_000)
    precision = np.cumsum(everything.right) / np.arange(1, 100_001)
    inside = 0
    for _ in range(40):
        pool = sample(200)
        transfer = target(pool, 90, queries=200, with_match=140).transfer.precision
        halves = [target(sample(100), 90, queries=100, with_match=70).seen for _ in range(6)]
        ends = [np.searchsorted(-everything.score, -half.score) for half in halves if half]
        expected = np.mean([precision[end] for end in ends])
        assert transfer.low is not None
        assert transfer.high is not None
        inside += transfer.low <= expected <= transfer.high
    assert inside >= 34


def test_the_order_of_groups_at_equal_scores_does_not_matter_for_safety() -> None:
    tied = Predictions(np.full(60, 0.5), np.arange(60) >= 3, np.arange(60), (np.arange(60) >= 3).astype(np.int64))
    safe = safe_threshold(tied, 90)
    assert safe is None or safe.groups == 60  # never a part of the pairs of one score
