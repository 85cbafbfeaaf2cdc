"""Family `pixels`: a small grey thumbnail, its mean removed. A floor that any network should beat."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookalike.config.models import Pixels
from lookalike.embed.encoders import Machine
from lookalike.io import store
from lookalike.io.formats.records import Weights
from lookalike.job.devices import cpu


def fetch(entry: Pixels) -> Weights:
    """There is nothing to fetch."""
    return Weights(source="computed from pixels", revision="", files={})


def look(entry: Pixels) -> None:
    """There is nothing to look for."""


def load(entry: Pixels, weights: Weights, machine: Machine) -> "Thumbnail":
    """The encoder; it needs no weights."""
    return Thumbnail(entry.size, cpu(machine))


class Thumbnail:
    """Grey values of a size x size thumbnail less their mean; zero for a picture of one color."""

    compute_dtype = "float32"
    overlaps = False

    def __init__(self, size: int, device: str) -> None:
        self.device = device
        self.size = size
        self.dimension = size * size
        self.versions = store.versions("pillow", "numpy")

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """(size, size) uint8."""
        # reduced in one step from the full picture, each pixel the mean of what it covers
        return np.asarray(image.convert("L").resize((self.size, self.size), Image.Resampling.BOX))

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, size, size) uint8 to (n, size * size) float32."""
        vectors: NDArray[np.float32] = batch.reshape(len(batch), -1).astype(np.float32)
        vectors -= vectors.mean(axis=1, keepdims=True)
        return vectors
