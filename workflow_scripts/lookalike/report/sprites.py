"""Thumbnails: many small images in one WebP, as large as the size of the report allows."""

import base64
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
from PIL import Image

from lookalike.io import images
from lookalike.report.evidence import Evidence

ACROSS = 8  # cells in a row and in a column of a sprite; style.css knows this number
GAP = 1  # transparent pixels around each image, so that scaling mixes no two
SIDES = (160, 128, 96, 80, 64, 48)  # pixels of the longer side, the largest that fits first
ROOMY = 2_700_000  # bytes of all sprites that allow a larger side; as text in the page they take a third more
MOST = 9_000_000  # bytes of all sprites; images beyond it are left out
TRIED = ACROSS**2  # images whose size in bytes predicts that of all
QUALITY = 72

Pixels = Image.Image


@dataclass(frozen=True)
class Thumbnails:
    """Where each image is, and why others are not shown.

    ``data``: the sprites as data URIs. ``cells``: row of the images table -> number of its cell, counted over all
    sprites. ``reasons``: row -> why there is no thumbnail.
    """

    data: list[str]
    side: int
    cells: dict[int, int]
    reasons: dict[int, str]
    omitted: int  # images without a thumbnail because the report would become too large


def make(evidence: Evidence, rows: Sequence[int]) -> Thumbnails:
    """Thumbnails of these rows of the images table, in order of priority."""
    table = evidence.images.select(["root", "path"])
    sample = list(rows[:: max(1, len(rows) // TRIED)][:TRIED])
    tried = {row: image for row, image, _ in _load(table, sample, SIDES[0]) if image}
    side, most = _affordable(list(tried.values()), len(rows))
    cells: dict[int, int] = {}
    reasons = dict.fromkeys(rows[most:], "omitted: the report would become too large")
    readable: list[Pixels] = []
    data = []

    def flush() -> None:
        data.append("data:image/webp;base64," + base64.b64encode(_sprite(readable, side)).decode())
        readable.clear()

    for row, image, reason in _load(table, rows[:most], side):
        if image is None:
            reasons[row] = reason
            continue
        cells[row] = len(data) * ACROSS**2 + len(readable)
        readable.append(image)
        if len(readable) == ACROSS**2:
            flush()
    if readable:
        flush()
    return Thumbnails(data, side, cells, reasons, len(rows[most:]))


def _affordable(tried: list[Pixels], count: int) -> tuple[int, int]:
    """The side of a thumbnail, and how many there may be."""
    size = 0.0
    for side in SIDES:
        size = len(_sprite([_fitted(image, side) for image in tried], side)) / max(1, len(tried))
        if size * count <= ROOMY:
            return side, count
    return SIDES[-1], min(count, int(MOST / size))


def _load(table: pa.Table, rows: Iterable[int], side: int) -> Iterator[tuple[int, Pixels | None, str]]:
    for row in rows:
        try:
            data = images.read(table["root"][row].as_py(), table["path"][row].as_py())
            image = images.decode(data, needs=lambda size: (min(size[0], 2 * side), min(size[1], 2 * side)))
        except images.BadImage as bad:
            yield row, None, str(bad)
        else:
            yield row, _fitted(image, side), ""


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
