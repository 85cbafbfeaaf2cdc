"""ICC color profiles: from the colors that a file's numbers stand for to sRGB, with littlecms."""

import logging
from collections.abc import Callable, Mapping
from functools import lru_cache
from io import BytesIO
from typing import Any, Literal

import numpy as np
from PIL import Image

from lookalike.io.image_containers import LARGEST_PROFILE, icc_profile

log = logging.getLogger(__name__)
Icc = Literal["ignore", "srgb"]
Convert = Callable[[Image.Image], Image.Image]
CONVERTED = "converted"
# Modes that a profile's color space describes: of the image itself, or of its pixels converted to RGB.
SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
GREY = ("1", "L", "LA", "La", "I;16", "I;16B")


class BadProfile(Exception):
    """A profile that cannot be used; the message says why."""


def to_srgb(image: Image.Image, file: bytes) -> tuple[str, Convert | None]:
    """What becomes of the color profile of an image, and what converts strips of the image to sRGB.

    The strips are given in the mode ``RGB`` or, of a CMYK image, ``CMYK``. The conversion is relative colorimetric with
    black point compensation, as in browsers. Nothing is converted without a profile, with a profile of sRGB itself, or
    with one that littlecms cannot read or that does not describe the image: then the first value says why.
    """
    try:
        profile = icc_profile(file) or image.info.get("icc_profile")
        convert = _converter(profile, image.mode) if profile else None
    except (ValueError, BadProfile) as error:
        return f"its color profile is ignored: {error}", None
    return (CONVERTED if convert else ""), convert


def log_counts(outcomes: Mapping[str, str]) -> None:
    """Count what became of the color profiles of images: image -> the first value of ``to_srgb``."""
    if converted := sum(outcome == CONVERTED for outcome in outcomes.values()):
        log.info("%d images were converted to sRGB as their color profiles say", converted)
    if ignored := [f"{image}: {outcome}" for image, outcome in outcomes.items() if outcome not in ("", CONVERTED)]:
        log.warning("color profiles that cannot be used: %d. First: %s", len(ignored), ignored[0])


def _converter(profile: bytes, image_mode: str) -> Convert | None:
    transform, mode = _transform(profile)
    described = {"RGB": image_mode not in ("CMYK", "LAB"), "L": image_mode in GREY, "CMYK": image_mode == "CMYK"}
    if not described[mode]:
        raise BadProfile(f"it describes {mode}, but the image is {image_mode}")
    if transform is None:
        return None

    def convert(strip: Image.Image) -> Image.Image:
        converted: Image.Image = transform.apply(strip.getchannel(0) if mode == "L" else strip)
        return converted

    return convert


@lru_cache(maxsize=32)
def _transform(profile: bytes) -> tuple[Any, str]:
    """The transform of a profile and its mode; None for one that changes no color by more than rounding does."""
    from PIL import ImageCms

    if len(profile) > LARGEST_PROFILE:
        raise BadProfile(f"it has more than {LARGEST_PROFILE:,} bytes")
    try:
        source, target = ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB")
        mode = SPACES.get(space := source.profile.xcolor_space)
        if not mode:
            raise BadProfile(f"its color space is {space.strip()}, not RGB, grey or CMYK")
        intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
        transform = ImageCms.buildTransform(source, target, mode, "RGB", intent, flags)
        samples = _samples(mode)
        changes = np.asarray(transform.apply(samples)).astype(int) - np.asarray(samples.convert("RGB"))
    except BadProfile:
        raise
    except Exception as error:  # a broken profile may make Pillow or littlecms raise anything
        raise BadProfile(f"littlecms cannot use it ({' '.join(str(error).split())})") from None
    return (transform if mode == "CMYK" or np.abs(changes).max() > 1 else None), mode


def _samples(mode: str) -> Image.Image:
    """Colors from all over a mode's space."""
    steps = np.linspace(0, 255, 17).astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(*[steps] * 3), -1).reshape(1, -1, 3)).convert(mode)
