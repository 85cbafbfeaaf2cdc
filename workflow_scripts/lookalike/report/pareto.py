"""Which models are worth their cost: the Pareto front of accuracy against a cost, and what is surely behind it."""

from collections.abc import Sequence
from dataclasses import dataclass

from lookalike.report import words
from lookalike.report.evidence import BEST_BY, Evidence, Run


@dataclass(frozen=True)
class Standing:
    """A run by its numbers and by the tests.

    state: ``front`` where no run that costs no more has a higher accuracy (nor one as high for less); ``beaten`` where
    one that costs no more is better by more than chance explains; else ``open``: behind by its number alone
    beaten_by: where beaten, the first run that does so, of those with the highest accuracy
    """

    run: Run
    state: str
    beaten_by: Run | None = None


def standings(evidence: Evidence, costs: Sequence[tuple[Run, float]]) -> list[Standing]:
    """The standing of each run, whose accuracy is known, among all that are given; a lower cost is better."""
    return [_standing(evidence, run, cost, costs) for run, cost in costs]


def _standing(evidence: Evidence, run: Run, cost: float, costs: Sequence[tuple[Run, float]]) -> Standing:
    no_dearer = sorted(
        ((rival, price) for rival, price in costs if rival is not run and price <= cost),
        key=lambda one: -_accuracy(one[0]),
    )
    if beaten_by := next((rival for rival, _ in no_dearer if better(evidence, rival, run)), None):
        return Standing(run, "beaten", beaten_by)
    ahead = any(
        _accuracy(rival) > _accuracy(run) or (_accuracy(rival) == _accuracy(run) and price < cost)
        for rival, price in no_dearer
    )
    return Standing(run, "open" if ahead else "front")


def better(evidence: Evidence, a: Run, b: Run) -> bool:
    """Whether a's accuracy is higher than b's by more than chance explains.

    By their test on the same queries; two that were not tested (of other indexes) by intervals that do not meet.
    """
    if verdict := evidence.verdict(BEST_BY, a, b):
        return verdict.verdict == "better"
    low, high = a.estimate(BEST_BY).low, b.estimate(BEST_BY).high
    return low is not None and high is not None and low > high


def _accuracy(run: Run) -> float:
    return run.estimate(BEST_BY).value or 0.0


def sentence(named: Sequence[tuple[Standing, str]]) -> str:
    """Who is on the front, who may be, and who is not; ``named`` has each run's name in the figure."""
    names = {(one.run.model, one.run.index): name for one, name in named}
    states = {state: [name for one, name in named if one.state == state] for state in ("front", "open", "beaten")}
    beaten = [f"{name} (by {names[one.beaten_by.model, one.beaten_by.index]})" for one, name in named if one.beaten_by]
    parts = [f"On the front: {words.listing(states['front'], 99)}."]
    if states["open"]:
        parts.append(f"Behind it by number, but these queries do not decide it: {words.listing(states['open'], 99)}.")
    if beaten:
        parts.append(f"Beaten by one that costs no more: {words.listing(beaten, 99)}.")
    return " ".join(parts) if named and states["front"] else ""
