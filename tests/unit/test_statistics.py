import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, chi2

from lookalike.io.formats.records import Estimate
from lookalike.metrics import intervals, rates
from lookalike.metrics.intervals import of_difference, proportion, spread, t_quantile, wilson
from lookalike.metrics.power import needed
from lookalike.metrics.rates import (
    difference,
    estimate,
    group_codes,
    holm,
    sign_flip,
    spread_of_difference,
    verdict,
)


def ungrouped(count: int) -> np.ndarray:
    return np.arange(count)


def array(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)


def test_the_examples_of_the_documentation() -> None:
    # docs/statistics.md, "Intervals"
    assert [round(bound, 2) for bound in proportion(1, 4)] == [0.01, 0.70]
    assert [round(bound, 2) for bound in wilson(90, 150)] == [0.52, 0.67]
    assert [round(bound, 3) for bound in wilson(150, 150)] == [0.975, 1]
    photographs = estimate(np.ones(150), np.repeat(np.arange(30), 5))
    assert [round(bound, 2) for bound in (photographs.low, photographs.high)] == [0.89, 1]
    copies = np.concatenate([np.arange(100) < right for right in (79, 80, 81)]).astype(np.float64)
    images = estimate(copies, np.repeat(np.arange(3), 100))
    assert [round(bound, 2) for bound in (images.low, images.high)] == [0.21, 0.98]
    worse = np.concatenate([np.arange(100) < right for right in (98, 97, 96)]).astype(np.float64)
    gap = difference(np.ones(300), worse, np.repeat(np.arange(3), 100))
    assert [round(bound, 2) for bound in (gap.low, gap.high)] == [-0.56, 0.60]
    # "Better, worse, cannot tell": six only a, none only b, two both, two neither; then as two photographs of three
    a, b = array(1, 1, 1, 1, 1, 1, 1, 1, 0, 0), array(0, 0, 0, 0, 0, 0, 1, 1, 0, 0)
    assert sign_flip(a, b, ungrouped(10)) == pytest.approx(2 / 2**6)
    assert sign_flip(a, b, np.array([0, 0, 0, 1, 1, 1, 2, 3, 4, 5])) == pytest.approx(2 / 2**2)
    assert holm([0.01, 0.02, 0.03, 0.04]) == pytest.approx([0.04, 0.06, 0.06, 0.06])


def test_the_power_example_of_the_documentation() -> None:
    # A alone right for 20 %, B alone for 10 %: 0.3 - 0.1^2 per query
    of_one = intervals.Spread(0.29 / 100, 99)
    alone, with_twelve = (needed(0.1, of_one, groups=100, queries=100, tests=tests) for tests in (1, 12))
    assert (alone and alone.queries, with_twelve and with_twelve.queries) == (228, 399)


# --- Wilson ---


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [  # Newcombe 1998, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@given(st.integers(1, 60_000), st.data())
def test_wilson_agrees_with_scipy_and_stays_inside(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    low, high = wilson(successes, n)
    expected = binomtest(successes, n).proportion_ci(method="wilson")
    assert (low, high) == (pytest.approx(expected.low, abs=1e-12), pytest.approx(expected.high, abs=1e-12))
    assert 0 <= low <= successes / n <= high <= 1


# --- estimates ---


def test_independent_hits_and_misses_get_wilsons_interval() -> None:
    interval = estimate(array(1, 1, 0, 1), ungrouped(4))
    assert (interval.value, interval.low, interval.high, interval.n) == (0.75, *proportion(3, 4), 4)
    assert (interval.low, interval.high) == (wilson(3, 4)[0], pytest.approx(1 - chi2.ppf(0.05, 2) / 2 / 4))


def test_without_queries_there_is_no_value() -> None:
    nothing = Estimate(value=None, low=None, high=None, n=0)
    assert estimate(array(), ungrouped(0)) == nothing
    assert difference(array(), array(), ungrouped(0)) == nothing


def test_queries_without_a_group_are_groups_of_their_own() -> None:
    codes = group_codes(["a", None, "b", "a", None])
    assert codes[0] == codes[3]
    assert len(set(codes.tolist())) == 4
    assert len(group_codes([])) == 0


def test_grouped_queries_have_a_wider_interval() -> None:
    # 100 queries in 20 groups of five, each all correct or all wrong: 20 observations, not 100.
    outcomes = np.repeat(np.arange(20) % 2, 5).astype(np.float64)
    together, apart = estimate(outcomes, np.repeat(np.arange(20), 5)), estimate(outcomes, ungrouped(100))
    assert together.value == apart.value == 0.5
    ratio = (together.high - together.low) / (apart.high - apart.low)
    assert ratio == pytest.approx(math.sqrt(5), rel=0.1)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_correct_in_few_groups_has_a_wide_interval(value: float) -> None:
    # Six queries from two photographs are two observations.
    interval = estimate(np.full(6, value), np.repeat([0, 1], 3))
    assert (interval.value, interval.low, interval.high) == (value, *wilson(2 * value, 2))
    assert interval.high - interval.low > 0.6


def test_a_share_of_independent_queries_is_covered_whatever_it_is() -> None:
    """Wilson's interval alone covers a true share of 0.99 in 84 of 100 samples of 20."""

    def coverage(interval: Callable[[int, int], tuple[float, float]], n: int, share: float) -> float:
        bounds = [interval(right, n) for right in range(n + 1)]
        return sum(binom.pmf(right, n, share) for right, (low, high) in enumerate(bounds) if low <= share <= high)

    shares = np.linspace(0.001, 0.999, 400)
    for n in (20, 50, 150):
        covered = [coverage(proportion, n, share) for share in shares]
        assert min(covered) > 0.92
        assert np.mean(np.array(covered) < 0.93) < 0.05
    assert min(coverage(wilson, 20, share) for share in shares) < 0.86


@pytest.mark.parametrize("count", [2, 3, 9])
def test_few_similar_groups_have_a_wide_interval(count: int) -> None:
    # Copies of few images: 200 queries found at about 80 % are still few observations.
    rates = np.linspace(0.78, 0.82, count)
    outcomes = np.concatenate([np.arange(100) < round(100 * rate) for rate in rates]).astype(np.float64)
    interval = estimate(outcomes, np.repeat(np.arange(count), 100))
    assert interval.high - interval.low > 2 * 0.4 / count


def test_one_large_group_is_about_one_observation() -> None:
    # One large and many small groups: the mean depends on whether the large one is drawn.
    outcomes, groups = np.repeat([1.0, 0.0], [95, 5]), np.repeat(np.arange(6), [95, 1, 1, 1, 1, 1])
    interval = estimate(outcomes, groups)
    assert interval.low < 0.3
    assert interval.high > 0.98


def test_more_groups_narrow_the_interval_without_a_cliff() -> None:
    """Each further group of the same kind narrows the interval by a little: no step at 10 groups or anywhere."""
    random = np.random.default_rng(2)
    draws = [[(random.random(8) < rate).astype(float) for rate in random.beta(3, 1, 31)] for _ in range(100)]
    widths = []
    for count in range(5, 31):
        intervals = [estimate(np.concatenate(draw[:count]), np.repeat(np.arange(count), 8)) for draw in draws]
        widths.append(np.mean([interval.high - interval.low for interval in intervals]))
    steps = np.array(widths[1:]) / np.array(widths[:-1])
    assert steps.min() > 0.8  # 10 groups after 9 once halved it
    assert steps.max() < 1.03


def test_a_variance_carried_by_few_groups_is_known_with_few_degrees_of_freedom() -> None:
    normal = np.random.default_rng(0).standard_normal(100)
    assert spread(normal).df == pytest.approx(99, rel=0.3)
    assert spread(normal).variance == pytest.approx(float(np.var(normal, ddof=1)) * 100)
    three = np.repeat([1.0, 0.0], [3, 97])
    assert spread(three).df < 8
    assert t_quantile(spread(three).df) > 2.3


def test_a_small_difference_in_few_groups_has_a_wide_interval() -> None:
    # Better by 2, 3 and 4 points on three images: the bootstrap alone would give 2 to 4 points.
    a = np.ones(300)
    b = np.concatenate([np.arange(100) < rate for rate in (98, 97, 96)]).astype(np.float64)
    gap = difference(a, b, np.repeat(np.arange(3), 100))
    assert gap.value == pytest.approx(0.03)
    assert gap.low < -0.5
    assert gap.high > 0.5
    swapped = difference(b, a, np.repeat(np.arange(3), 100))
    assert (swapped.low, swapped.high) == (pytest.approx(-gap.high), pytest.approx(-gap.low))


def test_one_group_is_one_observation() -> None:
    interval = estimate(array(1, 0, 1, 0), np.zeros(4, dtype=np.int64))
    assert (interval.low, interval.high) == wilson(0.5, 1)


def test_the_interval_agrees_with_drawing_groups_with_replacement() -> None:
    random = np.random.default_rng(5)
    sizes = random.integers(1, 8, 300)
    groups = np.repeat(np.arange(300), sizes)
    outcomes = (random.random(len(groups)) < np.repeat(random.random(300), sizes)).astype(np.float64)
    draws = random.integers(0, 300, (4000, 300))
    sums = np.bincount(groups, weights=outcomes)
    expected = np.quantile(sums[draws].sum(axis=1) / sizes[draws].sum(axis=1), [0.025, 0.975])
    interval = estimate(outcomes, groups)
    assert (interval.low, interval.high) == (pytest.approx(expected[0], abs=0.01), pytest.approx(expected[1], abs=0.01))


def test_intervals_have_their_nominal_coverage() -> None:
    # 150 queries in 30 groups with individual rates around 0.6; coverage should be about 95 %.
    random = np.random.default_rng(11)
    groups = np.repeat(np.arange(30), 5)
    covered = 0
    for _ in range(200):
        rates = random.beta(3, 2, 30)
        interval = estimate((random.random(150) < rates[groups]).astype(np.float64), groups)
        covered += interval.low <= 0.6 <= interval.high
    assert 0.90 <= covered / 200 <= 0.985


outcomes_in_groups = st.lists(
    st.tuples(st.sampled_from([0, 1 / 3, 2 / 3, 1]), st.sampled_from([0, 0.5, 1]), st.integers(0, 6)),
    min_size=1,
    max_size=30,
)


@given(outcomes_in_groups, st.randoms(use_true_random=False))
def test_query_order_and_group_codes_do_not_matter(rows, random) -> None:
    def results(rows):
        a, b, groups = (np.array(column) for column in zip(*rows, strict=True))
        return estimate(a.astype(float), groups), difference(a, b, groups), sign_flip(a, b, groups)

    mixed = [(a, b, 40 - group) for a, b, group in random.sample(rows, len(rows))]
    (interval, gap, p), (mixed_interval, mixed_gap, mixed_p) = results(rows), results(mixed)
    assert interval == mixed_interval
    assert gap == mixed_gap
    assert p == pytest.approx(mixed_p, rel=1e-9)
    assert 0 <= interval.low <= interval.value + 1e-9
    assert interval.value <= interval.high + 1e-9
    assert interval.high <= 1


# --- comparing two models ---


@given(outcomes_in_groups)
def test_swapping_the_models_flips_the_sign(rows) -> None:
    a, b, groups = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    groups = groups.astype(np.int64)
    assert difference(a, b, groups).value == -difference(b, a, groups).value
    assert sign_flip(a, b, groups) == pytest.approx(sign_flip(b, a, groups))


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 20))
def test_with_independent_queries_it_is_mcnemars_exact_test(only_a: int, only_b: int, same: int) -> None:
    a = np.repeat([1.0, 0.0, 1.0], [only_a, only_b, same])
    b = np.repeat([0.0, 1.0, 1.0], [only_a, only_b, same])
    expected = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert sign_flip(a, b, ungrouped(len(a))) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_by_hand() -> None:
    # Only a correct: 5 times; only b: never. p = 2 / 2**5.
    assert sign_flip(np.ones(5), np.zeros(5), ungrouped(5)) == pytest.approx(2 / 32)


def test_mcnemar_is_exact_at_any_size() -> None:
    a, b = np.repeat([1.0, 0.0], [25_300, 24_700]), np.repeat([0.0, 1.0], [25_300, 24_700])
    assert sign_flip(a, b, ungrouped(50_000)) == pytest.approx(binomtest(25_300, 50_000).pvalue, rel=1e-6)


def test_sign_flips_over_groups_by_hand() -> None:
    # Groups differ by +3, +1, -1. Of the eight sign patterns, six have a total at least 3 from zero: 5, 3, 3 and their
    # negatives. p = 6 / 8.
    a, b = array(1, 1, 1, 1, 0), array(0, 0, 0, 0, 1)
    assert sign_flip(a, b, np.array([0, 0, 0, 1, 2])) == pytest.approx(6 / 8)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_sign_flips_agree_with_enumeration(totals: list[int]) -> None:
    groups = np.repeat(np.arange(len(totals)), 4)
    differences = np.concatenate([np.sign(total) * (np.arange(4) < abs(total)) for total in totals])
    a, b = (differences > 0).astype(float), (differences < 0).astype(float)
    listed = [
        abs(sum(sign * total for sign, total in zip(signs, totals, strict=True)))
        for signs in product([1, -1], repeat=len(totals))
    ]
    expected = np.mean([total >= abs(sum(totals)) for total in listed])
    assert sign_flip(a, b, groups) == pytest.approx(float(expected))


def test_sampled_p_values_are_close_to_exact_ones_and_never_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    a, b, groups = random.random(60).round(1), random.random(60).round(1), np.repeat(np.arange(12), 5)
    exact = sign_flip(a, b, groups)
    monkeypatch.setattr(rates, "EXACT_LIMIT", 0)
    assert sign_flip(a, b, groups) == pytest.approx(exact, abs=0.015)
    monkeypatch.setattr(rates, "CHUNK", 1000)
    assert sign_flip(np.ones(60), np.zeros(60), ungrouped(60)) == 1 / (rates.FLIPS + 1)


def test_grouped_queries_are_weaker_evidence() -> None:
    a, b = np.ones(20), np.zeros(20)
    assert sign_flip(a, b, ungrouped(20)) == pytest.approx(2 / 2**20)
    assert sign_flip(a, b, np.repeat(np.arange(4), 5)) == pytest.approx(2 / 2**4)


def test_models_that_agree_on_all_queries_have_an_interval_around_zero() -> None:
    outcomes = np.tile(array(1, 0, 1, 1), 5)
    gap = difference(outcomes, outcomes, ungrouped(20))
    assert (gap.value, gap.low, gap.high) == (0, -wilson(0, 20)[1], wilson(0, 20)[1])
    assert sign_flip(outcomes, outcomes, ungrouped(20)) == 1


@pytest.mark.parametrize("sign", [1, -1])
def test_models_that_always_differ_have_a_one_sided_interval(sign: int) -> None:
    right, wrong = (np.ones(20), np.zeros(20))[::sign]
    gap = difference(right, wrong, ungrouped(20))
    # a share of groups won, from -1 to 1
    assert (gap.value, *sorted((abs(gap.low), abs(gap.high)))) == (sign, 2 * wilson(20, 20)[0] - 1, 1)
    assert gap.low <= gap.value <= gap.high


def test_the_interval_of_a_difference_uses_the_pairing() -> None:
    # 200 queries, both models correct on the same half, but b misses ten of it. Unpaired +-10 points, paired +-3.
    a = np.repeat([1.0, 0.0], 100)
    b = a.copy()
    b[:10] = 0
    gap = difference(a, b, ungrouped(200))
    assert gap.value == 0.05
    assert 0.015 < gap.low < 0.03
    assert 0.07 < gap.high < 0.085


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1: 0.04, 0.06, 0.06 and 0.04, which is raised to 0.06.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_preserves_order_and_never_lowers_p(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= after <= 1 for p, after in zip(p_values, adjusted, strict=True))
    order = sorted(range(len(p_values)), key=lambda position: p_values[position])
    assert [adjusted[position] for position in order] == sorted(adjusted)


def test_a_verdict_needs_six_groups() -> None:
    certain = Estimate(value=0.5, low=0.4, high=0.6, n=99)
    assert verdict(certain, 0.001, groups=5) == "too few groups"
    assert verdict(certain, 0.001, groups=6) == "better"
    assert verdict(Estimate(value=None, low=None, high=None, n=0), 1.0, groups=0) == "cannot tell"
    # With five, no sign test can be significant.
    assert sign_flip(np.ones(5), np.zeros(5), ungrouped(5)) > 0.05 > sign_flip(np.ones(6), np.zeros(6), ungrouped(6))


def test_the_interval_of_a_difference_turns_with_it() -> None:
    low, high = of_difference(0.2, spread(np.array([0.05, -0.02, 0.01, -0.04])), 4)
    turned = of_difference(-0.2, spread(np.array([-0.05, 0.02, -0.01, 0.04])), 4)
    assert turned == (pytest.approx(-high), pytest.approx(-low))


# --- power ---


def test_the_queries_needed_would_tell_in_80_of_100_repetitions() -> None:
    """Paired outcomes that differ by 10 points: draw as many as `needed` says, and test."""
    random = np.random.default_rng(8)

    def models(n: int) -> tuple[np.ndarray, np.ndarray]:
        kind = random.choice(3, n, p=[0.2, 0.1, 0.7])  # only a, only b, same
        return (kind != 1).astype(float), (kind != 0).astype(float)

    a, b = models(40_000)
    gap = difference(a, b, ungrouped(40_000)).value
    enough = needed(gap, spread_of_difference(a, b, ungrouped(40_000)), groups=50, queries=50)
    assert enough is None or enough.groups == enough.queries  # one query per group
    of_population = intervals.Spread(spread_of_difference(a, b, ungrouped(40_000)).variance * 40_000 / 50, 49)
    enough = needed(gap, of_population, groups=50, queries=150, tests=6)
    assert enough is not None
    assert enough.queries == 3 * enough.groups
    told = [sign_flip(*models(enough.groups), ungrouped(enough.groups)) < 0.05 / 6 for _ in range(300)]
    assert 0.72 < np.mean(told) < 0.88


def test_no_number_of_queries_tells_equal_models_apart() -> None:
    assert needed(0.0, intervals.Spread(0.01, 9), groups=10, queries=10) is None
    assert needed(None, intervals.Spread(0.0, 1), groups=0, queries=0) is None
    more = needed(0.4, intervals.Spread(0.0001, 9), groups=10, queries=20)
    assert more is not None
    assert more.groups == 11  # ten did not tell


@pytest.mark.parametrize(
    ("value", "p_holm", "expected"),
    [
        (0.1, 0.049, "better"),
        (-0.1, 0.049, "worse"),
        (0.1, 0.05, "cannot tell"),
        (-0.1, 0.9, "cannot tell"),
        (None, 1.0, "cannot tell"),
    ],
)
def test_a_verdict_requires_significance(value: float | None, p_holm: float, expected: str) -> None:
    assert verdict(Estimate(value=value, low=value, high=value, n=9), p_holm) == expected
