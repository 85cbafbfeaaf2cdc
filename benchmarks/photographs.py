"""JPEG images to measure with, made from their numbers."""

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from lookalike.io import content_hashes
from lookalike.io.formats.tables import SHARD


def image_folder(folder: Path, size: tuple[int, int], count: int) -> pa.Table:
    """JPEG images with edges and texture, about as large in bytes as photographs; a SHARD table of them."""
    folder.mkdir()
    names = [f"{number:05d}.jpg" for number in range(count)]
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(write_image, size), [folder / name for name in names], chunksize=16))
    sizes = [(folder / name).stat().st_size for name in names]
    columns = {"image_id": names, "root": [str(folder)] * count, "path": names, "bytes": sizes}
    columns["content_hash"] = [content_hashes.of_file(folder / name) for name in names]
    return pa.table(columns, SHARD.schema())


def write_image(size: tuple[int, int], path: Path) -> None:
    """An image that follows from its number."""
    draw = np.random.default_rng(int(path.stem))
    coarse = Image.fromarray(draw.integers(0, 256, (12, 16, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    texture = draw.normal(0, 9, (size[1] // 2, size[0] // 2)).repeat(2, 0).repeat(2, 1)
    canvas = np.asarray(coarse, np.float32).copy()
    canvas[: texture.shape[0], : texture.shape[1]] += texture[..., None]
    Image.fromarray(canvas.clip(0, 255).astype(np.uint8)).save(path, quality=90)
