"""A shard's vectors from the vector store, as far as it has them, and computed, as far as it lacks them."""

import hashlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from lookalike.embed.batches import Embedded, ShardImage
from lookalike.io import images
from lookalike.io.vector_store import VectorStore
from lookalike.job import memory
from lookalike.job.progress import Progress

log = logging.getLogger(__name__)

IN_BETWEEN = 100  # computed images for each stored one that was read in between, or their speed is unknown
Known = Callable[[str], bool]
Compute = Callable[[pa.Table, Known | None], Embedded]
Row = dict[str, Any]  # of a SHARD table
Read = Callable[[Row], bytes]


@dataclass(frozen=True)
class Reuse:
    """How much of a shard came from the store. ``seconds``: time that computing did not take."""

    computed: int
    from_store: int = 0
    representative: bool = True  # as in ``EmbedTiming``
    seconds: float = 0.0


def embed_missing(
    rows: pa.Table, kept: VectorStore, threads: int, compute: Compute, read: Read = images.read_row
) -> tuple[Embedded, Reuse]:
    """Embed the rows of a SHARD table; the result is the same as that of ``compute(rows, None)``.

    ``compute`` embeds some rows in order, but for images of which its second argument says that they are known. Images
    whose ids the store has are read first, since their files most likely did not change: what is computed afterwards
    is timed without them, and in the same batches in which an interrupted job would have computed it.
    """
    started = time.perf_counter()
    known = _known(rows, kept, threads, read)
    looked_up = time.perf_counter()
    is_known = np.fromiter((image_id in known for image_id in rows["image_id"].to_pylist()), np.bool_, rows.num_rows)
    done = compute(rows.filter(pa.array(~is_known)), kept.has)
    if not known and not done.known:
        return done, Reuse(len(done.images), seconds=looked_up - started)
    computed = time.perf_counter()
    row_of = {image_id: row for row, image_id in enumerate(rows["image_id"].to_pylist())}
    vectors = np.empty((rows.num_rows, done.vectors.shape[1]), done.vectors.dtype)
    complete: dict[int, ShardImage] = {}

    def place(part: Embedded) -> None:
        for image, vector in zip(part.images, part.vectors, strict=True):
            complete[row_of[image.image_id]] = image
            vectors[row_of[image.image_id]] = vector

    place(done)
    by_hash: dict[str, list[ShardImage]] = {}
    for image in (*known.values(), *done.known):
        by_hash.setdefault(image.sha256, []).append(image)
    taken = 0
    for found in kept.take(by_hash, vectors.shape[1]):
        for sha256, size, vector in zip(found.sha256, found.sizes, found.vectors, strict=True):
            for image in by_hash.pop(sha256):
                complete[row_of[image.image_id]] = replace(image, size=size)
                vectors[row_of[image.image_id]] = vector
                taken += 1
    took = time.perf_counter()
    lost = np.sort([row_of[image.image_id] for same in by_hash.values() for image in same]).astype(np.int64)
    again = compute(rows.take(pa.array(lost)), None) if len(lost) else None
    if again:
        place(again)
    parts = [done, again] if again else [done]
    order = sorted(complete)
    embedded = Embedded(
        images=[complete[row] for row in order],
        vectors=vectors if len(order) == len(vectors) else vectors[order],
        rejected=sorted((image for part in parts for image in part.rejected), key=lambda image: row_of[image.image_id]),
        seconds={stage: sum(part.seconds[stage] for part in parts) for stage in done.seconds},
        batch_size=min(part.batch_size for part in parts),
    )
    count = len(order) - taken
    log.info("%d vectors computed + %d from the vector store = %d", count, taken, len(order))
    representative = count >= taken and count >= IN_BETWEEN * len(done.known)
    return embedded, Reuse(count, taken, representative, looked_up - started + took - computed)


def _known(rows: pa.Table, kept: VectorStore, threads: int, read: Read) -> dict[str, ShardImage]:
    """The images whose ids the store has, and whose bytes it has, too, by their ids."""
    candidates = rows.filter(pa.array(kept.has_ids(rows["image_id"]))).to_pylist()
    progress = Progress("looked up", len(candidates), "images in the vector store")
    files = memory.Budget(memory.FILES_AT_ONCE)
    known = {}
    with ThreadPoolExecutor(threads) as pool:
        for image in pool.map(lambda row: _hashed(row, files, read), candidates):
            if image and kept.has(image.sha256):
                known[image.image_id] = image
            progress.advance()
    return known


def _hashed(row: Row, files: memory.Budget, read: Read) -> ShardImage | None:
    """An image with its hash; None where it cannot be read, which is left to whoever decodes it."""
    with files.share() as take:
        take(row["bytes"])
        try:
            data = read(row)
        except images.BadImage:
            return None
        return ShardImage(row["image_id"], row["path"], hashlib.sha256(data).hexdigest())
