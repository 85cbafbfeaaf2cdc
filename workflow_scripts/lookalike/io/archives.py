"""Members of zip and tar archives (WebDataset's shards too), read in place: nothing is unpacked.

An archive's index says where each member is; it is read once a process and kept until the archive changes.
"""

import os
import re
import stat
import struct
import tarfile
import threading
import zipfile
import zlib
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

EXTENSIONS = (".zip", ".tar")
SEPARATOR = re.compile(r"\.(?:zip|tar)(!)", re.IGNORECASE)  # `some.zip!member` is the `path` of an image in an archive
# A compressed tar has no places to read from: all that is before a member has to be decompressed.
COMPRESSED = re.compile(r".*\.(?:tgz|tbz2?|txz|tar\.(?:gz|bz2|xz|zst|lz4))", re.IGNORECASE)
COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
LARGEST = 1 << 30  # bytes of one unpacked member; no image is larger, and a zip bomb stops here
# Of a zip's table of contents: an entry, the lengths of what follows one, the end, the end of a large archive.
ENTRY = struct.Struct("<8xHH4xIIIHH10xI")
NAME = struct.Struct("<8xH18xHHH")
END_MARK, END, LARGE_END = b"PK\5\6", struct.Struct("<12xII2x"), struct.Struct("<40xQQ")
LOCATOR = 20  # bytes between the two ends
TOO_LARGE = 0xFFFF_FFFF  # means that the number is written elsewhere
UTF_8 = 0x800  # the flag of a name in UTF-8
LOCAL_HEADER = 30  # bytes; the name's length is at 26, the extra field's at 28 (PKWARE APPNOTE 4.3.7)
_lock = threading.Lock()


class ArchiveError(Exception):
    """An archive or a member that cannot be read; the message says why, in words that follow a name."""


@dataclass(frozen=True, slots=True)  # slots: a data set may have a million of them
class Member:
    """A file in an archive: its name there, where it starts, its size before and after unpacking.

    In a zip archive ``offset`` is that of its header, in a tar that of its contents. ``crc`` is None in a tar, which
    has no checksum of contents. ``special`` says what a member is that is not a regular file, such as a link.
    """

    name: str
    offset: int
    packed: int
    bytes: int
    method: int = zipfile.ZIP_STORED
    crc: int | None = None
    encrypted: bool = False
    special: str = ""


def split(path: str) -> tuple[str, str] | None:
    """``some.zip!member`` as archive and member; None for the path of a plain file."""
    found = SEPARATOR.search(path)
    return (path[: found.start(1)], path[found.end(1) :]) if found else None


@dataclass(frozen=True, slots=True)
class ZipIndex:
    """A zip archive's table of contents as it is in the file, and the place in it of each name.

    ``others`` are further places of a name that several members have; ``shift`` is added to all offsets.
    """

    table: bytes
    shift: int
    places: dict[str, int] = field(default_factory=dict)
    others: dict[str, list[int]] = field(default_factory=dict)

    def member(self, name: str, at: int) -> Member:
        """The member of the entry at a place of the table."""
        return _zip_member(self, name, at)


@dataclass(frozen=True, slots=True)
class TarIndex:
    """Where a tar's members are: of each name its row in ``offsets`` and ``sizes``; ``special`` says what some are."""

    offsets: "array[int]"
    sizes: "array[int]"
    special: dict[int, str]
    places: dict[str, int] = field(default_factory=dict)
    others: dict[str, list[int]] = field(default_factory=dict)

    def member(self, name: str, at: int) -> Member:
        """The member of a row."""
        size = self.sizes[at]
        return Member(name, self.offsets[at], size, size, special=self.special.get(at, ""))


def members(archive: str | Path) -> list[Member]:
    """Every member of an archive but folders, in the order in which they are in it. Raises ArchiveError."""
    with _in_words():
        index = _read_index.__wrapped__(*_as_it_is_now(Path(archive)))  # who lists does so once: not kept
        places = [*index.places.items(), *((name, at) for name, more in index.others.items() for at in more)]
        return sorted((index.member(name, at) for name, at in places), key=lambda member: member.offset)


def find(archive: str | Path, name: str) -> Member:
    """The member of a name. Raises ArchiveError for a missing one, one that cannot be read, and a duplicate name."""
    with _in_words():
        return _find(Path(archive), name)


def read(archive: str | Path, name: str) -> bytes:
    """The contents of a member. Raises ArchiveError where ``find`` does, and for damaged contents."""
    with _in_words():
        member = _find(Path(archive), name)
        with Path(archive).open("rb") as file:
            start = member.offset if member.crc is None else _start(file, member)
            packed = os.pread(file.fileno(), member.packed, start)
        data = _unpacked(packed, member)
        intact = member.crc is None or zlib.crc32(data) == member.crc
        if len(packed) < member.packed or len(data) != member.bytes or not intact:
            raise ArchiveError(f"'{name}' is damaged: its size or checksum is not the recorded one")
        return data


def _find(archive: Path, name: str) -> Member:
    index = _index(archive)
    if name not in index.places:
        raise ArchiveError(f"has no member '{name}'")
    if more := index.others.get(name):
        raise ArchiveError(f"has {1 + len(more)} members with the name '{name}'")
    member = index.member(name, index.places[name])
    if member.special:
        raise ArchiveError(f"'{name}' is {member.special}, not a regular file")
    if member.encrypted:
        raise ArchiveError(f"'{name}' is encrypted")
    if (largest := max(member.bytes, member.packed)) > LARGEST:
        raise ArchiveError(f"'{name}' has {largest:,} bytes; the limit is {LARGEST:,}")
    return member


def _start(file: BinaryIO, member: Member) -> int:
    """Where the contents of a zip archive's member start."""
    header = os.pread(file.fileno(), LOCAL_HEADER, member.offset) if member.offset >= 0 else b""
    if len(header) < LOCAL_HEADER or header[:4] != b"PK\3\4":
        raise ArchiveError(
            f"'{member.name}' is not where the archive's table of contents says; the archive is truncated or damaged"
        )
    return member.offset + LOCAL_HEADER + sum(int.from_bytes(header[at : at + 2], "little") for at in (26, 28))


def _unpacked(packed: bytes, member: Member) -> bytes:
    if member.method == zipfile.ZIP_STORED:
        return packed
    if member.method != zipfile.ZIP_DEFLATED:
        raise ArchiveError(
            f"'{member.name}' uses an unsupported compression (method {member.method}); zip it again with deflate"
        )
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, member.bytes + 1)
    except zlib.error as error:
        raise ArchiveError(f"'{member.name}' is damaged: {error}") from None


def _index(archive: Path) -> ZipIndex | TarIndex:
    now = _as_it_is_now(archive)
    with _lock:  # threads that all ask first would all read the same index
        return _read_index(*now)


def _as_it_is_now(archive: Path) -> tuple[str, int, int]:
    """Path, bytes and date."""
    now = archive.stat()
    if not stat.S_ISREG(now.st_mode):  # a named pipe would be waited for
        raise ArchiveError("is not a regular file, but a folder, a named pipe or a device")
    return str(archive), now.st_size, now.st_mtime_ns


@contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ArchiveError("is missing") from None
    except OSError as error:
        raise ArchiveError(f"cannot be read: {error.strerror}") from None
    except (ValueError, OverflowError, struct.error) as error:  # what a broken index leads to
        raise ArchiveError(f"is damaged or truncated ({error}); fetch it again") from None


@lru_cache(maxsize=64)
def _read_index(archive: str, size: int, date: int) -> ZipIndex | TarIndex:
    with Path(archive).open("rb") as file:
        return _read_tar(file) if archive.lower().endswith(".tar") else _read_zip(file, size)


def _add(index: ZipIndex | TarIndex, name: str, at: int) -> None:
    if index.places.setdefault(name, at) != at:
        index.others.setdefault(name, []).append(at)


def _read_tar(file: BinaryIO) -> TarIndex:
    """Raises ArchiveError for a tar that is compressed, damaged, or has no end: tarfile takes that for its end."""
    head = file.read(8)
    if kind := next((kind for magic, kind in COMPRESSIONS.items() if head.startswith(magic)), ""):
        raise ArchiveError(f"is a tar compressed with {kind}, which cannot be read in place; decompress it")
    file.seek(0)
    index = TarIndex(array("q"), array("q"), {})
    try:
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as tar:
            while entry := tar.next():
                tar.members.clear()  # type: ignore[attr-defined] # tarfile would keep a kilobyte a member
                if tar.offset <= entry.offset:  # a negative size would lead in circles
                    raise ArchiveError("is damaged: a member has a negative size; fetch it again")
                if entry.isdir():
                    continue
                row = len(index.sizes)
                index.offsets.append(entry.offset_data)
                index.sizes.append(entry.size)
                if not entry.isreg() or entry.issparse():
                    index.special[row] = "a sparse file" if entry.issparse() else "a link or a device"
                _add(index, _tar_name(entry.name), row)
            file.seek(tar.offset)
    except tarfile.TarError as error:
        raise ArchiveError(f"is not a tar archive, or is damaged or truncated ({error}); fetch it again") from None
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise ArchiveError("is damaged or truncated: its end marker is missing; fetch it again")
    while rest := file.read(1 << 20):
        if rest.count(0) != len(rest):
            raise ArchiveError("has data after its end marker, as joined archives do; repack it (`tar -i` unpacks it)")
    return index


def _tar_name(name: str) -> str:
    """Without the ``./`` that ``tar cf some.tar .`` writes; a name that is not UTF-8 as Latin-1."""
    name = re.sub(r"^(?:\./+)+", "", name)
    try:
        name.encode()
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogateescape").decode("latin-1")
    return name


def _read_zip(file: BinaryIO, size: int) -> ZipIndex:
    """Parsed here and not by zipfile, which takes four times as long: an embed job of DISC21 needs all its archives."""
    table, shift = _table_of_contents(file.fileno(), size)
    index = ZipIndex(table, shift)
    at = 0
    while at < len(table):
        if table[at : at + 4] != b"PK\1\2":
            raise ArchiveError("is damaged: its table of contents breaks off; fetch it again")
        flags, name, extra, comment = NAME.unpack_from(table, at)
        text = table[at + ENTRY.size : at + ENTRY.size + name].decode("utf-8" if flags & UTF_8 else "cp437")
        if not text.endswith("/"):
            _add(index, text, at)
        at += ENTRY.size + name + extra + comment
    if at > len(table):
        raise ArchiveError("is damaged: its table of contents breaks off; fetch it again")
    return index


def _table_of_contents(file: int, size: int) -> tuple[bytes, int]:
    """An archive's table of contents, and by how much all its offsets are too low.

    PKWARE APPNOTE 4.3.12 to 4.3.16. Raises ArchiveError.
    """
    start = max(size - END.size - 65_535, 0)  # a comment of so many bytes may follow
    tail = os.pread(file, size - start, start)
    at = tail.rfind(END_MARK)
    if at < 0 or at + END.size > len(tail):
        raise ArchiveError("is not a zip archive, or is truncated; fetch it again")
    length, offset = END.unpack_from(tail, at)
    end = start + at
    large = os.pread(file, LOCATOR, end - LOCATOR) if end >= LOCATOR else b""
    if large[:4] == b"PK\6\7":  # an archive of more than 4 GB or 65,535 members has another end before this one
        end -= LOCATOR + LARGE_END.size
        length, offset = LARGE_END.unpack(os.pread(file, LARGE_END.size, end))
    shift = end - length - offset
    if shift < 0:
        raise ArchiveError("is damaged or truncated: its table of contents is not where it should be; fetch it again")
    return os.pread(file, length, offset + shift), shift


def _zip_member(index: ZipIndex, name: str, at: int) -> Member:
    flags, method, crc, packed, whole, skip, extra, offset = ENTRY.unpack_from(index.table, at)
    sizes = [whole, packed, offset]
    if TOO_LARGE in sizes:  # then they are in an extra field, in this order
        rest = index.table[at + ENTRY.size + skip : at + ENTRY.size + skip + extra]
        while len(rest) >= 4:
            kind, length = struct.unpack_from("<HH", rest)
            if kind == 1:
                values = iter(struct.unpack_from(f"<{sizes.count(TOO_LARGE)}Q", rest, 4))
                sizes = [next(values) if size == TOO_LARGE else size for size in sizes]
                break
            rest = rest[4 + length :]
    whole, packed, offset = sizes
    return Member(name, offset + index.shift, packed, whole, method, crc, encrypted=bool(flags & 1))
