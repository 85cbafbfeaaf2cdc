"""Trial run of a network after loading: an image's vector must depend on that image alone."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookalike.job.devices import out_of_memory
from lookalike.job.errors import LookalikeError

# Largest change of a vector, relative to its norm, when the rest of the batch changes. Rounding accounts for about 1e-6
# in float32; in half precision an error of 1e-3 grows from layer to layer.
TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}


class Loaded(Protocol):
    """The part of ``encoders.Encoder`` that a trial needs; its dimension may still be unknown."""

    compute_dtype: str

    def prepare(self, image: Image.Image) -> NDArray[Any]:
        """Convert one RGB image to an array; ``encode`` takes a stack of these."""

    def encode(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Map (n, ...) prepared images to (n, dimension) float32."""


def try_out(
    encoder: Loaded, where: str, *, repeatable: str, otherwise: str, missing: Sequence[str] = (), catch: Any = Exception
) -> int:
    """Encode a test image twice alone and once in a batch with another; return the vectors' dimension.

    Raises LookalikeError with the remedy ``otherwise`` if encoding fails or gives numbers that are not finite (because
    weights are ``missing``), and with the remedy ``repeatable`` if the image's three vectors differ.
    """
    draw = np.random.default_rng(0)
    images = [Image.fromarray(draw.integers(0, 256, (*sides, 3), np.uint8)) for sides in ((200, 331), (331, 200))]
    try:
        image, other = (np.asarray(encoder.prepare(test_image)) for test_image in images)
        if image.shape != other.shape:
            raise LookalikeError(
                f"{where}: images of different shapes become arrays of different shapes, {image.shape} and "
                f"{other.shape}, which cannot be batched. Resize every image to the same size in `prepare`."
            )
        alone, again = (_vectors(encoder, [image], where, otherwise) for _ in range(2))
        if not np.isfinite(alone).all():
            lacks = f"the checkpoint lacks {', '.join(missing[:3])}" if missing else "the weights are damaged"
            raise LookalikeError(f"{where}: gives NaN or infinite numbers, because {lacks}. {otherwise}")
        try:
            beside = _vectors(encoder, [other, image], where, otherwise)[1:]
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            beside = alone  # not even two images fit into memory, so there will be no batches
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
    if (change := _relative_change(alone, again)) > allowed:
        raise LookalikeError(
            f"{where}: is not deterministic: encoding one image twice gave vectors that differ by {change:.2g} of "
            f"their norm. {repeatable}"
        )
    if (change := _relative_change(alone, beside)) > allowed:
        raise LookalikeError(
            f"{where}: an image's vector depends on the other images in its batch: encoded alone and together with "
            f"another, it differs by {change:.2g} of its norm. {repeatable}"
        )
    return int(alone.shape[1])


def _vectors(encoder: Loaded, images: list[NDArray[Any]], where: str, otherwise: str) -> NDArray[np.float64]:
    vectors = np.asarray(encoder.encode(np.stack(images)), np.float64)
    if vectors.ndim != 2 or len(vectors) != len(images):
        raise LookalikeError(
            f"{where}: gives an array of shape {vectors.shape} for a batch of {len(images)}, not one vector per image. "
            f"{otherwise}"
        )
    return vectors


def _relative_change(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Distance of two vectors, relative to the norm of the first."""
    return float(np.linalg.norm(first - second)) / max(float(np.linalg.norm(first)), float(np.finfo(np.float32).tiny))
