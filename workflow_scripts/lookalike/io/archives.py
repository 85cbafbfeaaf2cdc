"""Members of zip archives, read where they lie: nothing is unpacked, and threads read side by side."""

import os
import stat
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

SEPARATOR = ".zip!"  # between an archive and its member, in the `path` of a picture
LARGEST = 1 << 30  # bytes of one unpacked member; no picture is larger, and a zip bomb stops here
# Of the table of contents: an entry, the lengths of what follows one, the end, the end of a large archive.
ENTRY = struct.Struct("<8xHH4xIIIHH10xI")
NAME = struct.Struct("<8xH18xHHH")
END_MARK, END, LARGE_END = b"PK\5\6", struct.Struct("<12xII2x"), struct.Struct("<40xQQ")
LOCATOR = 20  # bytes between the two ends
TOO_LARGE = 0xFFFF_FFFF  # stands for a number that is written elsewhere
UTF_8 = 0x800  # the flag of a name in UTF-8
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


@dataclass(frozen=True, slots=True)
class Directory:
    """An archive's table of contents as it stands in the file, and where in it each name does.

    ``others`` are further places of a name that several members bear; ``shift`` is added to all offsets.
    """

    table: bytes
    shift: int
    places: dict[str, int]
    others: dict[str, list[int]]


def members(archive: str | Path) -> list[Member]:
    """Every file in an archive, in the order in which they lie in it. Raises ArchiveError."""
    with _in_words():
        directory = _read_directory.__wrapped__(*_as_it_is_now(Path(archive)))  # who lists does so once: not kept
        places = [*directory.places.items(), *((name, at) for name, more in directory.others.items() for at in more)]
        return sorted((_member(directory, name, at) for name, at in places), key=lambda one: one.offset)


def read(archive: str | Path, name: str) -> bytes:
    """The contents of a member. Raises ArchiveError, also for a name that two members bear."""
    with _in_words():
        return _read(Path(archive), name)


def _read(archive: Path, name: str) -> bytes:
    directory = _directory(archive)
    if name not in directory.places:
        raise ArchiveError(f"has no member '{name}'")
    if more := directory.others.get(name):
        raise ArchiveError(f"has {1 + len(more)} members of the name '{name}'")
    member = _member(directory, name, directory.places[name])
    if member.encrypted:
        raise ArchiveError(f"'{name}' is encrypted")
    if (most := max(member.bytes, member.packed)) > LARGEST:
        raise ArchiveError(f"'{name}' has {most:,} bytes; the limit is {LARGEST:,}")
    with archive.open("rb") as file:
        header = os.pread(file.fileno(), LOCAL_HEADER, member.offset) if member.offset >= 0 else b""
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


def _directory(archive: Path) -> Directory:
    now = _as_it_is_now(archive)
    with _one_at_a_time:  # threads that all ask first would all read the same table of contents
        return _read_directory(*now)


def _as_it_is_now(archive: Path) -> tuple[str, int, int]:
    """Path, bytes and date."""
    now = archive.stat()
    if not stat.S_ISREG(now.st_mode):  # a named pipe would be waited for
        raise ArchiveError("is no file, but a folder, a named pipe or a device")
    return str(archive), now.st_size, now.st_mtime_ns


@contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ArchiveError("is gone, or was never there") from None
    except OSError as error:
        raise ArchiveError(f"cannot be read: {error.strerror}") from None
    except (ValueError, OverflowError, struct.error) as error:  # what a broken table of contents leads to
        raise ArchiveError(f"is damaged, or cut short ({error}); fetch it again") from None


@lru_cache(maxsize=64)
def _read_directory(archive: str, size: int, date: int) -> Directory:
    """Read here and not by zipfile, which takes four times as long: an embed job of DISC21 needs all its archives'."""
    with Path(archive).open("rb") as file:
        table, shift = _table_of_contents(file.fileno(), size)
    directory = Directory(table, shift, {}, {})
    at = 0
    while at < len(table):
        if table[at : at + 4] != b"PK\1\2":
            raise ArchiveError("is damaged: its table of contents breaks off; fetch it again")
        flags, name, extra, comment = NAME.unpack_from(table, at)
        text = table[at + ENTRY.size : at + ENTRY.size + name].decode("utf-8" if flags & UTF_8 else "cp437")
        if not text.endswith("/") and directory.places.setdefault(text, at) != at:
            directory.others.setdefault(text, []).append(at)
        at += ENTRY.size + name + extra + comment
    if at > len(table):
        raise ArchiveError("is damaged: its table of contents breaks off; fetch it again")
    return directory


def _table_of_contents(file: int, size: int) -> tuple[bytes, int]:
    """An archive's table of contents, and by how much all that it says of places is too low.

    PKWARE APPNOTE 4.3.12 to 4.3.16. Raises ArchiveError.
    """
    start = max(size - END.size - 65_535, 0)  # a comment of so many bytes may follow
    tail = os.pread(file, size - start, start)
    at = tail.rfind(END_MARK)
    if at < 0 or at + END.size > len(tail):
        raise ArchiveError("is no zip archive, or is cut short; fetch it again")
    length, offset = END.unpack_from(tail, at)
    end = start + at
    large = os.pread(file, LOCATOR, end - LOCATOR) if end >= LOCATOR else b""
    if large[:4] == b"PK\6\7":  # an archive of more than 4 GB or 65,535 members has another end before this one
        end -= LOCATOR + LARGE_END.size
        length, offset = LARGE_END.unpack(os.pread(file, LARGE_END.size, end))
    shift = end - length - offset
    if shift < 0:
        raise ArchiveError("is damaged or cut short: its table of contents is not where it should be; fetch it again")
    return os.pread(file, length, offset + shift), shift


def _member(directory: Directory, name: str, at: int) -> Member:
    flags, method, crc, packed, whole, skip, extra, offset = ENTRY.unpack_from(directory.table, at)
    sizes = [whole, packed, offset]
    if TOO_LARGE in sizes:  # then what they are stands in an extra field, in this order
        rest = directory.table[at + ENTRY.size + skip : at + ENTRY.size + skip + extra]
        while len(rest) >= 4:
            kind, length = struct.unpack_from("<HH", rest)
            if kind == 1:
                found = iter(struct.unpack_from(f"<{sizes.count(TOO_LARGE)}Q", rest, 4))
                sizes = [next(found) if one == TOO_LARGE else one for one in sizes]
                break
            rest = rest[4 + length :]
    whole, packed, offset = sizes
    return Member(name, offset + directory.shift, packed, whole, method, crc, encrypted=bool(flags & 1))
