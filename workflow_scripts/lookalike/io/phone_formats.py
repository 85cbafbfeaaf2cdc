"""HEIC and JPEG XL, which phones write: decoded by the packages of the extra `formats`, imported when needed.

The package for JPEG XL decodes while it opens a file, so what must be known earlier is read from the file's header here
(ISO/IEC 18181-1, annex D). It decodes only the last image of an animation.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from io import BytesIO

from PIL import Image

from lookalike.io.image_containers import HEIF, boxes

Size = tuple[int, int]  # width, height
CODESTREAM = b"\xff\x0a"
JPEG_XL = re.compile(rb"\xff\x0a|\0\0\0\x0cJXL ")
RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # of width to height
HEADER = 64  # bytes of a codestream that its header is in, up to what is read here


def _register_heif() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener(decode_threads=1)  # images are decoded in threads already


def _register_jpeg_xl() -> None:
    from pillow_jxl import JpegXLImagePlugin

    JpegXLImagePlugin.DECODE_THREADS = 0


@dataclass(frozen=True)
class Kind:
    """A format that a package decodes: its name for people and for Pillow, and how its files begin."""

    name: str
    form: str
    package: str
    signature: re.Pattern[bytes]
    register: Callable[[], None]


KINDS = (
    Kind("HEIC", "HEIF", "pillow-heif", HEIF, _register_heif),
    Kind("JPEG XL", "JXL", "pillow-jxl-plugin", JPEG_XL, _register_jpeg_xl),
)


def kind_of(data: bytes) -> Kind | None:
    """The kind of a file, whether or not its package is installed; None for all other formats."""
    return next((kind for kind in KINDS if kind.signature.match(data)), None)


@cache
def is_installed(kind: Kind) -> bool:
    """Whether the package of a kind is installed; if so, Pillow opens such files from now on."""
    try:
        kind.register()
    except ImportError:
        return False
    return True


def opened(data: bytes, kind: Kind, others: tuple[str, ...]) -> Image.Image:
    """Open a file of a kind, or of one of the other formats, which may begin alike."""
    try:
        return Image.open(BytesIO(data), formats=(*others, kind.form) if is_installed(kind) else others)
    except RuntimeError as error:  # with many lines about how to build the decoder
        raise ValueError(f"its {kind.name} data cannot be decoded") from error


def is_jpeg_xl(data: bytes) -> bool:
    """Whether a file is a JPEG XL that can be decoded."""
    return bool(JPEG_XL.match(data)) and is_installed(KINDS[1])


def is_upright(image: Image.Image) -> bool:
    """Whether the decoder has turned an image as its format says, so that its EXIF orientation must not be applied.

    The decoder for HEIC removes the orientation. A JPEG XL may contain a JPEG, which is decoded as such.
    """
    return image.format == "JXL" and not image.jpeg  # type: ignore[attr-defined]


@dataclass(frozen=True)
class JpegXL:
    """What a JPEG XL's header says: its size, before it is turned upright, and whether it is an animation."""

    size: Size
    animated: bool


def jpeg_xl(data: bytes) -> JpegXL:
    """Read the header of a JPEG XL. Raises ValueError if it is incomplete."""
    bits = _Bits(_codestream(data))
    if bits.take(16) != int.from_bytes(CODESTREAM, "little"):
        raise ValueError("it has no image header")
    size, animated = _size(bits, (9, 13, 18, 30)), False
    if not bits.take(1) and bits.take(1):  # not all defaults, and extra fields
        bits.take(3)  # orientation, which the decoder applies
        if bits.take(1):
            _size(bits, (9, 13, 18, 30))  # intrinsic size
        if bits.take(1):
            _preview(bits)
        animated = bool(bits.take(1))
    return JpegXL(size, animated)


class _Bits:
    """Bits of a codestream, the lowest of each byte first."""

    def __init__(self, data: bytes) -> None:
        self.value, self.left = int.from_bytes(data, "little"), 8 * len(data)

    def take(self, count: int) -> int:
        if count > self.left:
            raise ValueError("its image header is cut short")
        taken = self.value & ((1 << count) - 1)
        self.value >>= count
        self.left -= count
        return taken


def _codestream(data: bytes) -> bytes:
    """The start of the codestream; in a container it may be in several parts, the first of which has the header."""
    if data.startswith(CODESTREAM):
        return data[:HEADER]
    for kind, start, end in boxes(data, 0, len(data)):
        if kind in (b"jxlc", b"jxlp"):
            skipped = start + 4 * (kind == b"jxlp")  # its number
            return data[skipped : min(end, skipped + HEADER)]
    return b""


def _size(bits: _Bits, lengths: tuple[int, int, int, int]) -> Size:
    small = bits.take(1)  # a multiple of 8

    def side() -> int:
        return 8 * (1 + bits.take(5)) if small else 1 + bits.take(lengths[bits.take(2)])

    height = side()
    if ratio := bits.take(3):
        wide, high = RATIOS[ratio - 1]
        return height * wide // high, height
    return side(), height


def _preview(bits: _Bits) -> None:
    """Skip the size of a preview, which is coded in its own way."""
    by_eight = bits.take(1)

    def side() -> None:
        bits.take(((0, 0, 5, 9) if by_eight else (6, 8, 10, 12))[bits.take(2)])

    side()
    if not bits.take(3):
        side()
