"""Main effects of settings, on outcomes that can be calculated by hand."""

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


def effects_of(outcomes: dict[str, Floats | None], design: dict[str, dict[str, str]]) -> dict[tuple[str, str], Effect]:
    return {(effect.key, effect.value): effect for effect in effects("flat", "accuracy_at_1", outcomes, design, ALONE)}


def test_a_value_is_paired_with_the_default_in_every_combination_of_the_other_keys() -> None:
    assert [(effect.key, effect.value, effect.own, effect.pairs) for effect in choices(FOUR)] == [
        ("pooling", "mean", "cls", (("m.pooling-mean", "m"), ("m.pooling-mean.size-448", "m.size-448"))),
        ("size", "448", "224", (("m.size-448", "m"), ("m.pooling-mean.size-448", "m.pooling-mean"))),
    ]


def test_the_effect_of_a_single_key_is_the_difference_of_two_models() -> None:
    design = {"m": {"size": "16"}, "m.size-8": {"size": "8"}, "m.size-4": {"size": "4"}}
    base, eight, four = right(*range(15)), right(*range(4)), right(*range(14))
    found = effects_of({"m": base, "m.size-8": eight, "m.size-4": four}, design)
    # 15 vs. 4 of 20: eleven queries, all in effect direction, p = 2 / 2**11; 15 vs. 14: a single query, p = 1
    effect = found["size", "8"]
    assert effect.difference == difference(eight, base, ALONE)
    assert (effect.difference.value, effect.p, effect.p_holm) == pytest.approx((-0.55, 2 / 2**11, 4 / 2**11))
    assert effect.verdict == "worse"
    assert (effect.least, effect.most) == (-0.55, -0.55)
    assert (found["size", "4"].p_holm, found["size", "4"].verdict) == (1, "cannot tell")


def test_a_main_effect_is_averaged_per_query_over_the_other_keys() -> None:
    # pooling: mean finds 8 more at size 224 and 4 fewer at 448: on average 2 of 20 more
    outcomes: dict[str, Floats | None] = {
        "m": right(*range(4)),
        "m.size-448": right(*range(8)),
        "m.pooling-mean": right(*range(12)),
        "m.pooling-mean.size-448": right(*range(4)),
    }
    effect = effects_of(outcomes, FOUR)["pooling", "mean"]
    assert effect.difference.value == pytest.approx(0.1)
    assert (effect.least, effect.most) == pytest.approx((-0.2, 0.4))
    means = right(*range(4)) + right(*range(4, 12)) / 2, right(*range(4)) + right(*range(4, 8)) / 2
    assert effect.p == sign_flip(*means, ALONE)
    assert effect.difference == difference(*means, ALONE)


def test_rounding_errors_are_no_effect() -> None:
    design = {f"m{a}{b}": {"a": str(a), "b": str(b)} for a in range(2) for b in range(3)}
    thirds = [right(*range(5)), right(*range(7)), right(*range(9))]
    outcomes = {f"m{a}{b}": thirds[(b + a) % 3] for a in range(2) for b in range(3)}  # the same three in another order
    effect = effects_of(dict(outcomes), design)["a", "1"]
    assert (effect.difference.value, effect.p, effect.verdict) == (0, 1, "cannot tell")


def test_holms_correction_covers_all_values_of_all_keys() -> None:
    none, most = right(), right(*range(10))
    found = effects_of({"m": none, "m.size-448": none, "m.pooling-mean": most, "m.pooling-mean.size-448": most}, FOUR)
    pooling, size = found["pooling", "mean"], found["size", "448"]
    assert (pooling.p, pooling.p_holm) == pytest.approx((2 / 2**10, 4 / 2**10))
    assert pooling.verdict == "better"
    assert (size.p_holm, size.verdict) == (1, "cannot tell")


def test_a_metric_without_a_value_has_no_effect() -> None:
    found = effects_of(dict.fromkeys(FOUR), FOUR)
    assert {(effect.difference.value, effect.least, effect.p, effect.verdict) for effect in found.values()} == {
        (None, None, 1, "cannot tell")
    }
