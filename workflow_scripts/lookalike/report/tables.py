"""Rows of the report's tables: pairwise comparison, rejected images, provenance."""

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from lookalike.config.models import is_commit
from lookalike.io.formats.records import Case, Cases, Comparison
from lookalike.report import words
from lookalike.report.evidence import ACTS, BEST_BY, Evidence, Rejected, Run, reversed_comparison

MOST_REJECTED = 100  # rows; nobody reads more, and browsers struggle with 100,000
# Verdicts have a symbol, so that color is not needed to read them.
SYMBOLS = {"better": "▲", "worse": "▼", "cannot tell": "≈", "too few groups": "○"}


def metric_names(evidence: Evidence) -> list[str]:
    """All metrics in the order of the files; if no query has a match, only those that were measured."""
    names = list(dict.fromkeys(name for run in evidence.runs for name in run.metrics.metrics))
    if evidence.matched or not evidence.runs[0].metrics.baselines:
        return names
    return [name for name in names if any(run.estimate(name).value is not None for run in evidence.runs)]


def normalised(names: list[str]) -> list[tuple[str, str]]:
    """Metrics measured without and with score normalisation, as pairs (without, with)."""
    pairs = [(name.removesuffix(words.NORMALISED), name) for name in names if name.endswith(words.NORMALISED)]
    return [(without, name) for without, name in pairs if without in names]


def ordered(evidence: Evidence) -> list[Run]:
    """All runs, the most accurate first; ties in the experiment's order, runs without a value last."""
    by = evidence.best_by
    return sorted(evidence.runs, key=lambda run: -(value if (value := run.estimate(by).value) is not None else -1))


def thresholds_end(evidence: Evidence) -> str:
    """Of which thresholds the page speaks: ``_scene`` where the answer for a system that acts alone ignores scenes."""
    answer = evidence.answers.get(ACTS)
    return words.SCENE if answer and answer.metric.endswith(words.SCENE) else ""


@dataclass(frozen=True)
class Cell:
    """The row's model compared with the column's; ``comparison`` is None on the diagonal or if it is missing."""

    comparison: Comparison | None
    against: Run
    self: bool

    @property
    def symbol(self) -> str:
        """The symbol of the verdict."""
        return SYMBOLS.get(self.comparison.verdict, "?") if self.comparison else ""


@dataclass(frozen=True)
class Matrix:
    """Pairwise comparison of all models by one metric with one index."""

    metric: str
    index: str
    runs: list[Run]
    rows: list[tuple[Run, list[Cell]]]


def matrices(evidence: Evidence) -> list[Matrix]:
    """One matrix per index and metric, in the order of the comparisons, the best models first.

    Metrics that have no value for any pair are omitted; see ``left_out``.
    """
    tables = []
    for index, metric in _compared(evidence):
        runs = [run for run in ordered(evidence) if run.index == index]
        rows = [(a, [Cell(None if a is b else evidence.verdict(metric, a, b), b, a is b) for b in runs]) for a in runs]
        tables.append(Matrix(metric, index, runs, rows))
    return tables


def left_out(evidence: Evidence) -> list[str]:
    """Metrics without a value for any pair: with so few references, every ranking scores the same."""
    compared = {metric for _, metric in _compared(evidence)}
    return [name for name in dict.fromkeys(pair.metric for pair in evidence.comparisons) if name not in compared]


def _compared(evidence: Evidence) -> list[tuple[str, str]]:
    return list(
        dict.fromkeys((pair.index, pair.metric) for pair in evidence.comparisons if pair.difference.value is not None)
    )


def approximated(evidence: Evidence) -> list[str]:
    """The metrics whose loss by approximation was measured for any model."""
    return list(dict.fromkeys(name for row in evidence.approximations for name in row.differences))


@dataclass(frozen=True)
class CaseRow:
    """One of the four cases of two models: its name, number of queries, their ids, and how the explorer shows them."""

    name: str
    count: int
    queries: list[str]
    address: str
    near: int | None = None  # of these, queries with a match among the other model's first three


@dataclass(frozen=True)
class Pair:
    """Two models: their comparisons by each metric and index, and with the first index their four cases.

    The comparisons are from the side of ``a``.
    """

    a: Run
    b: Run
    comparisons: list[Comparison]
    cases: list[CaseRow]


def pairs(evidence: Evidence) -> list[Pair]:
    """The pairwise comparison of all models, the more accurate one first."""
    runs = [run for run in ordered(evidence) if run.index == evidence.indexes[0]]
    compared: dict[frozenset[str], list[Comparison]] = {}
    for comparison in evidence.comparisons:
        if comparison.difference.value is not None:
            compared.setdefault(frozenset({comparison.a, comparison.b}), []).append(comparison)
    found = []
    for place, a in enumerate(runs):
        for b in runs[place + 1 :]:
            both = compared.get(frozenset({a.model, b.model}), [])
            rows = [one if one.a == a.model else reversed_comparison(one) for one in both]
            cases = _cases(evidence, a, b)
            if rows or cases:
                found.append(Pair(a, b, rows, cases))
    return found


def _cases(evidence: Evidence, a: Run, b: Run) -> list[CaseRow]:
    """The four cases of two models with the first index, from the side of ``a``."""
    pair = _pair_of(evidence, a.model, b.model)
    if pair is None:
        return []

    def row(name: str, case: Case, of_a: str, of_b: str, near: Case | None = None) -> CaseRow:
        address = urlencode({f"is.{a.model}": of_a, f"is.{b.model}": of_b})
        return CaseRow(name, case.count, case.queries, address, near.count if near else None)

    only_a, only_b, near_b, near_a = pair.only_a, pair.only_b, pair.only_a_b_near, pair.only_b_a_near
    if pair.a != a.model:
        only_a, only_b, near_b, near_a = only_b, only_a, near_a, near_b
    return [
        row("Both right", pair.both, "right", "right"),
        row(f"Only {a.label}", only_a, "right", "wrong", near_b),
        row(f"Only {b.label}", only_b, "wrong", "right", near_a),
        row("Both wrong", pair.neither, "wrong", "wrong"),
    ]


def _pair_of(evidence: Evidence, a: str, b: str) -> Cases | None:
    first = evidence.indexes[0]
    return next((pair for pair in evidence.cases if pair.index == first and {pair.a, pair.b} == {a, b}), None)


def same_on(evidence: Evidence, comparison: Comparison) -> int | None:
    """The number of queries, if two models are right on the same ones and wrong on the same ones; else None."""
    if comparison.metric != BEST_BY or comparison.index != evidence.indexes[0]:
        return None
    pair = _pair_of(evidence, comparison.a, comparison.b)
    return pair.both.count + pair.neither.count if pair and not (pair.only_a.count or pair.only_b.count) else None


@dataclass(frozen=True)
class RejectedTable:
    """The first rejected images, where the others are listed, and how all of them affect the scores."""

    effect: str
    shown: list[Rejected]
    more: int
    files: list[str]


def rejected(evidence: Evidence) -> RejectedTable:
    """At most MOST_REJECTED images; for the rest, their number and the files that list them."""
    rest = evidence.rejected[MOST_REJECTED:]
    return RejectedTable(
        _effect(evidence), evidence.rejected[:MOST_REJECTED], len(rest), sorted({image.file for image in rest})
    )


def _effect(evidence: Evidence) -> str:
    """How the rejected images affect the scores: queries with a match and true matches count as misses."""
    total, penalized = len({image.image_id for image in evidence.rejected}), len(evidence.penalized)
    if not penalized:
        return "No model is penalized: none of the rejected images is a query with a match or a true match."
    images = words.count(total, "rejected image")
    which = f"{words.number(penalized)} of {images}" if penalized < total else images
    if penalized == 1:
        return f"{which} is a query with a match or a true match and counts against the models that rejected it."
    return f"{which} are queries with a match or true matches and count against the models that rejected them."


@dataclass(frozen=True)
class Provenance:
    """The settings, weights and package versions behind one model's numbers."""

    run: Run
    key: str
    weights: str
    embedded_with: str
    everything: str


def provenance(evidence: Evidence) -> list[Provenance]:
    """The provenance of each run, from the footers of the neighbor tables, in the experiment's order."""
    return [
        Provenance(
            run,
            _text(run.provenance.get("key", "")),
            weights(run.provenance.get("weights"), settings(run.provenance.get("key", ""))),
            ", ".join(
                f"{name} {version}" for name, version in sorted(run.provenance.get("embed_versions", {}).items())
            ),
            json.dumps(run.provenance, indent=2, sort_keys=True, ensure_ascii=False),
        )
        for run in evidence.runs
    ]


def weights(recorded: Any, entry: Any) -> str:
    """Where the weights come from, and whether a later run may resolve them to others; ``entry`` as of ``settings``."""
    if not isinstance(recorded, dict):
        return _text(recorded or "")
    resolved = ", ".join(str(recorded[name]) for name in ("source", "revision") if recorded.get(name))
    revision = entry.get("revision", "main") if isinstance(entry, dict) else "main"
    movable = str(recorded.get("source")).startswith("hub ") and not is_commit(revision)
    return f"{resolved} (not pinned: {revision} may point to another commit later)" if movable else resolved


def _text(key: Any) -> str:
    """A key as ``family: pixels, size: 16``."""
    entry = settings(key)
    if isinstance(entry, dict):
        return ", ".join(f"{name}: {value}" for name, value in entry.items())
    return str(entry)


def settings(key: Any) -> Any:
    """The object in a key's JSON string; anything else unchanged."""
    try:
        return json.loads(key) if isinstance(key, str) else key
    except ValueError:
        return key


def definitions(evidence: Evidence) -> list[tuple[str, str]]:
    """The name and definition of each metric in the report."""
    of = evidence.labelled
    return [
        (words.metric(name, labelled=of), meaning)
        for name in metric_names(evidence)
        if (meaning := words.meaning(name, labelled=of))
    ]
