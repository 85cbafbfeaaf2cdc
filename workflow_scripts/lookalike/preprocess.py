"""From a decoded picture to the pixels that a network sees."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def fit(image: Image.Image, size: int, resize: Literal["squash", "crop"]) -> NDArray[np.uint8]:
    """Bring a picture to a square of ``size`` pixels, bicubic: the whole picture squashed, or its central square.

    Returns (size, size, 3) uint8.
    """
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side) if resize == "crop" else None
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))
