"""Data of two sections: semantic agreement of neighbors, and what each model relies on."""

import math
from dataclasses import dataclass

from lookalike.io.formats.records import Claim, Estimate
from lookalike.report import words
from lookalike.report.evidence import Evidence, Run

# The metrics that rank models where accuracy cannot, in order of preference.
AGREEMENT = ("caption_agreement_at_5", "category_overlap_at_5", "category_ndcg_at_5")
EVIDENCE = ("color_overlap", "color", "grey", "text", "paste")
SYMBOLS = {"confirmed": "✓", "refuted": "✗", "undecided": "?"}


@dataclass(frozen=True)
class Rung:
    """One model between chance and the text ceiling; positions in percent of the width."""

    run: Run
    estimate: Estimate
    reached: Estimate
    x: float
    low: float
    high: float


@dataclass(frozen=True)
class Ladder:
    """All models by one metric with one index, highest first, between chance and the text ceiling."""

    metric: str
    index: str
    chance: Estimate
    ceiling: Estimate
    chance_at: float
    ceiling_at: float
    ticks: list[tuple[float, str]]
    rungs: list[Rung]
    queries: int
    not_counted: int


def ladders(evidence: Evidence) -> list[Ladder]:
    """One figure per metric of agreement and index; empty for a data set without captions and categories."""
    figures = []
    for metric in AGREEMENT:
        for index in evidence.indexes:
            runs = [run for run in evidence.runs if run.index == index and metric in run.metrics.baselines]
            if runs:
                figures.append(_ladder(metric, index, runs))
    return figures


def _ladder(metric: str, index: str, runs: list[Run]) -> Ladder:
    baseline = runs[0].metrics.baselines[metric]  # depends on the text only, so it is the same for every model
    shown = [baseline.floor, baseline.ceiling, *(run.estimate(metric) for run in runs)]
    top = max(0.1, min(1.0, math.ceil(10.5 * max(estimate.high or estimate.value or 0.0 for estimate in shown)) / 10))

    def at(share: float | None) -> float:
        return 100 * (share or 0.0) / top

    rungs = [
        Rung(
            run,
            estimate,
            run.metrics.baselines[metric].reached,
            at(estimate.value),
            at(estimate.low),
            at(estimate.high),
        )
        for run in sorted(runs, key=lambda run: -(run.estimate(metric).value or 0.0))
        for estimate in [run.estimate(metric)]
    ]
    step = 0.1 if top <= 0.5 else 0.2
    return Ladder(
        metric=metric,
        index=index,
        chance=baseline.floor,
        ceiling=baseline.ceiling,
        chance_at=at(baseline.floor.value),
        ceiling_at=at(baseline.ceiling.value),
        ticks=[
            (at(number * step), f"{number * step * 100:.0f}{words.SPACE}%") for number in range(round(top / step) + 1)
        ],
        rungs=rungs,
        queries=baseline.floor.n,
        not_counted=baseline.not_counted,
    )


@dataclass(frozen=True)
class Follower:
    """What one model relies on: an estimate for each column, or None if it was not measured."""

    run: Run
    cells: list[Estimate | None]


@dataclass(frozen=True)
class Tested:
    """A published claim with its test on one model, or the reason why it could not be tested on several."""

    claim: Claim
    source: str
    models: list[str]
    measured: str

    @property
    def sign(self) -> str:
        """The symbol of the verdict, so that color is not needed to read it."""
        return SYMBOLS[self.claim.verdict]


@dataclass(frozen=True)
class Follows:
    """The two tables of the section."""

    columns: list[str]
    rows: list[Follower]
    tested: list[Tested]
    colors: bool  # whether the experiment includes a color histogram


def follows(evidence: Evidence) -> Follows:
    """What each model relies on, with the first index, and the published claims."""
    by_model = {row.model: row.evidence for row in evidence.follows if row.index == evidence.indexes[0]}
    columns = [name for name in EVIDENCE if any(name in known for known in by_model.values())]
    rows = [
        Follower(run, [by_model[run.model].get(name) for name in columns])
        for run in evidence.models
        if by_model.get(run.model)
    ]
    tested: dict[tuple[str, ...], Tested] = {}
    for number, claim in enumerate(evidence.claims):
        # claims that could not be tested for the same reason share a row
        row = (claim.said, claim.measure, claim.reason) if claim.reason else (str(number),)
        label = evidence.label(claim.model)
        if row in tested:
            tested[row].models.append(label)
        else:
            source = words.SOURCES.get(claim.article, claim.article)
            tested[row] = Tested(claim, source, [label], _measured(evidence, claim))
    shown = list(tested.values()) if any(not test.claim.reason for test in tested.values()) else []
    return Follows(columns, rows, shown, "color_overlap" in columns)


def _measured(evidence: Evidence, claim: Claim) -> str:
    measure = words.measure(claim.measure)
    if not claim.against:
        return measure
    labels = words.listing([evidence.label(model) for model in claim.against], 99)
    others = {
        "mean": f"the mean of {labels}" if len(claim.against) > 1 else labels,
        "best": f"the best other model, {labels}",
        "same length": f"{labels}, which has the same dimension",
    }
    return f"{measure}, vs. {others[claim.by]}"
