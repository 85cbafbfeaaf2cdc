"""The answers for two needs, and the sentences that the report makes from them: nothing is said that a test denies."""

import re
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.compare.answers import ACTS, LOOKS, NEEDS, answers, headline_metrics
from lookalike.io.formats.answers import Answer
from lookalike.io.formats.records import Comparison, Estimate, Metrics
from lookalike.io.formats.thresholds import Seen, Target, Transfer
from lookalike.report import evidence as inputs
from lookalike.report import headline, words

METRICS = [metric for metrics in NEEDS.values() for metric in metrics]
TURNED = {"better": "worse", "worse": "better"}


def record(model: str, values: dict[str, float | None], index: str = "flat") -> Metrics:
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
        timing={},
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
    """What the headline reads of the evidence."""

    matched = frozenset({"q"})
    groups = 30
    best_by = "accuracy_at_1"

    def __init__(self, records: list[Metrics], found: dict[str, Answer]) -> None:
        self.answers = found
        self.runs = [
            inputs.Run(number, one.model, f"The {one.model} one", one.index, one, None, {})  # type: ignore[arg-type]
            for number, one in enumerate(records)
        ]
        self.indexes = list(dict.fromkeys(one.index for one in records))

    def label(self, model: str) -> str:
        return f"The {model} one"


def sentence(records: list[Metrics], comparisons: list[Comparison]) -> str:
    shown: Any = Shown(records, answers(records, comparisons))
    return headline.sentence(shown).replace(words.SPACE, " ")


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
        "The network one ranks a true match first for 50 % of 150 queries; it is significantly better than the other "
        "model; to act alone, The thumbnail one finds 42 % of the matches with 90 % precision, significantly more than "
        "The network one; it is significantly better than the other model."
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
        "The a one ranks a true match first for 50 % of 150 queries; The b one is not significantly different from it "
        "(about 1,300 queries would tell); yet by Accuracy@3, The b one is significantly better. To act alone, it "
        "finds 40 % of the matches with 90 % precision; The b one is not significantly different from it; yet by µAP, "
        "The b one is significantly better."
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
    ("verdict", "said"),
    [
        ("holds", "precision."),
        ("too few queries", "precision (unverified: too few queries)."),
        ("does not hold", "precision (on other queries, that precision does not hold)."),
    ],
)
def test_an_unproven_threshold_is_not_recommended_in_silence(verdict: str, said: str) -> None:
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
    text = sentence([alone], [])
    assert said.removesuffix(".") in text
    assert ("unverified" in text or "does not hold" in text) == (verdict != "holds")


def test_too_few_groups_are_said() -> None:
    a, b = (record(name, {"accuracy_at_1": value, "recall_at_p90": 0.0}) for name, value in (("a", 0.5), ("b", 0.4)))
    pairs = [comparison(a, b, metric, "too few groups") for metric in ("accuracy_at_1", "recall_at_p90")]
    assert answers([a, b], pairs)[LOOKS].verdict == "too few groups"
    assert sentence([a, b], pairs) == (
        "The a one ranks a true match first for 50 % of 150 queries; 30 independent groups cannot tell whether it is "
        "better than The b one. No model reaches a precision of 90 % at any score, so none can act alone."
    )


def test_nothing_measured_has_no_best_model() -> None:
    nothing = record("a", {"accuracy_at_1": None, "recall_at_p90": None})
    assert {(answer.verdict, len(answer.best)) for answer in answers([nothing], []).values()} == {("not measured", 0)}


@st.composite
def experiments(draw: st.DrawFn) -> tuple[list[Metrics], list[Comparison]]:
    """Any values and any verdicts, as long as a significant difference has the sign of the values."""
    value = st.sampled_from([0.0, 0.1, 0.2, 0.4, 0.5, 0.8])
    models = draw(st.integers(1, 4))
    records = [record(f"m{number}", {metric: draw(value) for metric in METRICS}) for number in range(models)]
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
    found = answers(records, pairs)
    verdicts = {(pair.metric, pair.a, pair.b): pair.verdict for pair in pairs}
    verdicts |= {(metric, b, a): TURNED.get(verdict, verdict) for (metric, a, b), verdict in verdicts.items()}
    others = {one.model for one in records}
    text = sentence(records, pairs)
    parts = re.split(r"(?:\. To act alone, it|; to act alone, The m\d one) finds ", text)
    first = re.split(r"\. | reaches a precision|to act alone", text)[0]
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
        part = parts[-1] if need == ACTS else parts[0]
        for metric, model, how in denied:
            named = rf"yet .*by {words.metric(metric)}, [^;]*The {model} one[^;]* significantly {how}"
            assert silent or re.search(named, part), text
        if worse and not silent and len(worse) < len(records) - 1:
            named = re.search(r"(?:^|; |and )((?:The m\d one(?:, | and )?)+) (?:is|are) significantly worse", part)
            assert named, text
            assert set(re.findall(r"m\d", named[1])) == worse
        if len(worse) == len(records) - 1 > 0 and not silent:
            assert "it is significantly better than" in part
    assert f"The {tops[LOOKS]} one" in first
    if found[ACTS].estimate.value and tops[ACTS] != tops[LOOKS]:
        assert f"to act alone, The {tops[ACTS]} one finds" in text.split(". ")[0]
        significant = f"significantly more than The {tops[LOOKS]} one" in text
        assert significant == (verdicts["recall_at_p90", tops[ACTS], tops[LOOKS]] == "better")
