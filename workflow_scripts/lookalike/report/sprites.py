"""Thumbnails: many small images in one WebP, as large as the size of the report allows."""

import base64
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
from PIL import Image

from lookalike.io import images, in_work, made_images
from lookalike.report.evidence import Evidence

ACROSS = 8  # cells in a row and in a column of a sprite; style.css knows this number
GAP = 1  # transparent pixels around each image, so that scaling mixes no two
SIDES = (160, 128, 96, 80, 64, 48)  # pixels of the longer side, the largest that fits first
TRIED = ACROSS**2  # images whose size in bytes predicts that of all
QUALITY = 72

Pixels = Image.Image


@dataclass(frozen=True)
class Room:
    """Bytes of all sprites: ``roomy`` ones allow a larger side, images beyond ``most`` are left out; as text in a page
    they take a third more. ``images`` bounds the time that it takes, a few milliseconds each."""

    roomy: int = 2_700_000
    most: int = 9_000_000
    images: int = 60_000


PAGE = Room()
FOLDER = Room(roomy=120_000_000, most=480_000_000)


@dataclass(frozen=True)
class Thumbnails:
    """Where each image is, and why others are not shown.

    ``sheets``: the sprites, WebP. ``cells``: row of the images table -> number of its cell, counted over all
    sprites. ``reasons``: row -> why there is no thumbnail.
    """

    sheets: list[bytes]
    side: int
    cells: dict[int, int]
    reasons: dict[int, str]
    omitted: int  # images without a thumbnail because the report would become too large

    def uris(self) -> list[str]:
        """The sprites as data URIs."""
        return ["data:image/webp;base64," + base64.b64encode(sheet).decode() for sheet in self.sheets]


def make(evidence: Evidence, rows: Sequence[int], guard: in_work.Guard, room: Room = PAGE) -> Thumbnails:
    """Thumbnails of these rows of the images table, in order of priority; none of what hung or killed a decoder."""
    fatal = {image.image_id: image.reason for image in evidence.rejected if in_work.NOT_DECODED in image.reason}
    loader = _Loader(evidence.images.select(["image_id", "root", "path"]), guard, fatal)
    sample = list(rows[:: max(1, len(rows) // TRIED)][:TRIED])
    tried = {row: image for row, image, _ in loader.load(sample, SIDES[0]) if image}
    side, most = _affordable(list(tried.values()), len(rows), room)
    cells: dict[int, int] = {}
    reasons = dict.fromkeys(rows[most:], "omitted: the report would become too large")
    readable: list[Pixels] = []
    sheets: list[bytes] = []

    def flush() -> None:
        sheets.append(_sprite(readable, side))
        readable.clear()

    for row, image, reason in loader.load(rows[:most], side):
        if image is None:
            reasons[row] = reason
            continue
        cells[row] = len(sheets) * ACROSS**2 + len(readable)
        readable.append(image)
        if len(readable) == ACROSS**2:
            flush()
    if readable:
        flush()
    return Thumbnails(sheets, side, cells, reasons, len(rows[most:]))


def _affordable(tried: list[Pixels], count: int, room: Room) -> tuple[int, int]:
    """The side of a thumbnail, and how many there may be."""
    size = 0.0
    for side in SIDES:
        size = len(_sprite([_fitted(image, side) for image in tried], side)) / max(1, len(tried))
        if size * count <= room.roomy:
            return side, min(count, room.images)
    return SIDES[-1], min(count, int(room.most / size), room.images)


@dataclass(frozen=True)
class _Loader:
    table: pa.Table
    guard: in_work.Guard
    fatal: dict[str, str]  # ids of images that must not be decoded, with the reason

    def load(self, rows: Iterable[int], side: int) -> Iterator[tuple[int, Pixels | None, str]]:
        for number in rows:
            (row,) = self.table.slice(number, 1).to_pylist()
            try:
                if reason := self.fatal.get(row["image_id"]):
                    raise images.BadImage(reason)
                data = images.read(made_images.folder_of(row["root"]), row["path"])
                image, _ = self.guard.decode(row, data, lambda size: (min(size[0], 2 * side), min(size[1], 2 * side)))
            except images.BadImage as bad:
                yield number, None, str(bad)
            else:
                yield number, _fitted(image, side), ""


def _fitted(image: Pixels, side: int) -> Pixels:
    """A copy that fits the square, with the aspect ratio of the image."""
    copy = image.copy()
    copy.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return copy


def _sprite(thumbnails: Sequence[Pixels], side: int) -> bytes:
    """One WebP with each image in the middle of its cell."""
    cell = side + 2 * GAP
    sheet = Image.new("RGBA", (ACROSS * cell, ACROSS * cell))
    for place, image in enumerate(thumbnails):
        x, y = place % ACROSS * cell + (cell - image.width) // 2, place // ACROSS * cell + (cell - image.height) // 2
        sheet.paste(image, (x, y))
    file = io.BytesIO()
    sheet.save(file, "WEBP", quality=QUALITY, method=4, alpha_quality=100)
    return file.getvalue()
