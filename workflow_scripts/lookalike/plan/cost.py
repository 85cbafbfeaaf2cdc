"""What a run costs, before it starts: how many images are to be embedded, in what time, and the size of the vectors.

Nothing is invented: times come from earlier embed jobs, dimensions from their vectors or from the configuration, and
numbers of images from shards, from what the configuration expects, or from a count of the files. What is not known is
reported as unknown.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from lookalike.config.datasets import Copies, Dataset, Disc21, Flickr30k
from lookalike.config.records import Config
from lookalike.io import store
from lookalike.io.formats.records import EmbedTiming
from lookalike.job.errors import LookalikeError
from lookalike.plan.plan import Plan

EmbedJob = tuple[str, str, str]  # data set, model, shard
RECENT = 8  # earlier jobs of a model that its speed is taken from
ITEM_BYTES = {name: np.dtype(name).itemsize for name in ("float32", "float16")}
DURATIONS = (("days", 86400, 48 * 3600), ("h", 3600, 5400), ("min", 60, 90), ("s", 1, 0))  # unit, seconds, used from
SIZES = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3))


@dataclass(frozen=True)
class Measured:
    """What the last embed jobs of a model with its present settings tell."""

    images_per_second: float
    device: str
    dimension: int


@dataclass(frozen=True)
class ModelCost:
    """What is still to be embedded with one model; None is unknown."""

    model: str
    images: int | None
    seconds: float | None
    device: str
    bytes: int | None
    approximate: bool = False  # the images were counted before they were sampled


@dataclass(frozen=True)
class Cost:
    """What is still to be embedded of one data set."""

    dataset: str
    models: tuple[ModelCost, ...]

    def __str__(self) -> str:
        """``disc21: 4 models x 151,448 images to embed: about 9 h ..., 1.4 GB of vectors``."""
        count = f"{len(self.models)} model{'s' if len(self.models) > 1 else ''}"
        images = [model.images for model in self.models if model.images is not None]
        if len(images) < len(self.models):
            return f"{self.dataset}: {count} to embed with; the number of images is unknown until they are sampled"
        about = any(model.approximate for model in self.models)
        each, total = (f"about {_rounded(n):,}" if about else f"{n:,}" for n in (images[0], sum(images)))
        amount = f"{count} x {each} images" if len(set(images)) == 1 else f"{total} images with {count}"
        return f"{self.dataset}: {amount} to embed: {self._time()}, {self._size()}"

    def _time(self) -> str:
        known = {model.model: model.seconds for model in self.models if model.seconds is not None}
        if not known:
            return "time unknown, since no such job has run yet"
        devices = ", ".join(sorted({model.device for model in self.models if model.model in known}))
        time = f"about {duration(sum(known.values()))} of embed jobs at the speed of earlier ones on {devices}"
        unknown = [model.model for model in self.models if model.model not in known]
        return f"{time}, plus {', '.join(unknown)} (not measured yet)" if unknown else time

    def _size(self) -> str:
        known = {model.model: model.bytes for model in self.models if model.bytes is not None}
        unknown = [model.model for model in self.models if model.model not in known]
        size = f"{file_size(sum(known.values()))} of vectors"
        if not known:
            return "size of the vectors unknown until the first are computed"
        return f"{size}, plus {', '.join(unknown)} (dimension unknown)" if unknown else size


def estimate(
    plan: Plan,
    jobs: Iterable[EmbedJob],
    *,
    folder: Path = Path(),
    roles: Mapping[str, Mapping[str, int]] | None = None,
    count: Callable[[Dataset], Mapping[str, int]] | None = None,
    resampled: Collection[str] = (),
) -> list[Cost]:
    """The cost of embed jobs that are still to be run, by data set.

    ``folder`` is the one that Snakemake runs in. ``roles`` has known counts by data set, such as
    ``{"references": 5000}``; else ``count`` has approximate ones by role, for what the configuration does not tell.
    Shards of ``resampled`` data sets are out of date. Images of a showcase count only once they are sharded.
    """
    by_dataset: dict[str, dict[str, list[str]]] = {}
    for dataset, model, shard in jobs:
        by_dataset.setdefault(dataset, {}).setdefault(model, []).append(shard)
    speeds = {model: measured(plan, model, folder) for shards in by_dataset.values() for model in shards}
    costs = []
    for dataset, models in by_dataset.items():
        known = (roles or {}).get(dataset) or expected_roles(plan.config, dataset)
        counts = _shard_images(plan, dataset, known, None if dataset in resampled else folder)
        approximate = count is not None and any(counts[shard] is None for shards in models.values() for shard in shards)
        if approximate:
            known = expected_roles(plan.config, dataset, count)
            counts = _shard_images(plan, dataset, known, None if dataset in resampled else folder)
        rows = [
            _of(plan, name, [counts[shard] for shard in shards], speeds[name], approximate)
            for name, shards in models.items()
        ]
        costs.append(Cost(dataset, tuple(rows)))
    return costs


def missing_jobs(plan: Plan, dataset: str, folder: Path = Path()) -> list[EmbedJob]:
    """The embed jobs of all experiments on a data set whose vectors do not exist."""
    entries = [entry for entry in plan.config.experiments.values() if entry.dataset == dataset]
    return [
        (dataset, model, Path(path).stem)
        for model in dict.fromkeys(model for entry in entries for model in entry.models)
        for path in plan.embeddings(dataset, model)
        if not (folder / path).exists()
    ]


def measured(plan: Plan, model: str, folder: Path = Path()) -> Measured | None:
    """The speed of a model's last embed jobs on the device of the last one; None without one of its settings."""
    jobs = []
    timings = folder.glob(f"results/logs/embed/*/{model}/*.json")
    for path in sorted(timings, key=lambda path: path.stat().st_mtime, reverse=True)[:RECENT]:
        vectors = folder / "results" / path.parent.parent.name / "embeddings" / model / f"{path.stem}.parquet"
        try:
            if store.read_provenance(vectors)["key"] == plan.embedding_key(model):
                dimension = store.read_schema(vectors).field("embedding").type.list_size
                timing = store.read_json(path, EmbedTiming)
                jobs += [(timing, dimension)] if timing.representative else []
        except LookalikeError:  # removed, damaged, or of an earlier version: it tells nothing
            continue
    alike = [timing for timing, _ in jobs if timing.device == jobs[0][0].device and timing.seconds > 0]
    images, seconds = sum(timing.images for timing in alike), sum(timing.seconds for timing in alike)
    return Measured(images / seconds, alike[0].device, jobs[0][1]) if images else None


def expected_roles(
    config: Config, dataset: str, count: Callable[[Dataset], Mapping[str, int]] | None = None
) -> dict[str, int | None]:
    """How many references, queries and training images a data set has, by its configuration, else by ``count``."""
    entry = config.datasets[dataset]
    roles: dict[str, int | None] = dict(count(entry)) if count else {}
    if isinstance(entry, Disc21):
        for role in ("references", "training"):
            selection = getattr(entry, role)
            roles[role] = (selection.first or selection.sample) if selection else 0
    elif isinstance(entry, Flickr30k):
        roles["references"] = entry.sample
    elif isinstance(entry, Copies):
        source = expected_roles(config, entry.of, count)
        references = source.get("references")
        roles["references"] = None if references is None else references - entry.without_match
        roles["queries"] = entry.queries + entry.without_match
        roles["training"] = source.get("training")
    return {**roles, **entry.expect}


def duration(seconds: float) -> str:
    """``9 h``, rounded to a unit that people would choose."""
    unit, length = next((unit, length) for unit, length, least in DURATIONS if seconds >= least)
    return f"{max(1, round(seconds / length))} {unit}"


def file_size(count: int) -> str:
    """``3.4 GB``, with decimal units."""
    unit, size = next(((unit, size) for unit, size in SIZES if count >= size), SIZES[-1])
    return f"{count / size:.1f} {unit}"


def _shard_images(
    plan: Plan, dataset: str, roles: Mapping[str, int | None], folder: Path | None
) -> dict[str, float | None]:
    """The images of every shard: counted where its file exists, else an equal part of what is expected."""
    shards = plan.config.datasets[dataset].shards
    counts: dict[str, float | None] = {}
    for shard, path in zip(plan.shard_ids(dataset), plan.shard_files(dataset), strict=True):
        part = shard.rpartition("-")[0]
        expected = 0 if part == "showcase" else roles.get("references" if part == "images" else part)
        counts[shard] = None if expected is None else expected / shards.get(part, 1)
        if folder is not None and (folder / path).is_file():
            with suppress(OSError, ValueError):  # damaged: an estimate is not what a run should end with
                counts[shard] = pq.read_metadata(folder / path).num_rows
    return counts


def _rounded(number: int) -> int:
    """To two significant digits."""
    return int(float(f"{number:.1e}"))


def _of(plan: Plan, model: str, counts: list[float | None], speed: Measured | None, approximate: bool) -> ModelCost:
    known = [count for count in counts if count is not None]
    images = round(sum(known)) if len(known) == len(counts) else None
    entry = plan.config.models[model]
    dimension = speed.dimension if speed else entry.embed.dimension or entry.dimension
    return ModelCost(
        model,
        images,
        images / speed.images_per_second if images is not None and speed else None,
        speed.device if speed else "",
        images * dimension * ITEM_BYTES[entry.embed.stored_dtype] if images is not None and dimension else None,
        approximate and images is not None,
    )
