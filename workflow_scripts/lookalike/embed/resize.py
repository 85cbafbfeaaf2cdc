"""Pillow's resizing of 8-bit images by torch, bit for bit: two products with matrices of whole numbers.

After libImaging/Resample.c of Pillow 13: the filter's weights are rounded to multiples of 1 / 2**22, and pixels to 8
bits after each of the two steps. Sums of whole numbers below 2**53 are exact in float64, in any order.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    import torch

Values = NDArray[np.float64]
BITS = 22  # after the binary point, of a weight


def resize(pixels: "torch.Tensor", size: tuple[int, int], resample: int) -> "torch.Tensor":
    """Resize (..., height, width) uint8 to ``size``, (width, height); ``resample`` is one of FILTERS."""
    steps = [(-1, size[0]), (-2, size[1])]  # axis and its new length
    removed = {axis: pixels.shape[axis] - length for axis, length in steps}
    if removed[-2] > max(0, 2 * removed[-1]):  # less work, and other rounding; versions before 13 do not
        steps.reverse()
    for axis, length in steps:
        if removed[axis]:
            matrix = _matrix(pixels.shape[axis], length, resample, pixels.device)
            values = pixels.double()
            pixels = _rounded(values @ matrix.T if axis == -1 else matrix @ values)
    return pixels


def _rounded(sums: "torch.Tensor") -> "torch.Tensor":
    import torch

    return ((sums + (1 << BITS - 1)) / (1 << BITS)).floor_().clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=256)
def _matrix(before: int, after: int, resample: int, device: "torch.device") -> "torch.Tensor":
    import torch

    return torch.from_numpy(weights(before, after, resample)).to(device)


def weights(before: int, after: int, resample: int) -> Values:
    """Weights of ``before`` pixels in each of ``after``: (after, before) whole numbers, in units of 1 / 2**22."""
    function, support = FILTERS[resample]
    scale = before / after
    stretch = max(scale, 1.0)
    centers = (np.arange(after) + 0.5) * scale
    first = np.maximum((centers - support * stretch + 0.5).astype(int), 0)
    last = np.minimum((centers + support * stretch + 0.5).astype(int), before)
    pixels = np.arange(before)
    used = (pixels >= first[:, None]) & (pixels < last[:, None])
    values = np.zeros((after, before))
    values[used] = function(((pixels - centers[:, None] + 0.5) * (1 / stretch))[used])
    values /= np.cumsum(values, axis=1)[:, -1:]  # summed in Pillow's order
    rounded: Values = np.trunc(values * (1 << BITS) + np.copysign(0.5, values))
    return rounded


def _box(x: Values) -> Values:
    return ((x > -0.5) & (x <= 0.5)).astype(float)


def _bilinear(x: Values) -> Values:
    return np.where(np.abs(x) < 1, 1 - np.abs(x), 0.0)


def _hamming(x: Values) -> Values:
    near = np.abs(x) < 1
    angle = np.where(near & (x != 0), np.abs(x), 1.0) * np.pi
    a, b = float(np.float32(0.54)), float(np.float32(0.46))  # as in Pillow
    return np.where(x == 0, 1.0, np.where(near, np.sin(angle) / angle * (a + b * np.cos(angle)), 0.0))


def _bicubic(x: Values) -> Values:
    a, x = -0.5, np.abs(x)
    near, far = ((a + 2.0) * x - (a + 3.0)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _lanczos(x: Values) -> Values:
    return np.where((x >= -3) & (x < 3), _sinc(x) * _sinc(x / 3), 0.0)


def _sinc(x: Values) -> Values:
    angle = np.where(x == 0, 1.0, x * np.pi)
    return np.where(x == 0, 1.0, np.sin(angle) / angle)


Filter = tuple[Callable[[Values], Values], float]  # weight by distance, and the largest distance
FILTERS: dict[int, Filter] = {
    int(Image.Resampling.BOX): (_box, 0.5),
    int(Image.Resampling.BILINEAR): (_bilinear, 1.0),
    int(Image.Resampling.HAMMING): (_hamming, 1.0),
    int(Image.Resampling.BICUBIC): (_bicubic, 2.0),
    int(Image.Resampling.LANCZOS): (_lanczos, 3.0),
}
