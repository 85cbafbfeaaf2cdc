"""The reasons for rejecting files that cannot be decoded: an unsupported kind, not an image, or damaged."""

import re
import struct
from io import BytesIO

from PIL import TiffImagePlugin, features

from lookalike.io import phone_formats
from lookalike.io.image_containers import BMP, HEIF, JPEG, PNG, jpeg_2000_depth, segments


class BadImage(Exception):
    """An unusable image; the message is the reason given in the table of rejected images."""


TO_CONVERT = "is {}, which is not supported; convert it to JPEG"
NO_IMAGE = "is {}, not an image"
BROKEN = "damaged: it starts like {}, but cannot be decoded"
# First bytes of files that are not decoded, from specific to general.
SIGNATURES = tuple(
    (re.compile(signature, re.DOTALL | re.IGNORECASE), reason.format(name))
    for signature, reason, name in (
        (HEIF.pattern, BROKEN, "HEIC"),
        (rb"....ftypavi[fs]", BROKEN if features.check("avif") else TO_CONVERT, "AVIF"),
        (rb"....ftypcrx |FUJIFILMCCD|IIRO|IIRS|MMOR|IIU\0|II\*\0....CR|FOVb", TO_CONVERT, "camera raw"),
        (phone_formats.JPEG_XL.pattern, BROKEN, "JPEG XL"),
        (rb"II\xbc", TO_CONVERT, "JPEG XR"),
        (rb"8BPS", TO_CONVERT, "a Photoshop document"),
        (rb"gimp xcf", TO_CONVERT, "a GIMP document"),
        (rb"%PDF", TO_CONVERT, "PDF"),
        (rb"%!PS|\xc5\xd0\xd3\xc6", TO_CONVERT, "PostScript"),
        (rb"P[1-7f]\s", TO_CONVERT, "PNM"),
        (rb"v/1\x01|#\?RADIANCE", TO_CONVERT, "a high dynamic range image (EXR, HDR)"),
        (rb"\0\0[\x01\x02]\0", TO_CONVERT, "an icon"),
        (rb".{128}DICM", TO_CONVERT, "DICOM"),
        (rb"SIMPLE  =", TO_CONVERT, "FITS"),
        (rb"DDS ", TO_CONVERT, "a DirectDraw surface"),
        (rb"qoif", TO_CONVERT, "QOI"),
        (rb"AT&TFORM", TO_CONVERT, "DjVu"),
        (rb"(\xef\xbb\xbf)?\s*<(!doctype )?html", NO_IMAGE, "a web page"),
        (rb"(\xef\xbb\xbf)?\s*(<\?xml|<!--|<!doctype svg)?[^\0]{,1000}<svg\b", TO_CONVERT, "SVG"),
        (rb"....(ftyp|moov|mdat|wide)|RIFF....AVI |\x1aE\xdf\xa3|\0\0\x01[\xb3\xba]", NO_IMAGE, "a video"),
        (rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!|\xfd7zXZ|.{257}ustar", NO_IMAGE, "an archive"),
        (re.escape(JPEG), BROKEN, "JPEG"),
        (re.escape(PNG), BROKEN, "PNG"),
        (rb"GIF8", BROKEN, "GIF"),
        (rb"RIFF....WEBP", BROKEN, "WebP"),
        (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", BROKEN, "TIFF"),
        (rb"BM....\0\0\0\0", BROKEN, "BMP"),
        (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", BROKEN, "JPEG 2000"),
    )
)
# Kinds of JPEG by frame marker.
FRAMES = {
    **dict.fromkeys((0xC0, 0xC1, 0xC2, 0xC9, 0xCA), "a JPEG"),
    **dict.fromkeys((0xC3, 0xCB), "a lossless JPEG"),
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "a hierarchical JPEG"),
    0xF7: "JPEG-LS",
}
# TIFF tags, and descriptions of their unsupported values.
BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, SAMPLE_FORMAT = 258, 259, 262, 277, 339
SAMPLE_FORMATS = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
PHOTOMETRICS = {32803: "camera raw", 34892: "camera raw", 32844: "LogLuv", 32845: "LogLuv"}


def refusal(data: bytes) -> str:
    """The reason for rejecting a file that cannot be opened: what it is, judged by its first bytes."""
    if kind := undecoded_kind(data):
        return TO_CONVERT.format(kind)
    if (phone := phone_formats.kind_of(data)) and not phone_formats.is_installed(phone):
        return f"is {phone.name}, which needs the extra `formats` (pip install {phone.package}); or convert it to JPEG"
    for signature, reason in SIGNATURES:
        if signature.match(data):
            return reason
    if data.count(0) == len(data):
        return "holds nothing but zero bytes"
    text = data[:512].decode(errors="ignore")
    whole = len(text.encode()) > min(len(data), 512) - 4  # the last character may be cut
    return NO_IMAGE.format("text") if whole and "\0" not in text else "not an image in a known format"


def undecoded_kind(data: bytes) -> str:
    """Name an unsupported kind of JPEG, PNG, TIFF, BMP or JPEG 2000, which may be undamaged; empty otherwise."""
    try:
        if data.startswith(JPEG):
            return _jpeg_kind(data)
        if data.startswith(PNG):
            return "a PNG in the format of iPhone apps (CgBI)" if data[12:16] == b"CgBI" else ""
        if data.startswith(BMP):
            return _bmp_kind(data)
        if data.startswith((b"II", b"MM")):
            return _tiff_kind(data)
        return _jpeg_2000_kind(data)
    except (IndexError, struct.error):
        return ""  # cut short


def _jpeg_kind(data: bytes) -> str:
    for marker, _, contents, _ in segments(data):
        if marker in FRAMES:
            bits, channels = data[contents], data[contents + 5]
            if FRAMES[marker] != "a JPEG":
                return FRAMES[marker]
            if bits != 8:
                return f"a JPEG with {bits} bits per channel"
            return "" if channels in (1, 3, 4) else f"a JPEG with {channels} channels"
    return ""


def _bmp_kind(data: bytes) -> str:
    header, *_, bits, compression = struct.unpack_from("<IiiHHI", data, 14)
    if header in (12, 40, 52, 56, 64, 108, 124):
        if header == 12:
            bits, compression = struct.unpack_from("<H", data, 24)[0], 0
        known = bits in (1, 4, 8, 16, 24, 32) and compression in (0, 1, 2, 3, 6)
        return "" if known else f"a BMP with {bits} bits per pixel (compression {compression})"
    return f"a BMP with a header of {header} bytes" if 16 <= header <= 64 else ""


def _tiff_kind(data: bytes) -> str:
    file = BytesIO(data)
    try:
        TiffImagePlugin.TiffImageFile(file)
    except SyntaxError as error:  # an unknown compression raises it from a KeyError
        if not str(error).startswith(("unknown", "Invalid value")) and not isinstance(error.__cause__, KeyError):
            return ""
    except Exception:  # a broken file may make Pillow raise anything
        return ""
    else:
        return ""
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[:16] if 43 in data[2:4] else data[:8])
        file.seek(tags.next)
        tags.load(file)
        bits, kinds = tags.get(BITS, (1,)), tags.get(SAMPLE_FORMAT, (1,))
        values = PHOTOMETRICS.get(tags.get(PHOTOMETRIC, 0)) or SAMPLE_FORMATS.get(kinds[0], "unsigned")
        samples, packed = tags.get(SAMPLES, len(bits)), tags.get(COMPRESSION, 1)
    except Exception:  # likewise
        return ""
    return f"a TIFF with {samples} x {bits[0]} bits ({values}, compression {packed})"


def _jpeg_2000_kind(data: bytes) -> str:
    if not data.startswith((b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")):
        return ""
    channels, bits = jpeg_2000_depth(data)
    return "" if channels <= 4 and bits <= 16 else f"JPEG 2000 with {channels} x {bits} bits"
