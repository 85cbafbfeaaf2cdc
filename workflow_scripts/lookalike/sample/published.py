"""What published data sets share: parts in folders or zip and tar archives, which are listed, counted and sampled.

Archives are never unpacked: an image's path is ``some.zip!member``, and workers read it in place.
"""

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.io import archives, content_hashes
from lookalike.io.formats.tables import IMAGES
from lookalike.job.errors import LookalikeError
from lookalike.sample import left_out
from lookalike.sample.found import Part
from lookalike.sample.left_out import LeftOut

log = logging.getLogger(__name__)

# `content_hash` is null for plain files: computed for those that are chosen (hashing.py), as for members of tars.
LISTED = pa.schema({"image_id": pa.string(), "path": pa.string(), "bytes": pa.int64(), "content_hash": pa.string()})


@dataclass
class Listing:
    """The images of a part: a table of LISTED, sorted by id, each id once."""

    images: pa.Table
    places: list[str]
    odd: LeftOut
    damaged: list[str]  # archives that cannot be read, and why


ARCHIVE = re.compile(r"\.(?:zip|tar)$", re.IGNORECASE)
JPEG = r"\.(?i:jpe?g)"  # spellings in use: .jpg, .JPG, .jpeg


def list_images(
    root: str,
    names: re.Pattern[str],
    file_names: re.Pattern[str],
    *,
    ending: str = "",
    tables: Sequence[str] = (),
    others: re.Pattern[str] | None = None,
) -> Listing:
    """Every image of a part: of all folders, zip and tar archives in ``root`` whose names match ``names``.

    An image is a file at any depth whose name matches ``file_names``; the id is that pattern's first group, and
    ``ending``. Of duplicates, files precede members of archives. ``tables`` are files that are known not to
    be images, and what matches ``others`` belongs to another part. Raises LookalikeError for a folder that cannot
    be read.
    """
    odd, damaged, places, found = LeftOut(), list[str](), list[str](), [LISTED.empty_table()]
    known = {os.path.relpath(table, root) for table in tables}
    for place in parts_of(root, names):
        listed = _Columns(file_names, others, ending, odd)
        for path, size in _files(root, place, odd, ()) if (Path(root) / place).is_dir() else [(place, 0)]:
            if path in known:
                continue
            if not path.lower().endswith(archives.EXTENSIONS):
                listed.add(path, size)
                continue
            try:
                for member in left_out.kept(path, archives.members(Path(root) / path), odd):
                    crc = None if member.crc is None else content_hashes.of_crc(member.crc)
                    listed.add(f"{path}!{member.name}", member.bytes, crc)
            except archives.ArchiveError as error:
                damaged.append(f"{path} {error}")
        if listed.ids:
            found.append(listed.table())
            places.append(place)
    return Listing(_each_once(pa.concat_tables(found), odd), places, odd, damaged)


class _Columns:
    """The columns of LISTED, filled one file after the other: lists take less memory than a record a row."""

    def __init__(self, file_names: re.Pattern[str], others: re.Pattern[str] | None, ending: str, odd: LeftOut) -> None:
        self.file_names, self.others, self.ending, self.odd = file_names, others, ending, odd
        self.ids: list[str] = []
        self.paths: list[str] = []
        self.sizes: list[int] = []
        self.hashes: list[str | None] = []

    def add(self, path: str, size: int, content_hash: str | None = None) -> None:
        name = path.rpartition("/")[2].rpartition("!")[2]
        if match := self.file_names.fullmatch(name):
            self.ids.append(match[1] + self.ending)
            self.paths.append(path)
            self.sizes.append(size)
            self.hashes.append(content_hash)
        elif not (self.others and self.others.fullmatch(name)):
            self.odd.add(left_out.why(name) or "files that are not among its images", path)

    def table(self) -> pa.Table:
        return pa.table([self.ids, self.paths, self.sizes, self.hashes], schema=LISTED)


def parts_of(root: str, names: re.Pattern[str]) -> list[str]:
    """Folders and archives in ``root`` whose names, without ``.zip`` or ``.tar``, match: folders first, then by number.

    They may be in a folder ``images/`` there, as in many copies.
    """
    matching = []
    for folder in ("",) if names.fullmatch("images") else ("", "images/"):
        if not os.access(Path(root) / folder, os.R_OK | os.X_OK) or not (Path(root) / folder).is_dir():
            continue
        with os.scandir(Path(root) / folder) as entries:
            matching += [
                (not entry.is_dir(), _natural(entry.name), folder + entry.name)
                for entry in entries
                if names.fullmatch(ARCHIVE.sub("", entry.name))
                and (entry.is_dir() or entry.name.lower().endswith(archives.EXTENSIONS))
            ]
    return [name for _, _, name in sorted(matching)]


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts ``refs_2`` before ``refs_10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _files(root: str, folder: str, odd: LeftOut, above: tuple[Path, ...]) -> Iterator[tuple[str, int]]:
    """Yield path, relative to the root, and size of every file below a folder. Links are followed, cycles are not."""
    real = (Path(root) / folder).resolve()
    if real in above:
        odd.add("symlink cycles", folder)
        return
    try:
        with os.scandir(Path(root) / folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise LookalikeError(
            f"{Path(root) / folder}: cannot be read ({error.strerror}). Grant yourself permission to read it."
        ) from None
    for entry in listed:
        path = f"{folder}/{entry.name}"
        is_folder = entry.is_dir()
        if is_folder and (reason := left_out.why(entry.name, Path(folder).name)):
            odd.add(reason, f"{path}/")
        elif is_folder:
            yield from _files(root, path, odd, (*above, real))
        elif entry.is_file():
            yield path, entry.stat().st_size
        else:
            odd.add("broken links, and other things that are not regular files", path)


def _each_once(images: pa.Table, odd: LeftOut) -> pa.Table:
    """In the order of ids, and of each id the row that came first; the others are counted."""
    numbered = images.append_column("row", pa.array(np.arange(images.num_rows)))
    ordered = numbered.sort_by([("image_id", "ascending"), ("row", "ascending")]).combine_chunks()
    ids = ordered["image_id"]
    if len(ids) > 1:
        repeats = np.zeros(len(ids), dtype=np.bool_)
        repeats[1:] = pc.equal(ids.slice(1), ids.slice(0, len(ids) - 1)).to_numpy()
        if repeats.any():
            example = int(np.argmax(repeats))
            what = "duplicate images, of which the first is used"
            odd.add(what, f"{ordered['path'][example - 1]} and {ordered['path'][example]}", int(repeats.sum()))
            ordered = ordered.filter(pa.array(~repeats))
    return ordered.drop_columns(["row"])


def strays(root: str, known: Iterable[re.Pattern[str]], files: Sequence[str]) -> LeftOut:
    """What is in ``root`` and belongs to no part. ``files`` are tables that were read."""
    odd = LeftOut()
    patterns = list(known)
    tops = {Path(os.path.relpath(file, root)).parts[0] for file in files}
    tops |= {Path(place).parts[0] for one in patterns for place in parts_of(root, one)}
    for name in sorted(path.name for path in Path(root).iterdir()) if Path(root).is_dir() else ():
        if name not in tops and not any(one.fullmatch(ARCHIVE.sub("", name)) for one in patterns):
            inside = f"{root}/{name}"
            what = left_out.why(name) or "files and folders that this data set does not use"
            if not left_out.why(name) and os.access(inside, os.R_OK) and any(parts_of(inside, one) for one in patterns):
                what = "folders with parts of it, one level too deep (move them up, or set 'root' to that folder)"
            odd.add(what, name)
    return odd


def image_id(name: str, file_names: re.Pattern[str], ending: str) -> str:
    """The id of an image that a table names, without the folder before it, and with the usual extension."""
    name = re.split(r"[/\\]", name.strip())[-1]
    match = file_names.fullmatch(name)
    return match[1] + ending if match else name


def check_root(root: str) -> None:
    """Raise LookalikeError where the root cannot be listed. A root that does not exist is a missing data set."""
    if Path(root).exists() and not Path(root).is_dir():
        raise LookalikeError(f"{root}: is a file, not a folder. Set root to the folder with the data set's files.")
    if Path(root).exists() and not os.access(root, os.R_OK | os.X_OK):
        raise LookalikeError(f"{root}: cannot be read. Grant yourself permission to read it.")


def image_part(name: str, listing: Listing, wanted: str, fetch: str, published: int | None = None) -> Part:
    """The part of a listing; it is missing where nothing is listed, or an archive is damaged.

    ``fetch`` says what to put there.
    """
    found = listing.images.num_rows
    missing = "" if found else fetch
    if listing.damaged:
        missing = "; ".join(listing.damaged) + (f". {fetch}" if not found else "")
    part = Part(name, "images", found, wanted, published, missing, places=listing.places)
    part.leave_out(listing.odd)
    return part


def file_part(name: str, unit: str, count: int, *, files: Sequence[str], root: str, fetch: str) -> Part:
    """The part of tables; it is missing where there are no tables."""
    places = [os.path.relpath(file, root) for file in files]
    return Part(name, unit, count, "all that fit", missing="" if files else fetch, places=places)


def sampled(images: pa.Table, count: int, seed: int, always: Sequence[str] = ()) -> pa.Table:
    """``count`` images in the order of the SHA-256 of seed and id, those of ``always`` first.

    So a sample depends on no other image, and a larger one contains a smaller one. The rows stay in order of ids.
    """
    ids = images["image_id"].to_pylist()
    prefix = hashlib.sha256(f"{seed} ".encode())

    def place(image_id: str) -> bytes:
        digest = prefix.copy()
        digest.update(image_id.encode())
        return digest.digest()[:8]

    order = np.frombuffer(b"".join(map(place, ids)), dtype=">u8").astype(np.uint64)
    named = set(always)
    first = np.array([image_id not in named for image_id in ids], dtype=np.bool_)
    chosen = np.lexsort((order, first))[:count]
    return images.take(pa.array(np.sort(chosen)))


def numbers(ids: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """The numbers in ids such as ``R000017``: (n,) int64."""
    return np.asarray(pc.cast(pc.utf8_slice_codeunits(ids, 1), pa.int64()).to_numpy(), dtype=np.int64)


def absent(present: npt.NDArray[np.int64], expected: range) -> npt.NDArray[np.int64]:
    """The numbers of a range that are not present, in order."""
    there = np.zeros(len(expected), dtype=np.bool_)
    inside = present[(present >= expected.start) & (present < expected.stop)]
    there[inside - expected.start] = True
    return np.flatnonzero(~there) + expected.start


def as_ranges(missing: npt.NDArray[np.int64], spell: str) -> str:
    """``R050000 to R099999, R150001 and 12 more ranges``; ``spell`` is a format such as ``R{:06d}``."""
    starts = np.flatnonzero(np.diff(missing, prepend=missing[0] - 2) != 1)
    ends = np.append(starts[1:], len(missing)) - 1
    words = []
    for start, end in list(zip(starts, ends, strict=True))[:3]:
        first, last = spell.format(int(missing[start])), spell.format(int(missing[end]))
        words.append(first if start == end else f"{first} to {last}")
    more = f" and {len(starts) - 3:,} more ranges" if len(starts) > 3 else ""
    return f"{', '.join(words)}{more}"


def images_table(
    root: str,
    images: pa.Table,
    *,
    reference: bool = False,
    query: bool = False,
    training: bool = False,
    **optional: pa.Array,
) -> pa.Table:
    """An IMAGES table of images that all have the same roles, with optional columns."""
    rows = images.num_rows
    columns = {
        "image_id": images["image_id"],
        "reference": pa.repeat(reference, rows),
        "query": pa.repeat(query, rows),
        "training": pa.repeat(training, rows),
        "root": pa.repeat(root, rows),
        "path": images["path"],
        "bytes": images["bytes"],
        "group": pa.nulls(rows, pa.string()),
        "content_hash": images["content_hash"],
    }
    return pa.table({**columns, **optional}, schema=IMAGES.schema("content_hash", *optional))


def read_text(path: str) -> str:
    """A table's text, without a byte order mark. Raises LookalikeError where it is not UTF-8 or cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise LookalikeError(f"{path}: is not UTF-8 text; it is damaged, or another file. Fetch it again.") from None
    except OSError as error:
        raise LookalikeError(f"{path}: cannot be read ({error.strerror}). Check its permissions.") from None
