"""Models: one module per family, imported on demand, so that only those who need torch pay for importing it.

A family module has three functions:

- ``fetch(entry) -> Weights`` runs with network access and returns the files and their hashes. Of the entry it reads
  only what is in its ``weights_key``.
- ``check_available(entry)`` raises LookalikeError if the weights are not on this machine. It is quick: it reads none.
- ``load(entry, weights, machine) -> Encoder`` runs offline and rejects weights other than the recorded ones.
"""

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import TypeAdapter

from lookalike.config.models import Embed
from lookalike.io.color_profiles import Icc
from lookalike.io.formats.records import Weights
from lookalike.job.errors import LookalikeError
from lookalike.job.packages import missing_import

Computed = tuple[NDArray[np.float32], dict[str, float]]  # vectors, and seconds: `transfer` and `forward`
Size = tuple[int, int]  # width, height
# not an import statement: it counts only for models that can be exported (``plan.Plan.code``)
EXPORTED = "lookalike.embed.exported"
GPU_DECODING = "lookalike.embed.gpu_decoding"  # likewise, for `decode: gpu`


class Encoder(Protocol):
    """A loaded model. ``prepare`` is called from several threads, ``encode`` from one.

    An encoder with its own device also has ``launch`` (``embed/torch_encoder.py``). With `decode: fast` it has
    ``needs``, which maps an image's size to the smallest size that it may be decoded at; with `decode: gpu` it has
    ``take`` (``embed/gpu_decoding.py``), and with `icc: srgb`, ``icc``.
    """

    dimension: int
    device: str  # for people, such as "CPU (2 threads)"
    overlaps: bool  # computes on its own device, which leaves the CPU free to prepare the next images
    compute_dtype: str
    versions: dict[str, str]  # of the libraries that compute the vectors

    def prepare(self, image: Image.Image) -> NDArray[Any]:
        """Convert one RGB image to an array; ``encode`` takes a stack of these."""

    def encode(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Map (n, ...) prepared images to (n, dimension) float32 vectors, not normalised."""


@dataclass(frozen=True)
class Machine:
    """The resources that a job may use."""

    threads: int = 1
    gpu: bool = False


def launch(encoder: Encoder, prepared: Sequence[NDArray[Any]]) -> Callable[[], Computed]:
    """Start encoding a batch of prepared images; return a function that waits for the vectors.

    An encoder without ``launch`` computes them before this returns.
    """
    if start := getattr(encoder, "launch", None):
        result: Callable[[], Computed] = start(prepared)
        return result
    started = time.perf_counter()
    vectors = encoder.encode(np.stack(prepared))
    seconds = {"forward": time.perf_counter() - started}
    return lambda: (vectors, seconds)


def take(encoder: Encoder, data: bytes) -> tuple[NDArray[np.uint8], Size] | None:
    """An image file for ``launch``, undecoded, and its size; None if it must be decoded and prepared first."""
    taken: Callable[[bytes], tuple[NDArray[np.uint8], Size] | None] | None = getattr(encoder, "take", None)
    return taken(data) if taken else None


def needs(encoder: Encoder) -> Callable[[Size], Size] | None:
    """Function from an image's size to the smallest size to decode it at; None means full size."""
    smallest: Callable[[Size], Size] | None = getattr(encoder, "needs", None)
    return smallest


def icc(encoder: Encoder) -> Icc:
    """What to do about color profiles (``images.decode``)."""
    chosen: Icc = getattr(encoder, "icc", "ignore")
    return chosen


def parse(key: str) -> Any:
    """Parse a model's `embed:` entry from its key (``plan.Plan.embedding_key``)."""
    return TypeAdapter(Embed).validate_json(key)


def family(entry: Any) -> Any:
    """The module of an entry's family."""
    return importlib.import_module(f"lookalike.embed.models.{entry.family}")


def load(key: str, weights: Weights, machine: Machine, export: str | Path | None = None) -> Encoder:
    """Load a model. Raises LookalikeError if the weights are missing or differ from the recorded ones.

    With an ``export`` (export.json), ONNX Runtime computes, unless that says otherwise or a GPU may be used.
    """
    entry = parse(key)
    encoder: Encoder | None = None
    try:
        if export:
            encoder = importlib.import_module(EXPORTED).load(entry, weights, machine, export)
        loaded: Any = encoder or family(entry).load(entry, weights, machine)
    except ModuleNotFoundError as error:
        if message := missing_import(error):
            raise LookalikeError(f"{weights.source}: {message}") from None
        raise
    if entry.icc != "ignore":
        loaded.icc = entry.icc
    if getattr(entry, "decode", "full") == "gpu":
        loaded = importlib.import_module(GPU_DECODING).GpuDecoding(loaded)
    return cast(Encoder, loaded)


def export(encoder: Encoder) -> str | None:
    """What identifies the exported network that computes the vectors, for a footer; None without one."""
    identity: str | None = getattr(encoder, "export", None)
    return identity


def engine(encoder: Encoder) -> dict[str, str]:
    """What computes the vectors, for a footer: name, version, and what its kernels are chosen by."""
    name: str = getattr(encoder, "engine", "python")
    instructions: str = encoder.versions.get("instructions", getattr(encoder, "instructions", ""))
    return {"name": name, "version": encoder.versions.get(name, ""), "instructions": instructions}
