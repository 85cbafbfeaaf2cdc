"""The `index` stage: a FAISS index of the references' vectors, or a manifest of the shards that hold them."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lookalike.config.factories import reason
from lookalike.config.indexes import Index, Train
from lookalike.index import factories
from lookalike.io import faiss_index, identity, store, vectors
from lookalike.io.checks import check_images, check_shards
from lookalike.io.formats.records import Scan
from lookalike.io.formats.tables import INDEX_IDS, INDEX_IMAGES, REJECTED
from lookalike.job.errors import LookalikeError

CHUNK = 1 << 20  # bytes per write of FAISS
log = logging.getLogger(__name__)
Masks = list[NDArray[np.bool_]]


@dataclass(frozen=True)
class IndexJob:
    """One index to build: input and output paths, configuration and resources."""

    embeddings: Sequence[str]
    rejected: Sequence[str]
    images: str
    out: str
    ids_out: str
    images_out: str
    key: str
    embedding_key: str
    embedding_code: str
    on_bad_image: str
    threads: int = 1
    gpu: bool = False

    @cached_property
    def entry(self) -> Index:
        """The index's entry, parsed from ``key``."""
        return Index.model_validate_json(self.key)


def build(job: IndexJob) -> None:
    """Build the index of a model's references.

    ``key``: the part of the index's entry that affects the index (``plan.Plan.build_key``). ``embedding_key`` and
    ``embedding_code``: what the vectors must have been embedded with. An index that needs training is trained on a
    seeded sample of the training images, or of the references if they are missing.

    ``images_out`` records what the model saw of every image, so that later stages need neither shards nor rejected
    tables.

    Raises LookalikeError for shards that do not belong together, for images that are neither embedded nor rejected, if
    no reference has a vector, and if FAISS cannot build the index.
    """
    made_with = check_shards(job.embeddings, job.embedding_key, job.embedding_code)
    identity.check_rejected(job.embeddings, job.rejected)
    optional = [name for name in ("sha256",) if name in store.read_schema(job.images).names]
    sample = store.read_columns(job.images, "image_id", "reference", "training", *optional).combine_chunks()
    bad = pa.concat_tables(store.read_table(path, REJECTED) for path in job.rejected)
    if bad.num_rows and job.on_bad_image == "fail":
        raise LookalikeError(
            f"{_first(bad)} (rejected images: {bad.num_rows}). Fix or remove them, or set on_bad_image: reject."
        )
    sampled = vectors.whole(sample["image_id"])
    rows = vectors.rows_among(job.embeddings, sampled)
    images_sha256 = check_images(job.embeddings, rows, sample, bad, job.images)
    references = _with_role(rows, sample, "reference")
    reference_rows = [shard_rows[mask] for shard_rows, mask in zip(rows, references, strict=True)]
    ids = sampled.take(pa.array(np.concatenate(reference_rows)))
    if not len(ids):
        raise LookalikeError(f"{job.images}: no reference could be embedded. The first rejected image: {_first(bad)}.")

    if job.entry.scan:
        trained_on = {}
        store.write_json(_manifest(job.embeddings, references, job.out), job.out)
    else:
        trained_on = _write_index(
            job.entry,
            job.embeddings,
            job.out,
            references=references,
            training=_with_role(rows, sample, "training"),
            threads=job.threads,
            gpu=job.gpu,
        )
    provenance = {
        "made_by": "lookalike index",
        "index_key": job.key,
        "index_sha256": store.sha256_file(job.out),
        "images_sha256": images_sha256,
        identity.SAMPLE: identity.sample_of(job.images),
        "shards_sha256": identity.hash_shards(job.embeddings),
        **trained_on,
        **made_with,
        "versions": store.versions("faiss-cpu", "faiss-gpu", "numpy"),
    }
    shards = {"shards": identity.shards(job.embeddings)}
    store.write_table(pa.table({"image_id": ids}), job.ids_out, INDEX_IDS, provenance | shards)
    store.write_table(_seen(job.embeddings, bad), job.images_out, INDEX_IMAGES, provenance)
    log.info("indexed %d references of %d dimensions", len(ids), vectors.dimension(job.embeddings))


def _seen(embeddings: Sequence[str], bad: pa.Table) -> pa.Table:
    """The INDEX_IMAGES table: all embedded images in shard order, then the rejected ones."""
    parts = []
    for path in embeddings:
        present = [name for name in INDEX_IMAGES.columns if name in store.read_schema(path).names]
        parts.append(store.read_columns(path, *present))
    seen = pa.concat_tables([*parts, bad.select(["image_id", "reason"])], promote_options="default")
    missing = [name for name in INDEX_IMAGES.columns if name not in seen.column_names]
    for name in missing:
        seen = seen.append_column(name, pa.nulls(seen.num_rows, INDEX_IMAGES.columns[name]))
    return seen.select(list(INDEX_IMAGES.columns)).replace_schema_metadata(None)


def _first(bad: pa.Table) -> str:
    row = bad.slice(0, 1).to_pylist()[0]
    return f"{row['path']}: {row['reason']}"


def _with_role(rows: Sequence[NDArray[np.int64]], sample: pa.Table, role: str) -> Masks:
    """For each shard, a mask of its images that have a role."""
    has_role = sample[role].combine_chunks().to_numpy(zero_copy_only=False)
    return [has_role[shard_rows] for shard_rows in rows]


def _manifest(embeddings: Sequence[str], references: Masks, out: str) -> Scan:
    """The manifest of a scan index; its paths are relative, so that the results folder can be moved."""
    return Scan(
        shards={
            os.path.relpath(path, Path(out).parent): int(mask.sum())
            for path, mask in zip(embeddings, references, strict=True)
        }
    )


def _write_index(
    entry: Index,
    embeddings: Sequence[str],
    out: str,
    *,
    references: Masks,
    training: Masks,
    threads: int,
    gpu: bool,
) -> dict[str, Any]:
    """Write the FAISS index; return the footer entry about its training data, empty without training."""
    factory = entry.factory or ""
    factories.repeatable(factory, threads)
    index = factories.make(factory, vectors.dimension(embeddings))
    trained_on: dict[str, Any] = {}
    if not index.is_trained:
        role, among = ("training", training) if any(mask.any() for mask in training) else ("reference", references)
        chosen = _sample(among, entry.train)
        training_vectors = vectors.read(embeddings, chosen)
        log.info("training on %d images with the role '%s'", len(training_vectors), role)
        factories.train(index, factory, training_vectors, gpu)
        trained_on = {"trained_on": {"role": role, "vectors": len(training_vectors)}}
        del training_vectors
    reference_vectors = vectors.read(embeddings, references)
    if factories.fit_ranges(index, reference_vectors):
        log.info("set the scalar quantizer ranges of '%s' from %d references", factory, len(reference_vectors))
    try:
        factories.add(index, reference_vectors)
    except RuntimeError as error:
        raise LookalikeError(f"indexes: FAISS cannot add vectors to factory '{factory}': {reason(error)}") from None
    if faiss_index.full_vectors(index) is None:
        factories.check_scores(index, factory, reference_vectors)
    del reference_vectors
    with store.atomic(out) as temporary, temporary.open("wb") as file:
        _write(index, file)
    return trained_on


def _write(index: Any, file: BinaryIO) -> None:
    """Write a FAISS index. FAISS itself only prints a message if the end of a file does not fit on the disk."""
    import faiss

    failed: list[OSError] = []

    def write(data: bytes) -> None:
        try:
            file.write(data)
        except OSError as error:
            failed.append(error)
            raise

    try:
        faiss.write_index(index, faiss.PyCallbackIOWriter(write, CHUNK))  # type: ignore[attr-defined]
    except RuntimeError as error:
        raise (failed[0] if failed else error) from None


def _sample(among: Masks, train: Train) -> Masks:
    """Masks, shard by shard, of at most ``train.sample`` of the images in ``among``, drawn with ``train.seed``."""
    flat = np.concatenate(among)
    candidates = np.flatnonzero(flat)
    if len(candidates) > train.sample:
        candidates = np.random.default_rng(train.seed).choice(candidates, train.sample, replace=False)
    chosen = np.zeros(len(flat), np.bool_)
    chosen[candidates] = True
    return np.split(chosen, np.cumsum([len(mask) for mask in among])[:-1])
