"""Reads a folder once: of every image its vector, signature, a small version, and what decides which one to keep."""

import hashlib
import os
import re
import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from math import inf
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import ExifTags, Image

from lookalike.cli.duplicate_search.threads import in_threads
from lookalike.cli.watched import guarding
from lookalike.embed.library import Model
from lookalike.io import archives, images, in_work, phone_formats
from lookalike.io.color_profiles import Icc
from lookalike.io.formats.tables import SHARD
from lookalike.io.vectors import unit
from lookalike.job import memory
from lookalike.job.errors import LookalikeError
from lookalike.job.progress import Progress
from lookalike.sample import folder as folders
from lookalike.sample.left_out import LeftOut
from lookalike.sample.near_duplicates.signatures import Signatures, joined, sign, thumbnail

SMALL = 480  # pixels: the longer side of the small version that is kept of every image
QUALITY = 90
TAKEN = re.compile(r"(?!0000)\d{4}[:-]\d\d[:-]\d\d \d\d:\d\d:\d\d.*", re.ASCII)  # not blank, zero, or another text

Vectors = NDArray[np.float32]
Row = tuple[str, str, str, int]  # path, folder, path in it, bytes


@dataclass(frozen=True)
class File:
    """An image file: its path, and what decides which of several to keep. ``taken`` is EXIF's, or empty."""

    path: str
    root: str
    sha256: str
    width: int
    height: int
    bytes: int
    format: str
    taken: str
    modified: float

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height


class SmallImages:
    """Small versions of images, as JPEG in a temporary file: 10,000 take about 300 MB of disk and no memory."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="lookalike-")  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._places: dict[str, tuple[int, int]] = {}
        self._end = 0
        self._lock = threading.Lock()

    def add(self, key: str, image: Image.Image) -> None:
        """Keep a small version of an image."""
        small = image.copy() if max(image.size) <= SMALL else None
        if small is None:
            scale = SMALL / max(image.size)
            size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
            small = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
        data = BytesIO()
        small.save(data, "JPEG", quality=QUALITY)
        with self._lock:
            self._places[key] = self._end, len(data.getvalue())
            os.pwrite(self._file.fileno(), data.getvalue(), self._end)
            self._end += len(data.getvalue())

    def get(self, key: str) -> bytes:
        """The bytes of a JPEG file."""
        start, size = self._places[key]
        return os.pread(self._file.fileno(), size, start)


@dataclass
class Collection:
    """The images of a folder, or of two.

    files: readable ones, by path. unreadable: path -> reason. found: how many there are of both.
    contents: SHA-256 of each distinct file, in order of its first path; the rows of ``vectors`` ((n, d) float32, unit
    length) and of the images that ``signatures`` are of.
    """

    files: list[File]
    unreadable: dict[str, str]
    left_out: list[str]
    contents: list[str]
    vectors: Vectors
    signatures: Signatures
    small: SmallImages = field(repr=False)

    @property
    def found(self) -> int:
        """The number of image files."""
        return len(self.files) + len(self.unreadable)


class _Reader(in_work.Guard):
    """Reads files and notes what they are; sees each decoded image. ``guard`` watches over decoding."""

    def __init__(self, small: SmallImages, guard: in_work.Guard) -> None:
        self.small = small
        self.guard, self.suspects = guard, guard.suspects
        self.facts: dict[str, tuple[str, int, str, str]] = {}  # path -> SHA-256, bytes, format, taken
        self.signatures: dict[str, Signatures] = {}  # by SHA-256
        self._reading = threading.local()

    def read(self, row: in_work.Row) -> bytes:
        """The bytes of an image. Raises BadImage."""
        if not row["root"] and not archives.split(row["path"]) and not Path(row["path"]).exists():
            raise images.BadImage("no such file")
        data = images.read(row["root"], row["path"])
        sha256 = hashlib.sha256(data).hexdigest()
        self.facts[row["image_id"]] = (sha256, len(data), *_format_and_date(data))
        self._reading.sha256 = sha256
        return data

    @contextmanager
    def decoding(self, row: in_work.Row, reserve: memory.Take | None) -> Iterator[memory.Take | None]:
        """Note that an image is decoded."""
        with self.guard.decoding(row, reserve) as take:
            yield take

    def alone(
        self, row: in_work.Row, data: bytes, needs: in_work.Needs | None, icc: Icc = "ignore"
    ) -> tuple[Image.Image, in_work.Size]:
        """Decode an image in a process of its own. Raises BadImage, MemoryError."""
        return self.guard.alone(row, data, needs, icc)

    def see(self, image: Image.Image) -> None:
        """Keep what comparisons need; called in the thread that has just read the image's file."""
        sha256: str = self._reading.sha256
        if sha256 not in self.signatures:
            self.small.add(sha256, image)
            self.signatures[sha256] = sign(thumbnail(image)[None])


@dataclass(frozen=True)
class Listing:
    """Images to read: path, folder, path in it, and bytes of each; and what is left out, in words."""

    rows: list[Row]
    left_out: list[str]


def list_folders(roots: Sequence[str]) -> Listing:
    """List the images of folders. Raises LookalikeError for an empty or missing one.

    Symlinks to images are followed; a file that is reached by several paths is one image, at the first of them.
    """
    rows: list[Row] = []
    left_out: list[str] = []
    for root in roots:
        skipped: dict[str, LeftOut] = {}
        sizes, inside = folders.list_images(root, "DIR", skipped)
        left_out += [line for odd in skipped.values() for line in odd.lines()]
        found = {name: inside.paths.get(name, name) for name in sizes}
        rows += [(_safe(str(Path(root) / path)), root, path, sizes[name]) for name, path in found.items()]
    rows, aliases = _once(rows)
    if aliases:
        left_out.append(f"links to images that are already listed: {len(aliases):,}, such as {aliases[0]}")
    return Listing(rows, left_out)


def _safe(path: str) -> str:
    """A path that is not a formula to a spreadsheet, and not an option to other commands."""
    return f"./{path}" if path.startswith(("=", "+", "-", "@", "\t", "\r")) else path


def list_files(paths: Iterable[str]) -> Listing:
    """List files; two paths of one file count once. Raises LookalikeError for a name that is not UTF-8."""
    paths = [*paths]
    for path in paths:
        folders.check_name(path, "find_duplicates")
    rows = [(path, "", path, Path(path).stat().st_size if Path(path).is_file() else 0) for path in sorted({*paths})]
    return Listing(_once(rows)[0], [])


def read(listing: Listing, model: Model, store: Path, threads: int) -> Collection:
    """Read and embed images, each decoded once; ``store`` is a vector store.

    Raises LookalikeError if no image can be read.
    """
    rows = listing.rows
    files: list[File] = []
    kept: dict[str, NDArray[np.float32]] = {}  # SHA-256 -> vector
    table = _table(rows)
    with guarding(store.parent, [row[0] for row in rows]) as guard:
        reader = _Reader(SmallImages(), guard)
        done = model.embed_files(table, reader, reader.see, store)
        failed = _see_others(reader, table, {image.image_id: image.sha256 for image in done.images}, threads)
    unreadable = {image.image_id: image.reason for image in done.rejected}
    unreadable |= {image.image_id: failed[image.sha256] for image in done.images if image.sha256 in failed}
    root_of = {name: root for name, root, _, _ in rows}
    for number, image in enumerate(done.images):
        if image.sha256 in failed:
            continue
        sha256, size, form, taken = reader.facts[image.image_id]
        width, height = image.size
        files.append(
            File(
                path=image.image_id,
                root=root_of[image.image_id],
                sha256=sha256,
                width=width,
                height=height,
                bytes=size,
                format=form,
                taken=taken,
                modified=_modified(image.image_id),
            )
        )
        kept.setdefault(sha256, np.asarray(done.vectors[number], np.float32))
    if not files:
        first = next(iter(unreadable.items()), ("", ""))
        raise LookalikeError(
            f"none of the {len(rows):,} images can be read; the first: {first[0]}: {first[1]}. Fix or convert them, or "
            "choose others."
        )
    contents = list(kept)
    return Collection(
        files=files,
        unreadable=unreadable,
        left_out=listing.left_out,
        contents=contents,
        vectors=unit(np.stack([kept[sha256] for sha256 in contents])),
        signatures=joined([reader.signatures[sha256] for sha256 in contents]),
        small=reader.small,
    )


def _see_others(reader: _Reader, table: pa.Table, hashes: dict[str, str], threads: int) -> dict[str, str]:
    """Decode the images whose vectors came from the vector store; SHA-256 -> reason of those that cannot be.

    hashes: path -> SHA-256 of all that have a vector
    """
    rows = {hashes[row["image_id"]]: row for row in table.to_pylist() if row["image_id"] in hashes}
    others = [row for sha256, row in rows.items() if sha256 not in reader.signatures]
    progress = Progress("decoded", len(others), "images that were embedded before")
    pixels = memory.Budget(memory.AT_ONCE)

    def look(row: in_work.Row) -> str:
        try:
            data = reader.read(row)
            with pixels.share() as take:
                reader.see(reader.decode(row, data, reserve=take)[0])
        except images.BadImage as bad:
            return str(bad)
        return ""

    failed = {}
    for row, reason in zip(others, in_threads(look, others, threads), strict=True):
        progress.advance()
        if reason:
            failed[hashes[row["image_id"]]] = reason
    return failed


def _once(rows: list[Row]) -> tuple[list[Row], list[str]]:
    """Rows without those that are another path of the same file, and the paths of these, which are not copies."""
    seen: set[str] = set()
    once: list[Row] = []
    aliases: list[Row] = []
    for row in sorted(rows, key=lambda row: (Path(row[0]).is_symlink(), row[0])):
        real = os.path.realpath(row[0])
        (aliases if real in seen else once).append(row)
        seen.add(real)
    return sorted(once), sorted(row[0] for row in aliases)


def _table(rows: list[Row]) -> pa.Table:
    columns = [list(column) for column in zip(*rows, strict=True)]
    return pa.table(dict(zip(SHARD.columns, [*columns, [""] * len(rows)], strict=True)), SHARD.schema())


def _modified(path: str) -> float:
    with suppress(OSError):
        return Path(path).stat().st_mtime
    return inf  # in an archive: a file of its own is kept rather than this


def _format_and_date(data: bytes) -> tuple[str, str]:
    """The format's name, and when a camera took the image, as EXIF has it; empty where the file does not say."""
    try:
        if kind := phone_formats.kind_of(data):
            if phone_formats.is_jpeg_xl(data):  # opening it would decode it
                return kind.name, ""
            image = phone_formats.opened(data, kind, images.FORMATS)
        else:
            image = Image.open(BytesIO(data), formats=images.FORMATS)
        form = image.format or ""
        exif = image.getexif() if form != "PNG" or b"eXIf" in data else Image.Exif()
        original = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal)
        date = original or exif.get(ExifTags.Base.DateTime) or ""
        date = str(date).replace("\0", "").strip()
        return form, date if TAKEN.fullmatch(date) else ""
    except Exception:  # a broken file may make Pillow raise anything; decoding it will say why
        return "", ""
