"""Family `torchscript`: a scripted network in a file. TorchScript is executable code, so its hash is checked first."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookalike.config.models import TorchScript
from lookalike.embed import downloads
from lookalike.embed.encoders import Machine
from lookalike.embed.layout import VECTOR
from lookalike.embed.preprocess import Geometry, Values
from lookalike.embed.torch_encoder import TorchEncoder, exact_float32
from lookalike.embed.trial import try_out
from lookalike.io import store
from lookalike.io.formats.records import Weights
from lookalike.job.devices import out_of_memory
from lookalike.job.errors import LookalikeError

if TYPE_CHECKING:
    import torch

UNTRUSTED = (
    "TorchScript is executable code: only this hash is accepted. Download the file again; change 'sha256' only if you "
    "trust the new file."
)

OTHERWISE = "Use a network that takes RGB images and gives one vector for each."


def fetch(entry: TorchScript) -> Weights:
    """Check the file's hash against the entry's; download the file if it is missing or its hash differs."""
    path = downloads.fetched(Path(entry.path), entry.url, entry.sha256, UNTRUSTED)
    return Weights(source=f"file {entry.path}", revision="", files={path.name: entry.sha256})


def check_available(entry: TorchScript) -> None:
    """Raise LookalikeError if the file is missing."""
    downloads.existing(Path(entry.path))


def load(entry: TorchScript, weights: Weights, machine: Machine) -> "Script":
    """Load the file. Raises LookalikeError if its hash is not the entry's."""
    return Script(entry, downloads.checked(Path(entry.path), entry.sha256, UNTRUSTED), machine)


class Script(TorchEncoder):
    """The network, loaded on a device; ``dimension`` is measured on a test image."""

    compute_dtype = "float32"
    layout = VECTOR
    geometry: Geometry

    def __init__(self, entry: TorchScript, path: Path, machine: Machine) -> None:
        import torch

        super().__init__(machine)
        exact_float32()
        self.geometry = Geometry.square(entry.size, entry.resize, entry.interpolation)
        if entry.decode == "fast":
            self.needs = self.geometry.needs
        values = Values.normalising(entry.mean, entry.std)
        self.scale, self.offset = (
            torch.from_numpy(array).to(self.torch_device) for array in (values.scale, values.offset)
        )
        try:
            with warnings.catch_warnings():  # deprecated in favour of ahead-of-time export, and it still loads
                warnings.filterwarnings("ignore", message=".*torch.jit.*")
                self.network = torch.jit.load(path, map_location="cpu").eval().to(self.torch_device)
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            reason = str(error).splitlines()[0].rstrip(".")
            raise LookalikeError(f"{path}: is not a TorchScript file: {reason}. {OTHERWISE}") from None
        self.path, self.where = path, str(path)
        self.dimension = try_out(
            self,
            self.where,
            repeatable="Script the network again in evaluation mode (network.eval()).",
            otherwise=OTHERWISE,
            catch=RuntimeError,
        )
        self.versions = store.versions("torch", "pillow", "numpy")

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Map an RGB image to (size, size, 3) uint8."""
        return self.geometry(image)

    def traceable(self) -> Any:
        """The network after the pixels' normalisation, as TorchScript: it cannot be traced."""
        import torch

        class Normalised(torch.nn.Module):  # type: ignore[misc]
            def __init__(self, network: Any, scale: torch.Tensor, offset: torch.Tensor) -> None:
                super().__init__()
                self.network, self.scale, self.offset = network, scale, offset

            def forward(self, batch: torch.Tensor) -> torch.Tensor:
                return self.network((batch.float() * self.scale + self.offset).permute(0, 3, 1, 2).contiguous())

        return torch.jit.script(Normalised(self.network, self.scale, self.offset))

    def feature(self, batch: "torch.Tensor") -> "torch.Tensor":
        """Map (n, size, size, 3) uint8 to (n, dimension) float32."""
        import torch

        pixels = (batch.float() * self.scale + self.offset).permute(0, 3, 1, 2)
        try:
            vectors = self.network(pixels.contiguous())  # as in scripting: the network may rely on the memory layout
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            raise LookalikeError(
                f"{self.path}: fails on images of {batch.shape[2]} x {batch.shape[1]} pixels: "
                f"{str(error).strip().splitlines()[-1].rstrip('.')}. Correct the entry's size."
            ) from None
        if not isinstance(vectors, torch.Tensor) or vectors.ndim != 2 or len(vectors) != len(batch):
            shape = tuple(vectors.shape) if isinstance(vectors, torch.Tensor) else type(vectors).__name__
            raise LookalikeError(
                f"{self.path}: returns {shape} for {len(batch)} images, not one vector per image. {OTHERWISE}"
            )
        return vectors
