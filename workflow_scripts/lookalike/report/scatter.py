"""Scatter plots of accuracy vs. cost: coordinates of points, labels and the Pareto front."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from lookalike.io.formats.records import Estimate
from lookalike.report import pareto, words
from lookalike.report.evidence import BEST_BY, Evidence, Run
from lookalike.report.figures import shares
from lookalike.report.pareto import Standing


@dataclass(frozen=True)
class Tick:
    """A grid line with its label."""

    at: float
    text: str


@dataclass(frozen=True)
class Label:
    """Position of a model's name relative to its mark: an offset in pixels and the text anchor."""

    dx: float
    dy: float
    anchor: str


@dataclass(frozen=True)
class Point:
    """A run in a scatter plot: ``x`` in percent of the width, the rest in pixels; ``cost`` with its unit."""

    standing: Standing
    name: str
    cost: str
    x: float
    y: float
    low: float
    high: float
    label: Label

    @property
    def run(self) -> Run:
        """The run."""
        return self.standing.run

    @property
    def estimate(self) -> Estimate:
        """Its accuracy."""
        return self.run.estimate(BEST_BY)


Step = tuple[float, float, float, float]  # x1, y1, x2, y2 as in ``Point``


@dataclass(frozen=True)
class Scatter:
    """Accuracy vs. cost, with the steps of the Pareto front."""

    points: list[Point]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    front: list[Step]
    height: int = 380
    top: int = 18
    bottom: int = 340

    @property
    def standings(self) -> list[tuple[Standing, str]]:
        """Each run's standing, with its name in the figure."""
        return [(point.standing, point.name) for point in self.points]


def by_speed(evidence: Evidence) -> Scatter:
    """Accuracy vs. images per second. No front if runs were timed on different devices."""
    costs = [(run, 1 / run.embed.images_per_second) for run in evidence.models if run.embed]
    labels = {
        (run.model, run.index): f"{words.number(run.embed.images_per_second)} images per second on {run.embed.device}"
        for run, _ in costs
        if run.embed
    }
    return _scatter(evidence, costs, labels, rising=True, comparable=len(devices_of(evidence)) == 1)


def by_bytes(evidence: Evidence) -> Scatter:
    """Accuracy vs. index bytes per vector."""
    costs = [(run, run.metrics.cost.indexed_bytes) for run in evidence.runs if run.metrics.cost]
    labels = {(run.model, run.index): f"{words.size(cost)} per vector" for run, cost in costs}
    return _scatter(evidence, costs, labels, rising=False, comparable=True)


def _scatter(
    evidence: Evidence,
    costs: list[tuple[Run, float]],
    labels: dict[tuple[str, str], str],
    *,
    rising: bool,
    comparable: bool,
) -> Scatter:
    """Accuracy vs. cost on a logarithmic axis, since costs differ by factors.

    rising: whether the axis shows 1 / cost, so that better is to the right
    comparable: whether the costs can be compared with each other
    """
    known = [(run, cost) for run, cost in costs if run.estimate(BEST_BY).value is not None]
    if not known:
        return Scatter([], [], [], [])
    standings = pareto.standings(evidence, known) if comparable else [pareto.Standing(run, "") for run, _ in known]
    values = [1 / cost if rising else cost for _, cost in known]
    left, right = math.log10(min(values) / 1.6), math.log10(max(values) * 1.6)
    bounds = [shares(run.estimate(BEST_BY)) for run, _ in known]
    lowest, highest = _nice(min(low for _, low, _ in bounds), max(high for _, _, high in bounds))

    def across(value: float) -> float:
        return 100 * (math.log10(value) - left) / (right - left)

    def down(share: float) -> float:
        return Scatter.bottom - (Scatter.bottom - Scatter.top) * (share - lowest) / (highest - lowest)

    points: list[Point] = []
    places = [(across(value), down(share)) for value, (share, _, _) in zip(values, bounds, strict=True)]
    on_front = [place for place, standing in zip(places, standings, strict=True) if standing.state == "front"]
    steps = _steps(on_front, 0.0 if rising else 100.0)
    columns = [(across(value) * WIDTH / 100, bound) for value, bound in zip(values, bounds, strict=True)]
    lines = [(at - 2, down(high), at + 2, down(low)) for at, (_, low, high) in columns]
    lines += [_line_box(step) for step in steps]
    taken = [(at - 8, down(value) - 8, at + 8, down(value) + 8) for at, (value, _, _) in columns]
    for standing, value, (share, low, high) in zip(standings, values, bounds, strict=True):
        run, x = standing.run, across(value)
        name = run.label if len({other.index for other, _ in known}) == 1 else f"{run.label}, {run.index}"
        label = _place(name, x, down(share), lines, taken)
        cost_label = labels[run.model, run.index]
        points.append(Point(standing, name, cost_label, x, down(share), down(low), down(high), label))
    step = 10 if highest - lowest <= 50 else 20
    return Scatter(
        points,
        [Tick(across(value), words.number(value)) for value in _round_numbers(10**left, 10**right)],
        [Tick(down(share), f"{share}{words.SPACE}%") for share in range(lowest, highest + 1, step)],
        steps,
    )


def _steps(corners: list[tuple[float, float]], edge: float) -> list[Step]:
    """The staircase through the corners, from the worse ``edge`` (0 or 100 %) down to the axis."""
    steps: list[Step] = []
    x = edge
    ordered = sorted(dict.fromkeys(corners), key=lambda corner: (corner[1], abs(corner[0] - edge)))
    for number, (to, y) in enumerate(ordered):
        below = ordered[number + 1][1] if number + 1 < len(ordered) else float(Scatter.bottom)
        steps += [(x, y, to, y), (to, y, to, below)]
        x = to
    return steps


def devices_of(evidence: Evidence) -> list[tuple[str, list[str]]]:
    """Each device with the labels of the models embedded on it."""
    labels: dict[str, list[str]] = {}
    for run in evidence.models:
        if run.embed:
            labels.setdefault(run.embed.device, []).append(run.label)
    return list(labels.items())


def _nice(low: float, high: float) -> tuple[int, int]:
    """Axis limits around an interval: multiples of 10 (or 20 for a wide span), at least 40 apart, in 0 to 100."""
    step = 10 if high - low <= 35 else 20
    lowest, highest = step * math.floor(low / step), step * math.ceil(high / step)
    while highest - lowest < 40:
        lowest, highest = max(0, lowest - step), min(100, highest + step)
    return lowest, highest


def _round_numbers(low: float, high: float) -> list[float]:
    """At most eight round numbers for a logarithmic axis; only powers of ten over a wide range."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in (range(1, 10), (1, 2, 5), (1, 3), (1,)):
        numbers = [digit * 10.0**decade for decade in decades for digit in digits]
        inside = [number for number in numbers if low <= number <= high]
        if len(inside) <= 8:
            break
    return inside


Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels
WIDTH = 1000  # width of a figure on a desktop; a phone shows the legend instead of names
ON_A_LINE, ON_A_NAME, OUTSIDE = 1, 10, 100  # penalties for the position of a name


def _place(text: str, x: float, y: float, lines: list[Box], taken: list[Box]) -> Label:
    """The position with the lowest penalty near the mark, the nearest at ties; adds its box to ``taken``."""
    width, at = 7.2 * len(text), x * WIDTH / 100
    sides = ((13, "start"), (-13, "end")) if x < 65 else ((-13, "end"), (13, "start"))  # prefer the inner side
    candidates = [
        (Label(dx, dy, anchor), _text_box(at + dx, y + dy, width, anchor))
        for dy in (5, -12, 22, -28, 38, -44, 54)
        for dx, anchor in sides
    ]

    def penalty(box: Box) -> int:
        inside = box[0] >= 0 and box[2] <= WIDTH and box[1] >= 0
        return ON_A_LINE * _overlaps(box, lines) + ON_A_NAME * _overlaps(box, taken) + (0 if inside else OUTSIDE)

    label, box = min(candidates, key=lambda candidate: penalty(candidate[1]))
    taken.append(box)
    return label


def _text_box(x: float, y: float, width: float, anchor: str) -> Box:
    left = x if anchor == "start" else x - width
    return left, y - 13, left + width, y + 4


def _line_box(step: Step) -> Box:
    x1, y1, x2, y2 = step
    left, right = sorted((x1 * WIDTH / 100, x2 * WIDTH / 100))
    return left - 2, min(y1, y2) - 2, right + 2, max(y1, y2) + 2


def _overlaps(box: Box, others: Iterable[Box]) -> int:
    return sum(
        box[0] < right and left < box[2] and box[1] < bottom and top < box[3] for left, top, right, bottom in others
    )
