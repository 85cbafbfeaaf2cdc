"""An exported network, run by ONNX Runtime on a CPU: neither torch nor transformers is imported.

A row of the result does not depend on the batch that it was computed in, bit for bit, so that on one kind of CPU a
vector is a function of the image alone.
"""

import hashlib
import importlib.util
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookalike.embed.encoders import Machine
from lookalike.embed.file_hashes import sha256
from lookalike.embed.layout import pool
from lookalike.embed.onnx_session import cuda_devices, open_session
from lookalike.embed.preprocess import Geometry
from lookalike.io import store
from lookalike.io.formats import exports
from lookalike.io.formats.records import Weights
from lookalike.job import devices
from lookalike.job.errors import LookalikeError

log = logging.getLogger(__name__)

INPUT, OUTPUT = "images", "feature"  # names in the graph


def load(entry: Any, weights: Weights, machine: Machine, export: str | Path) -> "Exported | None":
    """Load the network that ``export`` (export.json) describes; None where torch is to be used, and the log says why.

    Raises LookalikeError for a network that is missing, damaged, or of other weights or settings.
    """
    record = store.read_json(export, exports.Export)
    if (record.key, record.weights_checksum) != (entry.export_key(), store.checksum(weights)):
        raise LookalikeError(f"{export}: was exported from other weights or settings. {again(export)}")
    if record.network is None:
        log.info("computing with torch: %s", record.reason)
        return None
    if machine.gpu:
        if cuda_devices() or Path("/dev/kfd").exists():
            return None  # torch uses it, and says so where it cannot
        devices.go_without_gpu("its driver lists none")
    if importlib.util.find_spec("onnxruntime") is None:
        log.warning("computing with torch, which is slower: onnxruntime is not installed (pip install onnxruntime)")
        return None
    for name, expected in record.network.files.items():
        file = Path(export).parent / name
        if not file.is_file():
            raise LookalikeError(f"{file}: has been removed since it was exported. {again(export)}")
        if sha256(file) != expected:
            raise LookalikeError(f"{file}: has changed since it was exported, or is damaged. {again(export)}")
    return Exported(entry, record.network, Path(export).parent, machine)


def again(export: str | Path) -> str:
    """The remedy for an export that cannot be used."""
    return f"Export again: --forcerun {export}"


class Exported:
    """A loaded network; vectors are pooled in NumPy."""

    engine = "onnxruntime"
    compute_dtype = "float32"
    overlaps = False

    def __init__(self, entry: Any, network: exports.Network, folder: Path, machine: Machine) -> None:
        file = folder / next(iter(network.files))
        self._session = open_session(file, str(file), threads=machine.threads)
        self._layout, self.where = network.layout, str(file)
        self._pooling = getattr(entry, "pooling", "mean")
        self.device = self._session.device
        decides = network.model_dump_json(include={"files", "resizing", "layout"})
        self.export = hashlib.sha256(decides.encode()).hexdigest()
        self._geometry = geometry(network)
        if entry.decode == "fast":
            self.needs = self._geometry.needs
        if entry.compute_dtype != self.compute_dtype:
            log.warning("%s: computing in float32, not %s, on the CPU", file, entry.compute_dtype)
        side = self._session.inputs[0].shape[1:]
        self.dimension = int(self.encode(np.zeros((1, *(length or 1 for length in side)), np.uint8)).shape[1])
        self.versions = {**self._session.versions, **store.versions("pillow", "numpy")}

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Map an RGB image to (height, width, 3) uint8."""
        return self._geometry(image)

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map (n, height, width, 3) uint8 to (n, dimension) float32."""
        vectors: NDArray[np.float32] = pool(self.feature(batch), self._pooling, self._layout, self.where)
        return vectors

    def feature(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map (n, height, width, 3) uint8 to the network's output, (n, ...) float32."""
        (feature,) = self._session.run({INPUT: batch}, [OUTPUT])
        return feature


def geometry(network: exports.Network) -> Geometry:
    """How the network's images are resized and cropped."""
    return Geometry(**network.resizing.model_dump())
