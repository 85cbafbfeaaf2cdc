"""Image files as other programs write them: odd or damaged outside the pixels, or of rare kinds."""

import struct
import zlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from conftest import made_image
from odd_images import CLOSE, SIZE, Odd, Pixels, chunk, encoded, png, tiff

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CONVERT = "which is not supported; convert it to JPEG"


@cache
def odd_containers() -> tuple[Odd, ...]:
    """All files; their names are unique."""
    return (*_png(), *_png_transparency(), *_jpeg(), *_ending_in_zeros(), *_bmp(), *_gif(), *_tiff(), *_not_decoded())


def bad_chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk with a wrong checksum."""
    return chunk(kind, data)[:-4] + b"\0\0\0\0"


def color_tiff(values: NDArray[Any], photometric: int, *, planes: bool, order: str = "<", **more: int) -> bytes:
    """Build a TIFF from (height, width, n) integers or floats, in planes or interleaved; ``more`` as in ``tiff``."""
    height, width, n = values.shape
    data = values.astype(values.dtype.newbyteorder(order))
    strips = [data[..., channel].tobytes() for channel in range(n)] if planes else [data.tobytes()]
    tags = {256: [width], 257: [height], 258: [8 * values.dtype.itemsize] * n, 259: [1], 262: [photometric]}
    tags |= {273: [0] * len(strips), 277: [n], 278: [height], 279: [len(strip) for strip in strips], 284: [1 + planes]}
    tags |= {int(name[1:]): [value] for name, value in more.items()}
    at = 8 + 2 + 12 * len(tags) + 4
    places = {tag: at + sum(4 * len(tags[other]) for other in sorted(tags) if other < tag) for tag in tags}
    pixels = at + sum(4 * len(numbers) for numbers in tags.values())
    tags[273] = [pixels + sum(map(len, strips[:number])) for number in range(len(strips))]
    entries, rest = b"", b""
    for tag, numbers in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        entries += struct.pack(f"{order}HHI", tag, 4, len(numbers))
        entries += packed if len(numbers) == 1 else struct.pack(f"{order}I", places[tag])
        rest += packed
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    return start + entries + bytes(4) + rest + b"".join(strips)


def bmp(values: NDArray[Any], masks: tuple[int, ...], *, header: int = 40, compression: int = 3) -> bytes:
    """Build a top-down BMP with bit fields."""
    height, width = values.shape
    start = 14 + max(header, 40 + 4 * len(masks))
    head = struct.pack("<IiiHHIIiiII", header, width, -height, 1, 8 * values.itemsize, compression, 0, 0, 0, 0, 0)
    head = (head + struct.pack(f"<{len(masks)}I", *masks)).ljust(start - 14, b"\0")
    return b"BM" + struct.pack("<IHHI", start + values.nbytes, 0, 0, start) + head + values.tobytes()


def _pixels() -> Pixels:
    return np.asarray(made_image(0, SIZE))


def _grey() -> Pixels:
    return np.asarray(made_image(0, SIZE).convert("L"))


def _thrice(grey: NDArray[Any]) -> Pixels:
    return np.repeat(grey.astype(np.uint8)[..., None], 3, 2)


def _png() -> Iterator[Odd]:
    """Chunks other than the pixels that libpng only warns about."""
    whole, pixels = encoded(made_image(0, SIZE), "PNG"), _pixels()
    packed = zlib.compress(b"x" * 99)
    beside = {
        "checksum-profile": bad_chunk(b"iCCP", b"p\0\0" + packed),
        "checksum-density": bad_chunk(b"pHYs", bytes(9)),
        "checksum-text": bad_chunk(b"tEXt", b"Title\0hi"),
        "checksum-clear": bad_chunk(b"tRNS", bytes(6)),
        "checksum-exif": bad_chunk(b"eXIf", b"MM\0*"),
        "checksum-palette": bad_chunk(b"PLTE", bytes(9)),  # of an image without one
        "method-profile": chunk(b"iCCP", b"p\0\1x"),
        "method-text": chunk(b"zTXt", b"p\0\7x"),
        "method-oriented": chunk(b"zTXt", b"Raw profile type exif\0\7x"),
        "frames": chunk(b"fcTL", bytes(26)),
        **{f"short-{kind.decode()}": chunk(kind, b"") for kind in (b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"pHYs")},
        **{f"short-{kind.decode()}": chunk(kind, b"\0") for kind in (b"tRNS", b"acTL", b"fcTL", b"eXIf", b"sBIT")},
    }
    for name, extra in beside.items():
        yield Odd(f"{name}.png", whole[:33] + extra + whole[33:], pixels)
        yield Odd(f"late-{name}.png", whole[:-12] + extra + whole[-12:], pixels)
    yield Odd("no-end.png", whole[:-12], pixels)
    yield Odd("trailing-data.png", whole + bad_chunk(b"IDAT", b"x"), pixels)
    for kind, part in ((b"IHDR", "header"), (b"IDAT", "pixels")):
        at = whole.index(kind)
        length = int.from_bytes(whole[at - 4 : at])
        wrong = whole[: at + 4 + length] + b"\0\0\0\0" + whole[at + 8 + length :]
        yield Odd(f"checksum-{part}.png", wrong, reason=f"damaged: it is cut short, or the checksum of its {part}")
    stored = made_image(3, SIZE).transpose(Image.Transpose.ROTATE_90)
    note = b'<x:xmpmeta xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"></x:xmpmeta>'
    exif = chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0")
    data = encoded(stored, "PNG")
    for name, extra in {"xmp": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + note), "exif": exif}.items():
        turned = data[:33] + bad_chunk(b"pHYs", b"\0") + extra + data[33:]
        yield Odd(f"turned-by-{name}.png", turned, np.asarray(made_image(3, SIZE)))


def _png_transparency() -> Iterator[Odd]:
    """One transparent color, given in the bit depth of the file."""
    for bits in (1, 2, 4, 8):
        levels = _grey() >> (8 - bits)
        packed = np.packbits(np.unpackbits(levels[..., None], axis=2)[..., 8 - bits :].reshape(SIZE[1], -1), axis=1)
        rows = b"".join(b"\0" + row.tobytes() for row in packed)
        for clear in {1, (1 << bits) - 2, int(levels[0, 0])} - {0}:
            shown = np.where(levels == clear, 255, levels * (255 // ((1 << bits) - 1)))
            for more in (0, 0xFF00 if bits == 8 else 0xFFF0):  # bits beyond those of the pixels do not count
                transparency = chunk(b"tRNS", struct.pack(">H", clear | more))
                yield Odd(
                    f"grey-{bits}-clear-{clear | more}.png", png(SIZE, bits, 0, rows, transparency), _thrice(shown)
                )
    deep = _pixels().astype(np.uint16) * 257
    deep[:, :20] = (1000, 2000, 3000)
    deep[:, 20:30] = (1000, 2000, 3001)  # the same upper bits
    shown = (deep >> 8).astype(np.uint8)
    shown[:, :20] = 255
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    yield Odd("color-16-clear.png", png(SIZE, 16, 2, rows, chunk(b"tRNS", struct.pack(">3H", 1000, 2000, 3000))), shown)
    whole = encoded(made_image(0, SIZE).quantize(4), "PNG")
    at = whole.index(b"IDAT") - 4
    too_long = whole[:at] + chunk(b"tRNS", bytes(200)) + whole[at:]  # for four colors
    yield Odd("palette-clear-too-long.png", too_long, np.asarray(made_image(0, SIZE).quantize(4).convert("RGB")))


def _jpeg() -> Iterator[Odd]:
    image, pixels = made_image(0, SIZE), _pixels()
    whole = encoded(image, "JPEG", quality=92)
    beside = {
        "short-app0": b"\xff\xe0\0\7JFIF\0",
        "short-app2": b"\xff\xe2\0\x0fICC_PROFILE\0\1",
        "short-app13": b"\xff\xed\0\x16Photoshop 3.0\x008BIM\x07\xdb",
        "short-app14": b"\xff\xee\0\7Adobe",
        "no-views": b"\xff\xe2\0\x0aMPF\0MM\0*",
        "fill-bytes": b"\xff\xff\xff\xfe\0\4ok",
    }
    for name, extra in beside.items():
        yield Odd(f"{name}.jpg", whole[:2] + extra + whole[2:], pixels, CLOSE)
    film = b"\0\0\0\x18ftypmp42" + b"\xff\xda" * 1_000
    yield Odd("motion-photo.jpg", encoded(image, "JPEG", progressive=True, quality=92) + film, pixels, CLOSE)
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + 6 + 2 * 300) + b"Exif\0\0" + b"\xff\xda" * 300
    progressive = encoded(image, "JPEG", progressive=True, quality=92)
    yield Odd("scans-in-exif.jpg", progressive[:2] + thumbnail + progressive[2:], pixels, CLOSE)


def _ending_in_zeros() -> Iterator[Odd]:
    """EXIF padding as Windows writes it, and free space: the pixels before it are complete."""
    image, pixels = made_image(0, SIZE), _pixels()
    padding = struct.pack("<HHHII", 1, 0xEA1C, 7, 4_000, 26) + bytes(4 + 4_000)
    for form, start in (("WEBP", b""), ("AVIF", b"Exif\0\0")):
        padded = encoded(image, form, quality=90, exif=start + b"II*\0\x08\0\0\0" + padding)
        yield Odd(f"padding.{form.lower()}", padded, pixels, CLOSE)
    yield Odd(
        "free.avif",
        encoded(image, "AVIF", quality=90) + struct.pack(">I", 9_008) + b"free" + bytes(9_000),
        pixels,
        CLOSE,
    )
    webp = encoded(image, "WEBP", quality=90)
    more = b"JUNK" + struct.pack("<I", 9_000) + bytes(9_000)
    yield Odd("junk.webp", b"RIFF" + struct.pack("<I", len(webp) - 8 + len(more)) + webp[8:] + more, pixels, CLOSE)
    for form, at in (("WEBP", webp.index(b"VP8 ")), ("AVIF", None)):
        data = encoded(image, form, quality=90)
        start = at or data.index(b"mdat")
        half = start + (len(data) - start) // 2
        yield Odd(f"half-zeros.{form.lower()}", data[:half].ljust(len(data), b"\0"), reason="damaged")
    for side in (1, 16, 500):
        plain = Image.new("RGB", (side, side), (250, 250, 250))
        for form in ("WEBP", "AVIF"):
            yield Odd(f"plain-{side}.{form.lower()}", encoded(plain, form), np.asarray(plain), CLOSE)
        lossless = encoded(plain, "WEBP", lossless=True)
        yield Odd(f"plain-lossless-{side}.webp", lossless, np.asarray(plain))


def _bmp() -> Iterator[Odd]:
    pixels = _pixels()
    red, green, blue = (pixels[..., channel].astype(np.uint32) for channel in range(3))
    half = np.broadcast_to(np.arange(SIZE[0]) < 30, _grey().shape)
    on_white = np.where(half[..., None], pixels, 255).astype(np.uint8)
    standard = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    plain = red << 16 | green << 8 | blue
    yield Odd("alpha-all-zero.bmp", bmp(plain, standard, header=56), pixels)
    clear = plain | np.where(half, 0xFF000000, 0).astype(np.uint32)
    yield Odd("transparent.bmp", bmp(clear, standard, header=56), on_white)
    yield Odd("alpha-fields.bmp", bmp(clear, standard, compression=6), on_white)
    ten = red << 22 | green << 12 | blue << 2
    yield Odd("10-bits.bmp", bmp(ten, (0x3FF00000, 0xFFC00, 0x3FF)), pixels, 0.5)
    for header in (40, 56):
        reverse = bmp(red | green << 8 | blue << 16, (0xFF, 0xFF00, 0xFF0000), header=header)
        yield Odd(f"reversed-{header}.bmp", reverse, pixels)
    for name, bits, masks in (
        ("555", (5, 5, 5), (0x7C00, 0x3E0, 0x1F)),
        ("565", (5, 6, 5), (0xF800, 0x7E0, 0x1F)),
        ("444", (4, 4, 4), (0xF00, 0xF0, 0xF)),
        ("bgr565", (5, 6, 5), (0x1F, 0x7E0, 0xF800)),
    ):
        values = sum((pixels[..., c].astype(int) >> (8 - bits[c])) * (masks[c] & -masks[c]) for c in range(3))
        shown = [(pixels[..., c] >> (8 - bits[c])) * 255.0 / ((1 << bits[c]) - 1) for c in range(3)]
        yield Odd(f"{name}.bmp", bmp(np.uint16(values), masks), np.stack(shown, 2).astype(np.uint8), 1)
    values = sum((pixels[..., c].astype(int) >> 3) << (10 - 5 * c) for c in range(3)) | np.where(half, 0x8000, 0)
    shown = np.where(half[..., None], (pixels >> 3) * 255.0 / 31, 255).astype(np.uint8)
    yield Odd("1555.bmp", bmp(np.uint16(values), (0x7C00, 0x3E0, 0x1F, 0x8000), header=56), shown, 1)


def _gif() -> Iterator[Odd]:
    """A first frame smaller than the canvas; the rest is transparent."""
    small = made_image(0, (20, 10)).quantize(64)
    data = bytearray(encoded(small, "GIF"))
    frame = data.index(b",\0\0\0\0" + struct.pack("<HH", 20, 10))
    data[6:10], data[frame + 1 : frame + 5] = struct.pack("<HH", *SIZE), struct.pack("<HH", 7, 5)
    shown = np.full((SIZE[1], SIZE[0], 3), 255, np.uint8)
    shown[5:15, 7:27] = np.asarray(small.convert("RGB"))
    yield Odd("small-frame.gif", bytes(data), shown)


def _tiff() -> Iterator[Odd]:
    pixels, grey = _pixels(), _grey()
    alpha = np.where(np.arange(SIZE[0]) < 30, 255, 0).astype(np.uint8) * np.ones_like(grey)
    with_alpha = np.dstack([pixels, alpha])
    on_white = np.where(alpha[..., None], pixels, 255)
    cmyk = np.asarray(made_image(0, SIZE).convert("CMYK"))
    for order in "<>":
        for dtype, scale in ((np.uint8, 1), (np.uint16, 257)):
            end = f"{8 * np.dtype(dtype).itemsize}{'-motorola' * (order == '>')}.tif"
            for planes in (False, True):
                name, options = f"{'planes' if planes else 'together'}-{end}", {"planes": planes, "order": order}
                yield Odd(f"rgb-{name}", color_tiff(pixels.astype(dtype) * dtype(scale), 2, **options), pixels)
                deep = with_alpha.astype(dtype) * dtype(scale)
                yield Odd(f"rgba-{name}", color_tiff(deep, 2, **options, t338=2), on_white)
                yield Odd(f"cmyk-{name}", color_tiff(cmyk.astype(dtype) * dtype(scale), 5, **options), pixels)
    lab = np.dstack([grey, grey, grey])
    yield Odd("lab-planes.tif", color_tiff(lab, 8, planes=True), reason=f"in separate planes of LAB, {CONVERT}")
    both = np.dstack([grey, alpha])
    yield Odd("grey-alpha-planes.tif", color_tiff(both, 1, planes=True, t338=2), reason="in separate planes of LA")

    signed = "signed grey values, and their white level is unknown"
    yield Odd("signed-8.tif", tiff(SIZE, 8, grey.tobytes(), t339=2), reason=signed)
    yield Odd("signed-16.tif", tiff(SIZE, 16, (grey.astype("<i2") << 7).tobytes(), t339=2), reason=signed)
    dark = "has 16 bits per channel, but no value above 4,095"
    twelve = (pixels.astype(np.uint16) << 4) | (pixels >> 4)
    yield Odd("12-in-16.tif", tiff(SIZE, 16, (grey.astype("<u2") << 4).tobytes()), reason=dark)
    yield Odd("12-in-16-color.tif", color_tiff(twelve, 2, planes=False), reason=dark)
    yield Odd("12-in-16.png", encoded(Image.fromarray(grey.astype(np.uint16) << 4), "PNG"), reason=dark)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in twelve)
    yield Odd("12-in-16-color.png", png(SIZE, 16, 2, rows), reason=dark)
    yield Odd("12-in-16.jp2", encoded(Image.fromarray(grey.astype(np.uint16) << 4), "JPEG2000"), reason=dark)
    wide = grey.astype(np.uint16) * 257
    yield Odd("16-in-16.jp2", encoded(Image.fromarray(wide), "JPEG2000"), _thrice(grey), CLOSE)


def _not_decoded() -> Iterator[Odd]:
    """Unsupported kinds, which may be undamaged and must not be reported as damaged."""
    jpeg, pixels = encoded(made_image(0, SIZE), "JPEG"), _pixels()
    frame = jpeg.index(b"\xff\xc0")
    marked = {0xC3: "a lossless JPEG", 0xC5: "a hierarchical JPEG", 0xF7: "JPEG-LS"}
    for marker, name in marked.items():
        yield Odd(
            f"{marker:x}.jpg", jpeg[: frame + 1] + bytes([marker]) + jpeg[frame + 2 :], reason=f"is {name}, {CONVERT}"
        )
    twelve = jpeg[: frame + 4] + b"\x0c" + jpeg[frame + 5 :]
    yield Odd("12-bits.jpg", twelve, reason=f"is a JPEG with 12 bits per channel, {CONVERT}")
    whole = encoded(made_image(0, SIZE), "PNG")
    phone = SIGNATURE + chunk(b"CgBI", bytes(4)) + whole[8:]
    yield Odd("iphone.png", phone, reason=f"is a PNG in the format of iPhone apps (CgBI), {CONVERT}")
    floats = (pixels / 255).astype(np.float32)
    yield Odd(
        "float-color.tif",
        color_tiff(floats, 2, planes=False, t339=3),
        reason="is a TIFF with 3 x 32 bits (floating-point",
    )
    five = np.dstack([pixels, pixels[..., :2]])
    yield Odd(
        "5-bands.tif",
        color_tiff(five, 1, planes=False),
        reason="is a TIFF with 5 x 8 bits (unsigned, compression 1), which",
    )
    float64 = (_grey()[..., None] / 255).astype(np.float64)
    yield Odd(
        "float64.tif", color_tiff(float64, 1, planes=False, t339=3), reason="is a TIFF with 1 x 64 bits (floating-point"
    )
    raw = color_tiff(_grey()[..., None], 32803, planes=False)
    yield Odd("raw-values.tif", raw, reason="is a TIFF with 1 x 8 bits (camera raw")
    packed = color_tiff(_pixels(), 2, planes=False, t259=34887)
    yield Odd("lerc.tif", packed, reason="is a TIFF with 3 x 8 bits (unsigned, compression 34887)")
    bitmap = bytearray(encoded(made_image(0, SIZE), "BMP"))
    bitmap[28:30] = struct.pack("<H", 64)
    yield Odd("64-bits.bmp", bytes(bitmap), reason=f"is a BMP with 64 bits per pixel (compression 0), {CONVERT}")
    bitmap[28:34] = struct.pack("<HI", 24, 4)
    yield Odd("jpeg-inside.bmp", bytes(bitmap), reason="is a BMP with 24 bits per pixel (compression 4)")
    for name, start, kind in (
        ("xr.jpg", b"II\xbc\x01", "JPEG XR"),
        ("scan.jpg", bytes(128) + b"DICM", "DICOM"),
        ("gimp.jpg", b"gimp xcf v011\0", "a GIMP document"),
        ("sky.jpg", b"SIMPLE  =                    T", "FITS"),
    ):
        yield Odd(name, start + bytes(99), reason=f"is {kind}, {CONVERT}")
