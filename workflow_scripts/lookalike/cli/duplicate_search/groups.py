"""Groups of duplicates: which image of each to keep, and why."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

import numpy as np

from lookalike.cli.duplicate_search.alignment import magnification, prepare_file
from lookalike.cli.duplicate_search.comparing import SURE, Pairs
from lookalike.cli.duplicate_search.reading import Collection, File
from lookalike.sample.near_duplicates.groups import stars

Kind = Literal["identical", "near"]
BYTES, PIXELS, COSINE = "bytes", "pixels", "cosine"
SAME_SHAPE = 1.02  # largest ratio of two images' width to height that counts as equal
SMALLER = 1.1  # an image shown by this factor larger in another is smaller
LOSSLESS = ("PNG", "TIFF", "BMP", "GIF")


@dataclass(frozen=True)
class Member:
    """A file of a group. ``score``: the cosine with the kept image, 1 if the bytes are equal.

    by: what says so: BYTES, PIXELS, or COSINE, where pixels cannot tell
    """

    file: File
    score: float
    by: str


@dataclass(frozen=True)
class Group:
    """Files that show one image, the one to keep first, and why that one."""

    kind: Kind
    members: tuple[Member, ...]
    why: str

    @property
    def keep(self) -> File:
        """The file to keep."""
        return self.members[0].file


def grouped(collection: Collection, pairs: Pairs, threshold: float) -> list[Group]:
    """The groups, in order of the kept files' paths.

    A group is a star: each image was matched with the same one, so images are not grouped merely because both resemble
    a third one.
    """
    accepted = pairs.rows[pairs.accepted(threshold)]
    sure = {(int(a), int(b)) for a, b in pairs.rows[pairs.score >= SURE]}
    row_of = {sha256: row for row, sha256 in enumerate(collection.contents)}
    files: dict[int, list[File]] = defaultdict(list)
    for file in collection.files:
        files[row_of[file.sha256]].append(file)
    rows: dict[int, list[int]] = defaultdict(list)
    for row, center in enumerate(stars(accepted, len(collection.contents)).tolist()):
        rows[row if center < 0 else center].append(row)
    groups = []
    for center, some in rows.items():
        of_row = [(row, file) for row in some for file in files[row]]
        if len(of_row) < 2:
            continue
        smaller = _smaller(collection, {row: files[row][0] for row in some}, center)
        members = [file for _, file in sorted(of_row, key=lambda pair: (pair[0] in smaller, *_order(pair[1])))]
        kept = members[0]
        kept_row = row_of[kept.sha256]
        scores = np.clip(collection.vectors[some] @ collection.vectors[kept_row], -1, 1)
        score_of = dict(zip(some, scores.tolist(), strict=True)) | {kept_row: 1.0}
        of = {row: _by(row, kept_row, center, sure) for row in some}
        groups.append(
            Group(
                kind="identical" if len(some) == 1 else "near",
                members=tuple(Member(file, score_of[row_of[file.sha256]], of[row_of[file.sha256]]) for file in members),
                why=_why(members),
            )
        )
    return sorted(groups, key=lambda group: group.keep.path)


def _smaller(collection: Collection, file_of: dict[int, File], center: int) -> set[int]:
    """The rows that show the image smaller than others of the group, such as a screenshot with the photo in it.

    Images of one shape show the same, so their pixels tell.
    """
    shapes = [file.width / file.height for file in file_of.values()]
    if max(shapes) < SAME_SHAPE * min(shapes):
        return set()
    prepared = {row: prepare_file(collection.small.get(collection.contents[row])) for row in file_of}
    largest = {row: max(file.width, file.height) for row, file in file_of.items()}
    size = dict.fromkeys(file_of, 1.0)  # of what is shown, relative to the center's
    for row in file_of.keys() - {center}:
        if scale := magnification(prepared[row], prepared[center]):
            size[row] = largest[row] / (scale * largest[center])
    return {row for row in file_of if size[row] * SMALLER < max(size.values())}


def _by(row: int, kept: int, center: int, sure: set[tuple[int, int]]) -> str:
    """What says that an image belongs to the group of ``center``."""
    if row == kept:
        return BYTES
    pairs = ((row, kept), (row, center))
    return PIXELS if row == center or any((min(pair), max(pair)) in sure for pair in pairs) else COSINE


def _order(file: File) -> tuple[object, ...]:
    """The file to keep comes first: most pixels, largest, lossless, taken first, written first, first path."""
    lossy = file.format not in LOSSLESS
    return -file.pixels, -file.bytes, lossy, not file.taken, file.taken, file.modified, file.path


def _why(members: Sequence[File]) -> str:
    """What distinguishes the first of some files in the order of ``_order`` from the second."""
    first, second = members[:2]
    if first.sha256 == second.sha256 and len({file.sha256 for file in members}) == 1:
        if first.modified < second.modified:
            return f"same bytes; {'not in an archive' if second.modified == inf else 'oldest file'}"
        return "same bytes; first path"
    other = next(file for file in members if file.sha256 != first.sha256)
    if first.pixels < max(file.pixels for file in members):
        return "shows the image largest"
    if first.pixels != other.pixels:
        return f"most pixels ({first.width} x {first.height})"
    if first.bytes != other.bytes:
        return f"same size, largest file ({first.bytes:,} bytes)"
    if first.format != other.format:
        return f"same size, {first.format} is lossless" if first.format in LOSSLESS else "same size and bytes"
    if first.taken != other.taken:
        return f"same size, taken {first.taken or 'at an unknown time'}"
    return "same size and bytes; first path"
