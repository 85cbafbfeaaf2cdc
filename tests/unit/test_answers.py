"""The answers for two needs, and the sentences that the report makes from them: nothing is said that a test denies."""

import re
from itertools import combinations
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.compare.answers import ACTS, FAST, LOOKS, NEEDS, answers, headline_metrics
from lookalike.io.formats.records import Comparison, Estimate, Metrics
from lookalike.io.formats.thresholds import Seen, Target, Transfer
from lookalike.report import board, headline, needs, useit, words
from lookalike.report import evidence as inputs

METRICS = [metric for metrics in NEEDS.values() for metric in metrics]
TURNED = {"better": "worse", "worse": "better"}


def record(
    model: str, values: dict[str, float | None], index: str = "flat", speed: float = 0.0, device: str = "CPU"
) -> Metrics:
    estimates = {
        name: Estimate(value=value, low=value and value / 2, high=value, n=0 if value is None else 150)
        for name, value in values.items()
    }
    return Metrics(
        dataset="tiles",
        model=model,
        index=index,
        references=9,
        queries=150,
        groups=30,
        rejected_references=0,
        rejected_queries=0,
        metrics=estimates,
        breakdowns={},
        timing={"embed": {"images": 100, "seconds": 100 / speed, "device": device}} if speed else {},
    )


def comparison(a: Metrics, b: Metrics, metric: str, verdict: str, needed: int | None = None) -> Comparison:
    gap = (a.metrics[metric].value or 0.0) - (b.metrics[metric].value or 0.0)
    return Comparison(
        index=a.index,
        metric=metric,
        a=a.model,
        b=b.model,
        difference=Estimate(value=gap, low=gap - 0.1, high=gap + 0.1, n=150),
        p=0.01,
        p_holm=0.02,
        verdict=verdict,
        queries_needed=needed,
    )


class Shown:
    """What the head and the board read of the evidence."""

    matched = frozenset({"q"})
    groups = 30
    labelled = False
    best_by = "accuracy_at_1"
    about: ClassVar[dict[str, str]] = {}
    verdict = inputs.Evidence.verdict

    def __init__(self, records: list[Metrics], comparisons: list[Comparison]) -> None:
        self.answers = answers(records, comparisons)
        self.comparisons = comparisons
        self.runs = [
            inputs.Run(number, one.model, f"The {one.model} one", one.index, one, None, {})  # type: ignore[arg-type]
            for number, one in enumerate(records)
        ]
        self.indexes = list(dict.fromkeys(one.index for one in records))

    def label(self, model: str) -> str:
        return f"The {model} one"


def offered(records: list[Metrics], comparisons: list[Comparison]) -> dict[str, needs.Need]:
    shown: Any = Shown(records, comparisons)
    return {need.name: need for need in needs.needs(shown)}


def said(need: needs.Need) -> str:
    return f"{need.statement.first} {need.statement.more}".replace(words.SPACE, " ").strip()


def sentence(records: list[Metrics], comparisons: list[Comparison], need: str = LOOKS) -> str:
    return said(offered(records, comparisons)[need])


def test_the_headline_names_both_winners_where_they_differ() -> None:
    # As in the demo: the network finds more, the thumbnail can be trusted more.
    network = record("network", {"accuracy_at_1": 0.5, "recall_at_p90": 0.167})
    thumbnail = record("thumbnail", {"accuracy_at_1": 0.3, "recall_at_p90": 0.42})
    pairs = [
        comparison(network, thumbnail, "accuracy_at_1", "better"),
        comparison(network, thumbnail, "recall_at_p90", "worse"),
    ]
    found = answers([network, thumbnail], pairs)
    assert (found[LOOKS].best, found[LOOKS].verdict) == (["network"], "best")
    assert (found[ACTS].best, found[ACTS].verdict) == (["thumbnail"], "best")
    assert sentence([network, thumbnail], pairs) == (
        "The network one ranks a true match first for 50 % of 150 queries; to act alone, The "
        "thumbnail one finds 42 % of "
        "the matches with 90 % precision, significantly more than The network one. The network one is significantly "
        "better than the other model."
    )
    assert sentence([network, thumbnail], pairs, ACTS) == (
        "To act alone, The thumbnail one finds 42 % of the matches with 90 % precision; for someone who looks at the "
        "results, The network one ranks a true match first for 50 % of 150 queries, significantly better than The "
        "thumbnail one. The thumbnail one is significantly better than the other model."
    )


def test_a_contradiction_by_another_metric_of_the_need_is_said() -> None:
    a = record("a", {"accuracy_at_1": 0.5, "accuracy_at_3": 0.6, "recall_at_p90": 0.4, "uap": 0.5})
    b = record("b", {"accuracy_at_1": 0.45, "accuracy_at_3": 0.8, "recall_at_p90": 0.3, "uap": 0.6})
    pairs = [
        comparison(a, b, "accuracy_at_1", "cannot tell", needed=1234),
        comparison(b, a, "accuracy_at_3", "better"),
        comparison(a, b, "recall_at_p90", "cannot tell"),
        comparison(a, b, "uap", "worse"),
    ]
    found = answers([a, b], pairs)
    assert [(one.metric, one.model) for one in found[LOOKS].contradictions] == [("accuracy_at_3", "b")]
    assert found[LOOKS].contradictions[0].difference.value == pytest.approx(0.2)
    assert [(one.metric, one.model) for one in found[ACTS].contradictions] == [("uap", "b")]
    assert sentence([a, b], pairs) == (
        "The a one ranks a true match first for 50 % of 150 queries. The b one is not significantly "
        "different from The a "
        "one (about 1,300 queries would tell). Yet by Accuracy@3, The b one is significantly better than The a one."
    )
    assert sentence([a, b], pairs, ACTS) == (
        "To act alone, The a one finds 40 % of the matches with 90 % precision. The b one is not "
        "significantly different "
        "from The a one. Yet by µAP, The b one is significantly better than The a one."
    )


def test_images_of_the_same_scene_are_ignored_where_that_changes_a_number() -> None:
    """A phone folder: strictly, all look equal; with other shots of the scene ignored, the network is far ahead."""
    network = record("network", {"accuracy_at_1": 0.46, "accuracy_at_1_scene": 0.72, "recall_at_p90": 0.3})
    pixels = record("pixels", {"accuracy_at_1": 0.47, "accuracy_at_1_scene": 0.52, "recall_at_p90": 0.1})
    pairs = [
        comparison(network, pixels, "accuracy_at_1", "cannot tell"),
        comparison(network, pixels, "accuracy_at_1_scene", "better"),
        comparison(network, pixels, "recall_at_p90", "better"),
    ]
    answer = answers([network, pixels], pairs)[LOOKS]
    assert (answer.metric, answer.best, answer.verdict) == ("accuracy_at_1_scene", ["network"], "best")
    assert answer.strict == network.metrics["accuracy_at_1"]
    assert "72 % of 150 queries (46 % if another image of the same scene is a miss)" in sentence(
        [network, pixels], pairs
    )
    assert "accuracy_at_1_scene" in headline_metrics([network, pixels])
    same = [record(one.model, {"accuracy_at_1": 0.4, "accuracy_at_1_scene": 0.4}) for one in (network, pixels)]
    assert answers(same, [])[LOOKS].metric == "accuracy_at_1"


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        ("holds", "precision (95 % interval"),
        ("too few queries", "precision (unverified: too few queries)"),
        ("does not hold", "precision (on other queries, that precision does not hold)"),
    ],
)
def test_an_unproven_threshold_is_not_recommended_in_silence(verdict: str, expected: str) -> None:
    target = Target(
        seen=Seen(score=0.8, precision=0.9, recall=0.4),
        safe=None,
        transfer=Transfer(precision=Estimate(value=0.25, low=0.1, high=0.5, n=9), recall=0.2, without=0, halves=200),
        verdict=verdict,
        queries_needed=None,
        false_matches_per_query=0.1,
        share_with_match=0.8,
    )
    alone = record("a", {"accuracy_at_1": 0.5, "recall_at_p90": 0.4}).model_copy(update={"thresholds": {"90": target}})
    assert answers([alone], [])[ACTS].threshold == verdict
    text = sentence([alone], [], ACTS)
    assert expected in text
    assert ("unverified" in text or "does not hold" in text) == (verdict != "holds")
    shown: Any = Shown([alone], [])
    (card,) = useit.cards(shown, needs.needs(shown))
    (step,) = card.steps
    assert step.code == f"threshold = 0.8000  # 90 % precision: {step.verdict}"
    assert {"holds": "holds", "too few queries": "unverified", "does not hold": "does not hold"}[
        verdict
    ] in step.verdict


def test_in_a_labelled_collection_copies_are_ignored_not_scenes() -> None:
    names = ("accuracy_at_1", "accuracy_at_1_scene", "accuracy_at_3", "accuracy_at_3_scene")
    a = record("a", dict(zip(names, (0.6, 0.5, 0.7, 0.6), strict=True)))
    b = record("b", dict(zip(names, (0.5, 0.4, 0.8, 0.8), strict=True)))
    pairs = [comparison(a, b, name, "worse" if "3" in name else "cannot tell") for name in names]
    for labelled, ignored in ((True, "copies"), (False, "scenes")):
        shown: Any = Shown([a, b], pairs)
        shown.labelled = labelled
        need = needs.needs(shown)[0]
        assert need.heading.replace(words.SPACE, " ") == f"Accuracy@1, {ignored} ignored, with 95 % intervals"
        assert f"by Accuracy@3, {ignored} ignored, The b one is" in said(need)
    assert headline.question(shown_as(labelled=True)) == "Which model finds images of the same class?"
    assert "copies of the query" in words.meaning("map_at_r_scene", labelled=True)
    assert "copies of the query" not in words.meaning("map_at_r_scene")


def test_a_board_that_ignores_scenes_has_strict_values_of_the_deciding_metric_only() -> None:
    names = ("accuracy_at_1", "accuracy_at_3", "recall_at_5", "accuracy_at_1_scene", "accuracy_at_3_scene")
    shown: Any = Shown([record(name, dict.fromkeys(names, 0.5) | {"accuracy_at_1": 0.4}) for name in "ab"], [])
    (table, *_) = board.boards(shown, needs.needs(shown))
    assert table.metrics == ["accuracy_at_1_scene", "accuracy_at_1", "recall_at_5", "accuracy_at_3_scene"]


def shown_as(*, labelled: bool) -> Any:
    shown: Any = Shown([record(name, {"accuracy_at_1": 0.5}) for name in "ab"], [])
    shown.title, shown.labelled, shown.counts = "", labelled, {"a": None, "b": None}
    return shown


def test_too_few_groups_are_said() -> None:
    a, b = (record(name, {"accuracy_at_1": value, "recall_at_p90": 0.0}) for name, value in (("a", 0.5), ("b", 0.4)))
    pairs = [comparison(a, b, metric, "too few groups") for metric in ("accuracy_at_1", "recall_at_p90")]
    assert answers([a, b], pairs)[LOOKS].verdict == "too few groups"
    assert sentence([a, b], pairs) == (
        "The a one ranks a true match first for 50 % of 150 queries. 30 independent groups cannot "
        "tell whether The a one "
        "is better than The b one."
    )
    assert sentence([a, b], pairs, ACTS) == (
        "No model reaches a precision of 90 % at any score, so none can act alone."
    )
    assert offered([a, b], pairs)[ACTS].best is None


def test_the_fastest_model_not_shown_to_be_worse_is_chosen() -> None:
    values = {"slow": (0.9, 10.0), "fair": (0.8, 100.0), "bad": (0.2, 1000.0)}
    slow, fair, bad = (record(name, {"accuracy_at_1": value}, speed=speed) for name, (value, speed) in values.items())
    pairs = [
        comparison(slow, fair, "accuracy_at_1", "cannot tell"),
        comparison(slow, bad, "accuracy_at_1", "better"),
        comparison(fair, bad, "accuracy_at_1", "better"),
    ]
    answer = answers([slow, fair, bad], pairs)[FAST]
    assert (answer.verdict, answer.best, answer.worse) == ("fastest", ["fair", "slow"], ["bad"])
    assert answer.speeds == pytest.approx({"slow": 10, "fair": 100, "bad": 1000})
    fast = offered([slow, fair, bad], pairs)[FAST]
    assert said(fast) == (
        "The fair one embeds 100 images per second, the fastest of the models not shown to be worse "
        "than The slow one by "
        "Accuracy@1 (80.0 % and 90.0 %); The slow one embeds 10 images per second. Faster, but "
        "significantly worse than "
        "The slow one: The bad one (1,000 per second, 20.0 %). Speed of the whole embedding stage, "
        "measured once on CPU."
    )
    assert [(row.run.model, row.standing) for row in fast.rows] == [
        ("bad", "significantly worse"),
        ("fair", "best"),
        ("slow", "not shown to be worse"),
    ]


def test_speeds_of_different_devices_choose_no_model() -> None:
    a, b = (record(name, {"accuracy_at_1": 0.5}, speed=9, device=name) for name in ("CPU", "GPU"))
    answer = answers([a, b], [])[FAST]
    assert (answer.verdict, answer.best, answer.estimate.value) == ("different devices", [], None)
    fast = offered([a, b], [])[FAST]
    assert fast.best is None
    assert said(fast) == "Speeds cannot be compared: the models were measured on different devices."
    assert FAST not in offered([record("a", {"accuracy_at_1": 0.5})], [])


def test_nothing_measured_has_no_best_model() -> None:
    nothing = record("a", {"accuracy_at_1": None, "recall_at_p90": None})
    assert {(answer.verdict, len(answer.best)) for answer in answers([nothing], []).values()} == {("not measured", 0)}


@st.composite
def experiments(draw: st.DrawFn) -> tuple[list[Metrics], list[Comparison]]:
    """Any values, speeds and verdicts, as long as a significant difference has the sign of the values."""
    value = st.sampled_from([0.0, 0.1, 0.2, 0.4, 0.5, 0.8])
    models = draw(st.integers(1, 4))
    speed, device = st.sampled_from([0.0, 5.0, 50.0, 700.0]), st.sampled_from(["CPU", "CPU", "CPU", "GPU"])
    records = [
        record(f"m{number}", {metric: draw(value) for metric in METRICS}, speed=draw(speed), device=draw(device))
        for number in range(models)
    ]
    pairs = []
    for metric in METRICS:
        for a, b in combinations(records, 2):
            gap = a.metrics[metric].value - b.metrics[metric].value  # type: ignore[operator]
            significant = draw(st.booleans()) and gap != 0
            verdict = ("better" if gap > 0 else "worse") if significant else "cannot tell"
            pairs.append(comparison(a, b, metric, verdict, draw(st.none() | st.integers(151, 99_999))))
    return records, pairs


@given(experiments())
def test_no_sentence_states_what_a_test_denies(experiment: tuple[list[Metrics], list[Comparison]]) -> None:
    """Checked against the comparisons themselves, not against the answers."""
    records, pairs = experiment
    found, shown = answers(records, pairs), offered(records, pairs)
    verdicts = {(pair.metric, pair.a, pair.b): pair.verdict for pair in pairs}
    verdicts |= {(metric, b, a): TURNED.get(verdict, verdict) for (metric, a, b), verdict in verdicts.items()}
    others = {one.model for one in records}
    tops = {}
    for need, metrics in NEEDS.items():
        top = found[need].best[0]
        tops[need] = top
        assert all(
            one.metrics[metrics[0]].value <= next(r for r in records if r.model == top).metrics[metrics[0]].value  # type: ignore[operator]
            for one in records
        )
        worse = {model for model in others - {top} if verdicts[metrics[0], top, model] == "better"}
        assert set(found[need].worse) == worse
        assert set(found[need].best) == others - worse
        rivals = [(metric, model) for metric in metrics[1:] for model in others - {top}]
        denied = {(metric, model, "better") for metric, model in rivals if verdicts[metric, top, model] == "worse"}
        denied |= {
            (metric, model, "worse")
            for metric, model in rivals
            if verdicts[metric, top, model] == "better" and verdicts[metrics[0], top, model] == "cannot tell"
        }
        contradicted = {
            (one.metric, one.model, "better" if one.difference.value > 0 else "worse")  # type: ignore[operator]
            for one in found[need].contradictions
        }
        assert contradicted == denied
        silent = need == ACTS and not found[need].estimate.value
        more = shown[need].statement.more.replace(words.SPACE, " ")
        for metric, model, how in denied:
            named = (
                rf"Yet .*by {words.metric(metric)}, [^.]*The {model} one[^.]* significantly {how} than The {top} one"
            )
            assert re.search(named, more), more
        if worse and not silent and len(worse) < len(records) - 1:
            named = re.search(r"(?:^|\. )((?:The m\d one(?:, | and )?)+) (?:is|are) significantly worse than", more)
            assert named, more
            assert set(re.findall(r"m\d", named[1])) == worse
        if len(worse) == len(records) - 1 > 0 and not silent:
            assert f"The {top} one is significantly better than" in more
    firsts = {need: shown[need].statement.first for need in NEEDS}
    assert firsts[LOOKS].startswith(f"The {tops[LOOKS]} one ranks a true match first")
    if found[ACTS].estimate.value and tops[ACTS] != tops[LOOKS]:
        for need, other, said_of in ((LOOKS, ACTS, "more"), (ACTS, LOOKS, "better")):
            assert all(f"The {top} one" in firsts[need] for top in tops.values())
            verdict = verdicts[NEEDS[other][0], tops[other], tops[need]]
            sure = "significantly" if verdict == "better" else "not significantly"
            assert firsts[need].endswith(f", {sure} {said_of} than The {tops[need]} one.")


@given(experiments())
def test_the_sentence_on_speed_is_that_of_its_answer(experiment: tuple[list[Metrics], list[Comparison]]) -> None:
    """Checked against the comparisons and timings themselves, not against the answer alone."""
    records, pairs = experiment
    timings = {one.model: one.timing["embed"] for one in records if one.timing}
    found, shown = answers(records, pairs), offered(records, pairs)
    assert (FAST in found) == (FAST in shown) == bool(timings)
    if not timings:
        return
    answer, looks = found[FAST], found[LOOKS]
    sentence = shown[FAST].statement.first.replace(words.SPACE, " ")
    speeds = {model: timing["images"] / timing["seconds"] for model, timing in timings.items()}
    assert answer.speeds == speeds
    comparable = len({timing["device"] for timing in timings.values()}) == 1
    good = [model for model in speeds if model in looks.best]
    assert answer.verdict == ("speed unknown" if not good else "fastest" if comparable else "different devices")
    if answer.verdict != "fastest":
        assert not answer.best
        assert not re.search(r"m\d", sentence), "no model is the fastest"
        return
    assert answer.best[0] in good
    assert speeds[answer.best[0]] == max(speeds[model] for model in good)
    assert sentence.startswith(
        f"The {answer.best[0]} one embeds {words.number(speeds[answer.best[0]])} images per second"
    )
    for model in set(speeds) & set(answer.worse):
        named = f"The {model} one (" in shown[FAST].statement.more.replace(words.SPACE, " ")
        assert named == (
            speeds[model] > speeds[answer.best[0]]
            or (
                speeds[model] == speeds[answer.best[0]]
                and list(speeds).index(model) < list(speeds).index(answer.best[0])
            )
        ), "faster models that are worse are named"


@given(experiments())
def test_star_order_and_card_agree_with_the_comparisons_for_every_need(
    experiment: tuple[list[Metrics], list[Comparison]],
) -> None:
    records, pairs = experiment
    evidence: Any = Shown(records, pairs)
    found = needs.needs(evidence)
    verdicts = {(pair.metric, pair.a, pair.b): pair.verdict for pair in pairs}
    verdicts |= {(metric, b, a): TURNED.get(verdict, verdict) for (metric, a, b), verdict in verdicts.items()}
    boards = {one.need.name: one for one in board.boards(evidence, found)}
    cards = {need: card for card in useit.cards(evidence, found) for need in card.needs}
    for need in found:
        starred = [row.run.model for row in need.rows if row.standing == "best"]
        assert [model.entry.run.model for model in boards[need.name].models][: len(need.rows)] == [
            row.run.model for row in need.rows
        ]
        assert (need.name in cards) == (need.best is not None)
        if need.best:
            assert cards[need.name].run is need.best
        values = {one.model: one.metrics[need.metric].value or 0.0 for one in records}
        if need.name != FAST:
            ordered = [values[row.run.model] for row in need.rows]
            assert ordered == sorted(values.values(), reverse=True)
            top = need.rows[0].run.model
            beaten = [model for model in values if model != top and verdicts[need.metric, top, model] == "better"]
            assert starred == ([top] if beaten else [])
            assert need.best is None or need.best.model == top
        elif need.best:
            speeds = {row.run.model: row.run.embed.images_per_second for row in need.rows if row.run.embed}
            assert [speeds[row.run.model] for row in need.rows] == sorted(speeds.values(), reverse=True)
            top = max(values, key=lambda model: values[model])
            good = [model for model in values if model == top or verdicts[need.metric, top, model] != "better"]
            assert starred == [need.best.model]
            assert need.best.model in good
            assert all(speeds[model] <= speeds[need.best.model] for model in good if model in speeds)
