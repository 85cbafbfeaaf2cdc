"""Family `torchscript`: a scripted network in a file. TorchScript is executable code, so its hash is checked first."""

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
from lookalike.embed import downloads
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
LEAST, CHUNK = 1 << 16, 1 << 20  # bytes: what must arrive within the time limit, and the most to read at once
TRIES = 3
UNTRUSTED = (
    "TorchScript is executable code: only this hash is accepted. Download the file again; change 'sha256' only if you "
    "trust the new file."
)


def fetch(entry: TorchScript) -> Weights:
    """Check the file's hash against the entry's; download the file if it is missing or its hash differs."""
    from huggingface_hub import constants

    path = Path(entry.path)
    if entry.url and not constants.HF_HUB_OFFLINE:
        if not path.exists():
            _download(entry, path)
        elif store.sha256_file(path) != entry.sha256:
            log.warning("%s: its SHA-256 is not that of the model's entry, perhaps cut short: fetching it again", path)
            try:
                _download(entry, path)
            except LookalikeError as error:  # _checked reports the file itself below
                log.warning("%s", error)
    path = _checked(entry)
    return Weights(source=f"file {entry.path}", revision="", files={path.name: entry.sha256})


def check_available(entry: TorchScript) -> None:
    """Raise LookalikeError if the file is missing."""
    _existing(entry)


def load(entry: TorchScript, weights: Weights, machine: Machine) -> "Script":
    """Load the file. Raises LookalikeError if its hash is not the entry's."""
    return Script(entry, _checked(entry), machine)


class _IncompleteError(Exception):
    """A download broke off, stalled, or had a size other than announced."""


def _download(entry: TorchScript, path: Path) -> None:
    """Download the file, with retries. It gets its final name only once its hash is confirmed."""
    url, manually = entry.url or "", f"download the file yourself and put it at {path}"
    for attempt in range(1, TRIES + 1):
        log.info("fetching %s", url)
        try:
            with _opened(url) as response, store.atomic(path) as temporary:
                _receive(response, temporary, entry.sha256)
            return
        except _IncompleteError as incomplete:
            log.warning("%s: %s (attempt %d of %d)", url, incomplete, attempt, TRIES)
            reason = str(incomplete)
        except (OSError, HTTPException) as error:
            reason = str(error)
            break
    raise LookalikeError(f"{url}: cannot be fetched: {reason}. Run fetch_weights with network access, or {manually}.")


def _receive(response: HTTPResponse, file: Path, sha256: str) -> None:
    announced, digest, count = response.length, hashlib.sha256(), 0
    with file.open("wb") as out:
        for chunk in _chunks(response):
            out.write(chunk)
            digest.update(chunk)
            count += len(chunk)
    if announced not in (None, count):
        raise _IncompleteError(f"received {count:,} of {announced:,} bytes")
    if (actual := digest.hexdigest()) != sha256:
        message = f"the SHA-256 of the {count:,} bytes received is {actual}, but the model's entry says {sha256}"
        if announced is None:  # it may have been cut short
            raise _IncompleteError(message)
        raise LookalikeError(f"{response.url}: {message}. {UNTRUSTED}")


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    """Yield a response as it arrives. Gives up on a connection that sends less than LEAST bytes in the time limit."""
    patience = downloads.CHUNK_SECONDS.get()
    started, count = time.monotonic(), 0
    while True:
        try:
            chunk = response.read1(CHUNK)
        except (OSError, HTTPException) as error:
            raise _IncompleteError(f"the connection broke: {error}") from None
        if not chunk:
            return
        count += len(chunk)
        if count >= LEAST:
            started, count = time.monotonic(), 0
        elif time.monotonic() - started > patience:
            raise _IncompleteError(f"received less than {LEAST:,} bytes in {patience:g} seconds")
        yield chunk


def _opened(url: str) -> HTTPResponse:
    response: HTTPResponse = urlopen(url, timeout=downloads.CHUNK_SECONDS.get())
    return response


def _existing(entry: TorchScript) -> Path:
    path = Path(entry.path)
    if not path.is_file():
        raise LookalikeError(
            f"{path}: no such file. Download it from its authors, add a 'url' to the model's entry, or fix its 'path'."
        )
    return path


def _checked(entry: TorchScript) -> Path:
    path = _existing(entry)
    actual = store.sha256_file(path)
    if actual != entry.sha256:
        raise LookalikeError(f"{path}: its SHA-256 is {actual}, but the model's entry says {entry.sha256}. {UNTRUSTED}")
    return path


class Script(TorchEncoder):
    """The network, loaded on a device; ``dimension`` is measured on a test image."""

    compute_dtype = "float32"

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
            self.network = torch.jit.load(path, map_location="cpu").eval().to(self.torch_device)
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            raise LookalikeError(f"{path}: is not a TorchScript file: {str(error).splitlines()[0]}") from None
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
        """Map an RGB image to (size, size, 3) uint8."""
        return self.geometry(image)

    def forward(self, batch: "torch.Tensor") -> "torch.Tensor":
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
                f"{str(error).strip().splitlines()[-1]}"
            ) from None
        if not isinstance(vectors, torch.Tensor) or vectors.ndim != 2 or len(vectors) != len(batch):
            shape = tuple(vectors.shape) if isinstance(vectors, torch.Tensor) else type(vectors).__name__
            raise LookalikeError(f"{self.path}: returns {shape} for {len(batch)} images, not one vector per image.")
        return vectors
