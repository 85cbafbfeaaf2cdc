"""The one decoder: bytes of a picture file to RGB, or a refusal that a person understands."""

import os
import re
import stat
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from lookalike import archives

# What may be decoded. Pillow knows more, and some of it runs other programs on the file (PostScript).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000")
# What is taken for a picture where files are listed: those formats, and what people have beside them and would miss.
EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2"),
    *(".heic", ".heif", ".jxl"),  # refused by name: they must not be missing in silence
)
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
SUBFILE, BITS, PHOTOMETRIC = 254, 258, 262  # tags of TIFF

JPEG = b"\xff\xd8\xff"
PNG = b"\x89PNG\r\n\x1a\n"
TO_CONVERT = "is {}, which cannot be decoded here; convert it to JPEG"
NO_PICTURE = "is {}, not a picture"
BROKEN = "damaged: it begins like {}, and cannot be read as such"
# How files begin that are not decoded, the particular before the general.
BEGINNINGS = tuple(
    (re.compile(beginning, re.DOTALL | re.IGNORECASE), reason.format(name))
    for beginning, reason, name in (
        (rb"....ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", TO_CONVERT, "HEIC"),
        (rb"....ftypavi[fs]", BROKEN if features.check("avif") else TO_CONVERT, "AVIF"),
        (rb"....ftypcrx |FUJIFILMCCD|IIRO|IIRS|MMOR|IIU\0|II\*\0....CR|FOVb", TO_CONVERT, "camera raw"),
        (rb"\xff\x0a|\0\0\0\x0cJXL ", TO_CONVERT, "JPEG XL"),
        (rb"8BPS", TO_CONVERT, "a Photoshop document"),
        (rb"%PDF", TO_CONVERT, "PDF"),
        (rb"%!PS|\xc5\xd0\xd3\xc6", TO_CONVERT, "PostScript"),
        (rb"P[1-7f]\s", TO_CONVERT, "PNM"),
        (rb"v/1\x01|#\?RADIANCE", TO_CONVERT, "a picture of high dynamic range (EXR, HDR)"),
        (rb"\0\0[\x01\x02]\0", TO_CONVERT, "an icon"),
        (rb"(\xef\xbb\xbf)?\s*<(!doctype )?html", NO_PICTURE, "a web page"),
        (rb"(\xef\xbb\xbf)?\s*(<\?xml|<!--|<!doctype svg)?[^\0]{,1000}<svg\b", TO_CONVERT, "SVG"),
        (rb"....(ftyp|moov|mdat|wide)|RIFF....AVI |\x1aE\xdf\xa3|\0\0\x01[\xb3\xba]", NO_PICTURE, "a video"),
        (rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!|\xfd7zXZ|.{257}ustar", NO_PICTURE, "an archive"),
        (re.escape(JPEG), BROKEN, "JPEG"),
        (re.escape(PNG), BROKEN, "PNG"),
        (rb"GIF8", BROKEN, "GIF"),
        (rb"RIFF....WEBP", BROKEN, "WebP"),
        (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", BROKEN, "TIFF"),
        (rb"BM....\0\0\0\0", BROKEN, "BMP"),
        (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", BROKEN, "JPEG 2000"),
    )
)


Size = tuple[int, int]  # width, height


class BadImage(Exception):
    """A picture that cannot be used; the message is the reason, for the table of rejected pictures."""


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
        raise BadImage(f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise BadImage("cannot be read: its name holds a zero byte") from None
    except MemoryError:
        raise BadImage("is too large for the memory of this machine") from None


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
    """Read and decode one picture. Raises BadImage."""
    return decode(read(root, path))


def decode(data: bytes, needs: Callable[[Size], Size] | None = None) -> Image.Image:
    """Decode a picture to 8-bit RGB, upright. Raises BadImage with a reason for people.

    What the file says by its first bytes counts, not its name. What becomes of odd ones:

    - The orientation that the camera noted is applied; an EXIF block that is broken is left unread.
    - Transparency, of pixels, of a palette or of one color, is laid over white.
    - Of an animation or a file of several pictures the first is taken, and need be the only one that is whole.
    - 16 bits a channel become 8 by their upper 8; grey values of 32 bits are refused, since nothing says which of them
      is white. CMYK, YCbCr and Lab become RGB by Pillow's plain conversion.
    - Color profiles, whole or broken, are not applied: the published models' own preprocessing applies none.
    - Metadata changes nothing, however much there is.
    - A picture that is cut short is refused, even where much of it could be shown. Only damage that a format's own
      decoder cannot see passes: a JPEG that was cut and closed again, changed bytes where there is no checksum.
    - Refused before they are decoded: more than MAX_PIXELS, a side of more than MAX_RATIO times the other, a JPEG of
      more than MAX_SCANS scans, and a TIFF that is only the preview of another picture, as in camera raw.

    ``needs`` says, from a picture's upright (width, height), how large it must at least be: a JPEG is then decoded at a
    half, a quarter or an eighth of its size, whichever is the smallest that is still as large as that.
    """
    if not data:
        raise BadImage("the file is empty")
    try:
        try:
            return _decode(data, needs)
        except ValueError:  # so Pillow refuses texts and color profiles that unpack to megabytes
            if not data.startswith(PNG):
                raise
            return _decode(_without_texts(data), needs)
    except BadImage:
        raise
    except UnidentifiedImageError:
        raise BadImage(_what_it_is(data)) from None
    except Image.DecompressionBombError:
        raise BadImage(f"has too many pixels; the limit is {MAX_PIXELS:,}") from None
    except MemoryError:
        raise BadImage("is too large for the memory of this machine") from None
    except Exception as error:  # decoders raise whatever a broken file leads them to
        raise BadImage(f"damaged: {error}") from None


def full_size(data: bytes, image: Image.Image) -> Size:
    """(width, height) of the picture that ``decode`` gave as ``image``, perhaps smaller than its file has it."""
    return _upright_size(Image.open(BytesIO(data), formats=FORMATS)) if data.startswith(JPEG) else image.size


def _decode(data: bytes, needs: Callable[[Size], Size] | None) -> Image.Image:
    image = Image.open(BytesIO(data), formats=FORMATS)
    _check(image, data)
    if needs and data.startswith(JPEG):
        least = needs(_upright_size(image))
        image.draft(None, least[::-1] if _orientation(image) in SIDEWAYS else least)
    image.load()
    turn = UPRIGHT.get(_orientation(image))  # of a TIFF, Pillow has seen to it by now
    upright = to_rgb(image)
    if turn is not None:
        upright = upright.transpose(turn)
    # it says how the camera was held, so that whoever looked there would turn the picture again; and what Pillow would
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
    """Refuse, before anything is decoded, what would take too long or too much memory, or is not the picture."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadImage(f"has {width} x {height} pixels; the limit is {MAX_PIXELS:,} in all")
    if max(image.size) > MAX_RATIO * min(image.size):
        raise BadImage(f"has {width} x {height} pixels: one side is more than {MAX_RATIO} times the other")
    if image.info.get("progressive") and (scans := data.count(b"\xff\xda")) > MAX_SCANS:
        raise BadImage(f"has {scans:,} progressive scans; the limit is {MAX_SCANS}. Save it again")
    # decoded without complaint; a picture of one color ends in zeros too, but for a twentieth of the file at most
    if image.format in ("WEBP", "AVIF") and not any(data[-len(data) // 5 :]):
        raise BadImage("damaged: it ends in zero bytes, as what was not fetched whole does")
    for kind, chunk in _chunks(data) if image.format == "PNG" else ():
        if kind == b"IDAT" and zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:]):  # which Pillow does not compare
            raise BadImage("damaged: it is cut short, or the checksum of its pixels is wrong")
    if _tags(image).get(SUBFILE, 0) & 1:
        raise BadImage("is only the preview of another picture (camera raw?); convert it to JPEG")


def _tags(image: Image.Image) -> Mapping[int, Any]:
    """The tags of a TIFF; none of any other format."""
    return getattr(image, "tag_v2", {})


def _chunks(png: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """The chunks of a PNG: their kind, and all of them: length, kind, contents, checksum."""
    at = len(PNG)
    while at < len(png):
        end = at + 12 + int.from_bytes(png[at : at + 4])
        yield png[at + 4 : at + 8], memoryview(png)[at:end]
        at = end


def _without_texts(png: bytes) -> bytes:
    """A PNG without its texts and color profile, which say nothing about its pixels."""
    texts = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
    return b"".join([PNG, *(chunk for kind, chunk in _chunks(png) if kind not in texts)])


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to 8-bit RGB; see ``decode`` for what happens to transparency and 16-bit grey."""
    if image.mode.startswith("I;16"):
        image = _eight_bits(image)
    elif image.mode in ("I", "F"):
        raise BadImage("has grey values of 32 bits or with a sign, and nothing says which is white; save 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey to L, or to LA where one value is transparent; TIFF may use fewer bits, and may count from white."""
    values = np.asarray(image)
    grey = (values >> (_tags(image).get(BITS, (16,))[0] - 8)).astype(np.uint8)
    converted = Image.fromarray(~grey if _tags(image).get(PHOTOMETRIC) == 0 else grey)
    if (clear := image.info.get("transparency")) is not None:
        converted.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return converted


def _what_it_is(data: bytes) -> str:
    """The reason for refusing what no decoder takes: what it is instead, as far as its first bytes tell."""
    for beginning, reason in BEGINNINGS:
        if beginning.match(data):
            return reason
    if data.count(0) == len(data):
        return "holds nothing but zero bytes"
    text = data[:512].decode(errors="ignore")
    whole = len(text.encode()) > min(len(data), 512) - 4  # a character may be cut
    return NO_PICTURE.format("text") if whole and "\0" not in text else "not a picture in a known format"
