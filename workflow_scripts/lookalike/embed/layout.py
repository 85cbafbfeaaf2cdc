"""From a network's output to one vector for each image, for arrays of torch and of NumPy alike.

Which axes hold patches is decided once, when a network is loaded or exported (``Layout``).
"""

from typing import Any

from lookalike.embed.pooling import GEM_EPSILON, GEM_POWER
from lookalike.io.formats.exports import Layout
from lookalike.job.errors import LookalikeError

VECTOR, TOKENS, MAP = Layout(axes=()), Layout(axes=(1,)), Layout(axes=(2, 3))  # a map's channels come first


def pool(feature: Any, pooling: str, layout: Layout, where: str) -> Any:
    """Map the output (n, ...) of torch or NumPy to (n, dimension).

    Raises LookalikeError, which ``where`` begins, for an output that cannot be pooled so.
    """
    if not layout.axes:
        return feature
    if pooling == "mean":
        return feature.mean(layout.axes)
    if len(layout.axes) == 2:
        if pooling != "gem":
            raise LookalikeError(f"{where}: the feature is a map without a class token. Use pooling: mean or gem.")
        return _gem(feature, layout.axes)
    if layout.first_patch is None:
        raise LookalikeError(f"{where}: {layout.problem}")
    if pooling == "cls":
        if not layout.first_patch:
            raise LookalikeError(f"{where}: this architecture has no class token. Use pooling: mean.")
        return feature[:, 0]
    patches = feature[:, layout.first_patch :]
    return patches.mean(1) if pooling == "mean_patches" else _gem(patches, layout.axes)


def poolings(layout: Layout) -> tuple[str, ...]:
    """The values of ``pooling`` that an output allows; what is a vector already allows only none."""
    if not layout.axes:
        return ("none",)
    if len(layout.axes) == 2:
        return ("mean", "gem")
    if layout.first_patch is None:
        return ("mean",)
    return ("mean", "mean_patches", "gem", *(("cls",) if layout.first_patch else ()))


def _gem(feature: Any, axes: tuple[int, ...]) -> Any:
    """Generalised mean (GeM); negative values count as 0."""
    return (feature.clip(min=GEM_EPSILON) ** GEM_POWER).mean(axes) ** (1 / GEM_POWER)
