"""Pictures in, vectors out: one shard file to one Parquet file of embeddings and one of rejected pictures."""

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
from numpy.typing import NDArray
from PIL import Image

from lookalike.embed import encoders
from lookalike.io import images, store
from lookalike.io.formats.records import EmbedTiming, Weights, bottleneck
from lookalike.io.formats.tables import EMBEDDINGS, REJECTED, SHARD
from lookalike.job import memory
from lookalike.job.devices import out_of_memory
from lookalike.job.errors import LookalikeError
from lookalike.job.progress import Progress

log = logging.getLogger(__name__)

Seconds = dict[str, float]  # what is done -> how long it took
Waiting = tuple[int, NDArray[Any]]  # the row of the result, and the image as it was prepared
Vectors = NDArray[np.float32] | NDArray[np.float16]
ROUNDING = 0.01  # of its length, that storing may move a vector by: float16 itself moves it by 0.0005 at most


@dataclass(frozen=True)
class Picture:
    """A row of a shard, prepared for the encoder, or with the reason why it cannot be used."""

    image_id: str
    path: str
    sha256: str = ""
    size: tuple[int, int] = (0, 0)  # width, height
    prepared: NDArray[Any] | None = None
    reason: str = ""
    seconds: Seconds = field(default_factory=dict)


@dataclass
class Embedded:
    """What came of a shard's rows. ``vectors`` are (n, d) as stored, one row for each of ``pictures``, in order.

    ``batch_size`` is what fitted into memory in the end.
    """

    pictures: list[Picture]
    vectors: Vectors
    rejected: list[Picture]
    seconds: Seconds
    batch_size: int


@dataclass(frozen=True)
class EmbedJob:
    """One shard to embed: its files, and how."""

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


def embed_shard(job: EmbedJob) -> None:
    """Embed the pictures of one shard file.

    ``model`` is its name, for the footers; ``key`` its `embed:` entry (``plan.Plan.embedding_key``), ``code`` the hash
    of the code that embeds (``plan.Plan.code``). Memory is bounded by ``batch_size``, ``memory.AT_ONCE`` and
    ``memory.FILES_AT_ONCE``, but for the shard's ids and vectors, which are kept until they are written whole.
    Raises LookalikeError for a missing root folder, for vectors that are not finite or that their stored type cannot
    hold, and where memory runs out. A picture that cannot be used is a row of the rejected table, never an error: where
    ``on_bad_image`` is "fail", the index stage refuses it.
    """
    rows = store.read_table(job.shard, SHARD)
    _check_roots(rows, job.shard)
    fetched = store.read_json(job.weights, Weights)
    started = time.perf_counter()
    encoder = encoders.load(job.key, fetched, encoders.Machine(job.threads, job.gpu))
    loaded = time.perf_counter()
    stored_dtype = encoders.parse(job.key).stored_dtype
    done = embed_rows(rows, encoder, batch_size=job.batch_size, threads=job.threads, stored_dtype=stored_dtype)
    embedded = time.perf_counter()
    log.info("%d embedded + %d rejected = %d in the shard", len(done.pictures), len(done.rejected), rows.num_rows)

    provenance = {
        "made_by": "lookalike embed",
        "model": job.model,
        "shard_sha256": store.identity(job.shard),
        "key": job.key,
        "code": job.code,
        "weights": fetched.model_dump(),
        "weights_sha256": weights_sha256(fetched),
        "dtypes": {"compute": encoder.compute_dtype, "stored": stored_dtype},
        "versions": {**encoder.versions, **store.versions("pyarrow")},
    }
    store.write_table(_rejected_table(done.rejected), job.rejected_out, REJECTED, provenance)
    store.write_table(_table(done), job.out, EMBEDDINGS, provenance)
    written = time.perf_counter()
    stages = {**done.seconds, "write": written - embedded}
    timing = EmbedTiming(
        images=len(done.pictures),
        seconds=written - loaded,
        load_seconds=loaded - started,
        device=encoder.device,
        batch_size=done.batch_size,
        threads=job.threads,
        precision=encoder.compute_dtype,
        stages=stages,
        bottleneck=bottleneck(stages, job.threads),
    )
    store.write_json(timing, job.timing_out)


def embed_rows(
    rows: pa.Table,
    encoder: encoders.Encoder,
    *,
    batch_size: int,
    threads: int,
    stored_dtype: str = "float32",
) -> Embedded:
    """Embed the rows of a SHARD table, in order, in batches of ``batch_size``; rejected pictures leave no gap.

    Files of the same bytes are computed once: a network rounds by place in the batch, and they must not differ.

    ``seconds`` of the result: `wait` (for pictures) is wall time; `transfer` and `forward` are the device's time;
    `read`, `decode` and `preprocess` are sums over the threads.
    """
    rejected: list[Picture] = []
    seconds: Seconds = dict.fromkeys(("read", "decode", "preprocess", "wait", "transfer", "forward"), 0.0)
    progress = Progress("embedded", rows.num_rows, "pictures")
    batches = _Batches(encoder, batch_size, rows.num_rows, stored_dtype, seconds)
    asked = time.perf_counter()
    for picture in _prepared(rows, encoder, threads, batch_size):
        seconds["wait"] += time.perf_counter() - asked
        for stage, took in picture.seconds.items():
            seconds[stage] += took
        if picture.prepared is not None:
            batches.add(picture)
        else:
            log.warning("rejected %s: %s", picture.path, picture.reason)
            rejected.append(picture)
        if progress.done + 1 == rows.num_rows:
            batches.finish()
        progress.advance()
        asked = time.perf_counter()
    count = len(batches.pictures)
    return Embedded(batches.pictures, batches.vectors[:count], rejected, seconds, min(batch_size, batches.largest))


class _Batches:
    """Gathers pictures to batches, and keeps a device busy with them.

    While the device computes a batch, the next one is gathered and queued behind it; only then is the first result
    fetched. Where memory runs out, batches are half as large from then on. Duplicates get the vector of the first.
    """

    def __init__(self, encoder: encoders.Encoder, size: int, pictures: int, stored: str, seconds: Seconds) -> None:
        self.encoder, self.largest, self.seconds = encoder, size, seconds
        self.pictures: list[Picture] = []  # without pixels: a shard's would not fit into memory
        self.vectors: Vectors = np.empty((pictures, encoder.dimension), stored)
        self._first: dict[str, int] = {}  # the row of the first picture of each content
        self._duplicates: dict[int, int] = {}  # row of another -> row of the first
        self._gathered: list[Waiting] = []
        self._running: tuple[list[Waiting], Callable[[], encoders.Computed]] | None = None

    def add(self, picture: Picture) -> None:
        row = len(self.pictures)
        self.pictures.append(replace(picture, prepared=None))
        first = self._first.setdefault(picture.sha256, row)
        if first != row:
            self._duplicates[row] = first
            return
        assert picture.prepared is not None
        self._gathered.append((row, picture.prepared))
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
        self._fetch()  # what is still computed has its memory too
        self._halve(
            len(batch), self.pictures[batch[0][0]].path, reason
        )  # the error is gone by now, and with it what it held in memory
        while len(self._gathered) >= self.largest:
            self._launch()

    def _halve(self, size: int, path: str, reason: str) -> None:
        if size == 1:
            raise LookalikeError(
                f"{path}: memory ran out even for this picture alone: {reason}. Run on a machine or GPU with more "
                "memory, raise runtime.mem_mb on a cluster, or let fewer jobs share the machine (--cores, --jobs)."
            )
        self.largest = size // 2
        log.warning("memory ran out for %d pictures at once; from here on %d: %s", size, self.largest, reason)

    def _fetch(self) -> None:
        if self._running is None:
            return
        (batch, result), self._running = self._running, None
        vectors, took = result()
        for stage, seconds in took.items():
            self.seconds[stage] += seconds
        rows = [row for row, _ in batch]
        self.vectors[rows] = _rounded(vectors, self.vectors.dtype, [self.pictures[row].path for row in rows])


def embed_picture(data: bytes, path: str, encoder: encoders.Encoder, key: str) -> NDArray[np.float32]:
    """One picture file to (d,) float32: what an index of the stage's files would hold of it.

    Not normalised. Rounded as the file's ``stored_dtype`` rounds. Raises BadImage, and LookalikeError, which names
    ``path``, for numbers that are not finite or that the stored type cannot hold.
    """
    image, _ = _decode(data, encoder)
    vectors = encoder.encode(encoder.prepare(image)[None])
    stored = _rounded(vectors, np.dtype(encoders.parse(key).stored_dtype), [path])
    return np.asarray(stored[0], np.float32)


def weights_sha256(weights: Weights) -> str:
    """What tells weights apart in footers."""
    return hashlib.sha256(weights.model_dump_json().encode()).hexdigest()


def _check_roots(rows: pa.Table, shard: str) -> None:
    """The pictures of an unmounted disk must not become rejected ones."""
    for root in rows["root"].unique().to_pylist():
        if not Path(root).is_dir():
            raise LookalikeError(
                f"{shard}: its pictures are in {root}, and that folder does not exist now. Bring it back "
                "(a disk that is not mounted?)."
            )


def _prepared(rows: pa.Table, encoder: encoders.Encoder, threads: int, batch_size: int) -> Iterator[Picture]:
    """Read, decode and prepare in threads, in order, with at most two batches waiting, or two pictures a thread.

    Where the encoder computes on a device of its own, the next pictures are prepared meanwhile. On a CPU they are not:
    forward pass and preparing need the same cores, and each is fastest while it has them for itself.
    """
    remaining = iter(rows.to_pylist())
    memory.return_large_blocks()
    ahead = 2 * max(batch_size, threads)
    files, pixels = memory.Budget(memory.FILES_AT_ONCE), memory.Budget(memory.AT_ONCE)
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Picture]] = deque()
        while True:
            room = ahead - len(waiting) if encoder.overlaps else batch_size if not waiting else 0
            waiting.extend(pool.submit(_prepare, row, encoder, files, pixels) for row in islice(remaining, room))
            if not waiting:
                return
            yield waiting.popleft().result()


def _prepare(row: dict[str, Any], encoder: encoders.Encoder, files: memory.Budget, pixels: memory.Budget) -> Picture:
    """Whoever holds pixels has its file already, so that no two threads wait for each other."""
    try:
        with files.share() as take_file, pixels.share() as take_pixels:
            take_file(row["bytes"])
            return _read_and_prepare(row, encoder, take_pixels)
    except MemoryError as error:  # no fault of the image: to reject it would depend on what else was in memory
        raise LookalikeError(
            f"{row['root']}/{row['path']}: out of memory while reading it ({error}). Run on a machine with more "
            "memory, raise runtime.mem_mb on a cluster, lower runtime.threads, or take the image out of the data set."
        ) from error


def _read_and_prepare(row: dict[str, Any], encoder: encoders.Encoder, reserve: memory.Take) -> Picture:
    started = time.perf_counter()
    try:
        data = images.read_row(row)
        was_read = time.perf_counter()
        image, size = _decode(data, encoder, reserve)
    except images.BadImage as bad:
        return Picture(row["image_id"], row["path"], reason=str(bad))
    decoded = time.perf_counter()
    try:
        prepared = encoder.prepare(image)
    except Exception as error:
        error.add_note(f"This happened to {row['root']}/{row['path']}, of {image.width} x {image.height} pixels.")
        raise
    seconds = {"read": was_read - started, "decode": decoded - was_read, "preprocess": time.perf_counter() - decoded}
    sha256 = hashlib.sha256(data).hexdigest()
    return Picture(row["image_id"], row["path"], sha256, size, prepared, seconds=seconds)


def _decode(
    data: bytes, encoder: encoders.Encoder, reserve: memory.Take | None = None
) -> tuple[Image.Image, tuple[int, int]]:
    """The picture, and the width and height of its file, which it has itself unless it was decoded smaller."""
    needs = encoders.needs(encoder)
    image = images.decode(data, needs, reserve)
    return image, images.full_size(data, image) if needs else image.size


def _rounded(vectors: NDArray[np.float32], dtype: "np.dtype[Any]", paths: list[str]) -> Vectors:
    """Vectors (n, d) of the images at ``paths`` as they are stored.

    Raises LookalikeError, which names the image, for what is not finite, and where rounding to ``dtype`` changes a
    vector beyond its precision: float16 ends at 65,504, and what is below 0.00006 loses digits.
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
            f"{paths[row]}: the model's numbers for this image, up to {np.abs(vectors[row]).max():.3g}, are beyond "
            f"what {dtype} can hold. Use stored_dtype: float32."
        )
    return stored


def _rejected_table(rejected: list[Picture]) -> pa.Table:
    columns = {name: [getattr(one, name) for one in rejected] for name in REJECTED.columns}
    return pa.table(columns, schema=REJECTED.schema())


def _table(done: Embedded) -> pa.Table:
    values = pa.array(done.vectors.reshape(-1))
    return pa.table(
        {
            "image_id": pa.array([one.image_id for one in done.pictures], pa.string()),
            "sha256": pa.array([one.sha256 for one in done.pictures], pa.string()),
            "width": pa.array([one.size[0] for one in done.pictures], pa.int32()),
            "height": pa.array([one.size[1] for one in done.pictures], pa.int32()),
            "embedding": pa.FixedSizeListArray.from_arrays(values, done.vectors.shape[1]),
        }
    )
