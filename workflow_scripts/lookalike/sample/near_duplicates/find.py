"""The stage `find_near_duplicates`: which files of a data set show the same image."""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lookalike.io import identity, images, in_work, made_images, store
from lookalike.io.formats.tables import NEAR_DUPLICATES, SHARD
from lookalike.job import memory
from lookalike.job.errors import LookalikeError
from lookalike.job.progress import Progress
from lookalike.sample.near_duplicates.groups import MOST_PAIRS, same_images, stars
from lookalike.sample.near_duplicates.signatures import Bytes, Signatures, joined, least_size, sign, thumbnail

log = logging.getLogger(__name__)

AT_ONCE = 1 << 10  # images whose thumbnails are in memory


@dataclass(frozen=True)
class NearDuplicatesJob:
    """The shards of one data set, where its groups go, and how long decoding one image may take.

    ``notes`` is a file for which images are in work (``io.in_work``).
    """

    shards: Sequence[str | Path]
    out: str | Path
    notes: str | Path
    threads: int
    image_seconds: float = 300
    archives: Sequence[str | Path] = ()  # of images that a run made


def find_near_duplicates(job: NearDuplicatesJob) -> None:
    """Write the NEAR_DUPLICATES table of a data set.

    Every image is decoded once, and 2 KB of it are kept. Rejected images are in no group; the footer counts them, and
    the flat ones. Raises LookalikeError for an image that has changed since it was sampled.
    """
    memory.return_large_blocks()
    shards = [store.read_table(path, SHARD) for path in job.shards]
    made_images.locate(job.archives)
    for path, rows in zip(job.shards, shards, strict=True):
        images.check_roots(rows, path)
    listed = pa.concat_tables(shards).sort_by("image_id")  # how a data set is split must not decide about groups
    ids: list[str] = []
    parts: list[Signatures] = []
    progress = Progress("decoded", listed.num_rows, "images")
    images_sha256 = identity.hash_images(listed)
    with (
        in_work.guarding(job.notes, images_sha256, job.image_seconds) as guard,
        ThreadPoolExecutor(job.threads) as threads,
    ):
        for names, small in thumbnails(listed, threads, progress, guard):
            ids += names
            parts.append(sign(small))
    found = same_images(joined(parts)) if ids else None
    group = stars(found.pairs, len(ids)) if found else np.empty(0, np.int64)
    if found and found.capped:
        log.warning("more than %s pairs are the same image, so groups are incomplete", f"{MOST_PAIRS:,}")
    grouped = np.flatnonzero(group >= 0)
    table = pa.table(
        {"group": [ids[group[row]] for row in grouped], "image_id": [ids[row] for row in grouped]},
        NEAR_DUPLICATES.schema(),
    ).sort_by([("group", "ascending"), ("image_id", "ascending")])
    flat = int(sum(part.flat.sum() for part in parts))
    provenance: dict[str, Any] = {
        "made_by": "lookalike find_near_duplicates",
        "images": listed.num_rows,
        "images_sha256": images_sha256,
        "rejected": listed.num_rows - len(ids),
        "flat": flat,
        "capped": bool(found and found.capped),
    }
    store.write_table(table, job.out, NEAR_DUPLICATES, provenance)
    log.info(
        "%s of %s images are in %s groups of near-duplicates; %s could not be decoded, %s are too flat to compare",
        *(f"{count:,}" for count in (len(grouped), listed.num_rows, len(set(table["group"].to_pylist())))),
        *(f"{count:,}" for count in (listed.num_rows - len(ids), flat)),
    )


def thumbnails(
    listed: pa.Table, threads: ThreadPoolExecutor, progress: Progress, guard: in_work.Guard
) -> Iterator[tuple[list[str], Bytes]]:
    """Ids and thumbnails of the images that can be decoded, some at a time."""
    files, pixels = memory.Budget(memory.FILES_AT_ONCE), memory.Budget(memory.AT_ONCE)

    def load(row: dict[str, Any]) -> Bytes | None:
        try:
            with files.share() as take_file, pixels.share() as take_pixels:
                take_file(row["bytes"])
                data = guard.read(row)
                return thumbnail(guard.decode(row, data, least_size, take_pixels)[0])
        except images.BadImage as bad:
            log.info("left out: %s/%s: %s", row["root"], row["path"], bad)
            return None
        except MemoryError as error:  # leaving it out would depend on what else was in memory
            raise LookalikeError(
                f"{row['root']}/{row['path']}: out of memory while reading it ({error}). Run on a machine with more "
                "memory, or remove the image from the data set."
            ) from error

    for start in range(0, listed.num_rows, AT_ONCE):
        rows = listed.slice(start, AT_ONCE).to_pylist()
        loaded = []
        for small in threads.map(load, rows):
            loaded.append(small)
            progress.advance()
        kept = [(row["image_id"], small) for row, small in zip(rows, loaded, strict=True) if small is not None]
        if kept:
            yield [name for name, _ in kept], np.stack([small for _, small in kept])
