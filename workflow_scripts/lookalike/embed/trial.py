"""A network is tried when it is loaded: what it gives for an image must be a function of that image alone."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookalike.job.devices import out_of_memory
from lookalike.job.errors import LookalikeError

# What rounding may move a vector by, as a share of its length, when other images are in the batch. In float32 that is
# some 1e-6; in half precision an error of one number in a thousand grows from layer to layer.
TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}


class Loaded(Protocol):
    """What is needed of an encoder (``encoders.Encoder``), which need not know its dimension yet."""

    compute_dtype: str

    def prepare(self, image: Image.Image) -> NDArray[Any]:
        """One RGB image to the array that ``encode`` takes a batch of."""

    def encode(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(n, ...) prepared images to (n, dimension) float32."""


def try_out(
    encoder: Loaded, where: str, *, repeatable: str, otherwise: str, missing: Sequence[str] = (), catch: Any = Exception
) -> int:
    """Encode a test image twice, and once more beside another; returns the vector's length.

    Raises LookalikeError where that fails, with the remedy ``otherwise``; where the numbers are not finite, since
    weights are ``missing``; and where the vectors of the one image differ, with the remedy ``repeatable``.
    """
    draw = np.random.default_rng(0)
    images = [Image.fromarray(draw.integers(0, 256, (*sides, 3), np.uint8)) for sides in ((200, 331), (331, 200))]
    try:
        image, other = (np.asarray(encoder.prepare(one)) for one in images)
        if image.shape != other.shape:
            raise LookalikeError(
                f"{where}: images of different shapes become arrays of different shapes, {image.shape} and "
                f"{other.shape}, which fit into no batch. Resize every image to one size when it is prepared."
            )
        alone, again = (_vectors(encoder, [image], where, otherwise) for _ in range(2))
        if not np.isfinite(alone).all():
            lacks = f"the checkpoint lacks {', '.join(missing[:3])}" if missing else "the weights are damaged"
            raise LookalikeError(f"{where}: gives NaN or infinite numbers, since {lacks}. {otherwise}")
        try:
            beside = _vectors(encoder, [other, image], where, otherwise)[1:]
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            beside = alone  # not even two fit into memory, so there will be no batches
    except LookalikeError:
        raise
    except catch as error:
        if out_of_memory(error):
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
        raise LookalikeError(
            f"{where}: fails on a test image: {type(error).__name__}: {reason.rstrip('.')}. {otherwise}"
        ) from error
    allowed = TOLERANCE.get(encoder.compute_dtype, max(TOLERANCE.values()))
    if (moved := _moved(alone, again)) > allowed:
        raise LookalikeError(
            f"{where}: draws at random: the same image, encoded twice, gave vectors that differ by {moved:.2g} of "
            f"their length. {repeatable}"
        )
    if (moved := _moved(alone, beside)) > allowed:
        raise LookalikeError(
            f"{where}: an image's vector depends on the other images of its batch: alone and beside another it differs "
            f"by {moved:.2g} of its length. {repeatable}"
        )
    return int(alone.shape[1])


def _vectors(encoder: Loaded, images: list[NDArray[Any]], where: str, otherwise: str) -> NDArray[np.float64]:
    vectors = np.asarray(encoder.encode(np.stack(images)), np.float64)
    if vectors.ndim != 2 or len(vectors) != len(images):
        raise LookalikeError(
            f"{where}: gives an array of shape {vectors.shape} for a batch of {len(images)}, not one vector for each "
            f"image. {otherwise}"
        )
    return vectors


def _moved(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """How far two vectors are apart, as a share of the first one's length."""
    return float(np.linalg.norm(one - other)) / max(float(np.linalg.norm(one)), float(np.finfo(np.float32).tiny))
