"""Family `hash`: perceptual hashes as vectors of +1 and -1, so that cosine = 1 - 2 * Hamming distance / bits.

They answer the first question about any network: is one needed at all? pHash, dHash and wHash are those of the package
imagehash, bit for bit; PDQ is that of Meta's reference implementation, in the package pdqhash.
"""

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookalike.config.models import Hash
from lookalike.embed.encoders import Machine
from lookalike.io import store
from lookalike.io.formats.records import Weights
from lookalike.job.devices import cpu
from lookalike.job.errors import LookalikeError

PACKAGES = {"phash": "imagehash", "dhash": "imagehash", "whash": "imagehash", "pdq": "pdqhash"}


def fetch(entry: Hash) -> Weights:
    """Nothing is fetched: a hash is computed by its package."""
    _package(entry)
    return Weights(source="computed from pixels", revision="", files={})


def check_available(entry: Hash) -> None:
    """Raise LookalikeError if the package is not installed."""
    _package(entry)


def load(entry: Hash, weights: Weights, machine: Machine) -> "Hasher":
    """The encoder; it needs no weights."""
    return Hasher(entry, cpu(machine))


def _package(entry: Hash) -> Any:
    name = PACKAGES[entry.method]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise LookalikeError(
            f"hash {entry.method}: needs the Python package {name}, which cannot be imported ({error}). "
            f"Install it: pip install {name}"
        ) from None


class Hasher:
    """The bits of a hash as +1 and -1."""

    compute_dtype = "float32"
    overlaps = False

    def __init__(self, entry: Hash, device: str) -> None:
        self.device = device
        self.dimension = entry.bits
        self._side = round(entry.bits**0.5)
        self._compute = getattr(self, f"_{entry.method}")
        self._library = _package(entry)
        self.versions = store.versions("imagehash", "pdqhash", "pywavelets", "scipy", "pillow", "numpy")

    def prepare(self, image: Image.Image) -> NDArray[np.bool_]:
        """(bits,) bool."""
        return np.asarray(self._compute(image), bool).reshape(-1)

    def encode(self, batch: NDArray[np.bool_]) -> NDArray[np.float32]:
        """(n, bits) bool to (n, bits) float32, +1 for a bit that is set and -1 for one that is not."""
        return np.where(batch, np.float32(1), np.float32(-1))

    def _phash(self, image: Image.Image) -> NDArray[Any]:
        bits: NDArray[Any] = self._library.phash(image, hash_size=self._side).hash
        return bits

    def _dhash(self, image: Image.Image) -> NDArray[Any]:
        bits: NDArray[Any] = self._library.dhash(image, hash_size=self._side).hash
        return bits

    def _whash(self, image: Image.Image) -> NDArray[Any]:
        bits: NDArray[Any] = self._library.whash(image, hash_size=self._side).hash
        return bits

    def _pdq(self, image: Image.Image) -> NDArray[Any]:
        bits: NDArray[Any] = self._library.compute(np.ascontiguousarray(image))[0]
        return bits
