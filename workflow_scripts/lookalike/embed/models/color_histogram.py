"""Family `color_histogram`: how often each color occurs, wherever it is. Baseline for models that follow color."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookalike.config.models import ColorHistogram
from lookalike.embed.encoders import Machine
from lookalike.io import store
from lookalike.io.formats.records import Weights
from lookalike.job.devices import cpu


def fetch(entry: ColorHistogram) -> Weights:
    """Nothing to fetch: this family has no weights."""
    return Weights(source="computed from pixels", revision="", files={})


def check_available(entry: ColorHistogram) -> None:
    """Always available: this family has no weights."""


def load(entry: ColorHistogram, weights: Weights, machine: Machine) -> "Histogram":
    """Create the encoder; ``weights`` is not used."""
    return Histogram(entry.bins, cpu(machine))


STRIP = 1 << 20  # pixels counted at once


class Histogram:
    """Square roots of the fractions of pixels in bins ** 3 RGB cells.

    The cosine of the square roots of two histograms is their Bhattacharyya coefficient, a standard similarity of
    histograms (A. Bhattacharyya, 1943); with plain counts, one large uniform area would dominate.
    """

    compute_dtype = "float32"
    overlaps = False

    def __init__(self, bins: int, device: str) -> None:
        self.device = device
        self.bins = bins
        self.dimension = bins**3
        self.versions = store.versions("pillow", "numpy")

    def prepare(self, image: Image.Image) -> NDArray[np.float32]:
        """Map an RGB image to (bins ** 3,) float32 fractions, which sum to 1."""
        counts = np.zeros(self.dimension, np.int64)
        rows = max(1, STRIP // image.width)
        for top in range(0, image.height, rows):  # the whole image at once would take 40 bytes per pixel
            strip = image.crop((0, top, image.width, min(top + rows, image.height)))
            cells = np.asarray(strip, np.uint32) * self.bins // 256
            cell = (cells[..., 0] * self.bins + cells[..., 1]) * self.bins + cells[..., 2]
            counts += np.bincount(cell.reshape(-1), minlength=self.dimension)
        return (counts / (image.width * image.height)).astype(np.float32)

    def encode(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map (n, bins ** 3) fractions to (n, bins ** 3) float32 square roots."""
        return np.sqrt(batch)
