"""What the report is made of: every input read, checked against the others, and counted."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lookalike.io import identity, store
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
from lookalike.io.formats.tables import IMAGES, REJECTED, TRUTH
from lookalike.job.errors import LookalikeError

StrPath = str | Path
BEST_BY = "accuracy_at_1"  # what the articles call accuracy, and what a system that takes the first hit lives by


@dataclass(frozen=True)
class Run:
    """One model searched with one index. ``number`` is the model's place in the experiment: its color and marker."""

    number: int
    model: str
    label: str
    index: str
    metrics: Metrics
    neighbors: Path
    provenance: dict[str, Any]
    showcase: Path | None = None  # neighbors of the outside pictures

    def estimate(self, metric: str) -> Estimate:
        """The estimate of a metric; one that was not measured has no value."""
        return self.metrics.metrics.get(metric) or Estimate(value=None, low=None, high=None, n=0)

    @property
    def embed(self) -> EmbedTiming | None:
        """How long embedding took, where that is known. Other keys than ours are no concern of the report."""
        found = self.metrics.timing.get("embed")
        if not found or not found.get("images") or not found.get("seconds"):
            return None
        return EmbedTiming(
            images=found["images"],
            seconds=found["seconds"],
            load_seconds=found.get("load_seconds") or 0.0,
            device=found.get("device") or "unknown device",
            batch_size=0,  # of no concern: shards may have had several
        )

    @property
    def spent(self) -> dict[str, Any]:
        """Where the time of embedding went, as the measure stage summed it; empty where that is not known."""
        found = self.metrics.timing.get("embed") or {}
        return found if found.get("images") and any((found.get("stages") or {}).values()) else {}

    @property
    def search(self) -> dict[str, Any]:
        """What searching took; empty where that is not known."""
        return self.metrics.timing.get("search") or {}


@dataclass(frozen=True)
class Rejected:
    """One picture, the reason why it cannot be used, and the models that say so."""

    image_id: str
    path: str
    reason: str
    models: tuple[str, ...]
    file: str


@dataclass(frozen=True)
class Counts:
    """References and queries of one model: sampled = embedded + rejected; ``groups`` as in ``formats.Metrics``."""

    references: int
    queries: int
    groups: int
    rejected_references: int
    rejected_queries: int


@dataclass(frozen=True)
class Evidence:
    """All inputs of a report."""

    experiment: str
    title: str
    dataset: str
    k: int
    runs: list[Run]
    comparisons: list[Comparison]
    cases: list[Cases]
    approximations: list[Approximation]
    effects: list[Effect]  # only where one model is varied
    varied: str  # the label of that model, or nothing
    follows: list[Following]
    claims: list[Claim]
    images: pa.Table
    truth: pa.Table
    rejected: list[Rejected]
    counts: dict[str, Counts]  # of each model, in the experiment's order
    duplicates: Duplicates
    left_out: list[dict[str, Any]]  # what lay in the data set's folders and was not sampled: datasets.left_out

    @property
    def models(self) -> list[Run]:
        """One run for each model: with the experiment's first index, which is the one that pictures are shown for."""
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
        found = pc.is_in(self.queries["image_id"], value_set=self.truth["query_id"].combine_chunks())
        return frozenset(self.queries.filter(found)["image_id"].to_pylist())

    @property
    def best_by(self) -> str:
        """What models are ranked by: accuracy, or where no query has a match, how far neighbors agree with the text."""
        agreement = list(self.runs[0].metrics.baselines)
        return agreement[0] if agreement and not self.matched else BEST_BY

    @cached_property
    def references(self) -> int:
        """Number of references that were sampled."""
        return int(pc.sum(self.images["reference"]).as_py() or 0)

    @property
    def groups(self) -> int:
        """Number of independent groups that the queries with a match come from."""
        return self.runs[0].metrics.groups

    @cached_property
    def missed(self) -> frozenset[str]:
        """Ids of the rejected pictures that count against a model: queries with a match, and matches of queries."""
        wanted = {*self.truth["query_id"].to_pylist(), *self.truth["reference_id"].to_pylist()}
        return frozenset(one.image_id for one in self.rejected if one.image_id in wanted)

    def label(self, model: str) -> str:
        """A model's name for people."""
        return next((run.label for run in self.runs if run.model == model), model)

    def verdict(self, metric: str, a: Run, b: Run) -> Comparison | None:
        """The comparison of two runs as seen from ``a``, or None where they were not, or could not be, compared."""
        for one in self.comparisons:
            if one.difference.value is not None and one.metric == metric and one.index == a.index == b.index:
                if (one.a, one.b) == (a.model, b.model):
                    return one
                if (one.a, one.b) == (b.model, a.model):
                    return _from_the_other_side(one)
        return None


def read(
    *,
    key: str,
    metrics: Sequence[StrPath],
    comparisons: StrPath,
    duplicates: StrPath,
    neighbors: Sequence[StrPath],
    showcase: Sequence[StrPath],
    rejected: Sequence[StrPath],
    images: StrPath,
    truth: StrPath,
) -> Evidence:
    """Read all inputs of a report.

    Raises LookalikeError where a file is missing or damaged, or where files contradict each other.
    """
    settings = json.loads(key)
    labels: dict[str, str] = settings["labels"]
    footers, outside = _by_run(neighbors), _by_run(showcase)
    identity.check_sample(images, truth, *neighbors, *showcase)
    runs: list[Run] = []
    numbers: dict[str, int] = {}
    for path in metrics:
        measured = store.read_json(path, Metrics)
        pair = (measured.model, measured.index)
        if pair not in footers:
            raise LookalikeError(
                f"{path}: no table of neighbors says that it is of model '{measured.model}' and index "
                f"'{measured.index}'. Delete the file and run again."
            )
        if measured.made_from.get("neighbors") != store.identity(footers[pair][0]):
            raise LookalikeError(f"{path}: was not measured from {footers[pair][0]}. Delete it and run again.")
        if pair in outside:
            identity.check_search(footers[pair][0], outside[pair][0])
        number = numbers.setdefault(measured.model, len(numbers))
        label = labels.get(measured.model) or measured.model
        shown = outside[pair][0] if pair in outside else None
        runs.append(Run(number, measured.model, label, measured.index, measured, *footers[pair], shown))
    if not runs:
        raise LookalikeError(f"experiment '{settings['experiment']}' has no measured model, so there is no report.")
    table, matches = store.read_table(images, IMAGES), store.read_table(truth, TRUTH)
    tables, compared = _read_rejected(rejected), store.read_json(comparisons, Comparisons)
    counted = store.read_json(duplicates, Duplicates)
    told: dict[StrPath, str] = {f"metrics of {run.model} with {run.index}": run.metrics.sample_sha256 for run in runs}
    told |= {comparisons: compared.sample_sha256, duplicates: counted.sample_sha256}
    identity.check_sample(images, records=told)
    _check_made_from(runs, comparisons, compared)
    if counted.shards_sha256 != runs[0].provenance.get("shards_sha256", ""):
        raise LookalikeError(
            f"{duplicates}: counts other embeddings than those that were searched. Delete it and run again."
        )
    counts = _counts(runs, table, matches, tables)
    _check_rejected(runs, tables)
    return Evidence(
        experiment=settings["experiment"],
        title=settings.get("title") or settings["experiment"],
        dataset=settings["dataset"],
        k=settings["k"],
        runs=runs,
        comparisons=compared.comparisons,
        cases=compared.cases,
        approximations=compared.approximations,
        effects=compared.effects,
        varied=settings.get("varied", ""),
        follows=compared.follows,
        claims=compared.claims,
        images=table,
        truth=matches,
        rejected=_grouped(tables, list(numbers)),
        counts=counts,
        left_out=store.read_provenance(images).get("left_out", []),
        duplicates=counted,
    )


def _check_rejected(runs: list[Run], tables: "Tables") -> None:
    """Tables of rejected pictures must be those that each model was measured with."""
    for run in runs:
        files = [file for model, file, _ in tables if model == run.model]
        if run.metrics.rejected_sha256 != identity.hash_shards(files):
            raise LookalikeError(
                f"metrics of {run.model} with {run.index}: were measured with other tables of rejected pictures than "
                f"{', '.join(files[:3])}. Embed again: --forcerun {' '.join(files)}"
            )


def _check_made_from(runs: list[Run], comparisons: StrPath, compared: Comparisons) -> None:
    if compared.metrics != {f"{run.model}/{run.index}": store.checksum(run.metrics) for run in runs}:
        raise LookalikeError(
            f"{comparisons}: compares other metrics than those of the report. Delete it and run again."
        )


def _by_run(paths: Sequence[StrPath]) -> dict[tuple[str, str], tuple[Path, dict[str, Any]]]:
    """Tables of neighbors and their footers, by model and index."""
    footers = {Path(path): store.read_provenance(path) for path in paths}
    return {
        (_named(footer, "model", path), _named(footer, "index", path)): (path, footer)
        for path, footer in footers.items()
    }


def _named(footer: dict[str, Any], entry: str, path: StrPath) -> str:
    if entry not in footer:
        raise LookalikeError(f"{path}: its footer does not name its {entry}. Delete the file and run again.")
    return str(footer[entry])


Tables = list[tuple[str, str, list[dict[str, Any]]]]  # model, file, rows


def _read_rejected(paths: Sequence[StrPath]) -> Tables:
    return [
        (_named(store.read_provenance(path), "model", path), str(path), store.read_table(path, REJECTED).to_pylist())
        for path in paths
    ]


def _grouped(tables: Tables, models: list[str]) -> list[Rejected]:
    """Each rejected picture once for each reason, with the models that rejected it, in the order of their ids."""
    found: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for model, file, rows in tables:
        for row in rows:
            found.setdefault((row["image_id"], row["path"], row["reason"]), []).append((model, file))
    return [
        Rejected(*what, tuple(model for model in models if model in dict(by)), by[0][1])
        for what, by in sorted(found.items())
    ]


def _counts(runs: list[Run], images: pa.Table, truth: pa.Table, tables: Tables) -> dict[str, Counts]:
    """Count for each model what was sampled and rejected. Raises LookalikeError where the metrics say otherwise."""
    ids = pa.array(sorted({row["image_id"] for _, _, rows in tables for row in rows}), pa.string())
    concerned = images.filter(pc.is_in(images["image_id"], value_set=ids)) if len(ids) else images.slice(0, 0)
    roles = {row["image_id"]: row for row in concerned.select(["image_id", "reference", "query"]).to_pylist()}
    rejected: dict[str, Counter[str]] = {run.model: Counter() for run in runs}
    for model, _, rows in tables:
        for row in rows:
            role = roles.get(row["image_id"], {})
            rejected.setdefault(model, Counter()).update(name for name in ("reference", "query") if role.get(name))
    references, queries = (int(pc.sum(images[role]).as_py() or 0) for role in ("reference", "query"))
    groups = _groups(images, truth)
    counts = {}
    for run in runs:
        found = Counts(references, queries, groups, rejected[run.model]["reference"], rejected[run.model]["query"])
        for name, amount in vars(found).items():
            if getattr(run.metrics, name) != amount:
                raise LookalikeError(
                    f"metrics of model '{run.model}' with index '{run.index}': {name.replace('_', ' ')} is "
                    f"{getattr(run.metrics, name)} there, but the sample and the tables of rejected pictures "
                    f"hold {amount}. The files are of different runs: delete the metrics and run again."
                )
        counts[run.model] = found
    return counts


def _groups(images: pa.Table, truth: pa.Table) -> int:
    """How many independent groups the queries with a match come from; one without a group is one by itself."""
    asked = pc.is_in(images["image_id"], value_set=truth["query_id"].combine_chunks())
    names = images["group"].filter(pc.and_(images["query"], asked))
    return int(pc.count_distinct(names, mode="only_valid").as_py() + names.null_count)


def _from_the_other_side(one: Comparison) -> Comparison:
    value, low, high = one.difference.value, one.difference.low, one.difference.high
    turned = Estimate(
        value=None if value is None else -value,
        low=None if high is None else -high,
        high=None if low is None else -low,
        n=one.difference.n,
    )
    verdict = {"better": "worse", "worse": "better"}.get(one.verdict, one.verdict)
    return one.model_copy(update={"a": one.b, "b": one.a, "difference": turned, "verdict": verdict})
