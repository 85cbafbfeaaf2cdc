"""Members of zip archives, read where they lie: nothing is unpacked, and threads read side by side."""

import os
import threading
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

SEPARATOR = ".zip!"  # between an archive and its member, in the `path` of a picture
LARGEST = 1 << 30  # bytes of one unpacked member; no picture is larger, and a zip bomb stops here
LOCAL_HEADER = 30  # bytes; the name's length stands at 26, the extra field's at 28 (PKWARE APPNOTE 4.3.7)
_one_at_a_time = threading.Lock()


class ArchiveError(Exception):
    """An archive or a member that cannot be read; the message says why, in words that follow a name."""


@dataclass(frozen=True, slots=True)  # slots: a data set may have a million of them
class Member:
    """A file in an archive: its name there, where it starts, its size before and after unpacking."""

    name: str
    offset: int
    packed: int
    bytes: int
    method: int
    crc: int
    encrypted: bool


def split(path: str) -> tuple[str, str] | None:
    """``some.zip!member`` as archive and member; None for the path of a plain file."""
    at = path.lower().find(SEPARATOR)
    return (path[: at + 4], path[at + len(SEPARATOR) :]) if at >= 0 else None


def members(archive: str | Path) -> list[Member]:
    """Every file in an archive, in the order in which they lie in it. Raises ArchiveError."""
    return sorted((one for same in _directory(archive).values() for one in same), key=lambda one: one.offset)


def read(archive: str | Path, name: str) -> bytes:
    """The contents of a member. Raises ArchiveError, also for a name that two members bear."""
    found = _directory(archive).get(name)
    if not found:
        raise ArchiveError(f"has no member '{name}'")
    if len(found) > 1:
        raise ArchiveError(f"has {len(found)} members of the name '{name}'")
    (member,) = found
    if member.encrypted:
        raise ArchiveError(f"'{name}' is encrypted")
    if member.bytes > LARGEST:
        raise ArchiveError(f"'{name}' has {member.bytes:,} bytes; the limit is {LARGEST:,}")
    with Path(archive).open("rb") as file:
        header = os.pread(file.fileno(), LOCAL_HEADER, member.offset)
        if len(header) < LOCAL_HEADER or header[:4] != b"PK\3\4":
            raise ArchiveError(
                f"'{name}' is not where the archive's table of contents says; it is cut short or damaged"
            )
        start = member.offset + LOCAL_HEADER + sum(int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
        packed = os.pread(file.fileno(), member.packed, start)
    data = _unpacked(packed, member)
    if len(packed) < member.packed or len(data) != member.bytes or zlib.crc32(data) != member.crc:
        raise ArchiveError(f"'{name}' is damaged: its checksum is not the one that was noted")
    return data


def _unpacked(packed: bytes, member: Member) -> bytes:
    if member.method == zipfile.ZIP_STORED:
        return packed
    if member.method != zipfile.ZIP_DEFLATED:
        raise ArchiveError(f"'{member.name}' is packed in an unusual way (method {member.method}); pack it again")
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, member.bytes + 1)
    except zlib.error as error:
        raise ArchiveError(f"'{member.name}' is damaged: {error}") from None


def _directory(archive: str | Path) -> dict[str, list[Member]]:
    try:
        now = Path(archive).stat()
        with _one_at_a_time:  # threads that all ask first would all read the same table of contents
            return _read_directory(str(archive), now.st_size, now.st_mtime_ns)
    except FileNotFoundError:
        raise ArchiveError("is gone, or was never there") from None
    except OSError as error:
        raise ArchiveError(f"cannot be read: {error.strerror}") from None
    except zipfile.BadZipFile as error:
        raise ArchiveError(f"is no zip archive, or is cut short ({error}); fetch it again") from None


@lru_cache(maxsize=64)
def _read_directory(archive: str, size: int, date: int) -> dict[str, list[Member]]:
    found: dict[str, list[Member]] = {}
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            if not info.is_dir():
                member = Member(
                    name=info.filename,
                    offset=info.header_offset,
                    packed=info.compress_size,
                    bytes=info.file_size,
                    method=info.compress_type,
                    crc=info.CRC,
                    encrypted=bool(info.flag_bits & 1),
                )
                found.setdefault(info.filename, []).append(member)
    return found
