"""Whether intervals and verdicts keep their promise: simulated truth, measured with the library's own functions.

Populations of queries are drawn whose true numbers are known from 100,000 groups. From each, many small samples are
drawn, with four models that are equally good. Counted are the intervals that contain the truth, the samples in which
any of all verdicts between equal models is wrong, and the safe thresholds that are not. In some populations the
references hold re-saved copies of the right image and other shots of its scene: metrics come strict and as ``_scene``,
where those do not count as wrong, and verdicts on both are corrected together, as in a report.

    python benchmarks/calibration.py                             print the tables
    python benchmarks/calibration.py --write docs/calibration.md   replace the tables in the page
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow_scripts"))

import numpy as np

from lookalike.compare.pairwise import Pair, Tested, corrected, rates_tested
from lookalike.io.formats.base import Estimate
from lookalike.metrics.evaluation import pooled_of
from lookalike.metrics.jackknife import Pooled, pooled_difference, pooled_estimate
from lookalike.metrics.joining import Bools, Floats, Ints
from lookalike.metrics.pooled import Predictions, best_cut, micro_average_precision, recall_at
from lookalike.metrics.rates import estimate
from lookalike.metrics.scenes import SCENE
from lookalike.metrics.targets import safe_threshold

START, END = "<!-- calibration: start -->", "<!-- calibration: end -->"
MODELS, WRONG = 4, 5  # equal models; wrong predictions per query
METRICS = ("accuracy_at_1", "accuracy_at_3", "recall_at_p90", "uap")  # each also with SCENE
ENDS = ("", SCENE)
NAMES = tuple(metric + end for end in ENDS for metric in METRICS)
RECOGNIZED = 0.8  # share of the pairs of one scene that the audit confirms
SAFE = 90  # percent, target of the safe thresholds
TRUTH_GROUPS, TRUTH_QUERIES = 100_000, 2


@dataclass(frozen=True)
class Population:
    """How the scores of a query come about.

    lift: how far right scores are above wrong ones; within: share of the variance that a group has in common; hard:
    share of groups whose right scores are much lower; uneven: whether groups have different numbers of queries; shots:
    share of groups whose matches have another shot of the scene beside them; copies: share of the matches that have a
    copy beside them
    """

    name: str
    lift: float
    within: float
    hard: float = 0.0
    uneven: bool = False
    shots: float = 0.0
    copies: float = 0.0


POPULATIONS = (
    Population("middling", 1.9, 0.5),
    Population("good, scenes", 3.2, 0.5, shots=0.6, copies=0.2),
    Population(
        "a few hard photographs, uneven groups, scenes", 2.9, 0.4, hard=0.15, uneven=True, shots=0.4, copies=0.3
    ),
)
SIZES = (*((groups, 8) for groups in (5, 6, 8, 9, 10, 12, 19, 30)), (100, 5), (20, 1), (50, 1), (150, 1), (600, 1))


@dataclass(frozen=True)
class Sample:
    """The queries of a sample, and the scores of each model: (n,) right ones and (n, WRONG) wrong ones, descending.

    shot, copied: (n,) scores of another shot of the scene, and of a copy of the right image; -inf where it is missing
    recognized: (n,) bool, whether the audit confirms the shot
    """

    groups: Ints
    has_match: Ints
    right: list[Floats]
    wrong: list[Floats]
    shot: list[Floats]
    copied: list[Floats]
    recognized: Bools

    def _judged(self, model: int, end: str) -> tuple[Floats, Floats]:
        """The score of the right answer, (n,), and those of wrong ones beside WRONG, (n, 2)."""
        right, shot, copied = self.right[model], self.shot[model], self.copied[model]
        if end == SCENE:
            kept = np.where(self.recognized, -np.inf, shot)
            return np.maximum(right, copied), np.stack([kept, np.full(len(right), -np.inf)], axis=1)
        return right, np.stack([shot, copied], axis=1)

    def outcomes(self, model: int, at: int, end: str = "") -> Floats:
        """(q,) float64: whether a match is among the first ``at``, for the queries with a match."""
        right, beside = self._judged(model, end)
        wrong = np.concatenate([self.wrong[model], beside], axis=1)
        place = (wrong >= right[:, None]).sum(axis=1)
        return np.asarray((place < at)[self.has_match == 1], dtype=np.float64)

    def predictions(self, model: int, end: str = "") -> Predictions:
        """The pooled list."""
        matched = self.has_match == 1
        right_score, beside = self._judged(model, end)
        score = np.concatenate([right_score[matched], self.wrong[model].ravel(), beside[matched].ravel()])
        right = np.arange(len(score)) < matched.sum()
        of = self.groups[matched]
        group = np.concatenate([of, np.repeat(self.groups, WRONG), np.repeat(of, beside.shape[1])])
        order = np.lexsort((right, -score))
        order = order[np.isfinite(score[order])]
        matches = np.bincount(of, minlength=int(self.groups.max()) + 1)
        return Predictions(score[order], right[order], group[order], matches)


def draw(population: Population, groups: int, per_group: int, models: int, random: np.random.Generator) -> Sample:
    """Independent groups of queries; 85 % have a match. Models share most of what makes a query hard."""
    sizes = np.full(groups, per_group)
    if population.uneven and per_group > 1:
        sizes = random.geometric(1 / per_group, groups)
    code = np.repeat(np.arange(groups), sizes)

    def effect(scale: float = 1.0) -> Floats:
        shared = random.standard_normal(groups)[code] * np.sqrt(population.within)
        return np.asarray(scale * (shared + random.standard_normal(len(code)) * np.sqrt(1 - population.within)))

    def beside(right: Floats, there: Bools, lower: float, spread: float) -> Floats:
        return np.asarray(np.where(there, right - lower + spread * random.standard_normal(len(right)), -np.inf))

    difficulty = effect(0.8) - 2.5 * (random.random(groups) < population.hard)[code]
    crowd = effect(0.3)
    right = [population.lift + difficulty + effect(0.6) for _ in range(models)]
    wrong = [np.sort(crowd[:, None] + 0.8 * random.standard_normal((len(code), WRONG)))[:, ::-1] for _ in range(models)]
    has_match = (random.random(len(code)) < 0.85).astype(np.int64)
    in_scene = (random.random(groups) < population.shots)[code]
    has_copy = random.random(len(code)) < population.copies
    shot = [beside(scores, in_scene, 0.6, 0.7) for scores in right]
    copied = [beside(scores, has_copy, 0.1, 0.1) for scores in right]
    return Sample(code, has_match, right, wrong, shot, copied, random.random(len(code)) < RECOGNIZED)


def pooled(predictions: Predictions, end: str) -> dict[str, Pooled]:
    """Both pooled metrics of a list, as ``metrics.evaluation`` makes them."""
    average, recall = pooled_of(predictions)
    return {f"uap{end}": average, f"recall_at_p90{end}": recall}


@lru_cache
def truth(population: Population) -> tuple[dict[str, float], dict[str, Predictions]]:
    """The numbers of a very large sample, and its lists, which say how precise any threshold is."""
    sample = draw(population, TRUTH_GROUPS, TRUTH_QUERIES, 1, np.random.default_rng(1))
    lists = {end: sample.predictions(0, end) for end in ENDS}
    values = {f"accuracy_at_{at}{end}": float(sample.outcomes(0, at, end).mean()) for at in (1, 3) for end in ENDS}
    for end, predictions in lists.items():
        values[f"uap{end}"] = micro_average_precision(predictions) or 0.0
        values[f"recall_at_p90{end}"] = recall_at(best_cut(predictions), predictions) or 0.0
    return values, lists


@dataclass
class Counts:
    """What is counted in the samples of one population and size."""

    covered: dict[str, list[bool]]
    gap_covered: dict[str, list[bool]]
    values: dict[str, list[float]]
    false: dict[str, list[bool]]  # by metric alone, and "all" together
    unsafe: dict[str, list[bool]]  # by ENDS
    holds: dict[str, list[bool]]


def run(arguments: tuple[int, int, int, int]) -> tuple[int, int, Counts, dict[str, float]]:
    """Draw the samples of one population and size."""
    number, size, samples, seed = arguments
    population, (groups, per_group) = POPULATIONS[number], SIZES[size]
    expected, everything = truth(population)
    random = np.random.default_rng([seed, number, size])
    counts = Counts(
        *({name: [] for name in NAMES} for _ in range(3)),
        {name: [] for name in (*NAMES, "all")},
        *({end: [] for end in ENDS} for _ in range(2)),
    )
    for _ in range(samples):
        _count(draw(population, groups, per_group, MODELS, random), expected, everything, counts)
    return number, size, counts, expected


def _count(sample: Sample, expected: dict[str, float], everything: dict[str, Predictions], counts: Counts) -> None:
    matched = sample.groups[sample.has_match == 1]
    if not len(matched):
        return
    lists = {end: [sample.predictions(model, end) for model in range(MODELS)] for end in ENDS}
    of_lists = [
        {name: found for end in ENDS for name, found in pooled(lists[end][model], end).items()}
        for model in range(MODELS)
    ]
    matches, total = lists[""][0].matches, len(sample.groups)
    pairs = []
    for name in NAMES:
        metric, end = name.removesuffix(SCENE), SCENE if name.endswith(SCENE) else ""
        rate = metric.startswith("accuracy")
        outcomes = [sample.outcomes(model, int(metric[-1]), end) for model in range(MODELS)] if rate else []
        for model in range(MODELS):
            found = (
                estimate(outcomes[model], matched) if rate else pooled_estimate(of_lists[model][name], matches, total)
            )
            counts.covered[name].append(_contains(found, expected[name]))
            counts.values[name].append(found.value or 0.0)
        for a, b in combinations(range(MODELS), 2):
            tested = (
                rates_tested(outcomes[a], outcomes[b], matched)
                if rate
                else Tested(
                    *pooled_difference(of_lists[a][name], of_lists[b][name], matches, total),
                    int(np.count_nonzero(matches)),
                )
            )
            counts.gap_covered[name].append(_contains(tested.difference, 0.0))
            pairs.append(Pair("flat", name, str(a), str(b), tested))
    for name in NAMES:
        alone = corrected([pair for pair in pairs if pair.metric == name], [name])
        counts.false[name].append(any(one.verdict in ("better", "worse") for one in alone))
    together = corrected(pairs, NAMES)
    counts.false["all"].append(any(one.verdict in ("better", "worse") for one in together))
    for end in ENDS:
        safe = safe_threshold(lists[end][0], SAFE)
        counts.holds[end].append(safe is not None)
        if safe is not None:
            right, score = everything[end].right, everything[end].score
            accepted = right[: np.searchsorted(-score, -safe.score, side="right")]
            counts.unsafe[end].append(bool(accepted.mean() < SAFE / 100))


def _contains(interval: Estimate, value: float) -> bool:
    return interval.low is not None and interval.high is not None and interval.low <= value <= interval.high


Found = dict[tuple[int, int], tuple[Counts, dict[str, float]]]


def tables(found: Found, samples: int, seconds: float) -> Iterator[str]:
    """The lines of the tables, Markdown."""
    yield f"`python benchmarks/calibration.py --samples {samples}`, NumPy {np.__version__}, {seconds:.0f} s: {samples}"
    yield f"samples of each size from each of {len(POPULATIONS)} populations, {MODELS} equal models. Each cell is the"
    yield "worst of the populations."
    for end, which in (("", "strict metrics"), (SCENE, "metrics with `_scene`")):
        yield from (
            "",
            f"**Coverage of 95 % intervals, {which}** (of a value / of a difference between two models), in",
        )
        yield from ("percent:", "", *_head(METRICS))
        for _, label, cells in _rows(found):
            worst = [
                f"{min(np.mean(c.covered[name + end]) for c in cells) * 100:.1f} / "
                f"{min(np.mean(c.gap_covered[name + end]) for c in cells) * 100:.1f}"
                for name in METRICS
            ]
            yield f"| {label} | {' | '.join(worst)} |"
    yield from (
        "",
        "**False verdicts**: samples with any, in percent, corrected within one metric (strict / `_scene`) and over",
        "all of them; and safe thresholds for 90 % that are not safe, in percent of the samples:",
        "",
        *_head((*METRICS, "all together", "unsafe (found in)")),
    )
    for _, label, cells in _rows(found):
        false = [
            " / ".join(f"{max(np.mean(c.false[name + end]) for c in cells) * 100:.1f}" for end in ENDS)
            for name in METRICS
        ]
        together = max(np.mean(c.false["all"]) for c in cells) * 100
        unsafe = " / ".join(f"{max(np.sum(c.unsafe[e]) / len(c.holds[e]) for c in cells) * 100:.1f}" for e in ENDS)
        held = " / ".join(f"{max(np.mean(c.holds[end]) for c in cells) * 100:.0f}" for end in ENDS)
        yield f"| {label} | {' | '.join(false)} | {together:.1f} | {unsafe} ({held}) |"
    yield from (
        "",
        "**Bias**: the mean of the values minus the true one (strict / `_scene`), in percentage points, the",
    )
    yield from ("largest:", "", *_head(METRICS))
    for size, label, _ in _rows(found):
        largest = {
            name: max(
                (
                    float(np.mean(counts.values[name]) - expected[name]) * 100
                    for counts, expected in (found[number, size] for number in range(len(POPULATIONS)))
                ),
                key=abs,
            )
            for name in NAMES
        }
        cells_of_row = (" / ".join(f"{largest[name + end]:+.1f}" for end in ENDS) for name in METRICS)
        yield f"| {label} | {' | '.join(cells_of_row)} |"


def _head(columns: Sequence[str]) -> Iterator[str]:
    yield f"| groups x queries | {' | '.join(columns)} |"
    yield f"| --- |{' --- |' * len(columns)}"


def _rows(found: Found) -> Iterator[tuple[int, str, list[Counts]]]:
    for size, (groups, per_group) in enumerate(SIZES):
        label = f"{groups} x {per_group}" if per_group > 1 else f"{groups} independent"
        yield size, label, [found[number, size][0] for number in range(len(POPULATIONS)) if (number, size) in found]


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1000, help="per size and population")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--write", type=Path, help="a page with both markers; its tables are replaced")
    arguments = parser.parse_args()
    begin = time.monotonic()
    jobs = [(p, s, arguments.samples, arguments.seed) for s in range(len(SIZES)) for p in range(len(POPULATIONS))]
    with multiprocessing.Pool(arguments.processes) as processes:
        found = {(p, s): (counts, expected) for p, s, counts, expected in processes.imap_unordered(run, jobs)}
    lines = "\n".join(tables(found, arguments.samples, time.monotonic() - begin))
    print(lines)
    if arguments.write:
        page = arguments.write.read_text(encoding="utf-8")
        before, _, rest = page.partition(START)
        _, _, after = rest.partition(END)
        arguments.write.write_text(f"{before}{START}\n{lines}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
