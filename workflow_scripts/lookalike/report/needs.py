"""What a reader may need of a model: the choices of the page's switch, each with its statement, chart and order.

Everything follows from ``answers`` and the pairwise tests of ``comparisons.json``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lookalike.io.formats.answers import Answer
from lookalike.report import headline, words
from lookalike.report.evidence import ACTS, FAST, LOOKS, Evidence, Run
from lookalike.report.figures import shares
from lookalike.report.headline import Statement

LABELS = {LOOKS: "someone looks at the results", ACTS: "it acts alone", FAST: "fast"}
WORSE = "significantly worse"
MOST_ROWS = 12  # of the chart; the board has all


@dataclass(frozen=True)
class Row:
    """One model in the chart; ``x``, ``low`` and ``high`` in percent of the width, ``value`` is what it is ordered by.

    ``standing``: compared with the model that leads, such as ``best`` (see ``standing``).
    """

    run: Run
    x: float
    low: float
    high: float
    value: str
    standing: str


@dataclass(frozen=True)
class Need:
    """One choice of the switch. ``metric`` is drawn, ``best`` the model to use, if there is one."""

    name: str
    label: str
    statement: Statement
    metric: str
    index: str
    best: Run | None
    rows: list[Row]
    labelled: bool

    @property
    def shown(self) -> list[Row]:
        """The rows of the chart."""
        return self.rows[:MOST_ROWS]

    @property
    def heading(self) -> str:
        """What the chart shows."""
        ordered = ", fastest first" if self.name == FAST else ""
        return f"{words.metric(self.metric, labelled=self.labelled)}{ordered}, with 95{words.SPACE}% intervals"


def needs(evidence: Evidence) -> list[Need]:
    """The choices that something was measured for; the first is always there."""
    found = [_need(evidence, LOOKS, headline.looks(evidence))]
    if alone := headline.acts_alone(evidence):
        found.append(_need(evidence, ACTS, alone))
    fast = _fast(evidence)
    return [*found, fast] if fast else found


def run_of(evidence: Evidence, answer: Answer) -> Run | None:
    """The run that leads."""
    if not answer.best:
        return None
    return next(run for run in evidence.runs if (run.model, run.index) == (answer.best[0], answer.index))


def standing(evidence: Evidence, run: Run, by: str) -> str:
    """A run compared with the best of its index by a metric: ``best``, WORSE, ``cannot tell apart`` and so on."""
    rivals = [rival for rival in evidence.runs if rival.index == run.index]
    top = headline.best(rivals, by)
    if top is None or run.estimate(by).value is None:
        return "not measured"
    verdicts = {rival.model: pair.verdict for rival in rivals if (pair := evidence.verdict(by, top, rival))}
    if run is top:
        # The highest number is not enough: "best" requires a significant difference from some other model.
        return "best" if "better" in verdicts.values() else "highest"
    standings = {"better": WORSE, "too few groups": "too few groups"}
    return standings.get(verdicts[run.model], "cannot tell apart") if run.model in verdicts else "not compared"


def _need(evidence: Evidence, name: str, statement: Statement) -> Need:
    answer = evidence.answers[name]
    best = run_of(evidence, answer)
    runs = [run for run in evidence.runs if run.index == answer.index and run.estimate(answer.metric).value is not None]
    rows = [
        _row(
            run, answer.metric, words.percent(run.estimate(answer.metric).value), standing(evidence, run, answer.metric)
        )
        for run in sorted(runs, key=lambda run: -(run.estimate(answer.metric).value or 0.0))
    ]
    alone = name == ACTS and not answer.estimate.value
    return Need(
        name, LABELS[name], statement, answer.metric, answer.index, None if alone else best, rows, evidence.labelled
    )


def _row(run: Run, metric: str, value: str, standing: str) -> Row:
    x, low, high = shares(run.estimate(metric))
    return Row(run, x, low, high, value, standing)


def _fast(evidence: Evidence) -> Need | None:
    """The fastest of the models that are not shown to be worse; None where no speed is known."""
    answer = evidence.answers.get(FAST)
    if answer is None:
        return None
    timed = [run for run in evidence.runs if run.index == answer.index and run.model in answer.speeds]
    ordered = sorted(timed, key=lambda run: -answer.speeds[run.model])
    chosen = run_of(evidence, answer)
    rows = [
        _row(
            run,
            answer.metric,
            f"{_rate(answer, run)}/s",
            "best" if run is chosen else WORSE if run.model in answer.worse else "not shown to be worse",
        )
        for run in ordered
    ]
    if chosen:
        statement = _fastest(evidence, answer, ordered, chosen)
    elif answer.verdict == "different devices":
        statement = Statement("Speeds cannot be compared: the models were measured on different devices.")
    else:
        statement = Statement("The speed of the models that may be the best is unknown.")
    return Need(FAST, LABELS[FAST], statement, answer.metric, answer.index, chosen, rows, evidence.labelled)


def _fastest(evidence: Evidence, answer: Answer, ordered: Sequence[Run], chosen: Run) -> Statement:
    looks = evidence.answers[LOOKS]
    top, metric = evidence.label(looks.best[0]), words.metric(looks.metric, labelled=evidence.labelled)
    unknown = [model for model in looks.best if model not in answer.speeds]
    first, known = f"{chosen.label} embeds {_speed(answer, chosen)}", " whose speed is known" if unknown else ""
    if looks.best[0] != chosen.model:
        shares = [words.percent(estimate.value) for estimate in (answer.estimate, looks.estimate)]
        first += f", the fastest of the models{known} not shown to be worse than {top} by {metric} "
        first += f"({shares[0]} and {shares[1]})"
        if run := next((run for run in ordered if run.model == looks.best[0]), None):
            first += f"; {top} embeds {_speed(answer, run)}"
    elif len(looks.best) > 1:
        first += f", the fastest of the models{known} not shown to be worse by {metric}, which is highest for it"
    elif answer.worse:
        first += f"; all other models are significantly worse by {metric}"
    faster = [run for run in ordered[: ordered.index(chosen)] if run.model in answer.worse]
    more = []
    if faster:
        each = [
            f"{run.label} ({_rate(answer, run)} per second, {words.percent(run.estimate(answer.metric).value)})"
            for run in faster
        ]
        more.append(f"Faster, but significantly worse than {top}: {words.listing(each, 99)}.")
    if unknown:
        more.append(f"Speed unknown: {words.listing([evidence.label(model) for model in unknown], 99)}.")
    device = chosen.embed.device if chosen.embed else ""
    more.append(f"Speed of the whole embedding stage, measured once on {device}.")
    return Statement(f"{first}.", " ".join(more))


def _rate(answer: Answer, run: Run) -> str:
    return words.number(answer.speeds[run.model])


def _speed(answer: Answer, run: Run) -> str:
    return f"{_rate(answer, run)}{words.SPACE}images per second"
