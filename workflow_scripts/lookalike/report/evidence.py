"""The inputs of the report: read, checked for consistency, and counted."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lookalike.io import identity, relevance, store
from lookalike.io.formats.answers import Answer
from lookalike.io.formats.records import (
    Approximation,
    Cases,
    Claim,
    Comparison,
    Comparisons,
    Duplicates,
    Effect,
    EmbedTiming,
    Estimate,
    Following,
    Metrics,
)
from lookalike.io.formats.tables import IMAGES, TRUTH
from lookalike.job.errors import LookalikeError
from lookalike.report import near_duplicates
from lookalike.report.cases import IN_PAGE, Limits
from lookalike.report.near_duplicates import NearDuplicates

StrPath = str | Path
LOOKS, ACTS, FAST = "someone_looks", "acts_alone", "fast"  # needs, as in ``compare.answers``
BEST_BY = "accuracy_at_1"  # "accuracy" in published comparisons; what matters to a system that uses the first hit


@dataclass(frozen=True)
class Run:
    """One model with one index. ``number``, the model's position in the experiment, selects color and marker."""

    number: int
    model: str
    label: str
    index: str
    metrics: Metrics
    neighbors: Path
    provenance: dict[str, Any]
    showcase: Path | None = None  # neighbors of the showcase images, if any

    def estimate(self, metric: str) -> Estimate:
        """The estimate of a metric; its value is None if the metric was not measured."""
        return self.metrics.metrics.get(metric) or Estimate(value=None, low=None, high=None, n=0)

    @property
    def embed(self) -> EmbedTiming | None:
        """The timing of embedding, if known; unknown keys are ignored."""
        timing = self.metrics.timing.get("embed")
        if not timing or not timing.get("images") or not timing.get("seconds"):
            return None
        return EmbedTiming(
            images=timing["images"],
            seconds=timing["seconds"],
            load_seconds=timing.get("load_seconds") or 0.0,
            device=timing.get("device") or "unknown device",
            batch_size=0,  # not used: shards may differ in it
        )

    @property
    def spent(self) -> dict[str, Any]:
        """Embedding time by step, summed over shards by the measure stage; empty if unknown."""
        timing = self.metrics.timing.get("embed") or {}
        return timing if timing.get("images") and any((timing.get("stages") or {}).values()) else {}

    @property
    def memory(self) -> dict[str, Any]:
        """What embedding took, with the largest peaks of memory of its jobs; empty if unknown."""
        return self.metrics.timing.get("embed") or {}

    @property
    def search(self) -> dict[str, Any]:
        """The timing of the search; empty if unknown."""
        return self.metrics.timing.get("search") or {}


@dataclass(frozen=True)
class Rejected:
    """One rejected image, the reason, and the models that rejected it."""

    image_id: str
    path: str
    reason: str
    models: tuple[str, ...]
    file: str


@dataclass(frozen=True)
class Counts:
    """References and queries of one model: sampled = embedded + rejected; ``groups`` as in ``records.Metrics``."""

    references: int
    queries: int
    groups: int
    rejected_references: int
    rejected_queries: int


@dataclass(frozen=True)
class Evidence:
    """Everything that a report shows."""

    experiment: str
    title: str  # "" without one
    dataset: str
    k: int
    runs: list[Run]
    comparisons: list[Comparison]
    answers: dict[str, Answer]
    cases: list[Cases]
    approximations: list[Approximation]
    effects: list[Effect]  # empty unless the experiment varies a model
    varied: str  # label of the varied model, or ""
    follows: list[Following]
    claims: list[Claim]
    images: pa.Table
    truth: pa.Table
    rejected: list[Rejected]
    counts: dict[str, Counts]  # by model, in the experiment's order
    duplicates: Duplicates
    left_out: list[dict[str, Any]]  # ignored files of the data set's folders
    about: dict[str, str]  # model -> licence, parameters, training data
    not_installed: dict[str, str]  # label of an optional model that was left out -> the missing Python package
    near_duplicates: NearDuplicates | None  # None where the data set's entry leaves them out
    maps: Sequence[StrPath] = ()  # of its models
    audits: Sequence[StrPath] = ()  # parallel to ``runs``
    has_pixels: bool = True  # False: the report shows ids instead of images

    @property
    def models(self) -> list[Run]:
        """One run per model, with the experiment's first index, which the examples come from."""
        return [run for run in self.runs if run.index == self.runs[0].index]

    @property
    def indexes(self) -> list[str]:
        """The indexes, in the experiment's order."""
        return list(dict.fromkeys(run.index for run in self.runs))

    @cached_property
    def queries(self) -> pa.Table:
        """The rows of the images table that are queries."""
        return self.images.filter(self.images["query"])

    @cached_property
    def matched(self) -> frozenset[str]:
        """Ids of the queries that have a match."""
        has_match = pa.array(relevance.matches(self.truth, self.images) > 0)
        return frozenset(self.images.filter(has_match)["image_id"].to_pylist())

    @property
    def labelled(self) -> bool:
        """Whether all images of a query's class are right."""
        return relevance.is_labelled(self.images)

    @property
    def best_by(self) -> str:
        """The metric that ranks the models: accuracy, or if no query has a match, agreement with the text."""
        return self.answers[LOOKS].metric

    @cached_property
    def references(self) -> int:
        """Number of sampled references."""
        return int(pc.sum(self.images["reference"]).as_py() or 0)

    @property
    def groups(self) -> int:
        """Number of independent groups among the queries with a match."""
        return self.runs[0].metrics.groups

    @cached_property
    def penalized(self) -> frozenset[str]:
        """Ids of the rejected images that count against a model: queries with a match, and true matches."""
        in_truth = {*self.images.filter(pa.array(relevance.involved(self.truth, self.images)))["image_id"].to_pylist()}
        return frozenset(image.image_id for image in self.rejected if image.image_id in in_truth)

    def label(self, model: str) -> str:
        """The display name of a model."""
        return next((run.label for run in self.runs if run.model == model), model)

    def verdict(self, metric: str, a: Run, b: Run) -> Comparison | None:
        """The comparison of two runs from the perspective of ``a``; None if it is missing or has no value."""
        for comparison in self.comparisons:
            if comparison.difference.value is None or comparison.metric != metric:
                continue
            if comparison.index == a.index == b.index:
                if (comparison.a, comparison.b) == (a.model, b.model):
                    return comparison
                if (comparison.a, comparison.b) == (b.model, a.model):
                    return reversed_comparison(comparison)
        return None


@dataclass(frozen=True)
class ReportJob:
    """The files and settings of one report. ``notes`` and ``image_seconds`` are for ``io.in_work``."""

    key: str
    metrics: Sequence[StrPath]
    comparisons: StrPath
    duplicates: StrPath
    neighbors: Sequence[StrPath]
    showcase: Sequence[StrPath]
    seen: Sequence[StrPath]
    images: StrPath
    truth: StrPath
    out: StrPath
    notes: StrPath
    image_seconds: float = 300
    archives: Sequence[StrPath] = ()  # of images that a run made
    near_duplicates: StrPath | None = None
    audit: Sequence[StrPath] = ()
    maps: Sequence[StrPath] = ()
    limits: Limits = IN_PAGE

    @cached_property
    def settings(self) -> dict[str, Any]:
        """``key``, parsed."""
        return dict(json.loads(self.key))


def read(job: ReportJob) -> Evidence:
    """Read all inputs of a report.

    Raises LookalikeError where a file is missing or damaged, or where files contradict each other.
    """
    settings = job.settings
    labels: dict[str, str] = settings["labels"]
    footers, showcase = _by_run(job.neighbors), _by_run(job.showcase)
    identity.check_sample(job.images, job.truth, *job.neighbors, *job.showcase, *job.seen, *job.maps, *job.audit)
    runs: list[Run] = []
    numbers: dict[str, int] = {}
    for path in job.metrics:
        measured = store.read_json(path, Metrics)
        pair = (measured.model, measured.index)
        if pair not in footers:
            why = f"no table of neighbors belongs to model '{measured.model}' and index '{measured.index}'"
            raise LookalikeError(f"{path}: {why}. Delete the file and run again.")
        if measured.made_from.get("neighbors") != store.identity(footers[pair][0]):
            raise LookalikeError(
                f"{path}: was measured from another version of {footers[pair][0]}. Delete {path} and run again."
            )
        shown = showcase[pair][0] if pair in showcase else None
        if shown:
            identity.check_search(footers[pair][0], shown)
            shown = None if identity.is_absent(shown) else shown
        number = numbers.setdefault(measured.model, len(numbers))
        label = labels.get(measured.model) or measured.model
        runs.append(Run(number, measured.model, label, measured.index, measured, *footers[pair], shown))
    if not runs:
        raise LookalikeError(
            f"experiment '{settings['experiment']}' has no metrics, so no report can be written. Run it again."
        )
    images, truth = store.read_table(job.images, IMAGES), store.read_table(job.truth, TRUTH)
    rejected, compared = _read_rejected(runs, job.seen, images), store.read_json(job.comparisons, Comparisons)
    duplicates = store.read_json(job.duplicates, Duplicates)
    hashes: dict[StrPath, str] = {f"metrics of {run.model} with {run.index}": run.metrics.sample_sha256 for run in runs}
    hashes |= {job.comparisons: compared.sample_sha256, job.duplicates: duplicates.sample_sha256}
    identity.check_sample(job.images, records=hashes)
    _check_metrics(runs, job.comparisons, compared)
    if duplicates.shards_sha256 != runs[0].provenance.get("shards_sha256", ""):
        raise LookalikeError(
            f"{job.duplicates}: was counted from other embeddings than those searched. Delete it and run again."
        )
    return Evidence(
        experiment=settings["experiment"],
        title=settings.get("title") or "",
        dataset=settings["dataset"],
        k=settings["k"],
        runs=runs,
        comparisons=compared.comparisons,
        answers=compared.answers,
        cases=compared.cases,
        approximations=compared.approximations,
        effects=compared.effects,
        varied=settings.get("varied", ""),
        follows=compared.follows,
        claims=compared.claims,
        images=images,
        truth=truth,
        rejected=_grouped(rejected, list(numbers)),
        counts=_counts(runs, images, truth, rejected),
        left_out=store.read_provenance(job.images).get("left_out", []),
        about=settings.get("about", {}),
        not_installed=settings.get("not_installed", {}),
        duplicates=duplicates,
        near_duplicates=near_duplicates.read(job.near_duplicates),
        maps=job.maps,
        audits=job.audit,
        has_pixels=settings.get("images", True),
    )


def _check_metrics(runs: list[Run], comparisons: StrPath, compared: Comparisons) -> None:
    if compared.metrics != {f"{run.model}/{run.index}": store.checksum(run.metrics) for run in runs}:
        raise LookalikeError(
            f"{comparisons}: was made from other metrics than those of the report. Delete it and run again."
        )


def _by_run(paths: Sequence[StrPath]) -> dict[tuple[str, str], tuple[Path, dict[str, Any]]]:
    """Tables of neighbors with their footers, by model and index."""
    footers = {Path(path): store.read_provenance(path) for path in paths}
    return {
        (_entry(footer, "model", path), _entry(footer, "index", path)): (path, footer)
        for path, footer in footers.items()
    }


def _entry(footer: dict[str, Any], entry: str, path: StrPath) -> str:
    if entry not in footer:
        raise LookalikeError(f"{path}: the footer has no {entry}. Delete the file and run again.")
    return str(footer[entry])


RejectedRows = list[tuple[str, str, list[dict[str, Any]]]]  # model, file, rows


def _read_rejected(runs: list[Run], seen: Sequence[StrPath], images: pa.Table) -> RejectedRows:
    """The rejected images of each model (ids, paths, reasons), from the table of its first index."""
    tables: dict[str, tuple[str, str, list[dict[str, Any]]]] = {}
    for run, path in zip(runs, seen, strict=True):
        footer = store.read_provenance(path)
        if differing := [name for name in identity.BUILT if footer.get(name) != run.provenance.get(name)]:
            raise LookalikeError(
                f"{path}: belongs to another index than {run.neighbors} (their {differing[0]} differ). "
                f"Search again: --forcerun {run.neighbors}"
            )
        if run.model not in tables:
            table = store.read_columns(path, "image_id", "reason").drop_null()
            rows = pc.index_in(table["image_id"], value_set=images["image_id"].combine_chunks())
            tables[run.model] = run.model, str(path), table.append_column("path", images["path"].take(rows)).to_pylist()
    return list(tables.values())


def _grouped(rejected: RejectedRows, models: list[str]) -> list[Rejected]:
    """One entry per rejected image and reason, with the models that rejected it, sorted by id."""
    sources: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for model, file, rows in rejected:
        for row in rows:
            sources.setdefault((row["image_id"], row["path"], row["reason"]), []).append((model, file))
    return [
        Rejected(*image, tuple(model for model in models if model in dict(source)), source[0][1])
        for image, source in sorted(sources.items())
    ]


def _counts(runs: list[Run], images: pa.Table, truth: pa.Table, rejected: RejectedRows) -> dict[str, Counts]:
    """Count the sampled and rejected images of each model. Raises LookalikeError if the metrics disagree."""
    ids = pa.array(sorted({row["image_id"] for _, _, rows in rejected for row in rows}), pa.string())
    affected = images.filter(pc.is_in(images["image_id"], value_set=ids)).select(["image_id", "reference", "query"])
    roles = {row["image_id"]: row for row in affected.to_pylist()}
    by_role: dict[str, Counter[str]] = {run.model: Counter() for run in runs}
    for model, _, rows in rejected:
        for row in rows:
            role = roles.get(row["image_id"], {})
            by_role[model].update(name for name in ("reference", "query") if role.get(name))
    references, queries = (int(pc.sum(images[role]).as_py() or 0) for role in ("reference", "query"))
    groups = _groups(images, truth)
    counts = {}
    for run in runs:
        count = Counts(references, queries, groups, by_role[run.model]["reference"], by_role[run.model]["query"])
        for name, amount in vars(count).items():
            if getattr(run.metrics, name) != amount:
                raise LookalikeError(
                    f"metrics of model '{run.model}' with index '{run.index}': {name.replace('_', ' ')} is "
                    f"{getattr(run.metrics, name)}, but {amount} in the sample and the tables of rejected images. "
                    "The files come from different runs: delete the metrics and run again."
                )
        counts[run.model] = count
    return counts


def _groups(images: pa.Table, truth: pa.Table) -> int:
    """Number of independent groups among the queries with a match; a query without a group is its own group."""
    names = images["group"].filter(pa.array(relevance.matches(truth, images) > 0))
    return int(pc.count_distinct(names, mode="only_valid").as_py() + names.null_count)


def reversed_comparison(comparison: Comparison) -> Comparison:
    """The same comparison from the side of ``b``."""
    gap = comparison.difference
    value, high, low = (None if number is None else -number for number in (gap.value, gap.low, gap.high))
    difference = Estimate(value=value, low=low, high=high, n=gap.n)
    verdict = {"better": "worse", "worse": "better"}.get(comparison.verdict, comparison.verdict)
    swapped = {"a": comparison.b, "b": comparison.a, "difference": difference, "verdict": verdict}
    return comparison.model_copy(update=swapped)
