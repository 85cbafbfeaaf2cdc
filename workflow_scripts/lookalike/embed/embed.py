"""The `embed` stage: one shard file to a Parquet file of embeddings and one of rejected images."""

import hashlib
import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import features

from lookalike.embed import encoders
from lookalike.embed.batches import Batches, Embedded, Keep, Seconds, ShardImage, rounded, table
from lookalike.embed.reuse import Known, Reuse, embed_missing
from lookalike.embed.worker import Settings
from lookalike.embed.workers import Workers, out_of_memory
from lookalike.io import color_profiles, images, in_work, made_images, phone_formats, store
from lookalike.io.formats.records import EmbedTiming, Weights, bottleneck
from lookalike.io.formats.tables import EMBEDDINGS, REJECTED, SHARD
from lookalike.io.vector_store import VectorStore
from lookalike.job import memory
from lookalike.job.progress import Progress
from lookalike.job.usage import peak_gpu_memory_mb, peak_memory_mb

log = logging.getLogger(__name__)

# What Pillow decodes with. A Linux distribution updates them without Pillow.
DECODERS = ("jpg", "libjpeg_turbo", "jpg_2000", "webp", "avif", "libtiff", "littlecms2")
STARTING = 64  # images that a thread prepares in the time that starting a process for it takes
TOGETHER = 8  # images that a thread prepares before it hands them over, which costs as much for one

Row = dict[str, Any]  # of a SHARD table


@dataclass(frozen=True)
class EmbedJob:
    """One shard to embed: input and output paths, model and resources."""

    shard: str
    weights: str
    out: str
    rejected_out: str
    timing_out: str
    model: str
    key: str
    code: str
    batch_size: int
    threads: int
    gpu: bool
    image_seconds: float = 300
    export: str | None = None  # export.json, where the model's network is exported for CPUs
    vector_store: str | None = None  # folder; None computes every vector
    archives: Sequence[str] = ()  # of images that a run made


def embed_shard(job: EmbedJob) -> None:
    """Embed the images of one shard file.

    ``model``: its name, for the footers. ``key``: its `embed:` entry (``plan.Plan.embedding_key``). ``code``: hash of
    the embedding code (``plan.Plan.code``). ``batch_size``, ``memory.AT_ONCE`` and ``memory.FILES_AT_ONCE`` bound the
    memory use, except for the shard's ids and vectors, which are held until they are written. ``image_seconds``: a job
    that decodes one image for longer is ended; the next attempt rejects that image if it happens again (``in_work``).

    Raises LookalikeError for a missing root folder, for vectors that are not finite or do not fit their stored dtype,
    and if memory runs out. An unusable image never raises: it becomes a row of the rejected table, and with
    ``on_bad_image: fail`` the index stage stops.
    """
    rows = store.read_table(job.shard, SHARD)
    made_images.locate(job.archives)
    images.check_roots(rows, job.shard)
    fetched = store.read_json(job.weights, Weights)
    entry = encoders.parse(job.key)
    started = time.perf_counter()
    encoder = encoders.load(job.key, fetched, encoders.Machine(job.threads, job.gpu), job.export)
    loaded = time.perf_counter()
    shard_sha256 = store.identity(job.shard)
    provenance = {
        "made_by": "lookalike embed",
        "model": job.model,
        "shard_sha256": shard_sha256,
        **decides(job.key, job.code, fetched, encoder),
    }
    kept = VectorStore(job.vector_store, provenance) if job.vector_store and entry.reusable else None
    notes = Path(job.timing_out).with_suffix(".in_work")
    with in_work.guarding(notes, shard_sha256, job.image_seconds) as guard, kept or nullcontext():

        def compute(part: pa.Table, known: Known | None = None) -> Embedded:
            return embed_rows(
                part,
                encoder,
                batch_size=job.batch_size,
                threads=job.threads,
                stored_dtype=entry.stored_dtype,
                guard=guard,
                known=known,
                keep=kept.add if kept else None,
            )

        if kept:
            done, reuse = embed_missing(rows, kept, job.threads, compute)
        else:
            done = compute(rows)
            reuse = Reuse(len(done.images))
    embedded = time.perf_counter()
    log.info("computed with %s", " ".join(filter(None, encoders.engine(encoder).values())))
    log.info("%d embedded + %d rejected = %d in the shard", len(done.images), len(done.rejected), rows.num_rows)
    color_profiles.log_counts({image.image_id: image.profile for image in done.images})
    if guard.rejected:
        log.warning("%d of the rejected images hung or killed their decoder", guard.rejected)

    store.write_table(_rejected_table(done.rejected), job.rejected_out, REJECTED, provenance)
    store.write_table(table(done.images, done.vectors), job.out, EMBEDDINGS, provenance)
    written = time.perf_counter()
    stages = {**done.seconds, "write": written - embedded}
    timing = EmbedTiming(
        images=reuse.computed,
        from_store=reuse.from_store,
        representative=reuse.representative,
        seconds=written - loaded - reuse.seconds,
        load_seconds=loaded - started,
        device=encoder.device,
        batch_size=done.batch_size,
        threads=job.threads,
        precision=encoder.compute_dtype,
        engine=encoders.engine(encoder)["name"],
        stages=stages,
        bottleneck=bottleneck(stages, job.threads),
        peak_memory_mb=peak_memory_mb(),
        peak_gpu_memory_mb=peak_gpu_memory_mb(),
    )
    store.write_json(timing, job.timing_out)
    if kept:
        kept.adopt(job.out)


def embed_rows(
    rows: pa.Table,
    encoder: encoders.Encoder,
    *,
    batch_size: int,
    threads: int,
    stored_dtype: str = "float32",
    guard: in_work.Guard | None = None,
    known: Known | None = None,
    keep: Keep | None = None,
) -> Embedded:
    """Embed the rows of a SHARD table in order, in batches of ``batch_size``; rejected images leave no gap.

    ``guard`` reads the images and notes which are being decoded. ``known`` tells by an image's SHA-256 whether its
    vector is known: such images are not decoded. ``keep`` is given every batch that is computed.

    Duplicate files are computed once: a network's rounding depends on the position in the batch, and duplicates must
    have equal vectors.

    In ``seconds`` of the result, `wait` (for images) is wall time, `transfer` and `forward` are device time, and
    `read`, `decode` and `preprocess` are summed over the threads.
    """
    rejected: list[ShardImage] = []
    not_computed: list[ShardImage] = []
    seconds: Seconds = dict.fromkeys(("read", "decode", "preprocess", "wait", "transfer", "forward"), 0.0)
    progress = Progress("embedded", rows.num_rows, "images")
    batches = Batches(encoder, batch_size, rows.num_rows, stored_dtype, seconds, keep=keep)
    waiting_since = time.perf_counter()
    for image in _prepared(rows, _Preparer(encoder, guard or in_work.Guard(), known), threads, batch_size):
        seconds["wait"] += time.perf_counter() - waiting_since
        for stage, duration in image.seconds.items():
            seconds[stage] += duration
        if image.prepared is not None:
            batches.add(image)
        elif not image.reason:
            not_computed.append(image)
        else:
            log.warning("rejected %s: %s", image.path, image.reason)
            rejected.append(image)
        if progress.done + 1 == rows.num_rows:
            batches.finish()
        progress.advance()
        waiting_since = time.perf_counter()
    count = len(batches.images)
    vectors, size = batches.vectors[:count], min(batch_size, batches.largest)
    return Embedded(batches.images, vectors, rejected, seconds, size, not_computed)


def embed_image(data: bytes, path: str, encoder: encoders.Encoder, key: str) -> NDArray[np.float32]:
    """Embed one image file as the embed stage would: (d,) float32, not normalised, rounded to ``stored_dtype``.

    Raises BadImage for an unusable image, and LookalikeError, which names ``path``, for numbers that are not finite or
    do not fit the stored dtype.
    """
    if taken := encoders.take(encoder, data):
        prepared, _ = taken
    else:
        prepared = encoder.prepare(images.decode(data, encoders.needs(encoder), icc=encoders.icc(encoder)))
    vectors, _ = encoders.launch(encoder, [prepared])()
    stored = rounded(vectors, np.dtype(encoders.parse(key).stored_dtype), [path])
    return np.asarray(stored[0], np.float32)


def decides(key: str, code: str, weights: Weights, encoder: encoders.Encoder) -> dict[str, Any]:
    """What decides the vectors beside the images, for a footer; parameters as in ``EmbedJob``."""
    return {
        "key": key,
        "code": code,
        "weights": weights.model_dump(),
        "weights_sha256": weights_sha256(weights),
        "dtypes": {"compute": encoder.compute_dtype, "stored": encoders.parse(key).stored_dtype},
        "engine": encoders.engine(encoder),
        "export": encoders.export(encoder),
        "decoders": {name: version for name in DECODERS if (version := features.version(name))},
        "versions": {**encoder.versions, **store.versions("pyarrow", *(kind.package for kind in phone_formats.KINDS))},
    }


def weights_sha256(weights: Weights) -> str:
    """Hash that identifies the weights in footers."""
    return hashlib.sha256(weights.model_dump_json().encode()).hexdigest()


@dataclass(frozen=True)
class _Preparer:
    """What turns the rows of a shard into prepared images, in several threads."""

    encoder: encoders.Encoder
    guard: in_work.Guard
    known: Known | None
    files: memory.Budget = field(default_factory=lambda: memory.Budget(memory.FILES_AT_ONCE))
    pixels: memory.Budget = field(default_factory=lambda: memory.Budget(memory.AT_ONCE))


def _prepared(rows: pa.Table, preparer: _Preparer, threads: int, batch_size: int) -> Iterator[ShardImage]:
    """Read, decode and prepare images in threads, in order, at most two batches or two images per thread ahead.

    If the encoder has its own device, the next images are prepared while it computes. On a CPU they are not: the
    forward pass and the preparation compete for the same cores, and both are fastest when they run alone. Images that
    may have killed an earlier attempt come first, one at a time.
    """
    remaining = iter(rows.to_pylist())
    memory.return_large_blocks()
    overlaps = preparer.encoder.overlaps
    ahead = 2 * max(batch_size, threads)
    together = max(1, min(TOGETHER, ahead // (4 * threads))) if overlaps else 1
    suspects = rows.filter(pc.is_in(rows["image_id"], pa.array(preparer.guard.suspects, pa.string()))).to_pylist()
    alone = {row["image_id"]: _prepare(row, preparer) for row in suspects}
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[list[ShardImage]]] = deque()
    workers = _workers(preparer, rows.num_rows, threads)

    def prepare(part: list[Row]) -> list[ShardImage]:
        if not workers:
            return [alone.get(row["image_id"]) or _prepare(row, preparer) for row in part]
        prepared = iter(workers.prepare([row for row in part if row["image_id"] not in alone]))
        return [alone.get(row["image_id"]) or next(prepared) for row in part]

    try:
        while True:
            room = ahead - together * len(waiting) if overlaps else batch_size if not waiting else 0
            while room >= together and (part := list(islice(remaining, together))):
                waiting.append(pool.submit(prepare, part))
                room -= together
            if not waiting:
                return
            yield from waiting.popleft().result()
    finally:
        if workers:  # first: its processes end with the threads that started them
            workers.close()
        pool.shutdown(wait=False, cancel_futures=True)  # after an error, a thread may hang


def _workers(preparer: _Preparer, images: int, threads: int) -> Workers | None:
    """Processes that prepare the images, where a GPU waits for them and they are worth starting."""
    encoder, guard = preparer.encoder, preparer.guard
    geometry = getattr(encoder, "geometry", None)
    can = encoder.overlaps and guard.reads_files and not hasattr(encoder, "take")
    if not can or geometry is None or threads < 2 or images < STARTING * threads:
        return None
    shrinks = encoders.needs(encoder) is not None
    asks, made = preparer.known is not None, made_images.located()
    settings = Settings(geometry, shrinks, encoders.icc(encoder), guard.seconds, asks, made)
    return Workers(settings, guard, preparer, preparer.known)


def _prepare(row: Row, preparer: _Preparer) -> ShardImage:
    """Take the file's budget before that of the pixels, always in this order, so that threads cannot deadlock."""
    try:
        with preparer.files.share() as take_file, preparer.pixels.share() as take_pixels:
            take_file(row["bytes"])
            return _read_and_prepare(row, preparer, take_pixels)
    except MemoryError as error:
        raise out_of_memory(row, error) from error


def _read_and_prepare(row: Row, preparer: _Preparer, reserve: memory.Take) -> ShardImage:
    encoder, guard = preparer.encoder, preparer.guard
    started = time.perf_counter()
    try:
        data = guard.read(row)
        read = time.perf_counter()
        sha256 = hashlib.sha256(data).hexdigest()
        if preparer.known and preparer.known(sha256):
            return ShardImage(row["image_id"], row["path"], sha256)
        if taken := encoders.take(encoder, data):
            prepared, size = taken
            return ShardImage(row["image_id"], row["path"], sha256, size, prepared, seconds={"read": read - started})
        decoding = time.perf_counter()
        image, size = guard.decode(row, data, encoders.needs(encoder), reserve, encoders.icc(encoder))
    except images.BadImage as bad:
        return ShardImage(row["image_id"], row["path"], reason=str(bad))
    decoded = time.perf_counter()
    try:
        prepared = encoder.prepare(image)
    except Exception as error:
        error.add_note(f"While preparing {row['root']}/{row['path']}, {image.width} x {image.height} pixels.")
        raise
    seconds = {"read": read - started, "decode": decoded - decoding, "preprocess": time.perf_counter() - decoded}
    profile = image.info.get("profile", "")
    return ShardImage(row["image_id"], row["path"], sha256, size, prepared, seconds=seconds, profile=profile)


def _rejected_table(rejected: list[ShardImage]) -> pa.Table:
    columns = {name: [getattr(image, name) for image in rejected] for name in REJECTED.columns}
    return pa.table(columns, schema=REJECTED.schema())
