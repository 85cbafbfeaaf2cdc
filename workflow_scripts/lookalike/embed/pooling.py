"""From the tokens or the feature map that a network gives to one vector for each image, in NumPy."""

import numpy as np
from numpy.typing import NDArray

from lookalike.job.errors import LookalikeError

# F. Radenović et al., Fine-tuning CNN Image Retrieval with No Human Annotation (2018)
GEM_POWER, GEM_EPSILON = 3.0, 1e-6


def gem(patches: NDArray[np.float32]) -> NDArray[np.float32]:
    """Generalised mean of (n, patches, channels) over the patches; negative values count as 0."""
    mean: NDArray[np.float32] = np.mean(np.maximum(patches, GEM_EPSILON) ** GEM_POWER, axis=1)
    pooled: NDArray[np.float32] = mean ** (1 / GEM_POWER)
    return pooled


def pool(feature: NDArray[np.float32], pooling: str, sides: tuple[int, int], where: str) -> NDArray[np.float32]:
    """One vector for each image from (n, tokens, channels), or from a feature map, whose channels come first or last.

    ``sides`` are height and width of what the network was given: they tell a map's area from its channels.
    Raises LookalikeError, which ``where`` begins, for what cannot be pooled so.
    """
    if feature.ndim == 4:
        if pooling == "cls":
            raise LookalikeError(f"{where}: is a feature map, which has no class token. Use pooling: mean or gem.")
        feature = _as_patches(feature, sides, where)
    if feature.ndim != 3:
        raise LookalikeError(
            f"{where}: has the shape {feature.shape}, which is neither tokens (n, tokens, channels) nor a feature map. "
            "Leave pooling out, or choose another output."
        )
    if pooling == "cls":
        return feature[:, 0]
    pooled: NDArray[np.float32] = feature.mean(axis=1) if pooling == "mean" else gem(feature)
    return pooled


def _as_patches(feature: NDArray[np.float32], sides: tuple[int, int], where: str) -> NDArray[np.float32]:
    """A feature map as (n, patches, channels): the area is where the proportions of the image are."""
    (a, b, c), (height, width) = feature.shape[1:], sides
    first, last = b * width == c * height, a * width == b * height
    if first == last:
        raise LookalikeError(
            f"{where}: is a map of {a} x {b} x {c} numbers, and it is ambiguous which of them are channels. "
            "Choose an output that is one vector, or another size."
        )
    return feature.reshape(len(feature), a, b * c).transpose(0, 2, 1) if first else feature.reshape(-1, a * b, c)
