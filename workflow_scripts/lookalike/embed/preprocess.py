"""Preprocessing: from a decoded image to the network's input.

A checkpoint's image processor is reproduced in two steps. ``Geometry`` resizes and crops in 8 bits with the same Pillow
calls. ``Values`` rescales and normalises a whole batch on the device, with one multiplication and one addition per
channel. ``embed/pretrained.py`` compares both with the processor itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class Geometry:
    """Resize, then center crop.

    ``size`` is (height, width), or the length of the shorter side, or None for no resizing; ``crop`` is (height, width)
    or None; ``resample`` is a Pillow filter. Half a pixel of a crop's offset is cut off, as in transformers, or
    ``rounded`` to the even side, as in torchvision.
    """

    size: tuple[int, int] | int | None
    crop: tuple[int, int] | None
    resample: int
    rounded: bool = False

    @classmethod
    def square(cls, side: int, resize: Literal["squash", "crop"], interpolation: str) -> "Geometry":
        """A square of ``side`` pixels: the whole image squashed, or its center crop."""
        resample = int(Image.Resampling[interpolation.upper()])
        return cls(side, (side, side), resample) if resize == "crop" else cls((side, side), None, resample)

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Map an RGB image to (height, width, 3) uint8."""
        if self.size is not None:
            height, width = self.size if isinstance(self.size, tuple) else self._sides(image.size, self.size)
            image = image.resize((width, height), Image.Resampling(self.resample))
        if self.crop is not None:
            height, width = self.crop
            left, top = self.corner(image.size)
            image = image.crop((left, top, left + width, top + height))  # pads with black if the image is too small
        return np.asarray(image)

    def corner(self, size: tuple[int, int]) -> tuple[int, int]:
        """(left, top) of the crop of a resized image of ``size``, (width, height); negative if that is too small."""
        height, width = self.crop or size[::-1]
        spaces = size[0] - width, size[1] - height
        left, top = (round(space / 2) if self.rounded else space // 2 for space in spaces)
        return left, top

    @staticmethod
    def _sides(size: tuple[int, int], shorter: int) -> tuple[int, int]:
        """(height, width) after resizing an image of ``size``, (width, height), to the ``shorter`` side."""
        width, height = size
        longer = int(shorter * max(size) / min(size))  # truncated, not rounded, as in torchvision
        return (longer, shorter) if width <= height else (shorter, longer)

    def needs(self, size: tuple[int, int]) -> tuple[int, int]:
        """Smallest (width, height) to decode an image of ``size``, (width, height), at: the size after resizing."""
        if self.size is None:
            return size
        height, width = self.size if isinstance(self.size, tuple) else self._sides(size, self.size)
        return width, height

    def overridden(self, size: int | None, resize: str, interpolation: str | None) -> "Geometry":
        """Apply an entry's overrides; ``size`` is the side of the square input of the network."""
        changed = self
        if resize in ("squash", "crop"):
            side = size or self.side
            changed = replace(self, size=(side, side), crop=None)
            if resize == "crop":
                changed = replace(self, size=side, crop=(side, side))
        elif size is not None and isinstance(self.size, int) and self.crop:  # keeps the fraction that is cropped
            changed = replace(self, size=round(self.size * size / self.side), crop=(size, size))
        elif size is not None:
            changed = replace(self, size=(size, size), crop=None)
        if interpolation:
            changed = replace(changed, resample=int(Image.Resampling[interpolation.upper()]))
        return changed

    @property
    def side(self) -> int:
        """The shorter side of the result; 0 if it depends on the image."""
        known = self.crop or self.size
        return min(known) if isinstance(known, tuple) else known or 0


def invalid_setting(settings: Mapping[str, Any]) -> str:
    """Describe the first invalid setting of an image processor and what it should be; empty if all are valid.

    A setting may be absent, except for the filter when images are resized: it must not be guessed.
    """
    for key in ("size", "crop_size"):
        value = settings.get(key)
        sides: list[Any] = [value]
        if isinstance(value, Mapping | list | tuple):
            sides = list(value.values() if isinstance(value, Mapping) else value)
        listed = isinstance(value, list | tuple)
        if (listed and len(sides) != 2) or not all(side is None or _is_count(side) for side in sides):
            return f"{key}: {value!r} should be a number, [height, width], or as in {{height: 224, width: 224}}"
    filters = ", ".join(f"{int(item)} ({item.name.lower()})" for item in sorted(Image.Resampling))
    resample = settings.get("resample")
    valid = settings.get("do_resize") is not True if resample is None else resample in list(Image.Resampling)
    if not valid:
        return f"resample: {resample!r} should be the number of a Pillow filter: {filters}"
    for key in ("image_mean", "image_std", "rescale_factor"):
        if (value := settings.get(key)) is not None and not _is_finite(value):
            return f"{key}: {value!r} should be numbers"
    std = settings.get("image_std")
    if settings.get("do_normalize") and not all(np.ravel(1 if std is None else std)):
        return f"image_std: {std!r} divides by zero; it should be the standard deviation of each color channel"
    return ""


def _is_finite(value: Any) -> bool:
    numbers = value if isinstance(value, list | tuple) else [value]
    return all(isinstance(item, int | float) and not isinstance(item, bool) and np.isfinite(item) for item in numbers)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _named_sides(value: Any, square: bool = True) -> dict[str, int]:
    """Convert a size or crop_size to a mapping, as transformers interprets a number or a list."""
    if isinstance(value, int):
        return {"height": value, "width": value} if square else {"shortest_edge": value}
    if isinstance(value, list | tuple):
        return dict(zip(("height", "width"), value, strict=True))
    return {key: side for key, side in (value or {}).items() if side}


def geometry_of(settings: Mapping[str, Any]) -> Geometry | None:
    """The geometry of an image processor's settings; None if ``Geometry`` cannot express it.

    The settings must be valid (``invalid_setting``).
    """
    size = _named_sides(settings.get("size"), settings.get("default_to_square", True))
    resized: tuple[int, int] | int | None = None
    crop: tuple[int, int] | None = None
    if settings.get("do_resize"):
        match size:
            case {"height": int(height), "width": int(width), **rest} if not rest:
                resized = (height, width)
            case {"shortest_edge": int(shorter), **rest} if not rest:
                resized = shorter
                if share := settings.get("crop_pct"):  # ConvNeXt: squashes at 384 pixels and above, crops below
                    resized = int(shorter / share) if shorter < 384 else (shorter, shorter)
                    crop = (shorter, shorter) if shorter < 384 else None
            case _:
                return None
    if settings.get("do_center_crop"):
        cut = _named_sides(settings.get("crop_size"))
        if not (cut.get("height") and cut.get("width")):
            return None
        crop = (cut["height"], cut["width"])
    if settings.get("do_pad"):
        return None
    resample = settings.get("resample")
    rounded = bool(settings.get("round_crop_offset"))
    return Geometry(resized, crop, int(Image.Resampling.BILINEAR if resample is None else resample), rounded)


@dataclass(frozen=True)
class Values:
    """The network's input for the 8-bit value v of channel c: v * scale[c] + offset[c]."""

    scale: NDArray[np.float32]
    offset: NDArray[np.float32]

    @classmethod
    def normalising(cls, mean: Any, std: Any, rescale: float = 1 / 255) -> "Values":
        """(v * rescale - mean) / std; a single number applies to all three channels."""
        mean, std = np.broadcast_to(np.float64(mean), 3), np.broadcast_to(np.float64(std), 3)
        return cls((rescale / std).astype(np.float32), (-mean / std).astype(np.float32))

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Values":
        """Rescaling and normalisation from an image processor's settings."""
        normalise = settings.get("do_normalize")
        return cls.normalising(
            settings["image_mean"] if normalise else 0.0,
            settings["image_std"] if normalise else 1.0,
            settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0,
        )

    @classmethod
    def through(cls, table: NDArray[np.float32]) -> "Values | None":
        """Fit a processor's outputs for all 8-bit values, (3, 256); None if they are not linear."""
        outputs = table.astype(np.float64)
        scale, offset = (outputs[:, 255] - outputs[:, 0]) / 255, outputs[:, 0]
        line = np.arange(256) * scale[:, None] + offset[:, None]
        if not np.allclose(line, outputs, rtol=0, atol=1e-6 * max(1.0, float(np.abs(outputs).max()))):
            return None
        return cls(scale.astype(np.float32), offset.astype(np.float32))

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map (height, width, 3) uint8 to (3, height, width) float32."""
        values: NDArray[np.float32] = (pixels.astype(np.float32) * self.scale + self.offset).transpose(2, 0, 1)
        return values
