"""Rows of the report's tables: leaderboard, models against each other, rejected pictures, how it was made."""

import json
from dataclasses import dataclass
from typing import Any

from lookalike.config import is_commit
from lookalike.formats import Comparison, Estimate
from lookalike.report import headline, words
from lookalike.report.evidence import BEST_BY, Evidence, Rejected, Run

MOST_REJECTED = 100  # rows; a person does not read more, and a page with 100,000 does not open
# How a verdict is shown: never by its color alone.
SYMBOLS = {"better": "▲", "worse": "▼", "cannot tell": "≈"}


@dataclass(frozen=True)
class Place:
    """A row of the leaderboard."""

    run: Run
    estimates: dict[str, Estimate]
    standing: str  # against the highest of the same index: best, highest, behind, cannot tell apart, not compared
    reason: str  # why a metric has no value


def metric_names(evidence: Evidence) -> list[str]:
    """All metrics that any run has, in the order of the files; without matches, only those that need none, if any."""
    names = list(dict.fromkeys(name for run in evidence.runs for name in run.metrics.metrics))
    if evidence.best_by == BEST_BY:
        return names
    return [name for name in names if any(run.estimate(name).value is not None for run in evidence.runs)]


FIRST = ("accuracy_at_", "recall_at_", "uap", "caption_", "category_")  # how the metrics of the first table begin


def primary(names: list[str]) -> list[str]:
    """The metrics of the first table; the others are in a second one, so that the first can be read."""
    return [name for name in names if name.startswith(FIRST) and not name.endswith(words.NORMALISED)]


def normalised(names: list[str]) -> list[tuple[str, str]]:
    """The metrics that were measured with and without score normalisation, as pairs: without, with."""
    pairs = [(name.removesuffix(words.NORMALISED), name) for name in names if name.endswith(words.NORMALISED)]
    return [(without, name) for without, name in pairs if without in names]


def leaderboard(evidence: Evidence) -> list[Place]:
    """Rows by falling accuracy; equal ones in the experiment's order, those without a value last."""
    names, by = metric_names(evidence), evidence.best_by
    tops = {
        index: headline.best([run for run in evidence.runs if run.index == index], by) for index in evidence.indexes
    }
    reason = "any order is right, with so few references" if evidence.matched else "nothing to count"

    def beats(top: Run, run: Run) -> bool:
        verdict = evidence.verdict(by, top, run)
        return verdict is not None and verdict.verdict == "better"

    def standing(run: Run) -> str:
        top = tops[run.index]
        if top is None or run.estimate(by).value is None:
            return "not measured"
        if run is top:
            # The larger number alone wins nothing: best is who is better than somebody by the tests.
            return (
                "best" if any(beats(top, rival) for rival in evidence.runs if rival.index == run.index) else "highest"
            )
        verdict = evidence.verdict(by, top, run)
        if verdict is None:
            return "not compared"
        return "behind" if beats(top, run) else "cannot tell apart"

    places = [Place(run, {name: run.estimate(name) for name in names}, standing(run), reason) for run in evidence.runs]
    return sorted(places, key=lambda place: -(value if (value := place.run.estimate(by).value) is not None else -1))


@dataclass(frozen=True)
class Cell:
    """What the row's model is to the column's; no ``comparison`` where a model would meet itself, or was not met."""

    comparison: Comparison | None
    self: bool

    @property
    def symbol(self) -> str:
        """The verdict's sign."""
        return SYMBOLS.get(self.comparison.verdict, "?") if self.comparison else ""


@dataclass(frozen=True)
class Matrix:
    """All models against each other, by one metric and with one index."""

    metric: str
    index: str
    runs: list[Run]
    rows: list[tuple[Run, list[Cell]]]


def matrices(evidence: Evidence) -> list[Matrix]:
    """One matrix for each index and metric that was compared, in the order of the comparisons, best models first.

    Metrics without a value for any two models are left out: ``left_out`` names them.
    """
    order = [place.run for place in leaderboard(evidence)]
    found = []
    for index, metric in _compared(evidence):
        runs = [run for run in order if run.index == index]
        rows = [(a, [Cell(None if a is b else evidence.verdict(metric, a, b), a is b) for b in runs]) for a in runs]
        found.append(Matrix(metric, index, runs, rows))
    return found


def left_out(evidence: Evidence) -> list[str]:
    """Metrics that say nothing of any two models, since with so few references any order of them is right."""
    compared = {metric for _, metric in _compared(evidence)}
    return [metric for metric in dict.fromkeys(one.metric for one in evidence.comparisons) if metric not in compared]


def _compared(evidence: Evidence) -> list[tuple[str, str]]:
    return list(
        dict.fromkeys((one.index, one.metric) for one in evidence.comparisons if one.difference.value is not None)
    )


def approximated(evidence: Evidence) -> list[str]:
    """The metrics whose change by approximation is told of any model."""
    return list(dict.fromkeys(name for one in evidence.approximations for name in one.differences))


@dataclass(frozen=True)
class CaseRow:
    """One of the four cases of two models: in words, how many queries, and ids of them, a few of which are shown."""

    name: str
    count: int
    queries: list[str]
    near: int | None = None  # of these, how many the other model had among its first three


@dataclass(frozen=True)
class CaseTable:
    """The four cases of two models."""

    a: Run
    b: Run
    rows: list[CaseRow]


def cases(evidence: Evidence) -> list[CaseTable]:
    """The four cases of every two models, with the first index."""
    runs = {run.model: run for run in evidence.models}
    found = []
    for one in evidence.cases:
        if one.index == evidence.runs[0].index and {one.a, one.b} <= set(runs):
            a, b = runs[one.a], runs[one.b]
            near_b, near_a = one.only_a_b_near, one.only_b_a_near
            rows = [
                CaseRow("Both right", one.both.count, one.both.queries),
                CaseRow(f"Only {a.label}", one.only_a.count, one.only_a.queries, near_b.count if near_b else None),
                CaseRow(f"Only {b.label}", one.only_b.count, one.only_b.queries, near_a.count if near_a else None),
                CaseRow("Both wrong", one.neither.count, one.neither.queries),
            ]
            found.append(CaseTable(a, b, rows))
    return found


@dataclass(frozen=True)
class RejectedTable:
    """The first rejected pictures, where the others are, and against whom they all count."""

    effect: str
    shown: list[Rejected]
    more: int
    files: list[str]


def rejected(evidence: Evidence) -> RejectedTable:
    """At most MOST_REJECTED pictures; of the rest, how many there are and which files list them."""
    rest = evidence.rejected[MOST_REJECTED:]
    return RejectedTable(
        _effect(evidence), evidence.rejected[:MOST_REJECTED], len(rest), sorted({one.file for one in rest})
    )


def _effect(evidence: Evidence) -> str:
    """Which rejected pictures count against a model: those that a query asks for, or that ask for something."""
    total, missed = len({one.image_id for one in evidence.rejected}), len(evidence.missed)
    if not missed:
        return f"{_pictures('The', total)} against no model: no query with a match needs {_them(total)}."
    if missed == total:
        return f"{_pictures('The', total)} against the models that rejected {_them(total)}, as a query or as its match."
    return (
        f"{_pictures(str(missed), missed)} against the models that rejected {_them(missed)}, as a query or as its "
        f"match. {_pictures('The other', total - missed)} against no model."
    )


def _pictures(which: str, amount: int) -> str:
    many = f" {amount}" if amount > 1 and not which.isdigit() else ""
    return f"{which}{many} rejected {'picture counts' if amount == 1 else 'pictures count'}"


def _them(amount: int) -> str:
    return "it" if amount == 1 else "them"


@dataclass(frozen=True)
class Made:
    """How one model's numbers came to be."""

    run: Run
    key: str
    weights: str
    embedded_with: str
    everything: str


def how_made(evidence: Evidence) -> list[Made]:
    """What the footers of the neighbor tables say, in the experiment's order."""
    return [
        Made(
            run,
            _text(run.provenance.get("key", "")),
            _weights(run.provenance.get("weights"), _settings(run.provenance.get("key", ""))),
            ", ".join(
                f"{name} {version}" for name, version in sorted(run.provenance.get("embed_versions", {}).items())
            ),
            json.dumps(run.provenance, indent=2, sort_keys=True, ensure_ascii=False),
        )
        for run in evidence.runs
    ]


def _weights(found: Any, settings: Any) -> str:
    if not isinstance(found, dict):
        return _text(found or "")
    named = ", ".join(str(found[name]) for name in ("source", "revision") if found.get(name))
    asked = settings.get("revision", "main") if isinstance(settings, dict) else "main"
    moves = str(found.get("source")).startswith("hub ") and not is_commit(asked)
    return f"{named} (not pinned: {asked} may be another commit tomorrow)" if moves else named


def _text(found: Any) -> str:
    """A key as ``family: pixels, size: 16``."""
    found = _settings(found)
    if isinstance(found, dict):
        return ", ".join(f"{name}: {value}" for name, value in found.items())
    return str(found)


def _settings(key: Any) -> Any:
    """A key as an object, be it one or, as in the footers, one in a string; a string that is none as it is."""
    try:
        return json.loads(key) if isinstance(key, str) else key
    except ValueError:
        return key


def definitions(evidence: Evidence) -> list[tuple[str, str]]:
    """Each metric of the report with a sentence on what it means."""
    return [(words.metric(name), words.meaning(name)) for name in metric_names(evidence) if words.meaning(name)]
