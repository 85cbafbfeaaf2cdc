"""Content hashes of a data set's images, in files and archives: computed in parallel, cached until a file changes."""

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
CACHE = pa.schema({"path": pa.string(), "stamp": pa.string(), COLUMN: pa.string()})
THREADS = 16  # network storage takes milliseconds per request and serves many at a time
BATCH = 256  # files per task of a thread
SETTLED = 2_000_000_000  # nanoseconds; a file that changed more recently may change again without a new date


def fill(images: pa.Table, cache: Path | None = None, *, keep: bool = True) -> pa.Table:
    """An images table with a content hash in every row: where it had none, that of the file.

    ``cache`` is the file that records each file's hash with its size, dates and inode; one that is missing or damaged
    only costs time. It is rewritten unless ``keep`` is False.
    """
    if COLUMN not in images.column_names:
        images = images.append_column(COLUMN, pa.nulls(images.num_rows, pa.string()))
    position = images.column_names.index(COLUMN)
    hashes = images[COLUMN].combine_chunks()
    missing = pc.is_null(hashes)
    unhashed = images.filter(missing)
    if not unhashed.num_rows:
        return images
    started = time.time_ns()
    paths = pc.binary_join_element_wise(unhashed["root"], unhashed["path"], "/")
    cached = _read(cache) if cache else CACHE.empty_table()
    rows = pc.index_in(paths, value_set=cached["path"])
    files = _look(pa.table([paths, cached["stamp"].take(rows), cached[COLUMN].take(rows)], schema=CACHE))
    if cache and keep:
        _write(files.filter(pa.array([_is_settled(stamp, started) for stamp in files["stamp"].to_pylist()])), cache)
    return images.set_column(position, COLUMN, pc.replace_with_mask(hashes, missing, files[COLUMN].combine_chunks()))


def _look(files: pa.Table) -> pa.Table:
    """The same table with current stamps and hashes; only files that changed are read."""
    starts = range(0, files.num_rows, BATCH)
    progress = Progress("checked", files.num_rows, "files")
    checked = []
    with ThreadPoolExecutor(THREADS) as threads:
        for part in threads.map(lambda start: _look_at(files.slice(start, BATCH)), starts):
            checked.append(part)
            for _ in range(part.num_rows):
                progress.advance()
    return pa.concat_tables(checked)


def _look_at(files: pa.Table) -> pa.Table:
    paths, stamps, hashes = (column.to_pylist() for column in files.columns)
    current = [_current(*file) for file in zip(paths, stamps, hashes, strict=True)]
    return pa.table([paths, *([file[column] for file in current] for column in (0, 1))], schema=CACHE)


def _current(path: str, stamp: str | None, content_hash: str | None) -> tuple[str, str]:
    inside = archives.split(path)
    if inside and not Path(path).exists():
        return _current_member(*inside, stamp, content_hash)
    with suppress(OSError):
        if stamp and content_hash and content_hashes.stamp(os.stat(path)) == stamp:  # noqa: PTH116 (quicker)
            return stamp, content_hash
    return content_hashes.look(path)


def _current_member(archive: str, name: str, stamp: str | None, content_hash: str | None) -> tuple[str, str]:
    """The stamp is the archive's, so one that was packed again is read again; the hash is that of the contents."""
    with suppress(OSError, archives.ArchiveError):
        now = content_hashes.stamp(Path(archive).stat())
        if now == stamp and content_hash:
            return now, content_hash
        crc = archives.find(archive, name).crc
        return now, content_hashes.of(archives.read(archive, name)) if crc is None else content_hashes.of_crc(crc)
    return "", content_hashes.UNREADABLE


def _is_settled(stamp: str, started: int) -> bool:
    """Whether a file that changes from now on will get another date."""
    return bool(stamp) and max(map(int, stamp.split()[1:3])) < started - SETTLED


def _read(cache: Path) -> pa.Table:
    try:
        data = cache.read_bytes()
        if hashlib.sha256(data[32:]).digest() == data[:32]:
            with pa.ipc.open_stream(pa.py_buffer(data)[32:]) as stream:
                return stream.read_all().cast(CACHE)
        log.warning("%s: is damaged; every file is hashed again", cache)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # written by another version, for example
        log.warning("%s: cannot be read (%s); every file is hashed again", cache, error)
    return CACHE.empty_table()


def _write(files: pa.Table, cache: Path) -> None:
    """Not as Parquet: nothing else reads it, and a checksum of all bytes must cover it."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, CACHE, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stream:
        stream.write_table(files)
    data = sink.getvalue()
    with store.atomic(cache) as temporary, temporary.open("wb") as file:
        file.write(hashlib.sha256(data).digest())
        file.write(data)
