"""Pictures in, vectors out: one shard file to one Parquet file of embeddings and one of rejected pictures."""

import hashlib
import logging
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lookalike import images, models, store
from lookalike.errors import LookalikeError
from lookalike.formats import EMBEDDINGS, REJECTED, SHARD, EmbedTiming, Weights
from lookalike.progress import Progress

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Picture:
    """A row of a shard, prepared for the encoder, or with the reason why it cannot be used."""

    image_id: str
    path: str
    sha256: str = ""
    prepared: NDArray[Any] | None = None
    reason: str = ""


def embed_shard(
    *,
    shard: str,
    weights: str,
    out: str,
    rejected_out: str,
    timing_out: str,
    model: str,
    key: str,
    batch_size: int,
    threads: int,
    gpu: bool,
    on_bad_image: str,
) -> None:
    """Embed the pictures of one shard file.

    ``model`` is its name, for the footers; ``key`` its `embed:` entry (``plan.Plan.embedding_key``). Memory is bounded
    by ``batch_size`` and ``threads``, not by the number of pictures. Raises LookalikeError for a missing root folder,
    for vectors that are not finite, and, where ``on_bad_image`` is "fail", at the first picture that cannot be used.
    """
    rows = store.read_table(shard, SHARD)
    _check_roots(rows, shard)
    fetched = store.read_json(weights, Weights)
    started = time.perf_counter()
    encoder = models.load(key, fetched, models.Machine(threads, gpu))
    loaded = time.perf_counter()

    embedded: list[Picture] = []
    rejected: list[Picture] = []
    vectors: list[NDArray[np.float32]] = []
    progress = Progress("embedded", rows.num_rows, "pictures")
    batch: list[Picture] = []
    for picture in _prepared(rows, encoder, threads, ahead=2 * batch_size):
        if picture.prepared is None:
            if on_bad_image == "fail":
                raise LookalikeError(
                    f"{picture.path}: {picture.reason}. Mend or remove the picture, or set on_bad_image: reject."
                )
            log.warning("rejected %s: %s", picture.path, picture.reason)
            rejected.append(picture)
        else:
            batch.append(picture)
        if len(batch) == batch_size:
            vectors.append(_encode(encoder, batch))
            embedded += (_without_pixels(one) for one in batch)
            batch.clear()
        progress.advance()
    if batch:
        vectors.append(_encode(encoder, batch))
        embedded += (_without_pixels(one) for one in batch)
    log.info("%d embedded + %d rejected = %d in the shard", len(embedded), len(rejected), rows.num_rows)

    entry = models.parse(key)
    provenance = {
        "made_by": "lookalike embed",
        "model": model,
        "key": key,
        "weights": fetched.model_dump(),
        "weights_sha256": hashlib.sha256(fetched.model_dump_json().encode()).hexdigest(),
        "dtypes": {"compute": encoder.compute_dtype, "stored": entry.stored_dtype},
        "versions": {**encoder.versions, **store.versions("pyarrow")},
    }
    reasons = {"image_id": [one.image_id for one in rejected], "path": [one.path for one in rejected]}
    reasons["reason"] = [one.reason for one in rejected]
    store.write_table(pa.table(reasons, schema=REJECTED.schema()), rejected_out, REJECTED, provenance)
    table = _table(embedded, vectors, encoder.dimension, entry.stored_dtype)
    store.write_table(table, out, EMBEDDINGS, provenance)
    store.write_json(
        EmbedTiming(
            images=len(embedded),
            seconds=time.perf_counter() - loaded,
            load_seconds=loaded - started,
            device=encoder.device,
            batch_size=batch_size,
        ),
        timing_out,
    )


def _check_roots(rows: pa.Table, shard: str) -> None:
    """An unmounted disk must not turn a whole data set into rejected pictures."""
    for root in rows["root"].unique().to_pylist():
        if not Path(root).is_dir():
            raise LookalikeError(
                f"{shard}: its pictures are in {root}, and that folder does not exist now. Bring it back "
                "(a disk that is not mounted?); pictures under results/ are made again by --forcerun make_images."
            )


def _prepared(rows: pa.Table, encoder: models.Encoder, threads: int, ahead: int) -> Iterator[Picture]:
    """Read, decode and prepare in threads, at most ``ahead`` pictures before they are needed, in order."""

    def prepare(row: dict[str, Any]) -> Picture:
        try:
            image, sha256 = images.read(row["root"], row["path"])
        except images.BadImage as bad:
            return Picture(row["image_id"], row["path"], reason=str(bad))
        return Picture(row["image_id"], row["path"], sha256, encoder.prepare(image))

    remaining = iter(rows.to_pylist())
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Picture]] = deque(pool.submit(prepare, row) for row in islice(remaining, ahead))
        while waiting:
            picture = waiting.popleft().result()
            waiting.extend(pool.submit(prepare, row) for row in islice(remaining, 1))
            yield picture


def _encode(encoder: models.Encoder, batch: list[Picture]) -> NDArray[np.float32]:
    vectors = encoder.encode(np.stack([one.prepared for one in batch if one.prepared is not None]))
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise LookalikeError(
            f"{batch[int(np.argmin(finite))].path}: the model gave NaN or infinite numbers for this picture. "
            "Try compute_dtype: float32; if that does not help, the weights are damaged."
        )
    return vectors


def _without_pixels(picture: Picture) -> Picture:
    return Picture(picture.image_id, picture.path, picture.sha256)


def _table(embedded: list[Picture], vectors: list[NDArray[np.float32]], dimension: int, dtype: str) -> pa.Table:
    matrix = np.concatenate(vectors) if vectors else np.empty((0, dimension), np.float32)
    values = pa.array(matrix.astype(dtype).reshape(-1))
    return pa.table(
        {
            "image_id": pa.array([one.image_id for one in embedded], pa.string()),
            "sha256": pa.array([one.sha256 for one in embedded], pa.string()),
            "embedding": pa.FixedSizeListArray.from_arrays(values, dimension),
        }
    )
