"""Whether intervals and verdicts keep their promise: simulated truth, measured with the library's own functions.

Populations of queries are drawn whose true numbers are known from 100,000 groups. From each, many small samples are
drawn, with four models that are equally good. Counted are the intervals that contain the truth, the samples in which
any of all verdicts between equal models is wrong, and the safe thresholds that are not.

    python benchmarks/calibration.py                             print the tables
    python benchmarks/calibration.py --write docs/calibration.md   replace the tables in the page
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow_scripts"))

import numpy as np

from lookalike.compare.pairwise import Pair, Tested, corrected, rates_tested
from lookalike.io.formats.base import Estimate
from lookalike.metrics.jackknife import ROUGH_DF, Pooled, influences, pooled_difference, pooled_estimate
from lookalike.metrics.joining import Floats, Ints
from lookalike.metrics.pooled import Predictions, best_cut, micro_average_precision, recall_at
from lookalike.metrics.rates import estimate
from lookalike.metrics.targets import safe_threshold

START, END = "<!-- calibration: start -->", "<!-- calibration: end -->"
MODELS, WRONG = 4, 5  # equal models; wrong predictions per query
METRICS = ("accuracy_at_1", "accuracy_at_3", "recall_at_p90", "uap")
SAFE = 90  # percent, target of the safe thresholds
TRUTH_GROUPS, TRUTH_QUERIES = 100_000, 2


@dataclass(frozen=True)
class Population:
    """How the scores of a query come about.

    lift: how far right scores are above wrong ones; within: share of the variance that a group has in common; hard:
    share of groups whose right scores are much lower; uneven: whether groups have different numbers of queries
    """

    name: str
    lift: float
    within: float
    hard: float = 0.0
    uneven: bool = False


POPULATIONS = (
    Population("middling", 1.9, 0.5),
    Population("good", 3.2, 0.5),
    Population("a few hard photographs, uneven groups", 2.9, 0.4, hard=0.15, uneven=True),
)
SIZES = (*((groups, 8) for groups in (5, 6, 8, 9, 10, 12, 19, 30)), (100, 5), (20, 1), (50, 1), (150, 1), (600, 1))


@dataclass(frozen=True)
class Sample:
    """The queries of a sample, and the scores of each model: (n,) right ones and (n, WRONG) wrong ones, descending."""

    groups: Ints
    has_match: Ints
    right: list[Floats]
    wrong: list[Floats]

    def outcomes(self, model: int, at: int) -> Floats:
        """(q,) float64: whether a match is among the first ``at``, for the queries with a match."""
        place = (self.wrong[model] >= self.right[model][:, None]).sum(axis=1)
        return np.asarray((place < at)[self.has_match == 1], dtype=np.float64)

    def predictions(self, model: int) -> Predictions:
        """The pooled list."""
        matched = self.has_match == 1
        score = np.concatenate([self.right[model][matched], self.wrong[model].ravel()])
        right = np.arange(len(score)) < matched.sum()
        group = np.concatenate([self.groups[matched], np.repeat(self.groups, WRONG)])
        order = np.lexsort((right, -score))
        matches = np.bincount(self.groups[matched], minlength=int(self.groups.max()) + 1)
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

    difficulty = effect(0.8) - 2.5 * (random.random(groups) < population.hard)[code]
    crowd = effect(0.3)
    right = [population.lift + difficulty + effect(0.6) for _ in range(models)]
    wrong = [np.sort(crowd[:, None] + 0.8 * random.standard_normal((len(code), WRONG)))[:, ::-1] for _ in range(models)]
    return Sample(code, (random.random(len(code)) < 0.85).astype(np.int64), right, wrong)


def pooled(predictions: Predictions) -> dict[str, Pooled]:
    """Both pooled metrics of a list, as ``metrics.evaluation`` makes them."""
    average, recall = influences(predictions.right, predictions.group, predictions.matches)
    return {
        "uap": Pooled(micro_average_precision(predictions), average),
        "recall_at_p90": Pooled(recall_at(best_cut(predictions), predictions), recall, ROUGH_DF),
    }


@lru_cache
def truth(population: Population) -> tuple[dict[str, float], Predictions]:
    """The numbers of a very large sample, and its list, which says how precise any threshold is."""
    sample = draw(population, TRUTH_GROUPS, TRUTH_QUERIES, 1, np.random.default_rng(1))
    predictions = sample.predictions(0)
    values = {f"accuracy_at_{at}": float(sample.outcomes(0, at).mean()) for at in (1, 3)}
    values["uap"] = micro_average_precision(predictions) or 0.0
    values["recall_at_p90"] = recall_at(best_cut(predictions), predictions) or 0.0
    return values, predictions


@dataclass
class Counts:
    """What is counted in the samples of one population and size."""

    covered: dict[str, list[bool]]
    gap_covered: dict[str, list[bool]]
    values: dict[str, list[float]]
    false: dict[str, list[bool]]  # by metric alone, and "all" together
    unsafe: list[bool]
    holds: list[bool]


def run(arguments: tuple[int, int, int, int]) -> tuple[int, int, Counts, dict[str, float]]:
    """Draw the samples of one population and size."""
    number, size, samples, seed = arguments
    population, (groups, per_group) = POPULATIONS[number], SIZES[size]
    expected, everything = truth(population)
    random = np.random.default_rng([seed, number, size])
    counts = Counts(
        *({name: [] for name in METRICS} for _ in range(3)), {name: [] for name in (*METRICS, "all")}, [], []
    )
    for _ in range(samples):
        _count(draw(population, groups, per_group, MODELS, random), expected, everything, counts)
    return number, size, counts, expected


def _count(sample: Sample, expected: dict[str, float], everything: Predictions, counts: Counts) -> None:
    matched = sample.groups[sample.has_match == 1]
    if not len(matched):
        return
    lists = [sample.predictions(model) for model in range(MODELS)]
    of_lists = [pooled(predictions) for predictions in lists]
    matches, total = lists[0].matches, len(sample.groups)
    pairs = []
    for metric in METRICS:
        rate = metric.startswith("accuracy")
        outcomes = [sample.outcomes(model, int(metric[-1])) for model in range(MODELS)] if rate else []
        for model in range(MODELS):
            found = (
                estimate(outcomes[model], matched) if rate else pooled_estimate(of_lists[model][metric], matches, total)
            )
            counts.covered[metric].append(_contains(found, expected[metric]))
            counts.values[metric].append(found.value or 0.0)
        for a, b in combinations(range(MODELS), 2):
            tested = (
                rates_tested(outcomes[a], outcomes[b], matched)
                if rate
                else Tested(
                    *pooled_difference(of_lists[a][metric], of_lists[b][metric], matches, total),
                    int(np.count_nonzero(matches)),
                )
            )
            counts.gap_covered[metric].append(_contains(tested.difference, 0.0))
            pairs.append(Pair("flat", metric, str(a), str(b), tested))
    for metric in METRICS:
        alone = corrected([pair for pair in pairs if pair.metric == metric], [metric])
        counts.false[metric].append(any(one.verdict in ("better", "worse") for one in alone))
    together = corrected(pairs, METRICS)
    counts.false["all"].append(any(one.verdict in ("better", "worse") for one in together))
    safe = safe_threshold(lists[0], SAFE)
    counts.holds.append(safe is not None)
    if safe is not None:
        accepted = everything.right[: np.searchsorted(-everything.score, -safe.score, side="right")]
        counts.unsafe.append(bool(accepted.mean() < SAFE / 100))


def _contains(interval: Estimate, value: float) -> bool:
    return interval.low is not None and interval.high is not None and interval.low <= value <= interval.high


def tables(
    found: dict[tuple[int, int], tuple[Counts, dict[str, float]]], samples: int, seconds: float
) -> Iterator[str]:
    """The lines of the tables, Markdown."""
    yield f"`python benchmarks/calibration.py --samples {samples}`, NumPy {np.__version__}, {seconds:.0f} s: {samples}"
    yield f"samples of each size from each of {len(POPULATIONS)} populations, {MODELS} equal models. Each cell is the"
    yield "worst of the populations."
    yield from ("", "**Coverage of 95 % intervals** (of a value / of a difference between two models), in percent:", "")
    yield f"| groups x queries | {' | '.join(METRICS)} |"
    yield f"| --- |{' --- |' * len(METRICS)}"
    for _, label, cells in _rows(found):
        worst = [
            f"{min(np.mean(c.covered[name]) for c in cells) * 100:.1f} / "
            f"{min(np.mean(c.gap_covered[name]) for c in cells) * 100:.1f}"
            for name in METRICS
        ]
        yield f"| {label} | {' | '.join(worst)} |"
    yield from (
        "",
        "**False verdicts**: samples with any, in percent, corrected within one metric and over all of them;",
    )
    yield from ("and safe thresholds for 90 % that are not safe, in percent of the samples:", "")
    yield f"| groups x queries | {' | '.join(METRICS)} | all together | unsafe (found in) |"
    yield f"| --- |{' --- |' * (len(METRICS) + 2)}"
    for _, label, cells in _rows(found):
        worst = [f"{max(np.mean(c.false[name]) for c in cells) * 100:.1f}" for name in (*METRICS, "all")]
        unsafe = max(np.sum(c.unsafe) / len(c.holds) for c in cells) * 100
        yield f"| {label} | {' | '.join(worst)} | {unsafe:.1f} ({max(np.mean(c.holds) for c in cells) * 100:.0f}) |"
    yield from ("", "**Bias**: the mean of the values minus the true one, in percentage points, the largest:", "")
    yield f"| groups x queries | {' | '.join(METRICS)} |"
    yield f"| --- |{' --- |' * len(METRICS)}"
    for size, label, _ in _rows(found):
        biases = [
            [float(np.mean(found[number, size][0].values[name]) - found[number, size][1][name]) for name in METRICS]
            for number in range(len(POPULATIONS))
        ]
        largest = [max((row[column] for row in biases), key=abs) * 100 for column in range(len(METRICS))]
        yield f"| {label} | {' | '.join(f'{bias:+.1f}' for bias in largest)} |"


def _rows(
    found: dict[tuple[int, int], tuple[Counts, dict[str, float]]],
) -> Iterator[tuple[int, str, list[Counts]]]:
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
