"""Content hashes of a data set's images, in files and archives: computed in parallel, and kept until a file changes."""

import hashlib
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from lookalike.io import archives, content_hashes, store
from lookalike.job.progress import Progress

log = logging.getLogger(__name__)

COLUMN = "content_hash"
SEEN = pa.schema({"path": pa.string(), "stamp": pa.string(), COLUMN: pa.string()})
THREADS = 16  # a network storage answers each after milliseconds, and many at a time
AT_ONCE = 256  # files a thread
SETTLED = 2_000_000_000  # nanoseconds: what changed later than that may change again within one tick of its clock


def fill(images: pa.Table, cache: Path | None = None, *, keep: bool = True) -> pa.Table:
    """An images table with a content hash in every row: where it had none, the file's.

    ``cache`` is the file that says which hash each file had, by its size, dates and inode; one that is missing or
    damaged costs time and nothing else. It is written anew where ``keep`` says so.
    """
    if COLUMN not in images.column_names:
        images = images.append_column(COLUMN, pa.nulls(images.num_rows, pa.string()))
    at = images.column_names.index(COLUMN)
    known = images[COLUMN].combine_chunks()
    unknown = pc.is_null(known)
    wanted = images.filter(unknown)
    if not wanted.num_rows:
        return images
    started = time.time_ns()
    paths = pc.binary_join_element_wise(wanted["root"], wanted["path"], "/")
    before = _read(cache) if cache else SEEN.empty_table()
    places = pc.index_in(paths, value_set=before["path"])
    seen = _look(pa.table([paths, before["stamp"].take(places), before[COLUMN].take(places)], schema=SEEN))
    if cache and keep:
        _write(seen.filter(pa.array([_is_settled(one, started) for one in seen["stamp"].to_pylist()])), cache)
    return images.set_column(at, COLUMN, pc.replace_with_mask(known, unknown, seen[COLUMN].combine_chunks()))


def _look(files: pa.Table) -> pa.Table:
    """The same table as it is now; only what is not as it was is read."""
    starts = range(0, files.num_rows, AT_ONCE)
    progress = Progress("looked at", files.num_rows, "files")
    looked = []
    with ThreadPoolExecutor(THREADS) as threads:
        for part in threads.map(lambda start: _look_at(files.slice(start, AT_ONCE)), starts):
            looked.append(part)
            for _ in range(part.num_rows):
                progress.advance()
    return pa.concat_tables(looked)


def _look_at(files: pa.Table) -> pa.Table:
    paths, stamps, hashes = (column.to_pylist() for column in files.columns)
    now = [_now(*file) for file in zip(paths, stamps, hashes, strict=True)]
    return pa.table([paths, *([one[place] for one in now] for place in (0, 1))], schema=SEEN)


def _now(path: str, stamp: str | None, content_hash: str | None) -> tuple[str, str]:
    inside = archives.split(path)
    if inside and not Path(path).exists():
        return _member_now(*inside, stamp, content_hash)
    with suppress(OSError):
        if stamp and content_hash and content_hashes.stamp(os.stat(path)) == stamp:  # noqa: PTH116 (quicker)
            return stamp, content_hash
    return content_hashes.look(path)


def _member_now(archive: str, name: str, stamp: str | None, content_hash: str | None) -> tuple[str, str]:
    """The stamp is the archive's, so one that was packed again is read again; the hash is that of the contents."""
    with suppress(OSError, archives.ArchiveError):
        now = content_hashes.stamp(Path(archive).stat())
        if now == stamp and content_hash:
            return now, content_hash
        crc = archives.find(archive, name).crc
        return now, content_hashes.of(archives.read(archive, name)) if crc is None else content_hashes.of_crc(crc)
    return "", content_hashes.UNREADABLE


def _is_settled(stamp: str, started: int) -> bool:
    """Whether a file that changes from now on will have another date."""
    return bool(stamp) and max(map(int, stamp.split()[1:3])) < started - SETTLED


def _read(cache: Path) -> pa.Table:
    try:
        data = cache.read_bytes()
        if hashlib.sha256(data[32:]).digest() == data[:32]:
            with pa.ipc.open_stream(pa.py_buffer(data)[32:]) as stream:
                return stream.read_all().cast(SEEN)
        log.warning("%s: is damaged; every file is hashed again", cache)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # one that another version wrote, say
        log.warning("%s: cannot be read (%s); every file is hashed again", cache, error)
    return SEEN.empty_table()


def _write(seen: pa.Table, cache: Path) -> None:
    """Not as Parquet: nobody else reads it, and a flipped bit must not become a hash."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SEEN, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stream:
        stream.write_table(seen)
    data = sink.getvalue()
    with store.atomic(cache) as temporary, temporary.open("wb") as file:
        file.write(hashlib.sha256(data).digest())
        file.write(data)
