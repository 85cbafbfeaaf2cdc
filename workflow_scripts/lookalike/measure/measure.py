"""The measure stage: metrics with intervals of one model and index on one data set."""

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.io import identity, store
from lookalike.io.formats.records import (
    STAGES,
    Cost,
    Curve,
    EmbedTiming,
    Estimate,
    Metrics,
    Record,
    SearchTiming,
)
from lookalike.io.formats.tables import IMAGES, NEIGHBORS, TRUTH
from lookalike.job.errors import LookalikeError
from lookalike.measure import thresholds
from lookalike.metrics import agreement
from lookalike.metrics.breakdowns import break_down
from lookalike.metrics.evaluation import NORMALISED, Evaluation, Results, evaluate, matches_of, pooled
from lookalike.metrics.hard_negatives import hard_negatives, scores_of
from lookalike.metrics.jackknife import pooled_estimate
from lookalike.metrics.joining import Bools
from lookalike.metrics.pooled import Predictions, curve
from lookalike.metrics.rates import NOTHING, estimate, group_codes
from lookalike.metrics.scenes import SCENE

log = logging.getLogger(__name__)
T = TypeVar("T", bound=Record)


@dataclass(frozen=True)
class MeasureJob:
    """The files and identity of one model and index to measure."""

    results: Results
    truth: str | Path
    images: str | Path
    seen: str | Path
    timings: Sequence[str | Path]
    search_timing: str | Path
    out: str | Path
    dataset: str
    model: str
    index: str
    k: int


def measure(job: MeasureJob) -> None:
    """Write the ``records.Metrics`` of one model and index on one data set to ``out``.

    ``seen`` is the INDEX_IMAGES table: the hash, size or rejection reason of every image. ``timings`` and
    ``search_timing`` say how long jobs took; missing or damaged ones are skipped. Raises LookalikeError if inputs
    are missing, damaged or of different searches.
    """
    sample_sha256 = identity.check_sample(job.images, job.truth, job.seen, *job.results.files)
    footer = store.read_provenance(job.results.neighbors)
    _check_search(job.results.neighbors, footer, job.seen, model=job.model, index=job.index)
    sample = store.read_table(job.images, IMAGES)
    seen = store.read_columns(job.seen, "image_id", "width", "height", "reason").combine_chunks()
    rejected = sample.filter(pc.is_in(sample["image_id"], value_set=_rejected_ids(job.seen, seen, sample)))
    references, rejected_references = _count(sample, "reference"), _count(rejected, "reference")
    searched = references - rejected_references
    truth = store.read_table(job.truth, TRUTH)
    evaluation = evaluate(job.results, truth, sample, searched=searched, k=job.k)
    counted = sample.take(evaluation.ranking.counted)
    groups = group_codes(counted["group"].to_pylist())
    agreements, baselines = agreement.estimates(
        agreement.scales(sample, job.k),
        store.read_table(job.results.neighbors, NEIGHBORS),
        sample,
        searched=searched,
        kept=job.k + 1,
    )

    def estimates(part: Bools) -> dict[str, Estimate]:
        return {
            name: NOTHING if values is None else estimate(values[part], groups[part])
            for name, values in evaluation.outcomes.items()
        }

    queries = _count(sample, "query")
    of_scores = thresholds.all_of(evaluation, queries)
    parts = break_down(counted, _longer_sides(seen, counted["image_id"]))
    record = Metrics(
        dataset=job.dataset,
        model=job.model,
        index=job.index,
        references=references,
        queries=queries,
        groups=len(set(groups.tolist())),
        rejected_references=rejected_references,
        rejected_queries=_count(rejected, "query"),
        metrics=estimates(np.ones(counted.num_rows, dtype=np.bool_))
        | _pooled_estimates(evaluation, queries)
        | agreements,
        breakdowns={
            column: {value: estimates(part) for value, part in values.items()} for column, values in parts.items()
        },
        thresholds=of_scores,
        thresholds_sn=thresholds.targets(evaluation, queries, NORMALISED),
        thresholds_scene=thresholds.targets(evaluation, queries, SCENE),
        hard_negatives=hard_negatives(job.results, truth, sample, scores_of(of_scores)),
        curves={
            name: _curve(predictions)
            for name, predictions in (*evaluation.predictions.items(), (f"uap{SCENE}", evaluation.of_scenes))
            if predictions is not None and predictions.matches.any()
        },
        baselines=baselines,
        timing=_embed_timing(job.timings) | _search_timing(job.search_timing),
        cost=_cost(footer),
        sample_sha256=sample_sha256,
        made_from=job.results.identities(),
        audit=evaluation.audit,
    )
    store.write_json(record, job.out)


def _check_search(path: str | Path, footer: dict[str, Any], seen: str | Path, *, model: str, index: str) -> None:
    """Check that the neighbors belong to this model and index, and the shards of ``seen``."""
    seen_footer = store.read_provenance(seen)
    expected = {"model": model, "index": index} | {name: seen_footer.get(name) for name in identity.BUILT}
    for name, value in expected.items():
        if footer.get(name) != value:
            raise LookalikeError(
                f"{path}: was made with {name.removesuffix('_sha256')} {footer.get(name)}, expected {value}. "
                f"Search again: --forcerun {path}"
            )


def _pooled_estimates(evaluation: Evaluation, queries: int) -> dict[str, Estimate]:
    matches = matches_of(evaluation)
    return {name: pooled_estimate(metric, matches, queries) for name, metric in pooled(evaluation).items()}


def _curve(predictions: Predictions) -> Curve:
    cuts = curve(predictions)
    return Curve(
        score=[cut.score for cut in cuts],
        precision=[cut.precision for cut in cuts],
        recall=[cut.recall for cut in cuts],
    )


def _longer_sides(seen: pa.Table, ids: pa.ChunkedArray) -> list[int | None]:
    """The longer side of each image in pixels; None if it was rejected or its size was not recorded."""
    longer = pc.max_element_wise(seen["width"], seen["height"])
    sides: list[int | None] = longer.take(pc.index_in(ids, value_set=seen["image_id"].combine_chunks())).to_pylist()
    return sides


def _count(images: pa.Table, role: str) -> int:
    return int(pc.sum(images[role]).as_py() or 0)


def _rejected_ids(path: str | Path, seen: pa.Table, sample: pa.Table) -> pa.Array:
    """Ids of the rejected images. Raises LookalikeError if one is not in the sample, as counts would not add up."""
    ids = seen.filter(pc.is_valid(seen["reason"]))["image_id"].combine_chunks()
    unknown = ids.filter(pc.invert(pc.is_in(ids, value_set=sample["image_id"].combine_chunks())))
    if len(unknown):
        raise LookalikeError(
            f"{path}: rejected image '{unknown[0]}' is not in the sample, so this file belongs to another sample. "
            f"Build the index again: --forcerun {path}"
        )
    return ids


def _timing(path: str | Path, record: type[T]) -> T | None:
    """How long a job took. No metric depends on it, so a damaged one is treated as missing."""
    if not Path(path).exists():
        return None
    try:
        return store.read_json(path, record)
    except LookalikeError as error:
        log.warning("timing skipped: %s", error)
        return None


def _embed_timing(paths: Sequence[str | Path]) -> dict[str, Any]:
    shards = [timing for path in paths if (timing := _timing(path, EmbedTiming)) and timing.representative]
    if not shards:  # the speed of a model whose vectors were all in the vector store is unknown
        return {}
    images, seconds = sum(shard.images for shard in shards), sum(shard.seconds for shard in shards)
    slowest: dict[str, float] = {}  # bottleneck -> total seconds of its shards
    for shard in shards:
        slowest[shard.bottleneck] = slowest.get(shard.bottleneck, 0.0) + shard.seconds
    return {
        "embed": {
            "images": images,
            "seconds": seconds,
            "images_per_second": images / seconds if seconds else None,
            "load_seconds": sum(shard.load_seconds for shard in shards),
            "device": _all(shard.device for shard in shards),
            "precision": _all(shard.precision for shard in shards),
            "batch_size": _all(shard.batch_size for shard in shards),
            "threads": _all(shard.threads for shard in shards),
            "stages": {stage: sum(shard.stages.get(stage, 0.0) for shard in shards) for stage in STAGES},
            "bottleneck": max(slowest, key=slowest.__getitem__),
            "jobs": len(shards),
            "peak_memory_mb": _most(shard.peak_memory_mb for shard in shards),
            "peak_gpu_memory_mb": _most(shard.peak_gpu_memory_mb for shard in shards),
        }
    }


def _all(values: Iterable[object]) -> str:
    """The distinct values of all shards, usually one."""
    return " + ".join(sorted({str(value) for value in values}))


def _most(values: Iterable[float | None]) -> float | None:
    """The largest value of those known."""
    return max((value for value in values if value is not None), default=None)


def _cost(footer: dict[str, Any]) -> Cost | None:
    """The cost recorded in the neighbors' footer, which copies it from the index."""
    if "dimension" not in footer:
        return None
    stored, vectors = footer["dtypes"]["stored"], footer["references"]
    vector_bytes = footer["dimension"] * np.dtype(stored).itemsize
    # A scan index only lists files; its size is that of the vectors in them.
    scan = json.loads(footer.get("index_key", "{}")).get("scan")
    return Cost(
        dimension=footer["dimension"],
        stored_dtype=stored,
        vector_bytes=vector_bytes,
        vectors=vectors,
        index_bytes=vectors * vector_bytes if scan else footer["index_bytes"],
    )


SEARCH_COSTS = (
    *("device", "latency_queries", "latency_median", "latency_p95", "peak_memory_mb", "peak_gpu_memory_mb"),
)


def _search_timing(path: str | Path) -> dict[str, Any]:
    search = _timing(path, SearchTiming)
    if search is None:
        return {}
    return {
        "search": {
            "queries": search.queries,
            "seconds": search.seconds,
            "queries_per_second": search.queries / search.seconds if search.seconds else None,
            **search.model_dump(include=set(SEARCH_COSTS)),
        }
    }
