"""The `search` stage: the nearest references of every query, and the best pairs over all queries."""

import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lookalike.config.indexes import Index, Normalise
from lookalike.io import identity, relevance, store, vectors
from lookalike.io.checks import IDENTITY, check_index, check_shards
from lookalike.io.formats.records import SearchTiming
from lookalike.io.formats.tables import CLASS_RANKS, NEIGHBORS, Format
from lookalike.job.devices import cpu
from lookalike.job.errors import LookalikeError
from lookalike.job.usage import peak_gpu_memory_mb, peak_memory_mb
from lookalike.search import exact
from lookalike.search.candidates import PAIRS_PER_QUERY, Candidates
from lookalike.search.class_ranks import class_ranks
from lookalike.search.loading import load
from lookalike.search.searcher import Searcher

log = logging.getLogger(__name__)
Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class SearchJob:
    """One search: input and output paths, configuration and resources."""

    index: str
    ids: str
    embeddings: Sequence[str]
    images: str
    out: str
    candidates_out: str
    showcase_out: str
    training_out: str
    candidates_sn_out: str
    classes_out: str
    timing_out: str
    key: str
    build_key: str
    embedding_key: str
    embedding_code: str
    model: str
    index_name: str
    k: int
    parts: Collection[str]
    threads: int = 1
    gpu: bool = False

    @cached_property
    def entry(self) -> Index:
        """The index's entry, parsed from ``key``."""
        return Index.model_validate_json(self.key)


def search(job: SearchJob) -> None:
    """Find the nearest references of every embedded query, and the best pairs over all queries.

    ``out`` gets k + 1 neighbors of each query, so that measuring can detect a tie across the boundary (fewer if the
    index holds fewer). An image is never its own neighbor. ``showcase_out`` gets the same for showcase images.
    ``candidates_out`` gets the best 10 pairs per query over all queries, counting rejected ones, without any that tie
    with the best excluded pair. ``training_out`` gets each query's nearest training images, and ``candidates_sn_out``
    the candidates by normalised score. ``classes_out`` gets the CLASS_RANKS of a labelled collection. If ``parts`` of
    the data set lacks `training` or `showcase`, or its images have no classes, these tables are empty and marked absent
    in their footers.

    ``key`` is the index's entry, ``build_key`` the part of it that the index was built with, ``embedding_key`` and
    ``embedding_code`` as in ``build``. Raises LookalikeError if the index file is not the one that its ids were written
    for, or holds vectors of another key.
    """
    import faiss

    faiss.omp_set_num_threads(job.threads)
    made_with = check_shards(job.embeddings, job.embedding_key, job.embedding_code)
    footer = check_index(
        job.index, job.ids, {"index_key": job.build_key, **{name: made_with[name] for name in IDENTITY}}
    )
    sample_sha256 = identity.check_sample(job.images, job.ids)
    identity.check_shards(job.embeddings, footer["shards"], job.ids)
    reference_ids = vectors.whole(store.read_columns(job.ids, "image_id")["image_id"])
    sampled = _with_role(job.images, "query")
    query_ids, queries = _embedded(job.embeddings, sampled)
    own = vectors.rows_of(query_ids, reference_ids)
    log.info("searching %d queries among %d references", len(query_ids), len(reference_ids))

    started = time.perf_counter()
    searcher = Searcher(load(job.index, job.ids, reference_ids, job.entry.search), job)
    read = time.perf_counter() - started
    size = PAIRS_PER_QUERY * len(
        sampled
    )  # rejected queries count: models that reject different images have equally many candidates
    candidates = [Candidates(size, np.zeros(len(query_ids), np.float32))]
    training: tuple[pa.Array, exact.Nearest] | None = None
    normalise = job.entry.normalise
    if "training" in job.parts:
        training = _training(
            job.embeddings, job.images, searcher, query_ids=query_ids, queries=queries, count=normalise.last
        )
        candidates.append(Candidates(size, _shift(training[1].scores, normalise, job.images)))

    nearest, seconds = searcher.search(queries, min(job.k + 1, len(reference_ids)), own, candidates)

    provenance = {
        "made_by": "lookalike search",
        "model": job.model,
        "index": job.index_name,
        "index_key": job.key,
        "k": job.k,
        "queries": len(query_ids),
        "references": len(reference_ids),
        "dimension": queries.shape[1],
        "index_bytes": Path(job.index).stat().st_size,
        "index_sha256": footer["index_sha256"],
        "images_sha256": footer["images_sha256"],
        identity.SAMPLE: sample_sha256,
        "shards_sha256": identity.hash_shards(job.embeddings),
        **{name: footer[name] for name in ("trained_on",) if name in footer},
        **made_with,
        "versions": store.versions("faiss-cpu", "faiss-gpu", "numpy"),
    }
    policy_of_candidates = f"the best {PAIRS_PER_QUERY} pairs per query over all queries, without ties at the cut-off"

    def write(path: str, table: pa.Table | None, policy: str, kind: Format = NEIGHBORS, **more: Any) -> None:
        footer = provenance | {"policy": policy} | more
        if table is None:
            table, footer = kind.schema().empty_table(), footer | {identity.ROLE: identity.ABSENT}
        store.write_table(table, path, kind, footer)

    write(job.out, _neighbors(nearest, query_ids, reference_ids), f"the nearest {job.k + 1} of each query")
    write(job.candidates_out, _pairs(candidates[0], query_ids, reference_ids), policy_of_candidates)
    write(
        job.training_out,
        training and _neighbors(training[1], query_ids, training[0]),
        f"the nearest {normalise.last} training images of each query",
    )
    write(
        job.candidates_sn_out,
        _pairs(candidates[1], query_ids, reference_ids) if training else None,
        f"{policy_of_candidates}, with normalised scores",
        normalise=normalise.model_dump(),
    )
    write(
        job.showcase_out,
        _showcase(job.embeddings, job.images, searcher, reference_ids, job.k) if "showcase" in job.parts else None,
        f"the nearest {job.k + 1} of each image",
    )
    write(
        job.classes_out,
        _class_ranks(job.images, searcher, reference_ids, query_ids=query_ids, queries=queries, own=own),
        "the first R of each query, where R is the number of other images of its class",
        CLASS_RANKS,
    )
    peaks = {"peak_memory_mb": peak_memory_mb(), "peak_gpu_memory_mb": peak_gpu_memory_mb()}
    latencies = searcher.latencies(queries, job.k + 1, own, all_took=seconds)
    timing = SearchTiming(
        queries=len(query_ids),
        read_seconds=read,
        seconds=seconds,
        device=searcher.device_name or cpu(job),
        latency_queries=len(latencies),
        latency_median=float(np.median(latencies)) if latencies else None,
        latency_p95=float(np.percentile(latencies, 95)) if latencies else None,
        **peaks,
    )
    store.write_json(timing, job.timing_out)


def _with_role(images: str, role: str) -> pa.Array:
    """Ids of the images that have a role."""
    sample = store.read_columns(images, "image_id", role)
    return sample.filter(sample[role])["image_id"].combine_chunks()


def _showcase_ids(images: str) -> pa.Array:
    """Ids of the showcase images, without the queries, whose neighbors are searched anyway."""
    if "showcase" not in store.read_schema(images).names:
        return pa.array([], pa.string())
    sample = store.read_columns(images, "image_id", "query", "showcase")
    shown = pc.and_not(pc.fill_null(sample["showcase"], False), sample["query"])
    return sample.filter(shown)["image_id"].combine_chunks()


def _embedded(embeddings: Sequence[str], ids: pa.Array) -> tuple[pa.Array, Floats]:
    """The ids that are embedded, and their unit vectors (n, d) float32, in shard order."""
    embedded, masks = _located(embeddings, ids)
    return embedded, vectors.read(embeddings, masks)


def _located(embeddings: Sequence[str], ids: pa.Array) -> tuple[pa.Array, list[NDArray[np.bool_]]]:
    """The ids that are embedded, in shard order, and a mask of their rows in each shard."""
    rows = vectors.rows_among(embeddings, ids)
    masks = [shard_rows >= 0 for shard_rows in rows]
    embedded = np.concatenate([shard_rows[mask] for shard_rows, mask in zip(rows, masks, strict=True)])
    return ids.take(pa.array(embedded)), masks


def _showcase(embeddings: Sequence[str], images: str, searcher: Searcher, reference_ids: pa.Array, k: int) -> pa.Table:
    """The nearest k + 1 references of each showcase image; empty without such images."""
    ids, showcase = _embedded(embeddings, _showcase_ids(images))
    own = vectors.rows_of(ids, reference_ids)
    result, _ = searcher.search(showcase, min(k + 1, len(reference_ids)), own)
    return _neighbors(result, ids, reference_ids)


def _class_ranks(
    images: str, searcher: Searcher, reference_ids: pa.Array, *, query_ids: pa.Array, queries: Floats, own: Rows
) -> pa.Table | None:
    """The CLASS_RANKS of the queries; None if the images have no classes."""
    if relevance.CLASS not in store.read_schema(images).names:
        return None
    sample = store.read_columns(images, "image_id", "reference", "query", relevance.CLASS)
    return class_ranks(
        lambda part, k, own: searcher.search(part, k, own)[0],
        sample,
        query_ids=query_ids,
        queries=queries,
        own=own,
        reference_ids=reference_ids,
    )


def _training(
    embeddings: Sequence[str], images: str, searcher: Searcher, *, query_ids: pa.Array, queries: Floats, count: int
) -> tuple[pa.Array, exact.Nearest]:
    """Ids of the training images, and each query's exact nearest ones, with vectors transformed as by the index."""
    ids, masks = _located(embeddings, _with_role(images, "training"))
    transform, own = searcher.stored.transform, vectors.rows_of(query_ids, ids)
    blocks = (transform(block) for block in vectors.blocks(embeddings, masks))
    return ids, exact.search(transform(queries), blocks, count, own, device=searcher.device, threads=searcher.threads)


def _shift(similarities: Floats, settings: Normalise, images: str) -> Floats:
    """Score normalisation term of each query, (q,) float32: beta times the mean of its first..last training scores.

    Pizzi et al., A Self-Supervised Descriptor for Image Copy Detection (2022), equation 8.
    """
    chosen = similarities[:, settings.first - 1 : settings.last]
    valid = np.isfinite(chosen)
    if not valid.any(axis=1).all():
        raise LookalikeError(
            f"{images}: score normalisation starts at each query's training image number {settings.first}, and there "
            "are not that many. Add images with the training role to the data set."
        )
    mean = np.where(valid, chosen, 0).sum(axis=1, dtype=np.float64) / valid.sum(axis=1)
    shift: Floats = (settings.beta * mean).astype(np.float32)
    return shift


def _neighbors(nearest: exact.Nearest, query_ids: pa.Array, reference_ids: pa.Array) -> pa.Table:
    query, column = np.nonzero(nearest.rows >= 0)
    return _table(
        query_ids.take(pa.array(query)),
        column + 1,
        reference_ids.take(pa.array(nearest.rows[query, column])),
        nearest.scores[query, column],
    )


def _pairs(pairs: Candidates, query_ids: pa.Array, reference_ids: pa.Array) -> pa.Table:
    queries, rows, rank, scores = pairs.pairs()
    return _table(query_ids.take(pa.array(queries)), rank, reference_ids.take(pa.array(rows)), scores)


def _table(queries: pa.Array, rank: Rows, references: pa.Array, scores: Floats) -> pa.Table:
    columns = (queries, pa.array(rank, pa.int32()), references, pa.array(scores))
    return pa.table(dict(zip(NEIGHBORS.columns, columns, strict=True)), NEIGHBORS.schema())
