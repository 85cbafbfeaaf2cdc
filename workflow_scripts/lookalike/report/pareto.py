"""The Pareto front of accuracy vs. cost, and which models are significantly worse than a cheaper one."""

from collections.abc import Sequence
from dataclasses import dataclass

from lookalike.report import words
from lookalike.report.evidence import BEST_BY, Evidence, Run


@dataclass(frozen=True)
class Standing:
    """A run's position relative to the Pareto front.

    state: ``dominated`` if a run that costs no more is significantly better; else ``front`` if no run that costs no
        more has a higher accuracy (or the same at a lower cost); else ``open``: off the front, but not significantly
    dominated_by: the most accurate run that dominates this one
    """

    run: Run
    state: str
    dominated_by: Run | None = None


def standings(evidence: Evidence, costs: Sequence[tuple[Run, float]]) -> list[Standing]:
    """The standing of each run among all; every run has a measured accuracy, and a lower cost is better."""
    return [_standing(evidence, run, cost, costs) for run, cost in costs]


def _standing(evidence: Evidence, run: Run, cost: float, costs: Sequence[tuple[Run, float]]) -> Standing:
    rivals = sorted(
        ((rival, rival_cost) for rival, rival_cost in costs if rival is not run and rival_cost <= cost),
        key=lambda pair: -_accuracy(pair[0]),
    )
    if dominated_by := next((rival for rival, _ in rivals if better(evidence, rival, run)), None):
        return Standing(run, "dominated", dominated_by)
    ahead = any(
        _accuracy(rival) > _accuracy(run) or (_accuracy(rival) == _accuracy(run) and rival_cost < cost)
        for rival, rival_cost in rivals
    )
    return Standing(run, "open" if ahead else "front")


def better(evidence: Evidence, a: Run, b: Run) -> bool:
    """Whether the accuracy of a is significantly higher than that of b.

    Decided by their paired test, or for runs without one (of different indexes) by disjoint intervals.
    """
    if comparison := evidence.verdict(BEST_BY, a, b):
        return comparison.verdict == "better"
    low, high = a.estimate(BEST_BY).low, b.estimate(BEST_BY).high
    return low is not None and high is not None and low > high


def _accuracy(run: Run) -> float:
    return run.estimate(BEST_BY).value or 0.0


def sentence(labelled: Sequence[tuple[Standing, str]]) -> str:
    """Which models are on the front, dominated, or neither; ``labelled`` pairs standings with names in the figure."""
    names = {(standing.run.model, standing.run.index): name for standing, name in labelled}
    front, undecided = ([name for standing, name in labelled if standing.state == state] for state in ("front", "open"))
    dominated = [
        f"{name} (by {names[rival.model, rival.index]})"
        for standing, name in labelled
        if (rival := standing.dominated_by)
    ]
    parts = [f"On the front: {words.listing(front, 99)}."]
    if undecided:
        parts.append(f"Off the front, but not significantly worse: {words.listing(undecided, 99)}.")
    if dominated:
        parts.append(f"Dominated by a model that costs no more: {words.listing(dominated, 99)}.")
    return " ".join(parts) if front else ""
