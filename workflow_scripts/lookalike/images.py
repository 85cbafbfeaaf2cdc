"""The one decoder: bytes of a picture file to RGB, or a refusal that a person understands."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from lookalike import archives

MAX_PIXELS = 250_000_000
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


class BadImage(Exception):
    """A picture that cannot be used; the message is the reason, for the table of rejected pictures."""


def read(root: str, path: str) -> bytes:
    """The bytes of one picture: of a file, or of an archive's member (``some.zip!member``). Raises BadImage."""
    file = Path(root) / path
    try:
        if (inside := archives.split(path)) and not file.exists():
            return archives.read(Path(root) / inside[0], inside[1])
        return file.read_bytes()
    except archives.ArchiveError as error:
        raise BadImage(f"the archive {error}") from None
    except FileNotFoundError:
        raise BadImage("the file is gone: it was there when the data set was sampled") from None
    except OSError as error:
        raise BadImage(f"cannot be read: {error.strerror}") from None


def load(root: str, path: str) -> Image.Image:
    """Read and decode one picture. Raises BadImage."""
    return decode(read(root, path))


def decode(data: bytes, needs: Callable[[tuple[int, int]], tuple[int, int]] | None = None) -> Image.Image:
    """Decode a picture to 8-bit RGB, upright.

    ``needs`` says, from a picture's upright (width, height), how large it must at least be: a JPEG is then decoded at a
    half, a quarter or an eighth of its size, whichever is the smallest that is still as large as that.

    The orientation that the camera noted is applied; transparency is laid over white; 16-bit grey is scaled to 8 bits;
    of an animation the first frame is taken. Raises BadImage.
    """
    if not data:
        raise BadImage("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata; size is checked below
            image = Image.open(io.BytesIO(data))
            if image.width * image.height > MAX_PIXELS:
                raise BadImage(f"has {image.width} x {image.height} pixels; the limit is {MAX_PIXELS:,} in all")
            if needs and image.format in ("JPEG", "MPO"):
                least = needs(_upright(image))
                image.draft(None, least[::-1] if _sideways(image) else least)
            image.load()
            return to_rgb(ImageOps.exif_transpose(image))
    except BadImage:
        raise
    except UnidentifiedImageError:
        raise BadImage("not a picture in a known format") from None
    except Image.DecompressionBombError:
        raise BadImage(f"has too many pixels; the limit is {MAX_PIXELS:,}") from None
    except MemoryError:
        raise BadImage("is too large for the memory of this machine") from None
    except Exception as error:  # decoders raise whatever a broken file leads them to
        raise BadImage(f"damaged: {error}") from None


def upright_size(data: bytes) -> tuple[int, int]:
    """(width, height) of a picture that ``decode`` can decode in full."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _upright(Image.open(io.BytesIO(data)))


def _upright(image: Image.Image) -> tuple[int, int]:
    return image.size[::-1] if _sideways(image) else image.size


def _sideways(image: Image.Image) -> bool:
    """Whether the camera noted that it lay on a side: orientations 5 to 8."""
    return image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to 8-bit RGB; see ``decode`` for what happens to transparency and 16-bit grey."""
    if image.mode.startswith("I;16"):
        image = image.point(lambda value: value / 256).convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
