"""Whether neighbors mean the same as their query, and what a model follows: rows and marks of these two sections."""

import math
from dataclasses import dataclass

from lookalike.io.formats.records import Claim, Estimate
from lookalike.report import words
from lookalike.report.evidence import Evidence, Run

# What decides between models where accuracy cannot, in the order in which it is looked for.
AGREEMENT = ("caption_agreement_at_5", "category_overlap_at_5", "category_ndcg_at_5")
EVIDENCE = ("color_overlap", "color", "grey", "text", "paste")
SIGNS = {"confirmed": "✓", "refuted": "✗", "undecided": "?"}


@dataclass(frozen=True)
class Standing:
    """One model between floor and ceiling; positions in percent of the figure's width."""

    run: Run
    estimate: Estimate
    reached: Estimate
    x: float
    low: float
    high: float


@dataclass(frozen=True)
class Ladder:
    """All models by one metric and with one index, the highest first, between chance and the text itself."""

    metric: str
    index: str
    floor: Estimate
    ceiling: Estimate
    floor_at: float
    ceiling_at: float
    ticks: list[tuple[float, str]]
    standings: list[Standing]
    queries: int
    not_counted: int


def ladders(evidence: Evidence) -> list[Ladder]:
    """One figure for each metric of agreement and each index; none where a data set has no captions or categories."""
    found = []
    for metric in AGREEMENT:
        for index in evidence.indexes:
            runs = [run for run in evidence.runs if run.index == index and metric in run.metrics.baselines]
            if runs:
                found.append(_ladder(metric, index, runs))
    return found


def _ladder(metric: str, index: str, runs: list[Run]) -> Ladder:
    between = runs[0].metrics.baselines[metric]  # the same for every model: it depends on the text alone
    shown = [between.floor, between.ceiling, *(run.estimate(metric) for run in runs)]
    top = max(0.1, min(1.0, math.ceil(10.5 * max(one.high or one.value or 0.0 for one in shown)) / 10))

    def at(share: float | None) -> float:
        return 100 * (share or 0.0) / top

    standings = [
        Standing(
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
        floor=between.floor,
        ceiling=between.ceiling,
        floor_at=at(between.floor.value),
        ceiling_at=at(between.ceiling.value),
        ticks=[
            (at(number * step), f"{number * step * 100:.0f}{words.SPACE}%") for number in range(round(top / step) + 1)
        ],
        standings=standings,
        queries=between.floor.n,
        not_counted=between.not_counted,
    )


@dataclass(frozen=True)
class Follower:
    """What one model follows: an estimate for each column that any model has, or None."""

    run: Run
    cells: list[Estimate | None]


@dataclass(frozen=True)
class Tested:
    """A sentence of an article, and what came of testing it on one model, or why it could not be tested on several."""

    claim: Claim
    models: list[str]
    measured: str

    @property
    def sign(self) -> str:
        """The verdict's sign: never its color alone."""
        return SIGNS[self.claim.verdict]


@dataclass(frozen=True)
class Follows:
    """Both tables of the section."""

    columns: list[str]
    rows: list[Follower]
    tested: list[Tested]
    colors: bool  # whether there is a color histogram to compare with


def follows(evidence: Evidence) -> Follows:
    """What each model follows with the first index, and the articles' sentences."""
    found = {one.model: one.evidence for one in evidence.follows if one.index == evidence.indexes[0]}
    columns = [name for name in EVIDENCE if any(name in known for known in found.values())]
    rows = [
        Follower(run, [found[run.model].get(name) for name in columns])
        for run in evidence.models
        if found.get(run.model)
    ]
    tested: dict[tuple[str, ...], Tested] = {}
    for number, claim in enumerate(evidence.claims):
        # those that could not be tested, for the same reason, share a row
        shared = (claim.said, claim.measure, claim.reason) if claim.reason else (str(number),)
        label = evidence.label(claim.model)
        if shared in tested:
            tested[shared].models.append(label)
        else:
            tested[shared] = Tested(claim, [label], _measured(evidence, claim))
    shown = list(tested.values()) if any(not one.claim.reason for one in tested.values()) else []
    return Follows(columns, rows, shown, "color_overlap" in columns)


def _measured(evidence: Evidence, claim: Claim) -> str:
    what = words.measure(claim.measure)
    if not claim.against:
        return what
    labels = words.listing([evidence.label(model) for model in claim.against], 99)
    others = {
        "mean": f"the mean of {labels}" if len(claim.against) > 1 else labels,
        "best": f"the best other, {labels}",
        "same length": f"{labels}, whose vectors have the same length",
    }
    return f"{what}, against {others[claim.by]}"
