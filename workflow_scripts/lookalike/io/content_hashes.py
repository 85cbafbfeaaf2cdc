"""How a changed image file is noticed: a hash of its contents, besides its size.

For an archive's member it is the CRC-32 from the archive's table of contents, so nothing is unpacked. For a plain file
it is SHA-256 over the first, the middle and the last 64 KiB: all of a file of up to 192 KiB, and of a larger one as
much as a network delivers quickly. A change elsewhere in a larger file, of the same size, is not noticed. For an image
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
UNREADABLE = ""  # the content hash of a file that could not be read


def of_crc(crc: int) -> str:
    """The content hash of an archive's member, from its CRC-32."""
    return f"{CRC}{crc:08x}"


def of(data: bytes) -> str:
    """The content hash of a plain file, from its bytes."""
    view = memoryview(data)
    return _of_pieces(len(data), lambda start, size: view[start : start + size])


def of_made(data: bytes) -> str:
    """The content hash of an image that the run makes."""
    return f"{MADE}{hashlib.sha256(data).hexdigest()}"


def is_made(row: Mapping[str, Any]) -> bool:
    """Whether the image of a row was made by a run, so that it can be made again and is never rejected."""
    return str(row["content_hash"]).startswith(MADE)


def remedy(row: Mapping[str, Any]) -> str:
    """What to do about an image that has changed since it was sampled."""
    if is_made(row):
        return f"A run made it; make it again: --forcerun {row['root']}/manifest.parquet"
    return "Sample again, so that every model sees the same images: --forcerun sample"


def of_file(path: str | Path) -> str:
    """The content hash of a plain file, of which at most 192 KiB are read; UNREADABLE for anything else."""
    return look(path)[1]


def look(path: str | Path) -> tuple[str, str]:
    """A file's ``stamp`` and its content hash, both of the same moment."""
    with suppress(OSError, ValueError):  # ValueError: a zero byte in the name
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # does not wait for a pipe that nobody writes to
        try:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode):
                content_hash = _of_pieces(status.st_size, lambda start, size: os.pread(descriptor, size, start))
                return stamp(status), content_hash
        finally:
            os.close(descriptor)
    return "", UNREADABLE


def stamp(status: os.stat_result) -> str:
    """Size, dates and inode: while they stay the same, so do a file's contents. No program can set the change time."""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def _of_pieces(size: int, piece: Callable[[int, int], bytes | memoryview]) -> str:
    digest = hashlib.sha256(b"%d " % size)
    if size <= 3 * PIECE:
        digest.update(piece(0, size))
    else:
        for start in (0, (size - PIECE) // 2, size - PIECE):
            digest.update(piece(start, PIECE))
    return f"{PIECES}{digest.hexdigest()[:32]}"


def check(row: Mapping[str, Any], data: bytes) -> None:
    """Raise LookalikeError where ``data`` differs from what the row of a shard or of an images table records."""
    sampled = row["content_hash"]
    if len(data) != row["bytes"]:
        difference = f"it had {row['bytes']} bytes and has {len(data)} now"
    elif sampled == UNREADABLE:
        difference = "it could not be read then and can be read now"
    elif sampled != (
        of_crc(zlib.crc32(data)) if sampled.startswith(CRC) else of_made(data) if is_made(row) else of(data)
    ):
        difference = f"it still has {len(data)} bytes, but different ones"
    else:
        return
    raise LookalikeError(
        f"{row['root']}/{row['path']}: has changed since the data set was sampled: {difference}. {remedy(row)}"
    )
