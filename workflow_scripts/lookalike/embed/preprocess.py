"""From a decoded picture to the pixels that a network sees.

A checkpoint's image processor is followed in two steps. Its geometry (resize, crop) is done by ``Geometry`` in 8 bits,
by the same Pillow calls. Its values (rescale, normalise) are one multiplication and one addition per channel,
``Values``, done on the device for a whole batch. ``embed/pretrained.py`` compares both with the processor itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class Geometry:
    """Resize, then cut out the middle.

    ``size`` is (height, width), or one number for the shorter side, or None for no resizing; ``crop`` is
    (height, width) or None; ``resample`` is one of Pillow's filters.
    """

    size: tuple[int, int] | int | None
    crop: tuple[int, int] | None
    resample: int

    @classmethod
    def square(cls, side: int, resize: Literal["squash", "crop"], interpolation: str) -> "Geometry":
        """A square of ``side`` pixels: the whole picture squashed, or its middle."""
        resample = int(Image.Resampling[interpolation.upper()])
        return cls(side, (side, side), resample) if resize == "crop" else cls((side, side), None, resample)

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """An RGB picture to (height, width, 3) uint8."""
        if self.size is not None:
            height, width = self.size if isinstance(self.size, tuple) else self._sides(image.size, self.size)
            image = image.resize((width, height), Image.Resampling(self.resample))
        if self.crop is not None:
            height, width = self.crop
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))  # black where the picture is too small
        return np.asarray(image)

    @staticmethod
    def _sides(size: tuple[int, int], shorter: int) -> tuple[int, int]:
        """(height, width) of a picture of ``size``, (width, height), whose shorter side is made ``shorter``."""
        width, height = size
        longer = int(shorter * max(size) / min(size))  # cut off, not rounded, as torchvision does
        return (longer, shorter) if width <= height else (shorter, longer)

    def needs(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) that a picture of ``size``, (width, height), must at least be decoded in: what it becomes."""
        if self.size is None:
            return size
        height, width = self.size if isinstance(self.size, tuple) else self._sides(size, self.size)
        return width, height

    def overridden(self, size: int | None, resize: str, interpolation: str | None) -> "Geometry":
        """The geometry with what an entry says otherwise; ``size`` is the side of the square that the network sees."""
        changed = self
        if resize in ("squash", "crop"):
            side = size or self.side
            changed = replace(self, size=(side, side), crop=None)
            if resize == "crop":
                changed = replace(self, size=side, crop=(side, side))
        elif size is not None and isinstance(self.size, int) and self.crop:  # the share that is cut off stays the same
            changed = replace(self, size=round(self.size * size / self.side), crop=(size, size))
        elif size is not None:
            changed = replace(self, size=(size, size), crop=None)
        if interpolation:
            changed = replace(changed, resample=int(Image.Resampling[interpolation.upper()]))
        return changed

    @property
    def side(self) -> int:
        """The shorter side of what comes out; 0 where that depends on the picture."""
        known = self.crop or self.size
        return min(known) if isinstance(known, tuple) else known or 0


def odd_setting(settings: Mapping[str, Any]) -> str:
    """The first of an image processor's settings that means nothing, and what it should be; empty where there is none.

    What is not set says nothing, but for the filter where a picture is resized: which one is not to be guessed.
    """
    for key in ("size", "crop_size"):
        value = settings.get(key)
        sides: list[Any] = [value]
        if isinstance(value, Mapping | list | tuple):
            sides = list(value.values() if isinstance(value, Mapping) else value)
        listed = isinstance(value, list | tuple)
        if (listed and len(sides) != 2) or not all(one is None or _is_count(one) for one in sides):
            return f"{key}: {value!r} should be a number, [height, width], or as in {{height: 224, width: 224}}"
    filters = ", ".join(f"{int(one)} ({one.name.lower()})" for one in sorted(Image.Resampling))
    resample = settings.get("resample")
    known = settings.get("do_resize") is not True if resample is None else resample in list(Image.Resampling)
    if not known:
        return f"resample: {resample!r} should be a number of Pillow's filters: {filters}"
    for key in ("image_mean", "image_std", "rescale_factor"):
        if (value := settings.get(key)) is not None and not _is_finite(value):
            return f"{key}: {value!r} should be numbers"
    std = settings.get("image_std")
    if settings.get("do_normalize") and not all(np.ravel(1 if std is None else std)):
        return f"image_std: {std!r} divides by zero; it is the deviation of each color channel"
    return ""


def _is_finite(value: Any) -> bool:
    numbers = value if isinstance(value, list | tuple) else [value]
    return all(isinstance(one, int | float) and not isinstance(one, bool) and np.isfinite(one) for one in numbers)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _named_sides(value: Any, square: bool = True) -> dict[str, int]:
    """A size or crop_size as a mapping, as transformers reads a number or a list."""
    if isinstance(value, int):
        return {"height": value, "width": value} if square else {"shortest_edge": value}
    if isinstance(value, list | tuple):
        return dict(zip(("height", "width"), value, strict=True))
    return {key: side for key, side in (value or {}).items() if side}


def geometry_of(settings: Mapping[str, Any]) -> Geometry | None:
    """What an image processor's settings say about resizing; None where they say what ``Geometry`` cannot do.

    There must be no ``odd_setting`` among them.
    """
    size = _named_sides(settings.get("size"), settings.get("default_to_square", True))
    wanted: tuple[int, int] | int | None = None
    crop: tuple[int, int] | None = None
    if settings.get("do_resize"):
        match size:
            case {"height": int(height), "width": int(width), **rest} if not rest:
                wanted = (height, width)
            case {"shortest_edge": int(shorter), **rest} if not rest:
                wanted = shorter
                if share := settings.get("crop_pct"):  # ConvNeXt: large pictures are squashed, small ones cropped
                    wanted = int(shorter / share) if shorter < 384 else (shorter, shorter)
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
    return Geometry(wanted, crop, int(Image.Resampling.BILINEAR if resample is None else resample))


@dataclass(frozen=True)
class Values:
    """What a network is given for the 8-bit value v of channel c: v * scale[c] + offset[c]."""

    scale: NDArray[np.float32]
    offset: NDArray[np.float32]

    @classmethod
    def normalising(cls, mean: Any, std: Any, rescale: float = 1 / 255) -> "Values":
        """(v * rescale - mean) / std; a single number holds for all three channels."""
        mean, std = np.broadcast_to(np.float64(mean), 3), np.broadcast_to(np.float64(std), 3)
        return cls((rescale / std).astype(np.float32), (-mean / std).astype(np.float32))

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Values":
        """What an image processor's settings say about rescaling and normalising."""
        normalise = settings.get("do_normalize")
        return cls.normalising(
            settings["image_mean"] if normalise else 0.0,
            settings["image_std"] if normalise else 1.0,
            settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0,
        )

    @classmethod
    def through(cls, table: NDArray[np.float32]) -> "Values | None":
        """From a processor's answers to all 8-bit values, (3, 256); None where no such line goes through them."""
        answers = table.astype(np.float64)
        scale, offset = (answers[:, 255] - answers[:, 0]) / 255, answers[:, 0]
        line = np.arange(256) * scale[:, None] + offset[:, None]
        if not np.allclose(line, answers, rtol=0, atol=1e-6 * max(1.0, float(np.abs(answers).max()))):
            return None
        return cls(scale.astype(np.float32), offset.astype(np.float32))

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(height, width, 3) uint8 to (3, height, width) float32."""
        values: NDArray[np.float32] = (pixels.astype(np.float32) * self.scale + self.offset).transpose(2, 0, 1)
        return values
