"""Image files as they occur in the wild, generated on the fly, each with its expected result."""

import base64
import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from conftest import made_image

Pixels = NDArray[np.uint8]
SIZE = (60, 48)
CLOSE = 6.0  # largest mean difference (of 255) of lossy formats; a wrong orientation differs by more than 30
TRUNCATED = ("jpg", "progressive.jpg", "png", "webp", "lossless.webp", "gif", "tif", "lzw.tif", "bmp", "avif", "jp2")


@dataclass(frozen=True)
class Odd:
    """A file and its expected result: ``pixels`` within a mean difference of ``close``, or a reason for rejection."""

    name: str
    data: bytes
    pixels: Pixels | None = None
    close: float = 0.0
    reason: str = ""


@cache
def odd_images() -> tuple[Odd, ...]:
    """All files; their names are unique and have extensions of images."""
    return (
        *_ordinary(),
        *_unusual_jpegs(),
        *_in_other_colors(),
        *_transparent(),
        *_of_several_or_small(),
        *_with_metadata(),
        *_oriented(),
        *_rejected(),
        *_truncated(),
    )


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    """An image file written by Pillow."""
    buffer = io.BytesIO()
    image.copy().save(buffer, form, **options)  # a copy: Pillow leaves settings of one format on the image
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(size: tuple[int, int], bits: int, color: int, rows: bytes, extra: bytes = b"") -> bytes:
    """Build a PNG that Pillow does not write; ``extra`` chunks come before the pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, bits, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(size: tuple[int, int], bits: int, values: bytes, *, order: str = "<", white: int = 1, **more: int) -> bytes:
    """Build a grey TIFF; ``white`` is 0 if the value 0 is white, ``more`` are other tags, such as ``t254=1``."""
    tags = {256: size[0], 257: size[1], 258: bits, 259: 1, 262: white, 277: 1, 278: size[1], 279: len(values)}
    tags |= {int(name[1:]): value for name, value in more.items()} | {273: 8 + 2 + 12 * (len(tags) + 1 + len(more)) + 4}
    entries = b"".join(struct.pack(order + "HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(tags))
    return start + entries + bytes(4) + values


# 16 x 16, left red and right blue, written by `cjpeg -arithmetic`; Pillow does not write such files
ARITHMETIC = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAgGBgcGBQgHBwcJCQgKDBQNDAsLDBkSEw8UHRofHh0aHBwgJC4nICIsIxwcKDcpLDAxNDQ0Hyc5PTgy"
    "PC4zNDL/2wBDAQkJCQwLDBgNDRgyIRwhMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjL/yQARCAAQABAD"
    "AREAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwD/AGYpgvo0QmHsgEYmyyUc/wDDcP/Z"
)


@cache
def _whole() -> dict[str, bytes]:
    """An ordinary file of each kind, by its extension."""
    image = made_image(0, SIZE)
    return {
        "jpg": encoded(image, "JPEG", quality=90),
        "progressive.jpg": encoded(image, "JPEG", quality=90, progressive=True),
        "png": encoded(image, "PNG"),
        "webp": encoded(image, "WEBP", quality=90),
        "lossless.webp": encoded(image, "WEBP", lossless=True),
        "gif": encoded(image.quantize(256), "GIF"),
        "tif": encoded(image, "TIFF"),
        "lzw.tif": encoded(image, "TIFF", compression="tiff_lzw"),
        "deflate.tif": encoded(image, "TIFF", compression="tiff_adobe_deflate"),
        "jpeg.tif": encoded(image, "TIFF", compression="jpeg", quality=90),
        "bmp": encoded(image, "BMP"),
        "avif": encoded(image, "AVIF", quality=90),
        "jp2": encoded(image, "JPEG2000"),
    }


def _ordinary() -> Iterator[Odd]:
    _, pixels = _image()
    whole, few_colors = _whole(), _few_colors()
    for extension, data in whole.items():
        yield Odd(f"ordinary.{extension}", data, few_colors if extension == "gif" else pixels, CLOSE)

    # misleading extensions
    yield Odd("a-png.jpg", whole["png"], pixels)
    yield Odd("a-jpeg.png", whole["jpg"], pixels, CLOSE)
    yield Odd("a-webp.JPEG", whole["webp"], pixels, CLOSE)


def _unusual_jpegs() -> Iterator[Odd]:
    """Less common kinds of JPEG."""
    image, pixels = _image()
    sides = np.zeros((16, 16, 3), np.uint8)
    sides[:, :8], sides[:, 8:] = (200, 40, 40), (30, 60, 200)
    yield Odd("arithmetic.jpg", ARITHMETIC, sides, 2)
    yield Odd("grey.jpg", encoded(image.convert("L"), "JPEG", quality=95), _rgb(np.asarray(image.convert("L"))), CLOSE)
    yield Odd("cmyk.jpg", encoded(image.convert("CMYK"), "JPEG", quality=95), pixels, CLOSE)
    yield Odd(
        "two-views.jpg",
        encoded(image, "MPO", save_all=True, append_images=[made_image(1, SIZE)], quality=95),
        pixels,
        CLOSE,
    )


def _in_other_colors() -> Iterator[Odd]:
    """Color spaces and depths."""
    image, pixels = _image()
    grey, deep = np.asarray(image.convert("L")), _deep()
    yield Odd("cmyk.tif", encoded(image.convert("CMYK"), "TIFF"), pixels)
    yield Odd("ycbcr.tif", encoded(image.convert("YCbCr"), "TIFF"), pixels, 2)
    lab = Image.merge("LAB", [Image.fromarray(grey), *[Image.new("L", SIZE, 128)] * 2])
    yield Odd("lab.tif", encoded(lab, "TIFF"), np.asarray(lab.convert("RGB")))
    yield Odd("bilevel.png", encoded(image.convert("1"), "PNG"), _rgb(np.asarray(image.convert("1")) * np.uint8(255)))
    yield Odd("grey-16.png", encoded(Image.fromarray(deep), "PNG"), _rgb(deep >> 8))
    yield Odd("grey-16.tif", tiff(SIZE, 16, deep.tobytes()), _rgb(deep >> 8))
    yield Odd("grey-16-motorola.tif", tiff(SIZE, 16, deep.astype(">u2").tobytes(), order=">"), _rgb(deep >> 8))
    yield Odd("grey-16-from-white.tif", tiff(SIZE, 16, deep.tobytes(), white=0), _rgb(255 - (deep >> 8)))
    twelve = b"".join((int(a) << 12 | int(b)).to_bytes(3) for a, b in (deep >> 4).reshape(-1, 2))
    yield Odd("grey-12.tif", tiff(SIZE, 12, twelve), _rgb(deep >> 8))
    color = np.stack([deep, deep[::-1], deep[:, ::-1]], 2)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in color)
    yield Odd("color-16.png", png(SIZE, 16, 2, rows), (color >> 8).astype(np.uint8))


def _transparent() -> Iterator[Odd]:
    """Transparency, which is composited onto white."""
    image, pixels = _image()
    grey, deep = np.asarray(image.convert("L")), _deep()
    clear = np.zeros(grey.shape, bool)
    clear[:, :30] = True
    half = np.where(clear, 128, 255).astype(np.uint8)
    on_white = np.where(clear[..., None], 255, pixels).astype(np.uint8)
    blended = np.where(clear[..., None], np.rint(255 + (pixels.astype(float) - 255) * 128 / 255), pixels)
    with_alpha = image.copy()
    with_alpha.putalpha(Image.fromarray(half))
    yield Odd("transparent.png", encoded(with_alpha, "PNG"), blended.astype(np.uint8), 0.6)
    yield Odd("transparent.webp", encoded(with_alpha, "WEBP", lossless=True), blended.astype(np.uint8), 0.6)
    yield Odd("transparent.tif", encoded(with_alpha, "TIFF"), blended.astype(np.uint8), 0.6)
    grey_alpha = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(np.where(clear, 0, 255).astype(np.uint8))])
    yield Odd("transparent-grey.png", encoded(grey_alpha, "PNG"), np.where(clear[..., None], 255, _rgb(grey)))
    paletted = Image.fromarray(np.where(clear, 7, np.arange(60) % 3).astype(np.uint8))
    paletted.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255] + [9] * 15)
    shown = np.where(clear[..., None], 255, np.eye(3, dtype=np.uint8)[np.arange(60) % 3] * 255).astype(np.uint8)
    yield Odd("palette-one-clear.png", encoded(paletted, "PNG", transparency=7), shown)
    yield Odd("palette-one-clear.gif", encoded(paletted, "GIF", transparency=7), shown)
    yield Odd("palette-many-clear.png", encoded(paletted, "PNG", transparency=bytes([255] * 7 + [0])), shown)
    one_color = image.copy()
    one_color.paste((1, 2, 3), (0, 0, 30, 48))
    yield Odd("one-color-clear.png", encoded(one_color, "PNG", transparency=(1, 2, 3)), on_white)
    grey_rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in np.where(clear, 300, deep | 1))
    shown = np.where(clear[..., None], 255, _rgb(deep >> 8)).astype(np.uint8)
    yield Odd("grey-16-one-clear.png", png(SIZE, 16, 0, grey_rows, chunk(b"tRNS", b"\x01\x2c")), shown)


def _of_several_or_small() -> Iterator[Odd]:
    """Files with several images, of which the first is decoded; very small images."""
    image, pixels = _image()
    other, few_colors = made_image(1, SIZE), _few_colors()
    for form, extension in (("GIF", "gif"), ("WEBP", "webp"), ("PNG", "png"), ("TIFF", "tif")):
        first, second = (frame.quantize(256) if form == "GIF" else frame for frame in (image, other))
        lossless = {"lossless": True} if form == "WEBP" else {}
        several = encoded(first, form, save_all=True, append_images=[second.copy()], **lossless)
        yield Odd(f"several.{extension}", several, few_colors if form == "GIF" else pixels, CLOSE)
        if form == "GIF":
            yield Odd("second-cut-short.gif", several[: len(several) * 3 // 4], few_colors)

    # sizes
    for extension, form in (("png", "PNG"), ("jpg", "JPEG"), ("gif", "GIF"), ("webp", "WEBP")):
        tiny = Image.new("RGB", (1, 1), (250, 0, 0))
        yield Odd(f"1x1.{extension}", encoded(tiny, form), np.asarray(tiny), CLOSE)
    strip = made_image(2, (200, 1))
    yield Odd("200x1.png", encoded(strip, "PNG"), np.asarray(strip))


def _with_metadata() -> Iterator[Odd]:
    """Metadata, broken or large."""
    image, pixels = _image()
    whole, few_colors = _whole(), _few_colors()
    exif = Image.Exif()
    exif[0x010E] = "long " * 12_000
    jpeg, comment = whole["jpg"], b"\xff\xfe" + struct.pack(">H", 65_535) + b"c" * 65_533
    yield Odd("broken-profile.jpg", encoded(image, "JPEG", quality=90, icc_profile=b"no profile"), pixels, CLOSE)
    yield Odd("broken-profile.png", encoded(image, "PNG", icc_profile=b"no profile"), pixels)
    yield Odd("broken-exif.jpg", encoded(image, "JPEG", quality=90, exif=b"Exif\0\0no EXIF at all"), pixels, CLOSE)
    yield Odd("endless-exif.jpg", encoded(image, "JPEG", quality=90, exif=ENDLESS), pixels, CLOSE)
    yield Odd("huge-exif.jpg", encoded(image, "JPEG", quality=90, exif=exif), pixels, CLOSE)
    yield Odd("huge-comments.jpg", jpeg[:2] + comment * 60 + jpeg[2:], pixels, CLOSE)
    start = whole["png"][8:33]
    bombs = {
        "text-bomb": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(4 << 20))),
        "xmp-bomb": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(4 << 20))),
        "profile-bomb": chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(4 << 20))),
        "texts": b"".join(chunk(b"tEXt", b"Comment\0" + b"t" * 900_000) for _ in range(75)),
    }
    for name, extra in bombs.items():
        yield Odd(f"{name}.png", whole["png"][:8] + start + extra + whole["png"][33:], pixels)
    gif = whole["gif"]
    remark = b"\x21\xfe" + (b"\xff" + b"c" * 255) * 4_000 + b"\0"
    yield Odd("huge-comment.gif", gif[: 13 + 768] + remark + gif[13 + 768 :], few_colors)
    yield Odd("trailing-data.jpg", jpeg + b"more" * 1_000, pixels, CLOSE)
    yield Odd("padded.jpg", jpeg + bytes(4_096), pixels, CLOSE)


ENDLESS = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xff" * 50  # announces 65,535 tags


def _oriented() -> Iterator[Odd]:
    """One upright image stored in each of the eight EXIF orientations; in other formats in the sixth only."""
    upright = made_image(3, SIZE)
    stored = {  # how a camera in this orientation stores the upright image
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }
    for orientation, image in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(image, "JPEG", quality=95, exif=exif)
        yield Odd(f"orientation-{orientation}.jpg", data, np.asarray(upright), CLOSE)
        if orientation == 6:
            for form, extension in (("PNG", "png"), ("WEBP", "webp"), ("TIFF", "tif"), ("AVIF", "avif")):
                data = encoded(image, form, exif=exif)
                yield Odd(f"orientation-6.{extension}", data, np.asarray(upright), CLOSE)
            tagged = tiff(image.size, 16, _deep().T.tobytes(), white=0, t274=5)
            yield Odd("orientation-5-from-white.tif", tagged, _rgb(255 - (_deep() >> 8)))


def _rejected() -> Iterator[Odd]:
    whole = _whole()
    convert = "is not supported; convert it to JPEG"
    yield Odd("empty.jpg", b"", reason="the file is empty")
    yield Odd("zeros.jpg", bytes(5_000), reason="holds nothing but zero bytes")
    yield Odd("noise.jpg", np.random.default_rng(0).bytes(5_000), reason="not an image in a known format")
    yield Odd("text.jpg", "Überhaupt kein Bild.\n".encode() * 90, reason="is text, not an image")
    yield Odd("sign-in.jpg", b"\n<!DOCTYPE html>\n<html>", reason="is a web page, not an image")
    yield Odd("film.jpg", b"\0\0\0\x18ftypmp42" + bytes(99), reason="is a video, not an image")
    yield Odd("packed.jpg", b"PK\3\4" + bytes(99), reason="is an archive, not an image")
    yield Odd("phone.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), reason="damaged: it starts like HEIC")
    yield Odd("phone.jpg", b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(99), reason="damaged: it starts like HEIC")
    yield Odd("new.jxl", b"\xff\x0a" + bytes(99), reason="damaged: its JPEG XL data")
    yield Odd("drawing.jpg", b'<?xml version="1.0"?>\n<svg xmlns="">', reason=f"is SVG, which {convert}")
    yield Odd("page.jpg", b"%PDF-1.7\n" + bytes(99), reason=f"is PDF, which {convert}")
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"  # Pillow would run it
    yield Odd("program.jpg", program, reason=f"is PostScript, which {convert}")
    yield Odd("layers.jpg", b"8BPS\0\1" + bytes(99), reason=f"is a Photoshop document, which {convert}")
    yield Odd("canon.tif", b"II*\0\x10\0\0\0CR\2\0" + bytes(99), reason=f"is camera raw, which {convert}")
    grey = np.asarray(made_image(0, SIZE).convert("L"))
    yield Odd("preview.tif", tiff(SIZE, 8, grey.tobytes(), t254=1), reason="is only the preview of another image")
    yield Odd("grey-32.tif", tiff(SIZE, 32, grey.astype("<u4").tobytes()), reason="has 32-bit or signed grey values")
    yield Odd(
        "float.tif", encoded(Image.fromarray(grey / np.float32(255)), "TIFF"), reason="has 32-bit or signed grey values"
    )

    yield Odd("30000x1.png", encoded(Image.new("RGB", (30_000, 1)), "PNG"), reason="has 30000 x 1 pixels: one side is")
    yield Odd("201x1.gif", encoded(Image.new("L", (201, 1)), "GIF"), reason="more than 200 times the other")
    yield Odd("bomb.png", png((60_000, 50_000), 8, 0, b"\0"), reason="has too many pixels; the limit is 250,000,000")
    yield Odd("small-bomb.png", png((16_000, 15_626), 8, 0, b"\0"), reason="has 16000 x 15626 pixels; the limit is")
    yield Odd("bomb.jpg", _resized_jpeg(whole["jpg"], 65_500, 65_500), reason="has too many pixels")
    progressive = whole["progressive.jpg"]
    scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    yield Odd("scans.jpg", progressive[:-2] + scan * 300 + b"\xff\xd9", reason="progressive scans; the limit is 200")
    yield Odd("no-width.png", png((0, 3), 8, 2, b"\0"), reason="starts like PNG, but cannot be decoded")

    for name in ("jpg", "progressive.jpg", "webp", "png", "gif", "avif"):
        data = whole[name]
        yield Odd(f"zeros-at-end.{name}", data[: len(data) // 2].ljust(len(data), b"\0"), reason="damaged")
    flipped = bytearray(whole["png"])
    flipped[len(flipped) // 2] ^= 255
    yield Odd("flipped.png", bytes(flipped), reason="damaged")


def _truncated() -> Iterator[Odd]:
    for extension in TRUNCATED:
        data = _whole()[extension]
        for tenth in range(1, 10):
            yield Odd(f"cut-{tenth}.{extension}", data[: len(data) * tenth // 10], reason="damaged")


def _resized_jpeg(jpeg: bytes, width: int, height: int) -> bytes:
    """A JPEG that claims another size."""
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


def _image() -> tuple[Image.Image, Pixels]:
    return made_image(0, SIZE), np.asarray(made_image(0, SIZE))


def _few_colors() -> Pixels:
    return np.asarray(made_image(0, SIZE).quantize(256).convert("RGB"))


def _deep() -> NDArray[np.uint16]:
    """16-bit grey of SIZE that uses the whole range."""
    return (np.asarray(made_image(4, SIZE).convert("L")).astype(np.uint16) * 257).astype("<u2")


def _rgb(grey: NDArray[Any]) -> Pixels:
    return np.repeat(grey.astype(np.uint8)[..., None], 3, 2)
