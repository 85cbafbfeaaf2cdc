"""The one decoder: bytes of an image file to RGB, or a refusal that a person understands."""

import errno
import os
import stat
import warnings
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from lookalike.io import archives, content_hashes
from lookalike.io.image_containers import JPEG, PNG, count_scans, ends_in_zeros, essentials, jpeg_2000_depth
from lookalike.io.image_refusals import TO_CONVERT, BadImage, refusal, undecoded_kind
from lookalike.job import memory
from lookalike.job.errors import LookalikeError

__all__ = ["BadImage", "decode", "full_size", "load", "read", "read_row"]

# What may be decoded. Pillow knows more, and some of it runs other programs on the file (PostScript).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000")
MAX_PIXELS = 250_000_000
MAX_RATIO = 200  # of the sides: what makes the shorter side 224 makes the longer side of 30,000 x 1 6.7 million
MAX_SCANS = 200  # of a JPEG: each goes over the whole picture, and a hostile one takes 100 bytes
Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow itself refuses twice as many, before their size can be said
warnings.filterwarnings("ignore", module=r"PIL\.")  # odd metadata; not within `decode`, since threads share filters

ORIENTATION = 0x0112  # the EXIF tag: how the camera was held
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)  # of the orientations
SUBFILE, BITS, PHOTOMETRIC, SAMPLES, PLANES, SAMPLE_FORMAT = 254, 258, 262, 277, 284, 339  # tags of TIFF
IN_PLANES = ("RGB", "RGBA", "RGBa", "CMYK")  # what libtiff puts together right; of LA and LAB it makes another image
TiffImagePlugin.READ_LIBTIFF = True  # Pillow's own reader takes the bytes of planes of 16 bits for pixels of 8
SAVE_RANGE = "and nothing says which is white; save it in its full range"
NO_WHITE = "has grey values of 32 bits or with a sign, and nothing says which is white; save 16 bits"

# Bytes of memory a pixel at the peak of decoding, as measured for Pillow 12 and 13: decoders have their own copies.
BYTES_A_PIXEL = {"WEBP": 17, "AVIF": 13, "JPEG2000": 20}
BYTES_OF_MODE = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2}  # of all others 4
STRIP = 1 << 20  # pixels that are converted at once

Size = tuple[int, int]  # width, height


def read(root: str, path: str) -> bytes:
    """The bytes of one picture: of a file, or of an archive's member (``some.zip!member``). Raises BadImage.

    Links are followed, but ``path`` itself may not lead out of ``root``: neither absolute nor with ``..``. An empty
    root is for a path that a person names. Members of archives may have any name: they are never unpacked to a disk.
    What is no plain file (a named pipe, say) is refused without waiting for it.
    """
    inside = archives.split(path)
    try:
        if inside and (_leaves(root, path) or not (Path(root) / path).exists()):
            archive, member = inside
            if not _leaves(root, archive):
                return archives.read(Path(root) / archive, member)
        if _leaves(root, path):
            raise BadImage("its path leads out of the data set's folder, so it is not read")
        return _read_file(Path(root) / path)
    except archives.ArchiveError as error:
        raise BadImage(f"the archive {error}") from None
    except FileNotFoundError:
        raise BadImage("the file is gone: it was there when the data set was sampled") from None
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError(error.strerror) from None
        raise BadImage(f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise BadImage("cannot be read: its name holds a zero byte") from None


def read_row(row: Mapping[str, Any]) -> bytes:
    """The bytes of the picture of a row of a shard or of an images table, as it was sampled.

    Raises BadImage, and LookalikeError for one that has changed, or that a run made and that cannot be read.
    """
    try:
        data = read(row["root"], row["path"])
    except BadImage as error:
        if content_hashes.is_made(row):
            raise LookalikeError(
                f"{row['root']}/{row['path']}: cannot be read: {error}. {content_hashes.remedy(row)}"
            ) from None
        raise
    content_hashes.check(row, data)
    return data


def _leaves(root: str, path: str) -> bool:
    return bool(root) and (PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts)


def _read_file(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe that nobody writes to would be waited for
    try:
        now = os.fstat(descriptor)
        if not stat.S_ISREG(now.st_mode):
            raise BadImage("is no file, but a folder, a named pipe or a device")
        if now.st_size > archives.LARGEST:
            raise BadImage(f"has {now.st_size:,} bytes; the limit is {archives.LARGEST:,}")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(now.st_size + 1)  # one more, so that a file that grows is seen to have changed
    finally:
        os.close(descriptor)


def load(root: str, path: str) -> Image.Image:
    """Read and decode one image. Raises BadImage, and MemoryError, which names the image."""
    try:
        return decode(read(root, path))
    except MemoryError as error:
        raise MemoryError(f"{Path(root) / path}: {error or 'out of memory'}") from None


def decode(
    data: bytes, needs: Callable[[Size], Size] | None = None, reserve: Callable[[int], None] | None = None
) -> Image.Image:
    """Decode an image to 8-bit RGB, upright. Raises BadImage with a reason for people.

    What the file says by its first bytes counts, not its name. What becomes of odd ones:

    - The orientation that the camera noted is applied; an EXIF block that is broken is left unread.
    - Transparency, of pixels, of a palette or of one color, is composited onto white. A BMP whose alpha is 0 everywhere
      is opaque, since programs leave that byte unset. What a GIF's first frame does not cover is white.
    - Of an animation or a file of several images the first is taken, and need be the only one that is whole.
    - 16 bits a channel become 8 by their upper 8. Refused, since nothing says which value is white: 16 bits of which no
      value needs the upper 4 (12 bits in 16 would be nearly black), values of 32 bits, and values with a sign.
      CMYK, YCbCr and Lab become RGB by Pillow's plain conversion.
    - Color profiles, whole or broken, are not applied: the published models' own preprocessing applies none.
    - Metadata changes nothing, however much there is, and neither do damaged parts beside the pixels: what they may
      hold, but for the orientation and a PNG's transparency, is not even looked at.
    - An image that is cut short is refused, even where much of it could be shown. Only damage that a format's own
      decoder cannot see passes: a JPEG that was cut and closed again, changed bytes where there is no checksum.
    - Refused before they are decoded: more than MAX_PIXELS, a side of more than MAX_RATIO times the other, a JPEG of
      more than MAX_SCANS scans, and a TIFF that is only the preview of another image, as in camera raw.
    - "Damaged" is said of what should be whole; kinds of a format that are not decoded here are named.

    ``needs`` says, from an image's upright (width, height), how large it must at least be: a JPEG is then decoded at a
    half, a quarter or an eighth of its size, whichever is the smallest that is still as large as that. ``reserve`` is
    called, before pixels are decoded, with the bytes that this takes at its peak (``memory.Budget``).

    Raises MemoryError where memory ran out, which says nothing about the image.
    """
    if not data:
        raise BadImage("the file is empty")
    try:
        try:
            return _decode(essentials(data), needs, reserve)
        except (
            ValueError,
            SyntaxError,
            UnidentifiedImageError,
        ):  # so Pillow refuses texts that unpack to megabytes, or cannot be
            if not data.startswith(PNG):
                raise
            return _decode(essentials(data, texts=False), needs, reserve)
    except (BadImage, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise BadImage(f"has too many pixels; the limit is {MAX_PIXELS:,}") from None
    except Exception as error:  # decoders raise whatever a broken file leads them to
        if memory.is_short() or "out of memory" in str(error).lower():  # they rarely say which of the two it was
            raise MemoryError(f"decoding failed ({error}), and memory is short") from None
        if isinstance(error, UnidentifiedImageError):
            raise BadImage(refusal(data)) from None
        kind = undecoded_kind(data)
        raise BadImage(TO_CONVERT.format(kind) if kind else f"damaged: {error}") from None


def full_size(data: bytes, image: Image.Image) -> Size:
    """(width, height) of the image that ``decode`` gave as ``image``, perhaps smaller than its file has it."""
    return _upright_size(_opened(essentials(data))) if data.startswith(JPEG) else image.size


def _opened(data: bytes) -> Image.Image:
    return Image.open(BytesIO(data), formats=FORMATS)


def _decode(data: bytes, needs: Callable[[Size], Size] | None, reserve: Callable[[int], None] | None) -> Image.Image:
    image = _opened(data)
    _check(image, data)
    full = image.size
    if needs and data.startswith(JPEG):
        least = needs(_upright_size(image))
        image.draft(None, least[::-1] if _orientation(image) in SIDEWAYS else least)
    if reserve:
        reserve(_peak(image, full, data))
    frame = image.tile[0][1] if image.format == "GIF" and isinstance(image, ImageFile.ImageFile) else None
    image.load()
    turn = UPRIGHT.get(_orientation(image))  # of a TIFF, Pillow has seen to it by now
    _correct(image, data)
    upright = _to_rgb(image)
    if frame and frame != (0, 0, *image.size):
        whole = Image.new("RGB", image.size, "white")
        whole.paste(upright.crop(frame), frame)
        upright = whole
    del image  # before there is another one of its size
    if turn is not None:
        upright = upright.transpose(turn)
    # it says how the camera was held, so that whoever looked there would turn the image again; and what Pillow would
    # write into copies and previews, and fail at: comments and color profiles that are too long
    upright.info.clear()
    return upright


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(ORIENTATION)
    except Exception:  # whatever broken EXIF leads Pillow to
        return None


def _upright_size(image: Image.Image) -> Size:
    return image.size[::-1] if _orientation(image) in SIDEWAYS else image.size


def _check(image: Image.Image, data: bytes) -> None:
    """Refuse, before anything is decoded, what would take too long or too much memory, or is not the image."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadImage(f"has {width} x {height} pixels; the limit is {MAX_PIXELS:,} in all")
    if max(image.size) > MAX_RATIO * min(image.size):
        raise BadImage(f"has {width} x {height} pixels: one side is more than {MAX_RATIO} times the other")
    if image.info.get("progressive") and (scans := count_scans(data)) > MAX_SCANS:
        raise BadImage(f"has {scans:,} progressive scans; the limit is {MAX_SCANS}. Save it again")
    if image.format in ("WEBP", "AVIF") and ends_in_zeros(data):
        raise BadImage("damaged: its pixels end in zero bytes, as what was not fetched whole does")
    tags = _tags(image)
    if tags.get(SUBFILE, 0) & 1:
        raise BadImage("is only the preview of another picture (camera raw?); convert it to JPEG")
    if 2 in tags.get(SAMPLE_FORMAT, ()):
        raise BadImage(NO_WHITE)
    if tags.get(PLANES) == 2 and tags.get(SAMPLES, 1) > 1 and image.mode not in IN_PLANES:
        raise BadImage(TO_CONVERT.format(f"a TIFF in separate planes of {image.mode}"))


def _may_be_turned(image: Image.Image, data: bytes) -> bool:
    """Whether an image has to be turned upright, as far as can be said before it is decoded.

    Pillow decodes a PNG to look for its EXIF block, which may come last.
    """
    if image.format == "PNG":
        return b"eXIf" in data or b"Raw profile type" in data
    return _orientation(image) in UPRIGHT


def _peak(image: Image.Image, full: Size, data: bytes) -> int:
    """Bytes of memory that decoding takes at once, from the header; ``full`` is the size before any draft."""
    pixels, tags = image.width * image.height, _tags(image)
    each = BYTES_A_PIXEL.get(image.format or "") or (BYTES_OF_MODE.get(image.mode, 4) + sum(tags.get(BITS, ())) / 8)
    total = pixels * each
    if image.info.get("progressive"):  # all coefficients are kept until the last scan
        total += 2 * len(image.getbands()) * full[0] * full[1]
    changes = image.mode != "RGB" or image.has_transparency_data or image.format == "GIF"
    return int(total + 4 * pixels * (changes or _may_be_turned(image, data)))


def _tags(image: Image.Image) -> Mapping[int, Any]:
    """The tags of a TIFF; none of any other format."""
    return getattr(image, "tag_v2", {})


def _correct(image: Image.Image, data: bytes) -> None:
    """Put right, or refuse, what Pillow decodes to something else."""
    if image.format == "BMP" and image.mode == "RGBA" and not _largest(image, "A"):
        image.putalpha(255)
    if not (
        (image.format == "PNG" and data[24] == 16)
        or 16 in _tags(image).get(BITS, ())
        or (image.format == "JPEG2000" and jpeg_2000_depth(data)[1] == 16)
    ):
        return
    if image.mode == "RGB" and (clear := image.info.pop("transparency", None)):  # Pillow compares with the upper 8 bits
        lower = _opened(data)
        assert isinstance(lower, ImageFile.ImageFile)
        lower.tile = [tile._replace(args="RGB;16L") for tile in lower.tile]
        lower.load()
        whole = Image.new("L", image.size)
        for box in _strips(image.size):
            high, low = (np.asarray(one.crop(box)).astype(np.uint16) for one in (image, lower))
            opaque = ((high << 8 | low) != np.array(clear)).any(axis=2)
            whole.paste(Image.fromarray(opaque.astype(np.uint8) * np.uint8(255)), box)
        image.putalpha(whole)
    if image.mode.startswith("I;16"):
        most = max(int(np.asarray(image.crop(box)).max()) for box in _strips(image.size))
    else:
        most = 255 + 256 * max(_largest(image, band) for band in image.getbands() if band not in "Aa")
    if most < 4096 and image.mode != "CMYK":
        raise BadImage("has 16 bits a channel, but no value above 4,095 (12 bits in 16?), " + SAVE_RANGE)


def _largest(image: Image.Image, band: str) -> Any:
    return image.getchannel(band).getextrema()[1]


def _strips(size: Size) -> Iterator[tuple[int, int, int, int]]:
    """Boxes that cover an image and are small, so that what is computed of them needs no other copy of it."""
    width, height = size
    rows = max(1, STRIP // width)
    return ((0, top, width, min(top + rows, height)) for top in range(0, height, rows))


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to 8-bit RGB; see ``decode`` for what happens to transparency and 16-bit grey."""
    if image.mode in ("I", "F"):
        raise BadImage(NO_WHITE)
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    converted = Image.new("RGB", image.size)
    for box in _strips(image.size):
        converted.paste(_strip_to_rgb(image.crop(box), _tags(image)), box)
    return converted


def _strip_to_rgb(strip: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    if strip.mode.startswith("I;16"):
        strip = _eight_bits(strip, tags)
    if strip.has_transparency_data:
        strip = strip.convert("RGBA")
        white = Image.new("RGBA", strip.size, "white")
        return Image.alpha_composite(white, strip).convert("RGB")
    return strip.convert("RGB")


def _eight_bits(strip: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    """16-bit grey to L, or to LA where one value is transparent; TIFF may use fewer bits, and may count from white."""
    values = np.asarray(strip)
    grey = (values >> (tags.get(BITS, (16,))[0] - 8)).astype(np.uint8)
    converted = Image.fromarray(~grey if tags.get(PHOTOMETRIC) == 0 else grey)
    if (clear := strip.info.get("transparency")) is not None:
        converted.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return converted
