"""Models: one module a family, loaded by name, so that nobody pays for torch who does not need it.

A family module has ``fetch(entry) -> Weights``, which runs where the network is and says what was found (of the entry
it reads only what is in its ``weights_key``), and
``load(entry, weights, machine) -> Encoder``, which runs offline and refuses weights that are not those.
``look(entry)`` raises LookalikeError where the weights are not on this machine; it is quick, and reads none of them.
"""

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import TypeAdapter

from lookalike.config.models import Embed
from lookalike.io.formats.records import Weights

Computed = tuple[NDArray[np.float32], dict[str, float]]  # vectors, and seconds: `transfer` and `forward`
Size = tuple[int, int]  # width, height


class Encoder(Protocol):
    """A loaded model. ``prepare`` is called from several threads, ``encode`` from one.

    An encoder with a device of its own also has ``launch`` (``embed/torch_encoder.py``); one of a model with
    `decode: fast` has ``needs``, which says how large a picture of a size must at least be decoded.
    """

    dimension: int
    device: str  # for people, such as "CPU (2 threads)"
    overlaps: bool  # computes on a device of its own, so that the CPU is free to prepare the next pictures
    compute_dtype: str
    versions: dict[str, str]  # of the libraries that make the numbers

    def prepare(self, image: Image.Image) -> NDArray[Any]:
        """One RGB picture to the array that ``encode`` takes a batch of."""

    def encode(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(n, ...) prepared pictures to (n, dimension) float32 vectors, not normalised."""


@dataclass(frozen=True)
class Machine:
    """What a job may use."""

    threads: int = 1
    gpu: bool = False


def launch(encoder: Encoder, prepared: Sequence[NDArray[Any]]) -> Callable[[], Computed]:
    """Start on a batch of prepared pictures; what comes back waits for the vectors.

    An encoder without ``launch`` has them already then.
    """
    if start := getattr(encoder, "launch", None):
        begun: Callable[[], Computed] = start(prepared)
        return begun
    started = time.perf_counter()
    vectors = encoder.encode(np.stack(prepared))
    seconds = {"forward": time.perf_counter() - started}
    return lambda: (vectors, seconds)


def needs(encoder: Encoder) -> Callable[[Size], Size] | None:
    """How large a picture must at least be decoded, from its own size; None where it is decoded in full."""
    found: Callable[[Size], Size] | None = getattr(encoder, "needs", None)
    return found


def parse(key: str) -> Any:
    """The `embed:` entry of a model from its key (``plan.Plan.embedding_key``)."""
    return TypeAdapter(Embed).validate_json(key)


def family(entry: Any) -> Any:
    """The module of an entry's family."""
    return importlib.import_module(f"lookalike.embed.models.{entry.family}")


def load(key: str, weights: Weights, machine: Machine) -> Encoder:
    """Load a model. Raises LookalikeError where the weights are missing or are not the recorded ones."""
    entry = parse(key)
    encoder: Encoder = family(entry).load(entry, weights, machine)
    return encoder
