"""The `embed` stage: one shard file to a Parquet file of embeddings and one of rejected images."""

import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from lookalike.embed import encoders
from lookalike.io import images, in_work, store
from lookalike.io.formats.records import EmbedTiming, Weights, bottleneck
from lookalike.io.formats.tables import EMBEDDINGS, REJECTED, SHARD
from lookalike.job import memory
from lookalike.job.devices import out_of_memory
from lookalike.job.errors import LookalikeError
from lookalike.job.progress import Progress
from lookalike.job.usage import peak_gpu_memory_mb, peak_memory_mb

log = logging.getLogger(__name__)

Seconds = dict[str, float]  # stage -> duration
Row = dict[str, Any]  # of a SHARD table
Pending = tuple[int, NDArray[Any]]  # row of the result, prepared image
Vectors = NDArray[np.float32] | NDArray[np.float16]
ROUNDING = 0.01  # largest rounding error when storing a vector, relative to its norm; float16 itself errs by 0.0005


@dataclass(frozen=True)
class ShardImage:
    """A row of a shard: its image prepared for the encoder, or the reason for rejecting it."""

    image_id: str
    path: str
    sha256: str = ""
    size: tuple[int, int] = (0, 0)  # width, height
    prepared: NDArray[Any] | None = None
    reason: str = ""
    seconds: Seconds = field(default_factory=dict)


@dataclass
class Embedded:
    """The result of embedding a shard. ``vectors`` is (n, d) in the stored dtype, row i for ``images[i]``.

    ``batch_size`` is the final one, after any reduction to fit into memory.
    """

    images: list[ShardImage]
    vectors: Vectors
    rejected: list[ShardImage]
    seconds: Seconds
    batch_size: int


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
    images.check_roots(rows, job.shard)
    fetched = store.read_json(job.weights, Weights)
    started = time.perf_counter()
    encoder = encoders.load(job.key, fetched, encoders.Machine(job.threads, job.gpu), job.export)
    loaded = time.perf_counter()
    stored_dtype = encoders.parse(job.key).stored_dtype
    shard_sha256 = store.identity(job.shard)
    with in_work.guarding(Path(job.timing_out).with_suffix(".in_work"), shard_sha256, job.image_seconds) as guard:
        done = embed_rows(
            rows, encoder, batch_size=job.batch_size, threads=job.threads, stored_dtype=stored_dtype, guard=guard
        )
    embedded = time.perf_counter()
    log.info("computed with %s", " ".join(filter(None, encoders.engine(encoder).values())))
    log.info("%d embedded + %d rejected = %d in the shard", len(done.images), len(done.rejected), rows.num_rows)
    if guard.rejected:
        log.warning("%d of the rejected images hung or killed their decoder", guard.rejected)

    provenance = {
        "made_by": "lookalike embed",
        "model": job.model,
        "shard_sha256": shard_sha256,
        "key": job.key,
        "code": job.code,
        "weights": fetched.model_dump(),
        "weights_sha256": weights_sha256(fetched),
        "dtypes": {"compute": encoder.compute_dtype, "stored": stored_dtype},
        "engine": encoders.engine(encoder),
        "versions": {**encoder.versions, **store.versions("pyarrow")},
    }
    store.write_table(_rejected_table(done.rejected), job.rejected_out, REJECTED, provenance)
    store.write_table(_table(done), job.out, EMBEDDINGS, provenance)
    written = time.perf_counter()
    stages = {**done.seconds, "write": written - embedded}
    timing = EmbedTiming(
        images=len(done.images),
        seconds=written - loaded,
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


def embed_rows(
    rows: pa.Table,
    encoder: encoders.Encoder,
    *,
    batch_size: int,
    threads: int,
    stored_dtype: str = "float32",
    guard: in_work.Guard | None = None,
) -> Embedded:
    """Embed the rows of a SHARD table in order, in batches of ``batch_size``; rejected images leave no gap.

    ``guard`` reads the images and notes which are being decoded.

    Duplicate files are computed once: a network's rounding depends on the position in the batch, and duplicates must
    have equal vectors.

    In ``seconds`` of the result, `wait` (for images) is wall time, `transfer` and `forward` are device time, and
    `read`, `decode` and `preprocess` are summed over the threads.
    """
    rejected: list[ShardImage] = []
    seconds: Seconds = dict.fromkeys(("read", "decode", "preprocess", "wait", "transfer", "forward"), 0.0)
    progress = Progress("embedded", rows.num_rows, "images")
    batches = _Batches(encoder, batch_size, rows.num_rows, stored_dtype, seconds)
    waiting_since = time.perf_counter()
    for image in _prepared(rows, encoder, threads, batch_size, guard or in_work.Guard()):
        seconds["wait"] += time.perf_counter() - waiting_since
        for stage, duration in image.seconds.items():
            seconds[stage] += duration
        if image.prepared is not None:
            batches.add(image)
        else:
            log.warning("rejected %s: %s", image.path, image.reason)
            rejected.append(image)
        if progress.done + 1 == rows.num_rows:
            batches.finish()
        progress.advance()
        waiting_since = time.perf_counter()
    count = len(batches.images)
    return Embedded(batches.images, batches.vectors[:count], rejected, seconds, min(batch_size, batches.largest))


class _Batches:
    """Groups images into batches and keeps the device busy.

    While the device computes one batch, the next is collected and queued; only then is the first result fetched. When
    memory runs out, the batch size is halved from then on. Duplicates get the vector of their first occurrence.
    """

    def __init__(self, encoder: encoders.Encoder, size: int, capacity: int, stored: str, seconds: Seconds) -> None:
        self.encoder, self.largest, self.seconds = encoder, size, seconds
        self.images: list[ShardImage] = []  # without pixels: a whole shard's would not fit into memory
        self.vectors: Vectors = np.empty((capacity, encoder.dimension), stored)
        self._first: dict[str, int] = {}  # SHA-256 -> row of its first occurrence
        self._duplicates: dict[int, int] = {}  # row of a duplicate -> row of its first occurrence
        self._gathered: list[Pending] = []
        self._running: tuple[list[Pending], Callable[[], encoders.Computed]] | None = None

    def add(self, image: ShardImage) -> None:
        row = len(self.images)
        self.images.append(replace(image, prepared=None))
        first = self._first.setdefault(image.sha256, row)
        if first != row:
            self._duplicates[row] = first
            return
        assert image.prepared is not None
        self._gathered.append((row, image.prepared))
        if len(self._gathered) >= self.largest:
            self._launch()

    def finish(self) -> None:
        while self._gathered:
            self._launch()
        self._fetch()
        self.vectors[list(self._duplicates)] = self.vectors[list(self._duplicates.values())]

    def _launch(self) -> None:
        batch = self._gathered[: self.largest]
        try:
            result = encoders.launch(self.encoder, [prepared for _, prepared in batch])
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            reason = str(error).strip().splitlines()[0] if str(error).strip() else "out of memory"
        else:
            self._gathered = self._gathered[self.largest :]
            self._fetch()
            self._running = batch, result
            return
        self._fetch()  # frees the memory of the batch that is still being computed
        # outside the except block: the exception and what it references are freed by now
        self._halve(len(batch), self.images[batch[0][0]].path, reason)
        while len(self._gathered) >= self.largest:
            self._launch()

    def _halve(self, size: int, path: str, reason: str) -> None:
        if size == 1:
            raise LookalikeError(
                f"{path}: out of memory at batch size 1: {reason}. Run on a machine or GPU with more memory, raise "
                "runtime.mem_mb on a cluster, or run fewer jobs at once (--cores, --jobs)."
            )
        self.largest = size // 2
        log.warning("out of memory at batch size %d; continuing with %d: %s", size, self.largest, reason)

    def _fetch(self) -> None:
        if self._running is None:
            return
        (batch, result), self._running = self._running, None
        vectors, durations = result()
        for stage, duration in durations.items():
            self.seconds[stage] += duration
        rows = [row for row, _ in batch]
        self.vectors[rows] = _rounded(vectors, self.vectors.dtype, [self.images[row].path for row in rows])


def embed_image(data: bytes, path: str, encoder: encoders.Encoder, key: str) -> NDArray[np.float32]:
    """Embed one image file as the embed stage would: (d,) float32, not normalised, rounded to ``stored_dtype``.

    Raises BadImage for an unusable image, and LookalikeError, which names ``path``, for numbers that are not finite or
    do not fit the stored dtype.
    """
    image, _ = _decode(data, encoder)
    vectors = encoder.encode(encoder.prepare(image)[None])
    stored = _rounded(vectors, np.dtype(encoders.parse(key).stored_dtype), [path])
    return np.asarray(stored[0], np.float32)


def weights_sha256(weights: Weights) -> str:
    """Hash that identifies the weights in footers."""
    return hashlib.sha256(weights.model_dump_json().encode()).hexdigest()


def _prepared(
    rows: pa.Table, encoder: encoders.Encoder, threads: int, batch_size: int, guard: in_work.Guard
) -> Iterator[ShardImage]:
    """Read, decode and prepare images in threads, in order, at most two batches or two images per thread ahead.

    If the encoder has its own device, the next images are prepared while it computes. On a CPU they are not: the
    forward pass and the preparation compete for the same cores, and both are fastest when they run alone. Images that
    may have killed an earlier attempt come first, one at a time.
    """
    remaining = iter(rows.to_pylist())
    memory.return_large_blocks()
    ahead = 2 * max(batch_size, threads)
    files, pixels = memory.Budget(memory.FILES_AT_ONCE), memory.Budget(memory.AT_ONCE)
    suspects = rows.filter(pc.is_in(rows["image_id"], pa.array(guard.suspects, pa.string()))).to_pylist()
    alone = {row["image_id"]: _prepare(row, encoder, files, pixels, guard) for row in suspects}
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[ShardImage]] = deque()
    try:
        while True:
            room = ahead - len(waiting) if encoder.overlaps else batch_size if not waiting else 0
            for row in islice(remaining, room):
                image = alone.pop(row["image_id"], None)
                work = (lambda image: image, image) if image else (_prepare, row, encoder, files, pixels, guard)
                waiting.append(pool.submit(*work))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # after an error, a thread may hang


def _prepare(
    row: Row, encoder: encoders.Encoder, files: memory.Budget, pixels: memory.Budget, guard: in_work.Guard
) -> ShardImage:
    """Take the file's budget before that of the pixels, always in this order, so that threads cannot deadlock."""
    try:
        with files.share() as take_file, pixels.share() as take_pixels:
            take_file(row["bytes"])
            return _read_and_prepare(row, encoder, take_pixels, guard)
    except MemoryError as error:  # not the image's fault: rejecting it would depend on what else was in memory
        raise LookalikeError(
            f"{row['root']}/{row['path']}: out of memory while reading it ({error}). Run on a machine with more "
            "memory, raise runtime.mem_mb on a cluster, lower runtime.threads, or remove the image from the data set."
        ) from error


def _read_and_prepare(row: Row, encoder: encoders.Encoder, reserve: memory.Take, guard: in_work.Guard) -> ShardImage:
    started = time.perf_counter()
    try:
        data = guard.read(row)
        read = time.perf_counter()
        if row["image_id"] in guard.suspects:
            image, size = guard.alone(row, data, encoders.needs(encoder))
        else:
            with guard.decoding(row, reserve) as take:
                image, size = _decode(data, encoder, take)
    except images.BadImage as bad:
        return ShardImage(row["image_id"], row["path"], reason=str(bad))
    decoded = time.perf_counter()
    try:
        prepared = encoder.prepare(image)
    except Exception as error:
        error.add_note(f"While preparing {row['root']}/{row['path']}, {image.width} x {image.height} pixels.")
        raise
    seconds = {"read": read - started, "decode": decoded - read, "preprocess": time.perf_counter() - decoded}
    sha256 = hashlib.sha256(data).hexdigest()
    return ShardImage(row["image_id"], row["path"], sha256, size, prepared, seconds=seconds)


def _decode(
    data: bytes, encoder: encoders.Encoder, reserve: memory.Take | None = None
) -> tuple[Image.Image, tuple[int, int]]:
    """The decoded image, and the full (width, height), which differs if the image was decoded at a smaller size."""
    needs = encoders.needs(encoder)
    image = images.decode(data, needs, reserve)
    return image, images.full_size(data, image) if needs else image.size


def _rounded(vectors: NDArray[np.float32], dtype: "np.dtype[Any]", paths: list[str]) -> Vectors:
    """Convert the vectors (n, d) of the images at ``paths`` to ``dtype``.

    Raises LookalikeError, which names the image, for values that are not finite, and if the rounding error exceeds
    ``ROUNDING``: float16 overflows above 65,504 and loses digits below 0.00006.
    """
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise LookalikeError(
            f"{paths[int(np.argmin(finite))]}: the model gave NaN or infinite numbers for this image. "
            "Try compute_dtype: float32; if that does not help, the weights are damaged."
        )
    with np.errstate(over="ignore"):
        stored: Vectors = vectors.astype(dtype)
    exact = vectors.astype(np.float64)
    kept = np.linalg.norm(stored - exact, axis=1) <= ROUNDING * np.linalg.norm(exact, axis=1)
    if not kept.all():
        row = int(np.argmin(kept))
        raise LookalikeError(
            f"{paths[row]}: the model's numbers for this image, up to {np.abs(vectors[row]).max():.3g}, do not fit "
            f"into {dtype}. Use stored_dtype: float32."
        )
    return stored


def _rejected_table(rejected: list[ShardImage]) -> pa.Table:
    columns = {name: [getattr(image, name) for image in rejected] for name in REJECTED.columns}
    return pa.table(columns, schema=REJECTED.schema())


def _table(done: Embedded) -> pa.Table:
    values = pa.array(done.vectors.reshape(-1))
    return pa.table(
        {
            "image_id": pa.array([image.image_id for image in done.images], pa.string()),
            "sha256": pa.array([image.sha256 for image in done.images], pa.string()),
            "width": pa.array([image.size[0] for image in done.images], pa.int32()),
            "height": pa.array([image.size[1] for image in done.images], pa.int32()),
            "embedding": pa.FixedSizeListArray.from_arrays(values, done.vectors.shape[1]),
        }
    )
