"""Family `pixels`: a small grey thumbnail minus its mean. A baseline that any network should beat."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookalike.config.models import Pixels
from lookalike.embed.encoders import Machine
from lookalike.io import store
from lookalike.io.formats.records import Weights
from lookalike.job.devices import cpu


def fetch(entry: Pixels) -> Weights:
    """Nothing to fetch: this family has no weights."""
    return Weights(source="computed from pixels", revision="", files={})


def check_available(entry: Pixels) -> None:
    """Always available: this family has no weights."""


def load(entry: Pixels, weights: Weights, machine: Machine) -> "Thumbnail":
    """Create the encoder; ``weights`` is not used."""
    return Thumbnail(entry.size, cpu(machine))


class Thumbnail:
    """Grey values of a size x size thumbnail minus their mean; zero for an image of one color."""

    compute_dtype = "float32"
    overlaps = False

    def __init__(self, size: int, device: str) -> None:
        self.device = device
        self.size = size
        self.dimension = size * size
        self.versions = store.versions("pillow", "numpy")

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Map an RGB image to (size, size) uint8, each pixel the mean of the area that it covers."""
        return np.asarray(image.convert("L").resize((self.size, self.size), Image.Resampling.BOX))

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map (n, size, size) uint8 to (n, size * size) float32."""
        vectors: NDArray[np.float32] = batch.reshape(len(batch), -1).astype(np.float32)
        vectors -= vectors.mean(axis=1, keepdims=True)
        return vectors
