"""Family `torchscript`: a scripted network in a file. It is code, so its hash is checked before it is loaded."""

import hashlib
import logging
import time
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookalike.config.models import TorchScript
from lookalike.embed.encoders import Machine
from lookalike.embed.preprocess import Geometry, Values
from lookalike.embed.torch_encoder import TorchEncoder, exact_float32
from lookalike.embed.trial import try_out
from lookalike.io import store
from lookalike.io.formats.records import Weights
from lookalike.job.devices import out_of_memory
from lookalike.job.errors import LookalikeError

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
PATIENCE = 60.0  # seconds without a byte, or for LEAST bytes
LEAST, CHUNK = 1 << 16, 1 << 20  # bytes
TRIES = 3
UNTRUSTED = (
    "A scripted file is code and is not run unless they agree. Download it again; change 'sha256' only where you trust "
    "the new file."
)


def fetch(entry: TorchScript) -> Weights:
    """Find the file and see that it is the one that the entry means; fetch it where it is missing or another one."""
    from huggingface_hub import constants

    path = Path(entry.path)
    if entry.url and not constants.HF_HUB_OFFLINE:
        if not path.exists():
            _download(entry, path)
        elif store.sha256_file(path) != entry.sha256:
            log.warning("%s: is not the file of this SHA-256, perhaps not all of it: fetching it again", path)
            try:
                _download(entry, path)
            except LookalikeError as error:  # what is wrong with the file is said below
                log.warning("%s", error)
    path = _checked(entry)
    return Weights(source=f"file {entry.path}", revision="", files={path.name: entry.sha256})


def look(entry: TorchScript) -> None:
    """Look for the file."""
    _existing(entry)


def load(entry: TorchScript, weights: Weights, machine: Machine) -> "Script":
    """Load the file, after its hash was found to be the entry's."""
    return Script(entry, _checked(entry), machine)


class _NotWholeError(Exception):
    """A transfer broke off, stalled, or brought another number of bytes than was announced."""


def _download(entry: TorchScript, path: Path) -> None:
    """Fetch the file, again where it did not come whole. It takes its name only when it is the one that is meant."""
    url, manually = entry.url or "", f"download the file yourself and put it at {path}"
    for attempt in range(1, TRIES + 1):
        log.info("fetching %s", url)
        try:
            with _opened(url) as answer, store.atomic(path) as temporary:
                _receive(answer, temporary, entry.sha256)
            return
        except _NotWholeError as broken:
            log.warning("%s: %s (try %d of %d)", url, broken, attempt, TRIES)
            reason = str(broken)
        except (OSError, HTTPException) as error:
            reason = str(error)
            break
    raise LookalikeError(f"{url}: cannot be fetched: {reason}. Run fetch_weights where the network is, or {manually}.")


def _receive(answer: HTTPResponse, file: Path, sha256: str) -> None:
    announced, digest, count = answer.length, hashlib.sha256(), 0
    with file.open("wb") as out:
        for chunk in _chunks(answer):
            out.write(chunk)
            digest.update(chunk)
            count += len(chunk)
    if announced not in (None, count):
        raise _NotWholeError(f"{count:,} of {announced:,} bytes came")
    if (found := digest.hexdigest()) != sha256:
        message = f"what came, {count:,} bytes, has the SHA-256 {found}, and the model's entry says {sha256}"
        if announced is None:  # it may have been cut
            raise _NotWholeError(message)
        raise LookalikeError(f"{answer.url}: {message}. {UNTRUSTED}")


def _chunks(answer: HTTPResponse) -> Iterator[bytes]:
    """What a server sends, as it comes. A connection is given up that brings less than LEAST bytes in PATIENCE."""
    started, count = time.monotonic(), 0
    while True:
        try:
            chunk = answer.read1(CHUNK)
        except (OSError, HTTPException) as error:
            raise _NotWholeError(f"the connection broke: {error}") from None
        if not chunk:
            return
        count += len(chunk)
        if count >= LEAST:
            started, count = time.monotonic(), 0
        elif time.monotonic() - started > PATIENCE:
            raise _NotWholeError(f"less than {LEAST:,} bytes came in {PATIENCE:g} seconds")
        yield chunk


def _opened(url: str) -> HTTPResponse:
    answer: HTTPResponse = urlopen(url, timeout=PATIENCE)
    return answer


def _existing(entry: TorchScript) -> Path:
    path = Path(entry.path)
    if not path.is_file():
        raise LookalikeError(
            f"{path}: there is no such file. Download it from where its authors publish it, give the model's entry a "
            "'url', or fix its 'path'."
        )
    return path


def _checked(entry: TorchScript) -> Path:
    path = _existing(entry)
    found = store.sha256_file(path)
    if found != entry.sha256:
        raise LookalikeError(f"{path}: its SHA-256 is {found}, and the model's entry says {entry.sha256}. {UNTRUSTED}")
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
            if out_of_memory(error):
                raise
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
