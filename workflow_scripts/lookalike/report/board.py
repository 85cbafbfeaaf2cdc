"""The board: for each need a table with one row a model, its other indexes folded below it."""

from collections.abc import Sequence
from dataclasses import dataclass

from lookalike.io.formats.records import Estimate
from lookalike.report import words
from lookalike.report.evidence import ACTS, FAST, Evidence, Run
from lookalike.report.needs import Need, standing
from lookalike.report.tables import thresholds_end

RANKS = ("accuracy_at_", "recall_at_", "map_at_r", "r_precision", "caption_", "category_")  # for someone who looks
ALONE = ("recall_at_p90", "uap")


@dataclass(frozen=True)
class Entry:
    """A run's values: an estimate for each metric, and a standing for each column that says which model is better."""

    run: Run
    estimates: dict[str, Estimate]
    standings: dict[str, str]


@dataclass(frozen=True)
class Model:
    """A row of the table: a model with the index of the answer, and with its other indexes."""

    entry: Entry
    others: list[Entry]


@dataclass(frozen=True)
class Board:
    """The table of one need, sorted by ``need.metric``, or by speed. ``reason``: why a value is missing.

    ``thresholds``: which thresholds it shows, see ``tables.thresholds_end``
    """

    need: Need
    metrics: list[str]
    models: list[Model]
    has_thresholds: bool
    thresholds: str
    by_speed: bool
    reason: str


def boards(evidence: Evidence, needs: Sequence[Need]) -> list[Board]:
    """One table a need, the best model first; ties in the experiment's order, models without a value last."""
    return [_board(evidence, need) for need in needs]


def _board(evidence: Evidence, need: Need) -> Board:
    metrics = _metrics(evidence, need)
    compared = {pair.metric for pair in evidence.comparisons if pair.difference.value is not None}
    by_model: dict[str, list[Entry]] = {}
    fast = {row.run.model: row.standing for row in need.rows} if need.name == FAST else {}
    for run in evidence.runs:
        standings = {name: standing(evidence, run, name) for name in metrics if name in compared}
        if run.index == need.index and run.model in fast:
            standings["speed"] = fast[run.model]
        by_model.setdefault(run.model, []).append(Entry(run, {name: run.estimate(name) for name in metrics}, standings))
    models = []
    for entries in by_model.values():
        (main,) = [entry for entry in entries if entry.run.index == need.index]
        models.append(Model(main, [entry for entry in entries if entry is not main]))

    def order(model: Model) -> float:
        run = model.entry.run
        if need.name == FAST:
            return -(run.embed.images_per_second if run.embed else -1.0)
        value = run.estimate(need.metric).value
        return -(value if value is not None else -1.0)

    reason = "too few references" if evidence.matched else "no match"
    has_thresholds = need.name == ACTS and any(run.metrics.targets() for run in evidence.runs)
    end = thresholds_end(evidence)
    return Board(need, metrics, sorted(models, key=order), has_thresholds, end, need.name == FAST, reason)


def _metrics(evidence: Evidence, need: Need) -> list[str]:
    """The metrics of a need, the one that decides first.

    Where it ignores scenes, so do the others; strict values are beside it, and in the appendix for the others.
    """
    if need.name == FAST:
        return [need.metric]
    names = list(dict.fromkeys(name for run in evidence.runs for name in run.metrics.metrics))
    wanted = ALONE if need.name == ACTS else RANKS
    strict = {name for name in names if name.startswith(wanted) and not name.endswith((words.NORMALISED, words.SCENE))}
    if need.name != ACTS:
        strict -= {"recall_at_p90"}
    if need.metric.endswith(words.SCENE):
        decisive = need.metric.removesuffix(words.SCENE)
        strict = {name + words.SCENE if name + words.SCENE in names else name for name in strict} | {decisive}
    if not evidence.matched and evidence.runs[0].metrics.baselines:
        strict = {name for name in strict if any(run.estimate(name).value is not None for run in evidence.runs)}
    return [need.metric, *(name for name in names if name in strict and name != need.metric)]
