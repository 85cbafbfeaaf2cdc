"""Family `color_histogram`: how often each color occurs, wherever it stands. The floor for models that follow color."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookalike.config.models import ColorHistogram
from lookalike.embed.encoders import Machine
from lookalike.io import store
from lookalike.io.formats.records import Weights
from lookalike.job.devices import cpu


def fetch(entry: ColorHistogram) -> Weights:
    """There is nothing to fetch."""
    return Weights(source="computed from pixels", revision="", files={})


def look(entry: ColorHistogram) -> None:
    """There is nothing to look for."""


def load(entry: ColorHistogram, weights: Weights, machine: Machine) -> "Histogram":
    """The encoder; it needs no weights."""
    return Histogram(entry.bins, cpu(machine))


STRIP = 1 << 20  # pixels that are counted at once


class Histogram:
    """Square roots of the shares of pixels in bins ** 3 RGB cells.

    Of the square roots of two histograms the cosine is the Bhattacharyya coefficient, the usual similarity of
    histograms (A. Bhattacharyya, 1943); plain counts would let one large plain area outweigh all else.
    """

    compute_dtype = "float32"
    overlaps = False

    def __init__(self, bins: int, device: str) -> None:
        self.device = device
        self.bins = bins
        self.dimension = bins**3
        self.versions = store.versions("pillow", "numpy")

    def prepare(self, image: Image.Image) -> NDArray[np.float32]:
        """(bins ** 3,) float32 shares, which sum to 1."""
        counts = np.zeros(self.dimension, np.int64)
        rows = max(1, STRIP // image.width)
        for top in range(0, image.height, rows):  # of the whole image at once it would take 40 bytes a pixel
            strip = image.crop((0, top, image.width, min(top + rows, image.height)))
            cells = np.asarray(strip, np.uint32) * self.bins // 256
            cell = (cells[..., 0] * self.bins + cells[..., 1]) * self.bins + cells[..., 2]
            counts += np.bincount(cell.reshape(-1), minlength=self.dimension)
        return (counts / (image.width * image.height)).astype(np.float32)

    def encode(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, bins ** 3) shares to (n, bins ** 3) float32."""
        return np.sqrt(batch)
