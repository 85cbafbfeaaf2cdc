"""``lookalike.find_duplicates`` without a precision: which files show the same image, and which to keep."""

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from lookalike.io import archives, images, in_work
from lookalike.io.formats.tables import SHARD
from lookalike.job import memory
from lookalike.job.errors import LookalikeError
from lookalike.job.progress import Progress
from lookalike.sample import folder as folders
from lookalike.sample.near_duplicates.find import thumbnails
from lookalike.sample.near_duplicates.groups import MOST_PAIRS, correlation, same_images, stars
from lookalike.sample.near_duplicates.signatures import TURNS, Signatures, joined, sign, turned

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

PathInput = str | os.PathLike[str]
COLUMNS = {
    **{"group": "int64", "image": "str", "keep": "bool", "score": "float32", "kind": "str"},
    **{"pixels": "int64", "bytes": "int64"},
}


def find_duplicates(images: PathInput | Iterable[PathInput], *, threads: int | None = None) -> "pd.DataFrame":
    """Find files that show the same image, without a model: ``lookalike.find_duplicates`` describes the result."""
    import pandas as pd

    listed = _listed(images)
    reader = _Reader()
    signatures: list[Signatures] = []
    names: list[str] = []  # of the first file of each content
    files: dict[str, list[str]] = defaultdict(list)  # SHA-256 -> images
    progress = Progress("decoded", listed.num_rows, "images")
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        for decoded, small in thumbnails(listed, pool, progress, reader):
            new = []
            for row, name in enumerate(decoded):
                same = files[reader.files[name].sha256]
                if not same:
                    new.append(row)
                    names.append(name)
                same.append(name)
            if new:
                signatures.append(sign(small[new]))
    groups = _groups(joined(signatures), names, files, reader.files) if names else []
    rows = [(number, *row) for number, rows in enumerate(groups) for row in rows]
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
    table.attrs = {"images": listed.num_rows - len(reader.bad), "rejected": dict(sorted(reader.bad.items()))}
    for name, reason in table.attrs["rejected"].items():
        log.warning("rejected %s: %s", name, reason)
    return table


@dataclass(frozen=True)
class _File:
    """What is known of a file that was read."""

    sha256: str
    pixels: int
    size: int


class _Reader(in_work.Guard):
    """Reads images, and notes what each file is and why an image is rejected."""

    def __init__(self) -> None:
        self.files: dict[str, _File] = {}
        self.bad: dict[str, str] = {}

    def read(self, row: in_work.Row) -> bytes:
        """The bytes of an image. Raises BadImage."""
        with self._noting(row):
            if not row["root"] and not archives.split(row["path"]) and not Path(row["path"]).exists():
                raise images.BadImage("no such file")
            data = images.read(row["root"], row["path"])
        self.files[row["image_id"]] = _File(hashlib.sha256(data).hexdigest(), _pixels(data), len(data))
        return data

    @contextmanager
    def decoding(self, row: in_work.Row, reserve: memory.Take | None) -> Iterator[memory.Take | None]:
        """Note why an image cannot be decoded."""
        with self._noting(row):
            yield reserve

    @contextmanager
    def _noting(self, row: in_work.Row) -> Iterator[None]:
        try:
            yield
        except images.BadImage as bad:
            self.bad[row["image_id"]] = str(bad)
            raise


def _pixels(data: bytes) -> int:
    """Width times height, from the header; 0 for what cannot be decoded, and is rejected afterwards."""
    try:
        return images.count_pixels(data)
    except Exception:  # a broken file may make Pillow raise anything
        return 0


def _listed(given: PathInput | Iterable[PathInput]) -> pa.Table:
    """The images as a SHARD table, sorted by path; ids are the paths that the result shows."""
    if isinstance(given, str | os.PathLike):
        root = str(Path(given).expanduser())
        if not Path(root).is_dir():
            raise LookalikeError(f"{root}: is not a folder. Pass a folder with images, or a list of paths.")
        sizes, inside = folders.list_images(root, "find_duplicates")
        paths = {name: inside.paths.get(name, name) for name in sizes}
        rows = [(str(Path(root) / path), root, path, sizes[name]) for name, path in paths.items()]
    else:
        names = sorted({str(Path(path).expanduser()) for path in given})
        for name in names:
            folders.check_name(name, "find_duplicates")
        once = {os.path.realpath(name): name for name in reversed(names)}  # a file given by two paths has no duplicate
        rows = [(name, "", name, Path(name).stat().st_size if Path(name).is_file() else 0) for name in once.values()]
    columns = [*zip(*rows, strict=True)] or [()] * 4
    columns.append(("",) * len(rows))
    return pa.table(dict(zip(SHARD.columns, map(list, columns), strict=True)), SHARD.schema()).sort_by("image_id")


Group = list[tuple[str, bool, float, str, int, int]]  # COLUMNS without the group


def _groups(
    signatures: Signatures, names: list[str], same_bytes: dict[str, list[str]], files: dict[str, _File]
) -> list[Group]:
    """The groups, in order of their first image; ``signatures`` are of ``names``, the first file of each content."""
    found = same_images(signatures)
    if found.capped:
        log.warning("more than %s pairs are the same image, so groups are incomplete", f"{MOST_PAIRS:,}")
    contents: dict[int, list[int]] = defaultdict(list)  # center -> rows of the contents in its group
    for row, center in enumerate(stars(found.pairs, len(names)).tolist()):
        contents[row if center < 0 else center].append(row)
    groups = []
    for rows in contents.values():
        members = {name: row for row in rows for name in same_bytes[files[names[row]].sha256]}
        if len(members) < 2:
            continue
        order = sorted(members, key=lambda name: (-files[name].pixels, -files[name].size, name))
        kept = order[0]
        scores = {row: 1.0 if row == members[kept] else _score(signatures, row, members[kept]) for row in rows}
        groups.append(
            [
                (
                    name,
                    name == kept,
                    scores[members[name]],
                    "kept" if name == kept else "exact" if members[name] == members[kept] else "near",
                    files[name].pixels,
                    files[name].size,
                )
                for name in order
            ]
        )
    return sorted(groups, key=lambda group: min(row[0] for row in group))


def _score(signatures: Signatures, row: int, kept: int) -> float:
    """The correlation of two grey thumbnails, in the orientation in which they agree most."""
    grey = np.concatenate([turned(signatures.grey[row : row + 1], turn) for turn in TURNS]).astype(np.float32)
    other = np.repeat(signatures.grey[kept : kept + 1], len(TURNS), axis=0).astype(np.float32)
    return float(correlation(grey, other).max())
