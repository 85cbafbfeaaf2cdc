"""What each choice does, by outcomes that can be worked out on paper."""

import numpy as np
import pytest

from lookalike.compare.effects import choices, effects
from lookalike.io.formats.records import Effect
from lookalike.metrics.rates import Floats, difference, sign_flip

ALONE = np.arange(20)
FOUR = {
    "m": {"pooling": "cls", "size": "224"},
    "m.size-448": {"pooling": "cls", "size": "448"},
    "m.pooling-mean": {"pooling": "mean", "size": "224"},
    "m.pooling-mean.size-448": {"pooling": "mean", "size": "448"},
}


def right(*queries: int) -> Floats:
    """(20,) outcomes: 1 for these queries."""
    return np.isin(ALONE, queries).astype(np.float64)


def made(outcomes: dict[str, Floats | None], design: dict[str, dict[str, str]]) -> dict[tuple[str, str], Effect]:
    return {(one.key, one.value): one for one in effects("flat", "accuracy_at_1", outcomes, design, ALONE)}


def test_a_choice_is_paired_with_the_own_value_at_every_combination_of_the_others() -> None:
    assert [(one.key, one.value, one.own, one.pairs) for one in choices(FOUR)] == [
        ("pooling", "mean", "cls", (("m.pooling-mean", "m"), ("m.pooling-mean.size-448", "m.size-448"))),
        ("size", "448", "224", (("m.size-448", "m"), ("m.pooling-mean.size-448", "m.pooling-mean"))),
    ]


def test_one_key_is_the_difference_of_two_models() -> None:
    design = {"m": {"size": "16"}, "m.size-8": {"size": "8"}, "m.size-4": {"size": "4"}}
    base, eight, four = right(*range(15)), right(*range(4)), right(*range(14))
    found = made({"m": base, "m.size-8": eight, "m.size-4": four}, design)
    # 15 against 4 of 20: eleven queries all on one side, p = 2 / 2**11; 15 against 14: one, p = 1
    one = found["size", "8"]
    assert one.difference == difference(eight, base, ALONE)
    assert (one.difference.value, one.p, one.p_holm) == pytest.approx((-0.55, 2 / 2**11, 4 / 2**11))
    assert one.verdict == "worse"
    assert (one.least, one.most) == (-0.55, -0.55)
    assert (found["size", "4"].p_holm, found["size", "4"].verdict) == (1, "cannot tell")


def test_a_main_effect_is_averaged_over_the_other_keys_query_by_query() -> None:
    # pooling: mean finds 8 more at 224 and 4 fewer at 448, so 2 of 20 more on average
    outcomes: dict[str, Floats | None] = {
        "m": right(*range(4)),
        "m.size-448": right(*range(8)),
        "m.pooling-mean": right(*range(12)),
        "m.pooling-mean.size-448": right(*range(4)),
    }
    one = made(outcomes, FOUR)["pooling", "mean"]
    assert one.difference.value == pytest.approx(0.1)
    assert (one.least, one.most) == pytest.approx((-0.2, 0.4))
    means = right(*range(4)) + right(*range(4, 12)) / 2, right(*range(4)) + right(*range(4, 8)) / 2
    assert one.p == sign_flip(*means, ALONE)
    assert one.difference == difference(*means, ALONE)


def test_a_key_that_changes_nothing_is_not_told_from_one_that_does_by_rounding() -> None:
    design = {f"m{a}{b}": {"a": str(a), "b": str(b)} for a in range(2) for b in range(3)}
    thirds = [right(*range(5)), right(*range(7)), right(*range(9))]
    outcomes = {f"m{a}{b}": thirds[(b + a) % 3] for a in range(2) for b in range(3)}  # the same three, in another order
    one = made(dict(outcomes), design)["a", "1"]
    assert (one.difference.value, one.p, one.verdict) == (0, 1, "cannot tell")


def test_holms_correction_is_over_all_choices_of_all_keys() -> None:
    none, most = right(), right(*range(10))
    found = made({"m": none, "m.size-448": none, "m.pooling-mean": most, "m.pooling-mean.size-448": most}, FOUR)
    pooling, size = found["pooling", "mean"], found["size", "448"]
    assert (pooling.p, pooling.p_holm) == pytest.approx((2 / 2**10, 4 / 2**10))
    assert pooling.verdict == "better"
    assert (size.p_holm, size.verdict) == (1, "cannot tell")


def test_a_metric_that_says_nothing_has_no_effect() -> None:
    found = made(dict.fromkeys(FOUR), FOUR)
    assert {(one.difference.value, one.least, one.p, one.verdict) for one in found.values()} == {
        (None, None, 1, "cannot tell")
    }
