"""The only image decoder: bytes of an image file to RGB, or a rejection with a readable reason."""

import errno
import os
import stat
import warnings
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from lookalike.io import archives, color_profiles, content_hashes, made_images, phone_formats
from lookalike.io.image_containers import JPEG, PNG, count_scans, essentials, is_zero_filled, jpeg_2000_depth
from lookalike.io.image_refusals import TO_CONVERT, BadImage, refusal, undecoded_kind
from lookalike.job import memory
from lookalike.job.errors import LookalikeError

__all__ = ["BadImage", "check_roots", "decode", "full_size", "load", "read", "read_row"]

# Formats to decode, beside phone_formats. Pillow supports more, but some run other programs on the file (PostScript).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000")
MAX_PIXELS = 250_000_000
MAX_RATIO = 200  # of the sides: resizing the shorter side of 30,000 x 1 to 224 makes the longer one 6.7 million
MAX_SCANS = 200  # of a JPEG: each covers the whole image, and a malicious one takes only 100 bytes
Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow itself raises only above twice this limit
warnings.filterwarnings("ignore", module=r"PIL\.")  # odd metadata; set globally, because threads share filters

ORIENTATION = 0x0112  # EXIF tag
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height
SUBFILE, BITS, PHOTOMETRIC, SAMPLES, PLANES, SAMPLE_FORMAT = 254, 258, 262, 277, 284, 339  # TIFF tags
IN_PLANES = ("RGB", "RGBA", "RGBa", "CMYK")  # modes whose planes libtiff combines correctly; those of LA and LAB not
TiffImagePlugin.READ_LIBTIFF = True  # Pillow's own reader misreads 16-bit planes as 8-bit pixels
SAVE_RANGE = "and its white level is unknown; save it in its full range"
NO_WHITE = "has 32-bit or signed grey values, and their white level is unknown; save it with 16 bits"

# Peak memory of decoding in bytes per pixel, measured with Pillow 12 and 13; it includes the decoders' own copies.
BYTES_A_PIXEL = {"WEBP": 17, "AVIF": 13, "JPEG2000": 20, "HEIF": 14, "JXL": 40}
BYTES_OF_MODE = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2}  # all others: 4
STRIP = 1 << 20  # pixels converted at a time

Size = tuple[int, int]  # width, height


def read(root: str, path: str) -> bytes:
    """Read the bytes of one image: a file, or a member of an archive (``some.zip!member``). Raises BadImage.

    Symlinks are followed, but ``path`` itself must stay inside ``root``: it is neither absolute nor has ``..``. An
    empty root stands for a path typed by the user. Archive members may have any name: they are never extracted to disk.
    Anything but a regular file (such as a named pipe) is rejected without blocking.
    """
    parts = archives.split(path)
    try:
        if parts and (_leaves(root, path) or not (Path(root) / path).exists()):
            archive, member = parts
            if not _leaves(root, archive):
                return archives.read(Path(root) / archive, member)
        if _leaves(root, path):
            raise BadImage("its path leads outside the data set's folder, so it is not read")
        return _read_file(os.path.join(root, path))  # noqa: PTH118 - faster, and every image is read here
    except archives.ArchiveError as error:
        raise BadImage(f"the archive {error}") from None
    except FileNotFoundError:
        raise BadImage("the file is missing: it was removed after the data set was sampled") from None
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError(error.strerror) from None
        raise BadImage(f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise BadImage("cannot be read: its name contains a zero byte") from None


def read_row(row: Mapping[str, Any]) -> bytes:
    """Read the bytes of the image in a row of a shard or images table, and check that it is the one sampled.

    Raises BadImage, and LookalikeError if the image has changed since, or if it was made by a run and cannot be read.
    """
    try:
        data = read(made_images.folder_of(row["root"]), row["path"])
    except BadImage as error:
        if content_hashes.is_made(row):
            raise LookalikeError(
                f"{row['root']}/{row['path']}: cannot be read: {error}. {content_hashes.remedy(row)}"
            ) from None
        raise
    content_hashes.check(row, data)
    return data


def check_roots(rows: pa.Table, where: object) -> None:
    """Raise LookalikeError if a root folder is missing: an unmounted disk must not turn its images into rejects."""
    for root in rows["root"].unique().to_pylist():
        if not Path(made_images.folder_of(root)).is_dir():
            raise LookalikeError(
                f"{where}: its images are in {root}, and that folder is missing. Restore it, or mount its disk."
            )


def _leaves(root: str, path: str) -> bool:
    return bool(root) and (path.startswith("/") or (".." in path and ".." in PurePosixPath(path).parts))


def _read_file(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opening a pipe without a writer would block
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BadImage("is not a regular file, but a folder, a named pipe or a device")
        if status.st_size > archives.LARGEST:
            raise BadImage(f"has {status.st_size:,} bytes; the limit is {archives.LARGEST:,}")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(status.st_size + 1)  # one more byte, so that a growing file is detected as changed
    finally:
        os.close(descriptor)


def load(root: str, path: str) -> Image.Image:
    """Read and decode one image. Raises BadImage, and MemoryError, which names the image."""
    try:
        return decode(read(root, path))
    except MemoryError as error:
        raise MemoryError(f"{Path(root) / path}: {error or 'out of memory'}") from None


def decode(
    data: bytes,
    needs: Callable[[Size], Size] | None = None,
    reserve: Callable[[int], None] | None = None,
    icc: color_profiles.Icc = "ignore",
) -> Image.Image:
    """Decode an image to 8-bit RGB, upright. Raises BadImage with a readable reason.

    The file's first bytes determine its format, not its name. Special cases:

    - The EXIF orientation is applied; a broken EXIF block is ignored.
    - Transparency, of pixels, a palette or one color, is composited onto white. A BMP with zero alpha everywhere is
      opaque, because programs leave that byte unset. The area that a GIF's first frame does not cover is white.
    - Of an animation or a file with several images, only the first is decoded, of a HEIC the primary one; the others,
      such as gain maps and depth maps, may be damaged. Animated JPEG XL is rejected.
    - HEIC and JPEG XL need the packages of the extra `formats`. Both state in their own way how to turn the image, so
      the EXIF orientation that they may repeat is not applied.
    - Of 16 bits per channel, the upper 8 are kept. Rejected, because their white level is unknown: 16-bit images
      without a value above 12 bits (they would be nearly black), 32-bit values and signed values.
      CMYK, YCbCr and Lab are converted to RGB by Pillow without profiles.
    - Color profiles are not applied: the published models' preprocessing does not apply them either. With ``icc`` srgb
      they are, to the 8-bit pixels; ``info["profile"]`` of the result is `converted`, or says why one was not.
    - Metadata and damaged parts other than the pixels have no effect; except for the orientation and a PNG's
      transparency, they are not read.
    - A truncated image is rejected, even if much of it could be decoded. Only damage that the format's decoder cannot
      detect passes: a JPEG that was cut and closed again, or changed bytes without a checksum.
    - Rejected before decoding: more than MAX_PIXELS, a side more than MAX_RATIO times the other, a JPEG with more than
      MAX_SCANS scans, and a TIFF that is only the preview of another image, as in camera raw.
    - The reason "damaged" is for supported formats only; an unsupported kind of a format is named.

    ``needs`` maps an image's upright (width, height) to the smallest acceptable one: a JPEG is decoded at the smallest
    of 1/1, 1/2, 1/4 and 1/8 of its size that is not below it. ``reserve`` is called before the pixels are decoded, with
    the peak memory in bytes (``memory.Budget``).

    Raises MemoryError if memory runs out, whatever the image.
    """
    if not data:
        raise BadImage("the file is empty")
    try:
        try:
            return _decode(essentials(data), needs, reserve, data if icc == "srgb" else None)
        except (ValueError, SyntaxError, UnidentifiedImageError):
            if not data.startswith(PNG):  # Pillow also raises these for texts that cannot be decompressed, or are huge
                raise
            return _decode(essentials(data, texts=False), needs, reserve, data if icc == "srgb" else None)
    except (BadImage, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise BadImage(f"has too many pixels; the limit is {MAX_PIXELS:,}") from None
    except Exception as error:  # a broken file may make a decoder raise anything
        if (
            memory.is_short() or "out of memory" in str(error).lower()
        ):  # decoders rarely tell damage from lack of memory
            raise MemoryError(f"decoding failed ({error}), and memory is short") from None
        if isinstance(error, UnidentifiedImageError):
            raise BadImage(refusal(data)) from None
        kind = undecoded_kind(data)
        raise BadImage(TO_CONVERT.format(kind) if kind else f"damaged: {' '.join(str(error).split())}") from None


def full_size(data: bytes, image: Image.Image) -> Size:
    """Upright (width, height) of the file that ``decode`` returned as ``image``, perhaps at a reduced size."""
    return _upright_size(_opened(essentials(data))) if data.startswith(JPEG) else image.size


def count_pixels(data: bytes) -> int:
    """Width times height as the header says. For a file that ``decode`` rejects, it may raise anything."""
    width, height = phone_formats.jpeg_xl(data).size if phone_formats.is_jpeg_xl(data) else _opened(data).size
    return width * height


def upright(image: Image.Image) -> Image.Image:
    """An image that the user opened with Pillow, turned as ``decode`` turns the file."""
    image.load()  # turns a TIFF
    turn = UPRIGHT.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _opened(data: bytes) -> Image.Image:
    if kind := phone_formats.kind_of(data):
        return phone_formats.opened(data, kind, FORMATS)
    return Image.open(BytesIO(data), formats=FORMATS)


def _decode(
    data: bytes,
    needs: Callable[[Size], Size] | None,
    reserve: Callable[[int], None] | None,
    profiled: bytes | None,  # the whole file, whose color profile is applied
) -> Image.Image:
    if phone_formats.is_jpeg_xl(data):  # opening it decodes it
        header = phone_formats.jpeg_xl(data)
        _check_size(header.size)
        if header.animated:
            raise BadImage(TO_CONVERT.format("an animated JPEG XL"))
        if reserve:
            reserve(header.size[0] * header.size[1] * BYTES_A_PIXEL["JXL"])
    image = _opened(data)
    _check(image, data)
    full = image.size
    if needs and data.startswith(JPEG):
        least = needs(_upright_size(image))
        image.draft(None, least[::-1] if _orientation(image) in SIDEWAYS else least)
    if reserve:
        reserve(_peak(image, full, data, converts=profiled is not None))
    frame = image.tile[0][1] if image.format == "GIF" and isinstance(image, ImageFile.ImageFile) else None
    image.load()
    turn = UPRIGHT.get(_orientation(image))  # Pillow has already applied that of a TIFF
    _correct(image, data)
    outcome, to_srgb = color_profiles.to_srgb(image, profiled) if profiled else ("", None)
    upright = _to_rgb(image, to_srgb)
    if frame and frame != (0, 0, *image.size):
        whole = Image.new("RGB", image.size, "white")
        whole.paste(upright.crop(frame), frame)
        upright = whole
    del image  # before another copy of its size is created
    if turn is not None:
        upright = upright.transpose(turn)
    # an orientation left here would be applied again; Pillow would write the rest into copies and previews, and fails
    # on comments and color profiles that are too long
    upright.info.clear()
    if outcome:
        upright.info["profile"] = outcome
    return upright


def _orientation(image: Image.Image) -> Any:
    if phone_formats.is_upright(image):
        return None
    try:
        return image.getexif().get(ORIENTATION)
    except Exception:  # broken EXIF may make Pillow raise anything
        return None


def _upright_size(image: Image.Image) -> Size:
    return image.size[::-1] if _orientation(image) in SIDEWAYS else image.size


def _check_size(size: Size) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise BadImage(f"has {width} x {height} pixels; the limit is {MAX_PIXELS:,} in all")
    if max(size) > MAX_RATIO * min(size):
        raise BadImage(f"has {width} x {height} pixels: one side is more than {MAX_RATIO} times the other")


def _check(image: Image.Image, data: bytes) -> None:
    """Reject, before decoding, an image that would take too much time or memory, or that is only a preview."""
    _check_size(image.size)
    if image.info.get("progressive") and (scans := count_scans(data)) > MAX_SCANS:
        raise BadImage(f"has {scans:,} progressive scans; the limit is {MAX_SCANS}. Save it again")
    if image.format in ("WEBP", "AVIF", "HEIF") and is_zero_filled(data, image.format):
        raise BadImage("damaged: its pixels end in zero bytes, as after an incomplete download")
    tags = _tags(image)
    if tags.get(SUBFILE, 0) & 1:
        raise BadImage("is only the preview of another image (camera raw?); convert it to JPEG")
    if 2 in tags.get(SAMPLE_FORMAT, ()):
        raise BadImage(NO_WHITE)
    if tags.get(PLANES) == 2 and tags.get(SAMPLES, 1) > 1 and image.mode not in IN_PLANES:
        raise BadImage(TO_CONVERT.format(f"a TIFF in separate planes of {image.mode}"))


def _may_be_turned(image: Image.Image, data: bytes) -> bool:
    """Whether an image may need rotating, judged before decoding.

    Of a PNG, Pillow would decode the pixels to find the EXIF block, which may come last.
    """
    if image.format == "PNG":
        return b"eXIf" in data or b"Raw profile type" in data
    return _orientation(image) in UPRIGHT


def _peak(image: Image.Image, full: Size, data: bytes, *, converts: bool) -> int:
    """Peak memory of decoding in bytes, from the header; ``full`` is the size before any draft."""
    pixels, tags = image.width * image.height, _tags(image)
    each = BYTES_A_PIXEL.get(image.format or "") or (BYTES_OF_MODE.get(image.mode, 4) + sum(tags.get(BITS, ())) / 8)
    total = pixels * each
    if image.info.get("progressive"):  # all coefficients stay in memory until the last scan
        total += 2 * len(image.getbands()) * full[0] * full[1]
    changes = converts or image.mode != "RGB" or image.has_transparency_data or image.format == "GIF"
    return int(total + 4 * pixels * (changes or _may_be_turned(image, data)))


def _tags(image: Image.Image) -> Mapping[int, Any]:
    """The tags of a TIFF; empty for any other format."""
    return getattr(image, "tag_v2", {})


def _correct(image: Image.Image, data: bytes) -> None:
    """Correct, or reject, images that Pillow decodes wrongly."""
    if image.format == "BMP" and image.mode == "RGBA" and not _largest(image, "A"):
        image.putalpha(255)
    if not (
        (image.format == "PNG" and data[24] == 16)
        or 16 in _tags(image).get(BITS, ())
        or (image.format == "JPEG2000" and jpeg_2000_depth(data)[1] == 16)
    ):
        return
    if image.mode == "RGB" and (clear := image.info.pop("transparency", None)):  # Pillow compares only the upper 8 bits
        lower = _opened(data)
        assert isinstance(lower, ImageFile.ImageFile)
        lower.tile = [tile._replace(args="RGB;16L") for tile in lower.tile]
        lower.load()
        whole = Image.new("L", image.size)
        for box in _strips(image.size):
            high, low = (np.asarray(half.crop(box)).astype(np.uint16) for half in (image, lower))
            opaque = ((high << 8 | low) != np.array(clear)).any(axis=2)
            whole.paste(Image.fromarray(opaque.astype(np.uint8) * np.uint8(255)), box)
        image.putalpha(whole)
    if image.mode.startswith("I;16"):
        most = max(int(np.asarray(image.crop(box)).max()) for box in _strips(image.size))
    else:
        most = 255 + 256 * max(_largest(image, band) for band in image.getbands() if band not in "Aa")
    if most < 4096 and image.mode != "CMYK":
        raise BadImage("has 16 bits per channel, but no value above 4,095 (12 bits in 16?), " + SAVE_RANGE)


def _largest(image: Image.Image, band: str) -> Any:
    return image.getchannel(band).getextrema()[1]


def _strips(size: Size) -> Iterator[tuple[int, int, int, int]]:
    """Boxes that cover an image in strips, so that converting it strip by strip needs no second full copy."""
    width, height = size
    rows = max(1, STRIP // width)
    return ((0, top, width, min(top + rows, height)) for top in range(0, height, rows))


def _to_rgb(image: Image.Image, to_srgb: color_profiles.Convert | None) -> Image.Image:
    """Convert any mode to 8-bit RGB; ``decode`` documents transparency and 16-bit grey."""
    if image.mode in ("I", "F"):
        raise BadImage(NO_WHITE)
    if image.mode == "RGB" and not image.has_transparency_data and not to_srgb:
        return image
    converted = Image.new("RGB", image.size)
    for box in _strips(image.size):
        strip = image.crop(box)
        if not to_srgb or image.mode != "CMYK":
            strip = _strip_to_rgb(strip, _tags(image))
        converted.paste(to_srgb(strip) if to_srgb else strip, box)
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
    """Convert 16-bit grey to L, or to LA if one value is transparent; TIFF may use fewer bits, and 0 may be white."""
    values = np.asarray(strip)
    grey = (values >> (tags.get(BITS, (16,))[0] - 8)).astype(np.uint8)
    converted = Image.fromarray(~grey if tags.get(PHOTOMETRIC) == 0 else grey)
    if (clear := strip.info.get("transparency")) is not None:
        converted.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return converted
