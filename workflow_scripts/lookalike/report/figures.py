"""Where the marks of each figure stand. The templates draw them, as SVG within the page.

Not plotly: these are a handful of small figures, and as SVG they need no 4.8 MB of script, follow the reader's light
or dark mode, print sharply, work with scripts switched off, and lay themselves out anew on a phone, since all
horizontal positions are percentages of the figure's width while text keeps its size.
"""

from dataclasses import dataclass

from lookalike.io.formats.records import SIZES, Estimate, Threshold
from lookalike.report import words
from lookalike.report.evidence import BEST_BY, Evidence, Run

# A model is a color *and* a shape, so that nobody depends on telling colors apart; 24 pairs before one repeats.
COLORS = 8
SHAPES = ("circle", "square", "diamond", "up", "down", "hexagon")
ROW = 13  # height in pixels of one model's interval within a row


@dataclass(frozen=True)
class Mark:
    """One estimate of one model. Horizontal positions in percent of the width, vertical ones in pixels."""

    run: Run
    estimate: Estimate
    x: float
    low: float
    high: float
    y: float


@dataclass(frozen=True)
class DotRow:
    """All models on one kind of query."""

    name: str
    n: int
    marks: list[Mark]
    height: float


def dot_rows(evidence: Evidence, column: str, order: tuple[str, ...] = ()) -> list[DotRow]:
    """Accuracy of each model for each value of a breakdown.

    Rows follow ``order`` where it names them; else the easiest comes first, judged by all models' mean, since that is
    how a reader compares them.
    """
    found: dict[str, dict[int, tuple[Run, Estimate]]] = {}
    for run in evidence.models:
        for value, metrics in run.metrics.breakdowns.get(column, {}).items():
            if BEST_BY in metrics and metrics[BEST_BY].value is not None:
                found.setdefault(value, {})[run.number] = (run, metrics[BEST_BY])

    def rank(value: str) -> tuple[float, float, str]:
        accuracies = [estimate.value or 0.0 for _, estimate in found[value].values()]
        place = order.index(value) if value in order else len(order)
        return place, -sum(accuracies) / len(accuracies), value

    rows = []
    for value in sorted(found, key=rank):
        marks = [
            Mark(run, estimate, *shares(estimate), (place + 0.5) * ROW)
            for place, (run, estimate) in enumerate(found[value].values())
        ]
        rows.append(DotRow(value, max(mark.estimate.n for mark in marks), marks, len(marks) * ROW))
    return rows


@dataclass(frozen=True)
class Breakdown:
    """Accuracy by one column: its heading, and a row for each value."""

    column: str
    heading: str
    rows: list[DotRow]


# Columns whose values have an order of their own.
ORDERS = {"strength": ("light", "medium", "heavy"), "size": SIZES}


def breakdowns(evidence: Evidence) -> list[Breakdown]:
    """All breakdowns that can be drawn; of sizes and of the data set's own columns, those with something to compare."""
    columns = dict.fromkeys(column for run in evidence.models for column in run.metrics.breakdowns)
    found = [
        Breakdown(column, words.breakdown(column), dot_rows(evidence, column, ORDERS.get(column, ())))
        for column in columns
    ]
    return [one for one in found if len(one.rows) > 1 or (one.rows and one.column in ("operations", "strength"))]


@dataclass(frozen=True)
class Line:
    """A model's precision against recall: ``points`` as an SVG polyline in percent; where its threshold is, if any."""

    run: Run
    points: str
    threshold: Threshold
    x: float
    y: float


@dataclass(frozen=True)
class Curves:
    """Precision against recall of the models for one list of predictions. Heights in pixels."""

    metric: str  # whose list it is
    lines: list[Line]
    top: int = 12
    height: int = 300


def precision_recall(evidence: Evidence) -> list[Curves]:
    """One figure for scores as they are, and one for normalised ones where there are any."""
    return [
        Curves(f"uap{end}", lines)
        for end in ("", words.NORMALISED)
        if (lines := [_line(run, end) for run in evidence.models if f"uap{end}" in run.metrics.curves])
    ]


def _line(run: Run, end: str) -> Line:
    curve, threshold = run.metrics.curves[f"uap{end}"], run.metrics.thresholds[f"recall_at_p90{end}"]
    steps = [(100 * recall, 100 - 100 * one) for recall, one in zip(curve.recall, curve.precision, strict=True)]
    steps = [(0.0, steps[0][1]), *steps] if steps else []
    x, y = 100 * (threshold.recall or 0), 1 - (threshold.precision or 0)
    points = " ".join(f"{x:.2f},{y:.2f}" for x, y in steps)
    return Line(run, points, threshold, x, Curves.top + y * Curves.height)


def shares(estimate: Estimate) -> tuple[float, float, float]:
    """Value, low and high in percent; an interval that is not known has no length."""
    value = estimate.value or 0.0
    low = value if estimate.low is None else estimate.low
    high = value if estimate.high is None else estimate.high
    return 100 * value, 100 * low, 100 * high
