from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from scipy.stats import fisher_exact

from lookalike.compare import follows
from lookalike.compare.follows import ACCURACY, OVERLAP, Outcomes, Seen, follow, judge, overlaps, single_operations
from lookalike.io.formats.records import Claim, Estimate
from lookalike.metrics.rates import NOTHING, contrast, estimate, shuffled
from tables import images_table, neighbors_table, truth_table

REFERENCES = [f"r{number}" for number in range(9)]
Values = Sequence[float]


def found(names: str) -> list[tuple[str, float]]:
    return [(f"r{name}", 1 - place / 100) for place, name in enumerate(names)]


def seen(model: str, kind: str = "", dimensions: int | None = None, **outcomes: Values) -> Seen:
    values = {name: Outcomes(np.array(one, float), np.arange(len(one))) for name, one in outcomes.items()}
    return Seen(model, kind, dimensions, values)


def claims(*models: Seen, operations: Mapping[str, list[bool]] | None = None) -> dict[tuple[str, str, str], Claim]:
    made_by = {name: np.array(one) for name, one in (operations or {}).items()}
    return {(one.model, one.said, one.measure): one for one in judge({"flat": models}, made_by)}


# --- what a model follows ---


def test_overlap_with_the_color_histogram_by_hand() -> None:
    images = images_table(REFERENCES, ["a", "b", "c"])
    model = neighbors_table({"a": found("0123456"), "b": found("0123456")})
    colors = neighbors_table({"a": found("6543210"), "b": found("8765431"), "c": found("0123456")})
    # a: r0 is its true match, which leaves r1 to r5 of the model and r6 to r2 of the histogram: r2 to r5 are common.
    # b: r0 to r4 and r8 to r4: r4. c was rejected by the model.
    shares = overlaps(model, colors, truth_table([("a", "r0")]), images)
    assert shares.values.tolist() == [4 / 5, 1 / 5, 0]
    assert overlaps(model, model, truth_table([]), images).values.tolist() == [1, 1, 0]


def test_a_model_overlaps_fully_with_itself_however_many_matches_it_finds() -> None:
    """Six neighbors of which three are matches leave three to compare: they are all of what is left, not 3 of 5."""
    names = [f"r{number}" for number in range(9)]
    found = neighbors_table({"a": [(name, 1 - place / 10) for place, name in enumerate(names[:6])]})
    truth = truth_table([("a", name) for name in names[:3]])
    assert overlaps(found, found, truth, images_table(names, ["a"])).values.tolist() == [1]


def test_finding_the_right_picture_is_not_following_its_colors() -> None:
    images = images_table(REFERENCES, ["a"])
    model, colors = neighbors_table({"a": found("01234")}), neighbors_table({"a": found("05678")})
    assert overlaps(model, colors, truth_table([("a", "r0")]), images).values.tolist() == [0]


def test_rows_of_the_tables_may_come_in_any_order() -> None:
    images = images_table(REFERENCES, ["a", "b"])
    model = neighbors_table({"a": found("012345"), "b": found("345678")})
    colors = neighbors_table({"b": found("876012"), "a": found("543876")})
    backwards = model.take(list(range(model.num_rows))[::-1])
    one, other = (overlaps(table, colors, truth_table([]), images) for table in (model, backwards))
    assert one.values.tolist() == other.values.tolist() == [2 / 5, 2 / 5]


def test_only_copies_made_by_one_operation_tell_what_it_does() -> None:
    queries = images_table([], list("abcd"), operations={"a": "grey", "b": "text:heavy", "c": "text:light + grey"})
    made_by = {name: one.tolist() for name, one in single_operations(queries).items()}
    assert made_by == {"grey": [True, False, False, False], "text": [False, True, False, False]}
    assert single_operations(images_table([], ["a"])) == {}


def test_the_change_under_an_operation_is_against_the_other_single_ones() -> None:
    correct = [1, 0, 0, 0, 1, 1, 1, 0, 0, 0]
    operations = {"text": np.arange(10) < 4, "crop": (np.arange(10) >= 4) & (np.arange(10) < 8)}  # and two chains
    (row,) = follow("flat", [seen("mine", accuracy_at_1=correct, color_overlap=[0.2, 0.4])], operations)
    assert set(row.evidence) == {OVERLAP, "text"}  # nothing was made grey or pasted
    assert row.evidence["text"].value == pytest.approx(1 / 4 - 3 / 4)
    assert row.evidence["text"].n == 4
    assert row.evidence[OVERLAP] == estimate(np.array([0.2, 0.4]), np.arange(2))


# --- the statistics of two different sets of queries ---


def test_an_interval_of_a_difference_is_newcombes() -> None:
    # Newcombe (1998), table II, method 10: 56/70 - 48/80 is 0.2 (0.0524 to 0.3339).
    def share(right: int, n: int) -> Estimate:
        return estimate(np.repeat([1.0, 0.0], [right, n - right]), np.arange(n))

    gap = contrast(share(56, 70), share(48, 80))
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    gap = contrast(share(9, 10), share(3, 10))
    assert (gap.low, gap.high) == pytest.approx((0.1705, 0.8090), abs=5e-5)
    assert contrast(NOTHING, share(1, 2)) == contrast(share(1, 2), NOTHING) == NOTHING


@pytest.mark.parametrize(("right", "others_right"), [(3, 30), (9, 20), (0, 36), (5, 17)])
def test_shuffling_hits_and_misses_is_fishers_exact_test(right: int, others_right: int) -> None:
    values = np.repeat([1.0, 0.0, 1.0, 0.0], [right, 10 - right, others_right, 40 - others_right])
    p = shuffled(values, np.arange(50) < 10)
    # By distance from the expectation rather than by probability: they differ where a tail has no mirror image.
    exact = fisher_exact([[right, 10 - right], [others_right, 40 - others_right]]).pvalue
    assert p == pytest.approx(exact, abs=0.02)
    order = np.random.default_rng(1).permutation(50)
    assert shuffled(values[order], (np.arange(50) < 10)[order]) == p
    assert shuffled(values, np.ones(50, bool)) == 1


# --- the articles' sentences ---


def test_confirmed_refuted_undecided() -> None:
    random = np.random.default_rng(0)
    low = random.random(200) / 4
    others = [seen("dino", "dinov2", color_overlap=low), seen("clip", "clip", color_overlap=low)]
    said = ("cnn", "follows color and texture", OVERLAP)
    for shift, verdict in ((0.3, "confirmed"), (-0.3, "refuted"), (0.0, "undecided")):
        own = np.clip(0.3 + shift + random.random(200) / 4 - 0.12, 0, 1)
        reference = [seen(one.model, one.kind, color_overlap=0.3 + low - 0.12) for one in others]
        one = claims(seen("cnn", "cnn", color_overlap=own), *reference)[said]
        assert one.verdict == verdict
        assert one.against == ["dino", "clip"]
        assert one.difference.value == pytest.approx(shift, abs=0.05)


def test_a_sentence_on_less_is_confirmed_by_less() -> None:
    # Text takes 60 points from CLIP and nothing from DINOv2; other changes take nothing from either.
    text = np.arange(100) < 50
    clip, dino = np.where(text, np.arange(100) % 5 < 2, 1), np.ones(100)
    operations = {"text": text.tolist(), "crop": (~text).tolist()}
    models = [seen("clip", "clip", accuracy_at_1=clip), seen("dino", "dinov2", accuracy_at_1=dino)]
    one = claims(*models, operations=operations)["clip", "is drawn to written text", "text"]
    assert (one.verdict, one.difference.value) == ("confirmed", pytest.approx(-0.6))
    assert one.difference.high < 0


def test_an_operation_that_is_hard_for_all_says_nothing_of_one() -> None:
    text = np.arange(100) < 50
    hard = np.where(text, np.arange(100) % 5 < 2, 1)
    operations = {"text": text.tolist(), "crop": (~text).tolist()}
    models = [seen("clip", "clip", accuracy_at_1=hard), seen("dino", "dinov2", accuracy_at_1=hard)]
    one = claims(*models, operations=operations)["clip", "is drawn to written text", "text"]
    assert (one.verdict, one.difference.value) == ("undecided", 0)


def test_floors_and_models_that_no_article_speaks_of_are_no_rivals() -> None:
    overlap = [0.5] * 20
    found = claims(
        seen("cnn", "cnn", color_overlap=overlap),
        seen("mine", color_overlap=overlap),
        seen("color-histogram", follows.COLORS),
    )
    assert {one.model for one in found.values()} == {"cnn"}
    assert {one.reason for one in found.values()} == {"no model to compare it with"}
    assert {one.verdict for one in found.values()} == {"undecided"}


def test_what_is_not_known_is_undecided_and_says_what_it_needs() -> None:
    found = claims(seen("cnn", "cnn", accuracy_at_1=[1] * 9), seen("vit", "vit", accuracy_at_1=[1] * 9))
    reasons = {(model, measure): one.reason for (model, _, measure), one in found.items()}
    assert reasons == {
        ("cnn", OVERLAP): "needs a color histogram among the models, and a k of at least 5",
        ("cnn", "color"): "needs copies made with this operation, and with others",
        ("cnn", "grey"): "needs copies made with this operation, and with others",
        ("vit", ACCURACY): "",  # without captions, better is better at finding
        ("vit", OVERLAP): "no model to compare it with",
    }


def test_the_best_must_beat_the_best_other_and_pays_for_the_choice() -> None:
    random = np.random.default_rng(2)
    base = random.random(60) / 2
    models = [
        seen("blip2", "blip2", caption_agreement_at_5=base + 0.02 * random.random(60)),
        seen("clip", "clip", caption_agreement_at_5=base),
        seen("vit", "vit", caption_agreement_at_5=base / 2),
    ]
    one = claims(*models)["blip2", "is the best", "caption_agreement_at_5"]
    alone = claims(*models[:2])["blip2", "is the best", "caption_agreement_at_5"]
    assert one.against == alone.against == ["clip"]
    assert one.p == pytest.approx(2 * alone.p)
    assert one.verdict == "confirmed"


def test_clip_meets_dinov2_at_equal_dimension_only() -> None:
    right, wrong = [1] * 18 + [0] * 2, [1] * 4 + [0] * 16
    models = [
        seen("dino", "dinov2", 768, accuracy_at_1=right),
        seen("clip-b32", "clip", 512, accuracy_at_1=wrong),
        seen("clip-l14", "clip", 768, accuracy_at_1=wrong),
    ]
    one = claims(*models)["dino", "finds more than CLIP", ACCURACY]
    assert (one.against, one.verdict, one.difference.value) == (["clip-l14"], "confirmed", pytest.approx(0.7))
    one = claims(*models[:2])["dino", "finds more than CLIP", ACCURACY]
    assert one.reason == "no such model with vectors of the same length"


def test_equal_dimensions_may_come_from_another_index() -> None:
    right, wrong = [1] * 18 + [0] * 2, [1] * 4 + [0] * 16
    indexes = {
        index: [
            seen("dino", "dinov2", of_dino, accuracy_at_1=right),
            seen("clip", "clip", of_clip, accuracy_at_1=wrong),
        ]
        for index, of_dino, of_clip in (("flat", 768, 512), ("pca256", 256, 256))
    }
    said = [one for one in judge(indexes, {}) if one.said == "finds more than CLIP"]
    assert [(one.index, one.verdict) for one in said] == [("flat", "undecided"), ("pca256", "confirmed")]


def test_many_sentences_are_corrected_for_each_other() -> None:
    random = np.random.default_rng(4)
    values = {name: random.random(40) for name in (OVERLAP, "caption_agreement_at_5", ACCURACY)}
    kinds = ("cnn", "vit", "dinov2", "clip", "blip2")
    models = [
        seen(kind, kind, **{name: np.roll(one, place) for name, one in values.items()})
        for place, kind in enumerate(kinds)
    ]
    tested = [one for one in claims(*models).values() if not one.reason]
    assert len(tested) >= 6
    assert min(one.p_holm for one in tested) == pytest.approx(min(1, len(tested) * min(one.p for one in tested)))
