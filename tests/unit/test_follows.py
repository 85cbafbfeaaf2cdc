from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from scipy.stats import fisher_exact

from lookalike.compare import follows
from lookalike.compare.follows import ACCURACY, OVERLAP, Model, Outcomes, follow, judge, overlaps, single_operations
from lookalike.io.formats.records import Claim, Estimate
from lookalike.metrics.intervals import wilson
from lookalike.metrics.rates import NOTHING, contrast, estimate, shuffled
from tables import images_table, neighbors_table, truth_table

REFERENCES = [f"r{number}" for number in range(9)]
Values = Sequence[float]


def ranked(names: str) -> list[tuple[str, float]]:
    return [(f"r{name}", 1 - place / 100) for place, name in enumerate(names)]


def model(name: str, architecture: str = "", dimension: int | None = None, **outcomes: Values) -> Model:
    values = {metric: Outcomes(np.array(column, float), np.arange(len(column))) for metric, column in outcomes.items()}
    return Model(name, architecture, dimension, values)


def claims(*models: Model, operations: Mapping[str, list[bool]] | None = None) -> dict[tuple[str, str, str], Claim]:
    copies = {name: np.array(flags) for name, flags in (operations or {}).items()}
    return {(claim.model, claim.said, claim.measure): claim for claim in judge({"flat": models}, copies)}


# --- what a model follows ---


def test_overlap_with_the_color_histogram_by_hand() -> None:
    images = images_table(REFERENCES, ["a", "b", "c"])
    table = neighbors_table({"a": ranked("0123456"), "b": ranked("0123456")})
    colors = neighbors_table({"a": ranked("6543210"), "b": ranked("8765431"), "c": ranked("0123456")})
    # a: without its match r0, the model has r1 to r5 and the histogram r6 to r2: r2 to r5 are common.
    # b: r0 to r4 and r8 to r4: r4. c was rejected by the model.
    shares = overlaps(table, colors, truth_table([("a", "r0")]), images)
    assert shares.values.tolist() == [4 / 5, 1 / 5, 0]
    assert overlaps(table, table, truth_table([]), images).values.tolist() == [1, 1, 0]


def test_a_model_overlaps_fully_with_itself_regardless_of_its_matches() -> None:
    """Of six neighbors three are matches: the overlap is 3 of the remaining 3, not 3 of 5."""
    names = [f"r{number}" for number in range(9)]
    table = neighbors_table({"a": [(name, 1 - place / 10) for place, name in enumerate(names[:6])]})
    truth = truth_table([("a", name) for name in names[:3]])
    assert overlaps(table, table, truth, images_table(names, ["a"])).values.tolist() == [1]


def test_finding_the_match_does_not_count_as_following_its_colors() -> None:
    images = images_table(REFERENCES, ["a"])
    table, colors = neighbors_table({"a": ranked("01234")}), neighbors_table({"a": ranked("05678")})
    assert overlaps(table, colors, truth_table([("a", "r0")]), images).values.tolist() == [0]


def test_row_order_does_not_matter() -> None:
    images = images_table(REFERENCES, ["a", "b"])
    table = neighbors_table({"a": ranked("012345"), "b": ranked("345678")})
    colors = neighbors_table({"b": ranked("876012"), "a": ranked("543876")})
    backwards = table.take(list(range(table.num_rows))[::-1])
    for rows in (table, backwards):
        assert overlaps(rows, colors, truth_table([]), images).values.tolist() == [2 / 5, 2 / 5]


def test_only_copies_made_by_a_single_operation_are_used() -> None:
    queries = images_table([], list("abcd"), operations={"a": "grey", "b": "text:heavy", "c": "text:light + grey"})
    copies = {name: flags.tolist() for name, flags in single_operations(queries).items()}
    assert copies == {"grey": [True, False, False, False], "text": [False, True, False, False]}
    assert single_operations(images_table([], ["a"])) == {}


def test_the_change_under_an_operation_is_relative_to_the_other_single_operations() -> None:
    correct = [1, 0, 0, 0, 1, 1, 1, 0, 0, 0]
    operations = {"text": np.arange(10) < 4, "crop": (np.arange(10) >= 4) & (np.arange(10) < 8)}  # and two chains
    (row,) = follow("flat", [model("mine", accuracy_at_1=correct, color_overlap=[0.2, 0.4])], operations)
    assert set(row.evidence) == {OVERLAP, "text"}  # no copies for grey and paste
    assert row.evidence["text"].value == pytest.approx(1 / 4 - 3 / 4)
    assert row.evidence["text"].n == 4
    assert row.evidence[OVERLAP] == estimate(np.array([0.2, 0.4]), np.arange(2))


# --- statistics of different sets of queries ---


def test_the_interval_of_a_difference_is_newcombes() -> None:
    # Newcombe (1998), table II, method 10: 56/70 - 48/80 is 0.2 (0.0524 to 0.3339).
    def share(right: int, n: int) -> Estimate:
        return estimate(np.repeat([1.0, 0.0], [right, n - right]), np.arange(n))

    gap = contrast(share(56, 70), share(48, 80))
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    sides = [
        Estimate(value=right / 10, low=low, high=high, n=10) for right in (9, 3) for low, high in [wilson(right, 10)]
    ]
    gap = contrast(*sides)
    assert (gap.low, gap.high) == pytest.approx((0.1705, 0.8090), abs=5e-5)
    assert contrast(NOTHING, share(1, 2)) == contrast(share(1, 2), NOTHING) == NOTHING


@pytest.mark.parametrize(("right", "others_right"), [(3, 30), (9, 20), (0, 36), (5, 17)])
def test_permuting_hits_and_misses_is_fishers_exact_test(right: int, others_right: int) -> None:
    values = np.repeat([1.0, 0.0, 1.0, 0.0], [right, 10 - right, others_right, 40 - others_right])
    p = shuffled(values, np.arange(50) < 10)
    # Extreme by distance from the expectation, not by probability, which differs for asymmetric tails.
    exact = fisher_exact([[right, 10 - right], [others_right, 40 - others_right]]).pvalue
    assert p == pytest.approx(exact, abs=0.02)
    order = np.random.default_rng(1).permutation(50)
    assert shuffled(values[order], (np.arange(50) < 10)[order]) == p
    assert shuffled(values, np.ones(50, bool)) == 1


# --- published claims ---


def test_confirmed_refuted_undecided() -> None:
    random = np.random.default_rng(0)
    low = random.random(200) / 4
    others = [model("dino", "dinov2", color_overlap=low), model("clip", "clip", color_overlap=low)]
    key = ("cnn", "follows color and texture", OVERLAP)
    for shift, verdict in ((0.3, "confirmed"), (-0.3, "refuted"), (0.0, "undecided")):
        own = np.clip(0.3 + shift + random.random(200) / 4 - 0.12, 0, 1)
        reference = [model(other.name, other.architecture, color_overlap=0.3 + low - 0.12) for other in others]
        claim = claims(model("cnn", "cnn", color_overlap=own), *reference)[key]
        assert claim.verdict == verdict
        assert claim.against == ["dino", "clip"]
        assert claim.difference.value == pytest.approx(shift, abs=0.05)


def test_a_claim_about_a_lower_value_is_confirmed_by_a_lower_value() -> None:
    # Text costs CLIP 60 points and DINOv2 none; other operations cost neither of them any.
    text = np.arange(100) < 50
    clip, dino = np.where(text, np.arange(100) % 5 < 2, 1), np.ones(100)
    operations = {"text": text.tolist(), "crop": (~text).tolist()}
    models = [model("clip", "clip", accuracy_at_1=clip), model("dino", "dinov2", accuracy_at_1=dino)]
    claim = claims(*models, operations=operations)["clip", "is drawn to written text", "text"]
    assert (claim.verdict, claim.difference.value) == ("confirmed", pytest.approx(-0.6))
    assert claim.difference.high < 0


def test_an_operation_that_is_hard_for_all_models_confirms_nothing() -> None:
    text = np.arange(100) < 50
    hard = np.where(text, np.arange(100) % 5 < 2, 1)
    operations = {"text": text.tolist(), "crop": (~text).tolist()}
    models = [model("clip", "clip", accuracy_at_1=hard), model("dino", "dinov2", accuracy_at_1=hard)]
    claim = claims(*models, operations=operations)["clip", "is drawn to written text", "text"]
    assert (claim.verdict, claim.difference.value) == ("undecided", 0)


def test_baselines_and_models_without_an_architecture_are_not_compared_with() -> None:
    overlap = [0.5] * 20
    results = claims(
        model("cnn", "cnn", color_overlap=overlap),
        model("mine", color_overlap=overlap),
        model("color-histogram", follows.COLORS),
    )
    assert {claim.model for claim in results.values()} == {"cnn"}
    assert {claim.reason for claim in results.values()} == {"no model to compare it with"}
    assert {claim.verdict for claim in results.values()} == {"undecided"}


def test_an_untestable_claim_is_undecided_with_a_reason() -> None:
    results = claims(model("cnn", "cnn", accuracy_at_1=[1] * 9), model("vit", "vit", accuracy_at_1=[1] * 9))
    reasons = {(model, measure): claim.reason for (model, _, measure), claim in results.items()}
    assert reasons == {
        ("cnn", OVERLAP): "needs a color histogram among the models and a k of at least 5",
        ("cnn", "color"): "needs copies made by this operation and by others",
        ("cnn", "grey"): "needs copies made by this operation and by others",
        ("vit", ACCURACY): "",  # without captions, "better" is tested by accuracy
        ("vit", OVERLAP): "no model to compare it with",
    }


def test_the_best_model_is_compared_with_the_best_other_and_corrected_for_the_choice() -> None:
    random = np.random.default_rng(2)
    base = random.random(600) / 2
    models = [
        model("blip2", "blip2", caption_agreement_at_5=base + 0.02 * random.random(600)),
        model("clip", "clip", caption_agreement_at_5=base),
        model("vit", "vit", caption_agreement_at_5=base / 2),
    ]
    claim = claims(*models)["blip2", "is the best", "caption_agreement_at_5"]
    alone = claims(*models[:2])["blip2", "is the best", "caption_agreement_at_5"]
    assert claim.against == alone.against == ["clip"]
    assert claim.p == pytest.approx(2 * alone.p)
    assert claim.verdict == "confirmed"


def test_clip_and_dinov2_are_compared_at_equal_dimension_only() -> None:
    right, wrong = [1] * 18 + [0] * 2, [1] * 4 + [0] * 16
    models = [
        model("dino", "dinov2", 768, accuracy_at_1=right),
        model("clip-b32", "clip", 512, accuracy_at_1=wrong),
        model("clip-l14", "clip", 768, accuracy_at_1=wrong),
    ]
    claim = claims(*models)["dino", "finds more than CLIP", ACCURACY]
    assert (claim.against, claim.verdict, claim.difference.value) == (["clip-l14"], "confirmed", pytest.approx(0.7))
    claim = claims(*models[:2])["dino", "finds more than CLIP", ACCURACY]
    assert claim.reason == "no such model of the same dimension"


def test_equal_dimensions_may_come_from_another_index() -> None:
    right, wrong = [1] * 18 + [0] * 2, [1] * 4 + [0] * 16
    indexes = {
        index: [
            model("dino", "dinov2", of_dino, accuracy_at_1=right),
            model("clip", "clip", of_clip, accuracy_at_1=wrong),
        ]
        for index, of_dino, of_clip in (("flat", 768, 512), ("pca256", 256, 256))
    }
    tested = [claim for claim in judge(indexes, {}) if claim.said == "finds more than CLIP"]
    assert [(claim.index, claim.verdict) for claim in tested] == [("flat", "undecided"), ("pca256", "confirmed")]


def test_claims_are_corrected_for_multiple_testing() -> None:
    random = np.random.default_rng(4)
    values = {name: random.random(40) for name in (OVERLAP, "caption_agreement_at_5", ACCURACY)}
    architectures = ("cnn", "vit", "dinov2", "clip", "blip2")
    models = [
        model(kind, kind, **{name: np.roll(column, place) for name, column in values.items()})
        for place, kind in enumerate(architectures)
    ]
    tested = [claim for claim in claims(*models).values() if not claim.reason]
    assert len(tested) >= 6
    assert min(claim.p_holm for claim in tested) == pytest.approx(
        min(1, len(tested) * min(claim.p for claim in tested))
    )
