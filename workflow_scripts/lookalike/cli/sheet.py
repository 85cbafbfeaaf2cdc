"""A contact sheet: an image and its neighbors, with their ranks and scores."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from lookalike.io import images, store

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
COLUMNS = 6
SIDE = 224  # of an image's square, in pixels
GAP = 16
LINE = 20  # height of a line of text
CELL = (SIDE + GAP, SIDE + 2 * LINE + GAP)
TOP = GAP + LINE + GAP
MOST = 300  # neighbors on one sheet; the table has all of them

PAPER, INK, QUIET, FRAME = "white", "#1f2328", "#6e7781", "#0969da"

Neighbor = tuple[int, float, str, str]  # rank, score, id, path


def draw(title: str, photo: Path, neighbors: Sequence[Neighbor], out: Path) -> None:
    """Draw the sheet and write it to ``out``; the photo comes first, in a frame.

    A neighbor whose file can no longer be read is an empty square with the reason. Raises LookalikeError if ``out``
    cannot be written.
    """
    shown = neighbors[:MOST]
    cells = [
        ("query", photo.name, str(photo)),
        *((f"{rank} · {score:.4f}", name, path) for rank, score, name, path in shown),
    ]
    columns = min(COLUMNS, len(cells))
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (max(columns, 3) * CELL[0] + GAP, TOP + rows * CELL[1]), PAPER)
    pen = ImageDraw.Draw(sheet)
    if len(shown) < len(neighbors):
        title = f"{title}, the first {MOST}"
    _write(pen, (GAP, GAP), title, INK, sheet.width - 2 * GAP)
    for (left, top), (caption, name, path) in zip(corners(len(cells)), cells, strict=True):
        _paste(sheet, pen, (left, top), path)
        if caption == "query":
            pen.rectangle((left - 4, top - 4, left + SIDE + 3, top + SIDE + 3), outline=FRAME, width=3)
        _write(pen, (left, top + SIDE + 6), caption, INK, SIDE)
        _write(pen, (left, top + SIDE + 6 + LINE), name, QUIET, SIDE)
    with store.atomic(out) as temporary:
        sheet.save(temporary, FORMATS[out.suffix.lower()])


def corners(count: int) -> Iterable[tuple[int, int]]:
    """The upper left corners of the images' squares (left, top), in pixels."""
    for number in range(count):
        row, column = divmod(number, COLUMNS)
        yield GAP + column * CELL[0], TOP + row * CELL[1]


def _paste(sheet: Image.Image, pen: ImageDraw.ImageDraw, corner: tuple[int, int], path: str) -> None:
    """Paste an image into the center of its square, as large as fits."""
    left, top = corner
    try:
        image = images.load("", path)
    except images.BadImage as bad:
        pen.rectangle((left, top, left + SIDE - 1, top + SIDE - 1), outline=QUIET)
        _write(pen, (left + GAP, top + SIDE // 2), str(bad), QUIET, SIDE - 2 * GAP)
        return
    scale = SIDE / max(image.size)
    fitted = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    sheet.paste(fitted, (left + (SIDE - fitted.width) // 2, top + (SIDE - fitted.height) // 2))


def _write(pen: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, color: str, width: int) -> None:
    """Write a line of text, truncated at its start if it does not fit, since paths differ at their ends."""
    font = ImageFont.load_default(14)
    text = " ".join(text.split()).encode(errors="replace").decode()  # file names may hold invalid UTF-8
    shown = text
    while shown and font.getlength(shown if shown == text else f"...{shown}") > width:
        shown = shown[1:]
    pen.text(corner, shown if shown == text else f"...{shown}", fill=color, font=font)
