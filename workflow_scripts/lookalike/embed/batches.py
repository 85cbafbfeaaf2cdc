"""Prepared images to vectors in batches, which keep the device busy and fit into memory."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lookalike.embed import encoders
from lookalike.job.devices import out_of_memory
from lookalike.job.errors import LookalikeError

log = logging.getLogger(__name__)

Seconds = dict[str, float]  # stage -> duration
Pending = tuple[int, NDArray[Any]]  # row of the result, prepared image
Vectors = NDArray[np.float32] | NDArray[np.float16]
ROUNDING = 0.01  # largest rounding error when storing a vector, relative to its norm; float16 itself errs by 0.0005
Keep = Callable[[pa.Table], None]


@dataclass(slots=True)  # and not frozen: that takes three times as long, under the interpreter lock
class ShardImage:
    """A row of a shard: its image prepared for the encoder, or the reason for rejecting it.

    With neither, and with a hash, its vector is known.
    """

    image_id: str
    path: str
    sha256: str = ""
    size: tuple[int, int] = (0, 0)  # width, height
    prepared: NDArray[Any] | None = None
    reason: str = ""
    seconds: Seconds = field(default_factory=dict)
    profile: str = ""  # with `icc: srgb`, what became of its color profile


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
    known: list[ShardImage] = field(default_factory=list)  # not computed, since the vector is known


class Batches:
    """Groups images into batches and keeps the device busy.

    While the device computes one batch, the next is collected and queued; only then is the first result fetched. When
    memory runs out, the batch size is halved from then on. Duplicates get the vector of their first occurrence.
    ``keep`` is given every batch as a table of EMBEDDINGS once it is computed.
    """

    def __init__(
        self, encoder: encoders.Encoder, size: int, capacity: int, stored: str, seconds: Seconds, *, keep: Keep | None
    ) -> None:
        self.encoder, self.largest, self.seconds, self.keep = encoder, size, seconds, keep
        self.images: list[ShardImage] = []  # without pixels: a whole shard's would not fit into memory
        self.vectors: Vectors = np.empty((capacity, encoder.dimension), stored)
        self._first: dict[str, int] = {}  # SHA-256 -> row of its first occurrence
        self._duplicates: dict[int, int] = {}  # row of a duplicate -> row of its first occurrence
        self._gathered: list[Pending] = []
        self._running: tuple[list[Pending], Callable[[], encoders.Computed]] | None = None

    def add(self, image: ShardImage) -> None:
        """Take a prepared image's pixels into the next batch, which is computed once it is full."""
        row = len(self.images)
        prepared, image.prepared = image.prepared, None
        self.images.append(image)
        first = self._first.setdefault(image.sha256, row)
        if first != row:
            self._duplicates[row] = first
            return
        assert prepared is not None
        self._gathered.append((row, prepared))
        if len(self._gathered) >= self.largest:
            self._launch()

    def finish(self) -> None:
        """Compute what is left."""
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
        stored = rounded(vectors, self.vectors.dtype, [self.images[row].path for row in rows])
        self.vectors[rows] = stored
        if self.keep:
            self.keep(table([self.images[row] for row in rows], stored))


def rounded(vectors: NDArray[np.float32], dtype: "np.dtype[Any]", paths: list[str]) -> Vectors:
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


def table(images: Sequence[ShardImage], vectors: Vectors) -> pa.Table:
    """The table of EMBEDDINGS of n images and their (n, d) vectors."""
    values = pa.array(vectors.reshape(-1))
    return pa.table(
        {
            "image_id": pa.array([image.image_id for image in images], pa.string()),
            "sha256": pa.array([image.sha256 for image in images], pa.string()),
            "width": pa.array([image.size[0] for image in images], pa.int32()),
            "height": pa.array([image.size[1] for image in images], pa.int32()),
            "embedding": pa.FixedSizeListArray.from_arrays(values, vectors.shape[1]),
        }
    )
