"""The HTML page of groups: one self-contained file, on which the user ticks what to keep and downloads keep.csv."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from lookalike.cli.duplicate_search.search import Result

FOLDER = Path(__file__).parent
SIDE = 240  # pixels of a thumbnail's longer side
QUALITY = 70
MOST = 3_000  # images on the page, about 20 MB; keep.csv has all


def render(
    result: Result, summary: Mapping[str, Sequence[str]], rows: Sequence[tuple[Any, ...]], header: tuple[str, ...]
) -> str:
    """The page. ``rows`` are those of keep.csv with the columns ``header``; ``summary`` has the ``lines`` on top, and
    in ``rest`` what was not compared."""
    import jinja2

    style, script = ((FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    of_group: dict[int, list[dict[str, Any]]] = {}
    for number, row in enumerate(rows):
        of_group.setdefault(row[0], []).append({"row": number, **dict(zip(header, row, strict=True))})
    shown: list[list[dict[str, Any]]] = []
    thumbnails: dict[str, str] = {}  # SHA-256 -> data URI
    for number, group in enumerate(result.groups, start=1):
        if sum(map(len, shown)) + len(group.members) > MOST and shown:
            break
        for entry, member in zip(of_group[number], group.members, strict=True):
            sha256 = member.file.sha256
            if sha256 not in thumbnails:
                thumbnails[sha256] = _uri(result.collection.small.get(sha256))
            entry["thumbnail"] = thumbnails[sha256]
        shown.append(of_group[number])
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, loader=jinja2.FileSystemLoader(FOLDER), trim_blocks=True
    )
    environment.filters["size"] = _size
    return environment.get_template("page.html.j2").render(
        summary=summary,
        groups=shown,
        total=len(result.groups),
        hidden=len(result.groups) - len(shown),
        data={"header": header, "rows": rows},
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _hash(text: str) -> str:
    """What a content security policy identifies an inline style or script by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _uri(small: bytes) -> str:
    image = Image.open(BytesIO(small))
    image.thumbnail((SIDE, SIDE))
    data = BytesIO()
    image.save(data, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()


def _size(count: int) -> str:
    """``3.2 MB``."""
    value, unit = float(count), "B"
    for larger in ("KB", "MB", "GB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
