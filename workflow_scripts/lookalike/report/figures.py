"""Coordinates of the marks in each figure; the templates draw them as inline SVG.

Inline SVG instead of plotly: a few small figures do not justify a 4.8 MB script, and SVG follows the light or dark
mode, prints sharply, and works without JavaScript. Horizontal positions are percentages of the width, so that figures
adapt to a phone while text keeps its size.
"""

from dataclasses import dataclass

from lookalike.io.formats.records import SIZES, Estimate, Threshold
from lookalike.io.formats.thresholds import Target
from lookalike.report import words
from lookalike.report.evidence import BEST_BY, Evidence, Run

# Color *and* shape identify a model, so that color vision is not needed; 24 combinations before one repeats.
COLORS = 8
SHAPES = ("circle", "square", "diamond", "up", "down", "hexagon")
ROW = 13  # height in pixels of one model's interval in a row


@dataclass(frozen=True)
class Mark:
    """One estimate of one model. Horizontal positions in percent of the width, vertical positions in pixels."""

    run: Run
    estimate: Estimate
    x: float
    low: float
    high: float
    y: float


@dataclass(frozen=True)
class DotRow:
    """All models on one part of the queries."""

    name: str
    n: int
    marks: list[Mark]
    height: float


def dot_rows(evidence: Evidence, column: str, order: tuple[str, ...] = ()) -> list[DotRow]:
    """Accuracy of each model for each value of a breakdown.

    Rows are sorted by ``order``; values not in it follow, the easiest (by the mean over models) first.
    """
    by_value: dict[str, dict[int, tuple[Run, Estimate]]] = {}
    for run in evidence.models:
        for value, metrics in run.metrics.breakdowns.get(column, {}).items():
            if BEST_BY in metrics and metrics[BEST_BY].value is not None:
                by_value.setdefault(value, {})[run.number] = (run, metrics[BEST_BY])

    def rank(value: str) -> tuple[float, float, str]:
        accuracies = [estimate.value or 0.0 for _, estimate in by_value[value].values()]
        place = order.index(value) if value in order else len(order)
        return place, -sum(accuracies) / len(accuracies), value

    rows = []
    for value in sorted(by_value, key=rank):
        marks = [
            Mark(run, estimate, *shares(estimate), (place + 0.5) * ROW)
            for place, (run, estimate) in enumerate(by_value[value].values())
        ]
        rows.append(DotRow(value, max(mark.estimate.n for mark in marks), marks, len(marks) * ROW))
    return rows


@dataclass(frozen=True)
class Breakdown:
    """Accuracy by one column: its heading, and a row per value."""

    column: str
    heading: str
    rows: list[DotRow]


# Columns whose values have a natural order.
ORDERS = {"strength": ("light", "medium", "heavy"), "size": SIZES}


def breakdowns(evidence: Evidence) -> list[Breakdown]:
    """All breakdowns that can be drawn; sizes, labels and custom columns only if they have at least two values."""
    columns = dict.fromkeys(column for run in evidence.models for column in run.metrics.breakdowns)
    all_columns = [
        Breakdown(column, words.breakdown(column), dot_rows(evidence, column, ORDERS.get(column, ())))
        for column in columns
    ]
    return [
        breakdown
        for breakdown in all_columns
        if len(breakdown.rows) > 1 or (breakdown.rows and breakdown.column in ("operations", "strength"))
    ]


@dataclass(frozen=True)
class Line:
    """A model's precision-recall curve: ``points`` of an SVG polyline in percent, and its thresholds.

    ``threshold`` is the lowest seen with a precision of 90 %, if any; ``targets`` are those of each target precision.
    """

    run: Run
    points: str
    threshold: Threshold
    targets: dict[str, Target]
    x: float
    y: float


# By how many percentage points recall at P90 and uAP may be too high on average, below so many groups:
# docs/calibration.md.
OPTIMISM = {20: (37, 14), 40: (13, 6), 100: (5, 3), 300: (2, 1)}


def optimism(groups: int) -> tuple[int, int]:
    """By how many percentage points recall at P90 and uAP may be too high on average."""
    return next((points for below, points in OPTIMISM.items() if groups < below), (0, 0))


@dataclass(frozen=True)
class Curves:
    """Precision-recall curves of all models for one list of predictions. Heights in pixels.

    ``optimistic``: see ``optimism``
    """

    metric: str  # computed from the same list
    lines: list[Line]
    optimistic: tuple[int, int]
    top: int = 12
    height: int = 300

    @property
    def share_with_match(self) -> float | None:
        """The share of queries that have a match, which all models have in common."""
        return next((target.share_with_match for line in self.lines for target in line.targets.values()), None)


def precision_recall(evidence: Evidence) -> list[Curves]:
    """One figure for raw scores, and one for normalised scores if there are any."""
    return [
        Curves(f"uap{end}", lines, optimism(evidence.groups))
        for end in ("", words.NORMALISED)
        if (lines := [_line(run, end) for run in evidence.models if f"uap{end}" in run.metrics.curves])
    ]


def _line(run: Run, end: str) -> Line:
    curve, threshold = run.metrics.curves[f"uap{end}"], run.metrics.threshold(f"recall_at_p90{end}")
    steps = [
        (100 * recall, 100 - 100 * precision) for recall, precision in zip(curve.recall, curve.precision, strict=True)
    ]
    steps = [(0.0, steps[0][1]), *steps] if steps else []
    x, y = 100 * (threshold.recall or 0), 1 - (threshold.precision or 0)
    points = " ".join(f"{x:.2f},{y:.2f}" for x, y in steps)
    return Line(run, points, threshold, run.metrics.targets(end), x, Curves.top + y * Curves.height)


def shares(estimate: Estimate) -> tuple[float, float, float]:
    """Value, low and high in percent; an unknown interval has zero length."""
    value = estimate.value or 0.0
    low = value if estimate.low is None else estimate.low
    high = value if estimate.high is None else estimate.high
    return 100 * value, 100 * low, 100 * high
