"""Family `torchscript`: a scripted network in a file. It is code, so its hash is checked before it is loaded."""

import logging
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookalike import store
from lookalike.config import TorchScript
from lookalike.devices import out_of_memory
from lookalike.errors import LookalikeError
from lookalike.formats import Weights
from lookalike.models import Machine
from lookalike.models.torch_encoder import TorchEncoder, exact_float32
from lookalike.models.trial import try_out
from lookalike.preprocess import Geometry, Values

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
PATIENCE = 60  # seconds without a byte


def dimension(entry: TorchScript) -> None:
    """Only the loaded model knows."""
    return


def fetch(entry: TorchScript) -> Weights:
    """Find the file, or fetch it, and see that it is the one that the entry means."""
    from huggingface_hub import constants

    if entry.url and not Path(entry.path).exists() and not constants.HF_HUB_OFFLINE:
        _download(entry.url, Path(entry.path))
    path = _checked(entry)
    return Weights(source=f"file {entry.path}", revision="", files={path.name: entry.sha256})


def look(entry: TorchScript) -> None:
    """Look for the file."""
    _existing(entry)


def load(entry: TorchScript, weights: Weights, machine: Machine) -> "Script":
    """Load the file, after its hash was found to be the entry's."""
    return Script(entry, _checked(entry), machine)


def _download(url: str, path: Path) -> None:
    log.info("fetching %s", url)
    try:
        with urlopen(url, timeout=PATIENCE) as answer:
            contents = answer.read()
    except (OSError, HTTPException) as error:
        raise LookalikeError(
            f"{url}: cannot be fetched: {error}. Run fetch_weights where the network is, or download the file yourself "
            f"and put it at {path}."
        ) from None
    with store.atomic(path) as temporary:
        temporary.write_bytes(contents)


def _existing(entry: TorchScript) -> Path:
    path = Path(entry.path)
    if not path.is_file():
        raise LookalikeError(
            f"{path}: there is no such file. Download it from where its authors publish it, give the model's entry a "
            "'url', or mend its 'path'."
        )
    return path


def _checked(entry: TorchScript) -> Path:
    path = _existing(entry)
    found = store.sha256_file(path)
    if found != entry.sha256:
        raise LookalikeError(
            f"{path}: its SHA-256 is {found}, and the model's entry says {entry.sha256}. A scripted file is code and "
            "is not run unless they agree. Download it again; change 'sha256' only where you trust the new file."
        )
    return path


class Script(TorchEncoder):
    """The network on its device; ``dimension`` is what it gives for one picture."""

    compute_dtype = "float32"

    def __init__(self, entry: TorchScript, path: Path, machine: Machine) -> None:
        import torch

        super().__init__(machine)
        exact_float32()
        self.geometry = Geometry.square(entry.size, entry.resize, entry.interpolation)
        if entry.decode == "fast":
            self.needs = self.geometry.needs
        values = Values.normalising(entry.mean, entry.std)
        self.scale, self.offset = (torch.from_numpy(one).to(self.torch_device) for one in (values.scale, values.offset))
        try:
            self.network = torch.jit.load(path, map_location="cpu").eval().to(self.torch_device)
        except RuntimeError as error:
            raise LookalikeError(f"{path}: is no TorchScript file: {str(error).splitlines()[0]}") from None
        self.path = path
        self.dimension = try_out(
            self,
            str(path),
            repeatable="Script the network again in evaluation mode (network.eval()).",
            otherwise="Use a network that takes RGB images and gives one vector for each.",
            catch=RuntimeError,
        )
        self.versions = store.versions("torch", "pillow", "numpy")

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """(size, size, 3) uint8."""
        return self.geometry(image)

    def forward(self, batch: "torch.Tensor") -> "torch.Tensor":
        """(n, size, size, 3) uint8 to (n, dimension) float32."""
        import torch

        pixels = (batch.float() * self.scale + self.offset).permute(0, 3, 1, 2)
        try:
            found = self.network(pixels.contiguous())  # as it was scripted: it may rely on the order of numbers
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            raise LookalikeError(
                f"{self.path}: cannot take pictures of {batch.shape[2]} x {batch.shape[1]} pixels: "
                f"{str(error).strip().splitlines()[-1]}"
            ) from None
        if not isinstance(found, torch.Tensor) or found.ndim != 2 or len(found) != len(batch):
            shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            raise LookalikeError(f"{self.path}: gives {shape} for {len(batch)} pictures, not one vector for each.")
        return found
