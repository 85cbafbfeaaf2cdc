"""What tells that an image file is no longer the one that was sampled: a hash of its contents, beside its size.

Of an archive's member it is the CRC-32 that the archive's table of contents has, so nothing is unpacked. Of a plain
file it is SHA-256 over the first, the middle and the last 64 KiB: all of a file of up to 192 KiB, and of a larger one
what a network can bring in a moment. A change elsewhere in a larger file, of the same size, is not seen. Of an image
that a run made itself it is the SHA-256 of all of it: its true match is known because of how it was made.
"""

import hashlib
import os
import stat
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lookalike.job.errors import LookalikeError

PIECE = 1 << 16
CRC, PIECES, MADE = "crc32:", "pieces:", "sha256:"  # how the three kinds begin
UNREADABLE = ""  # stands for the contents of a file that could not be read


def of_crc(crc: int) -> str:
    """Of an archive's member, by its CRC-32."""
    return f"{CRC}{crc:08x}"


def of(data: bytes) -> str:
    """Of a plain file, by its bytes."""
    whole = memoryview(data)
    return _of_pieces(len(data), lambda start, size: whole[start : start + size])


def of_made(data: bytes) -> str:
    """Of an image that the run makes."""
    return f"{MADE}{hashlib.sha256(data).hexdigest()}"


def is_made(row: Mapping[str, Any]) -> bool:
    """Whether the image of such a row was made by a run, so that it can be made again, and never be refused."""
    return str(row["content_hash"]).startswith(MADE)


def remedy(row: Mapping[str, Any]) -> str:
    """What to do about an image that is not as it was sampled."""
    if is_made(row):
        return f"A run had made it; make it again: --forcerun {row['root']}/manifest.parquet"
    return "Look again, so that every model sees the same pictures: --forcerun sample"


def of_file(path: str | Path) -> str:
    """Of a plain file, of which at most 192 KiB are read; UNREADABLE for what is no file or cannot be read."""
    return look(path)[1]


def look(path: str | Path) -> tuple[str, str]:
    """What is known of a file without reading it (``stamp``), and its content hash, both as of one moment."""
    with suppress(OSError, ValueError):  # ValueError: a zero byte in the name
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe that nobody writes to would be waited for
        try:
            now = os.fstat(descriptor)
            if stat.S_ISREG(now.st_mode):
                found = _of_pieces(now.st_size, lambda start, size: os.pread(descriptor, size, start))
                return stamp(now), found
        finally:
            os.close(descriptor)
    return "", UNREADABLE


def stamp(now: os.stat_result) -> str:
    """Size, dates and inode: as long as they stay, so do a file's contents. A program can set no date of change."""
    return f"{now.st_size} {now.st_mtime_ns} {now.st_ctime_ns} {now.st_ino}"


def _of_pieces(size: int, piece: Callable[[int, int], bytes | memoryview]) -> str:
    digest = hashlib.sha256(b"%d " % size)
    if size <= 3 * PIECE:
        digest.update(piece(0, size))
    else:
        for start in (0, (size - PIECE) // 2, size - PIECE):
            digest.update(piece(start, PIECE))
    return f"{PIECES}{digest.hexdigest()[:32]}"


def check(row: Mapping[str, Any], data: bytes) -> None:
    """Raise LookalikeError where ``data`` is not what the row of a shard or of an images table was sampled with."""
    sampled = row["content_hash"]
    if len(data) != row["bytes"]:
        difference = f"it had {row['bytes']} bytes and has {len(data)} now"
    elif sampled == UNREADABLE:
        difference = "it could not be read then, and can be now"
    elif sampled != (
        of_crc(zlib.crc32(data)) if sampled.startswith(CRC) else of_made(data) if is_made(row) else of(data)
    ):
        difference = f"it has {len(data)} bytes as it had then, but not the same ones"
    else:
        return
    raise LookalikeError(
        f"{row['root']}/{row['path']}: has changed since the data set was sampled: {difference}. {remedy(row)}"
    )
