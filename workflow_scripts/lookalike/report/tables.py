"""Rows of the report's tables: leaderboard, pairwise comparison, rejected images, provenance."""

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from lookalike.config.models import is_commit
from lookalike.io.formats.records import Comparison, Estimate
from lookalike.report import headline, words
from lookalike.report.evidence import ACTS, LOOKS, Evidence, Rejected, Run

MOST_REJECTED = 100  # rows; nobody reads more, and browsers struggle with 100,000
# Verdicts have a symbol, so that color is not needed to read them.
SYMBOLS = {"better": "▲", "worse": "▼", "cannot tell": "≈", "too few groups": "○"}


@dataclass(frozen=True)
class Place:
    """A row of the leaderboard."""

    run: Run
    estimates: dict[str, Estimate]
    standings: list[str]  # by need, vs. the top run of the index: best, highest, behind, cannot tell apart, ...
    reason: str  # shown for a metric without a value


def metric_names(evidence: Evidence) -> list[str]:
    """All metrics in the order of the files; if no query has a match, only those that were measured."""
    names = list(dict.fromkeys(name for run in evidence.runs for name in run.metrics.metrics))
    if evidence.matched or not evidence.runs[0].metrics.baselines:
        return names
    return [name for name in names if any(run.estimate(name).value is not None for run in evidence.runs)]


# Prefixes of the metrics in the first table.
FIRST = ("accuracy_at_", "recall_at_", "map_at_r", "r_precision", "uap", "caption_", "category_")


def primary(names: list[str]) -> list[str]:
    """The metrics of the first table; the others are in a second one, which keeps the first readable."""
    return [name for name in names if name.startswith(FIRST) and not name.endswith((words.NORMALISED, words.SCENE))]


def normalised(names: list[str]) -> list[tuple[str, str]]:
    """Metrics measured without and with score normalisation, as pairs (without, with)."""
    pairs = [(name.removesuffix(words.NORMALISED), name) for name in names if name.endswith(words.NORMALISED)]
    return [(without, name) for without, name in pairs if without in names]


NEEDS = {LOOKS: "Someone looks", ACTS: "Acts alone"}  # headings of the columns with standings


def needs(evidence: Evidence) -> list[tuple[str, str]]:
    """The answered needs: the metric that decides, and the heading of its column."""
    return [(answer.metric, NEEDS[need]) for need, answer in evidence.answers.items() if answer.best]


def leaderboard(evidence: Evidence) -> list[Place]:
    """Rows by decreasing accuracy; ties in the experiment's order, runs without a value last."""
    names, by = metric_names(evidence), evidence.best_by
    reason = "too few references" if evidence.matched else "no match"
    places = [
        Place(
            run,
            {name: run.estimate(name) for name in names},
            [_standing(evidence, run, metric) for metric, _ in needs(evidence)],
            reason,
        )
        for run in evidence.runs
    ]
    return sorted(places, key=lambda place: -(value if (value := place.run.estimate(by).value) is not None else -1))


def _standing(evidence: Evidence, run: Run, by: str) -> str:
    rivals = [rival for rival in evidence.runs if rival.index == run.index]
    top = headline.best(rivals, by)
    if top is None or run.estimate(by).value is None:
        return "not measured"
    verdicts = {rival.model: pair.verdict for rival in rivals if (pair := evidence.verdict(by, top, rival))}
    if run is top:
        # The highest number is not enough: "best" requires a significant difference from some other model.
        return "best" if "better" in verdicts.values() else "highest"
    standings = {"better": "behind", "too few groups": "too few groups"}
    return standings.get(verdicts[run.model], "cannot tell apart") if run.model in verdicts else "not compared"


@dataclass(frozen=True)
class Cell:
    """The row's model compared with the column's; ``comparison`` is None on the diagonal or if it is missing."""

    comparison: Comparison | None
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
    order = [place.run for place in leaderboard(evidence)]
    tables = []
    for index, metric in _compared(evidence):
        runs = [run for run in order if run.index == index]
        rows = [(a, [Cell(None if a is b else evidence.verdict(metric, a, b), a is b) for b in runs]) for a in runs]
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
class CaseTable:
    """The four cases of two models."""

    a: Run
    b: Run
    rows: list[CaseRow]


def cases(evidence: Evidence) -> list[CaseTable]:
    """The four cases of each pair of models, with the first index."""
    runs = {run.model: run for run in evidence.models}
    tables = []
    for pair in evidence.cases:
        if pair.index == evidence.runs[0].index and {pair.a, pair.b} <= set(runs):
            a, b = runs[pair.a], runs[pair.b]

            def address(of_a: str, of_b: str, a: str = a.model, b: str = b.model) -> str:
                return urlencode({f"is.{a}": of_a, f"is.{b}": of_b})

            near_b, near_a = pair.only_a_b_near, pair.only_b_a_near
            rows = [
                CaseRow("Both right", pair.both.count, pair.both.queries, address("right", "right")),
                CaseRow(
                    f"Only {a.label}",
                    pair.only_a.count,
                    pair.only_a.queries,
                    address("right", "wrong"),
                    near_b.count if near_b else None,
                ),
                CaseRow(
                    f"Only {b.label}",
                    pair.only_b.count,
                    pair.only_b.queries,
                    address("wrong", "right"),
                    near_a.count if near_a else None,
                ),
                CaseRow("Both wrong", pair.neither.count, pair.neither.queries, address("wrong", "wrong")),
            ]
            tables.append(CaseTable(a, b, rows))
    return tables


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
            _weights(run.provenance.get("weights"), _settings(run.provenance.get("key", ""))),
            ", ".join(
                f"{name} {version}" for name, version in sorted(run.provenance.get("embed_versions", {}).items())
            ),
            json.dumps(run.provenance, indent=2, sort_keys=True, ensure_ascii=False),
        )
        for run in evidence.runs
    ]


def _weights(weights: Any, settings: Any) -> str:
    if not isinstance(weights, dict):
        return _text(weights or "")
    resolved = ", ".join(str(weights[name]) for name in ("source", "revision") if weights.get(name))
    revision = settings.get("revision", "main") if isinstance(settings, dict) else "main"
    movable = str(weights.get("source")).startswith("hub ") and not is_commit(revision)
    return f"{resolved} (not pinned: {revision} may point to another commit later)" if movable else resolved


def _text(key: Any) -> str:
    """A key as ``family: pixels, size: 16``."""
    settings = _settings(key)
    if isinstance(settings, dict):
        return ", ".join(f"{name}: {value}" for name, value in settings.items())
    return str(settings)


def _settings(key: Any) -> Any:
    """The object in a key's JSON string; anything else unchanged."""
    try:
        return json.loads(key) if isinstance(key, str) else key
    except ValueError:
        return key


def definitions(evidence: Evidence) -> list[tuple[str, str]]:
    """The name and definition of each metric in the report."""
    return [(words.metric(name), words.meaning(name)) for name in metric_names(evidence) if words.meaning(name)]
