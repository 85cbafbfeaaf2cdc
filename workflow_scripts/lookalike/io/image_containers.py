"""Image file containers: which parts of a file hold its pixels, and whether these parts are complete.

All functions take the bytes of a file. They raise ValueError, with a message that completes "damaged: ", if these parts
are incomplete. Like the libraries of other programs, they ignore damage elsewhere in the file.
"""

import re
import struct
import zlib
from collections.abc import Iterator

import numpy as np

JPEG, PNG, BMP = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM"
HEIF = re.compile(rb"....ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", re.DOTALL)
ZEROS = bytes(4)
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9  # markers of JPEG
APPLICATION, COMMENT = range(0xE0, 0xF0), 0xFE
MARKER = re.compile(rb"\xff+([^\0\xff\x01\xd0-\xd8])", re.DOTALL)  # except those inside compressed data
# First bytes and minimum length of the JPEG segments to keep: libjpeg derives the color space from the first two; the
# others hold the orientation.
KEPT_SEGMENTS = ((b"JFIF\0", 14), (b"Adobe", 12), (b"Exif\0\0", 6), (b"http://ns.adobe.com/xap/1.0/\0", 29))
PROFILE = b"ICC_PROFILE\0"  # first bytes of JPEG segments with a part of a color profile
LARGEST_PROFILE = 16 << 20  # bytes; those of printers have a few million
# Keywords of PNG text chunks that may hold the orientation.
ORIENTING_TEXTS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0", b"exif\0")
CRITICAL = {b"IHDR": "header", b"PLTE": "palette", b"IDAT": "pixels"}
GREY, COLOR, PALETTE = 0, 2, 3  # PNG color types
# Red, green, blue and alpha masks of the BMPs that Pillow reads, by bits per pixel.
PLAIN_MASKS = {
    16: {(0xF800, 0x7E0, 0x1F, 0), (0x7C00, 0x3E0, 0x1F, 0)},
    32: {(0xFF0000, 0xFF00, 0xFF, 0), (0xFF0000, 0xFF00, 0xFF, 0xFF000000), (0, 0, 0, 0)},
}


def essentials(data: bytes, *, texts: bool = True) -> bytes:
    """Return a file with the same pixels and orientation, without the parts that could otherwise fail to decode.

    ``texts``: keep an orientation in PNG text chunks, which may decompress to more than Pillow accepts.
    """
    if data.startswith(PNG):
        return b"".join([PNG, *_png_essentials(data, texts)])
    if data.startswith(JPEG):
        return _jpeg_essentials(data)
    return _plain_bmp(data) if data.startswith(BMP) else data


def icc_profile(data: bytes) -> bytes:
    """The color profile of a JPEG or PNG, from the parts that ``essentials`` leaves out; empty if there is no profile.

    Raises ValueError if it is incomplete.
    """
    if data.startswith(PNG):
        for kind, chunk in chunks(data):
            if kind == b"iCCP":
                _, _, packed = bytes(chunk[8:-4]).partition(b"\0")
                return _decompressed(packed[1:])
            if kind == b"IDAT":
                break
        return b""
    parts: dict[int, bytes] = {}
    count = 0
    for marker, _, start, end in segments(data) if data.startswith(JPEG) else ():
        if marker == START_OF_SCAN:
            break
        if marker == APPLICATION[2] and data[start:end].startswith(PROFILE) and end - start > len(PROFILE) + 2:
            number, count = data[start + len(PROFILE) : start + len(PROFILE) + 2]
            parts[number] = data[start + len(PROFILE) + 2 : end]
    if len(parts) != count:
        raise ValueError(f"{len(parts)} of its {count} parts are in the file")
    return b"".join(part for _, part in sorted(parts.items()))


def _decompressed(packed: bytes) -> bytes:
    """At most LARGEST_PROFILE bytes and one more, so that a longer one is known to be."""
    try:
        return zlib.decompressobj().decompress(packed, LARGEST_PROFILE + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from None


# --- PNG ---


def chunks(png: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """The chunks of a PNG up to its end: type, and the whole chunk (length, type, contents, checksum)."""
    at, kind = len(PNG), b""
    while at + 8 <= len(png) and kind != b"IEND":
        kind, end = png[at + 4 : at + 8], at + 12 + int.from_bytes(png[at : at + 4])
        yield kind, memoryview(png)[at:end]
        at = end


def _png_essentials(png: bytes, texts: bool) -> Iterator[bytes | memoryview]:
    bits, color, colors = 0, None, 0
    for kind, chunk in chunks(png):
        contents = bytes(chunk[8:-4]) if kind != b"IDAT" else b""
        whole = zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])
        if kind == b"IHDR" and len(contents) >= 13:
            bits, color = contents[8], contents[9]
        if kind == b"PLTE" and color != PALETTE:
            continue  # a suggested palette for displays with few colors
        colors = len(contents) // 3 if kind == b"PLTE" else colors
        if kind in CRITICAL and not whole:
            raise ValueError(f"it is cut short, or the checksum of its {CRITICAL[kind]} is wrong")
        if kind in CRITICAL or kind == b"IEND":
            yield chunk
        elif kind[:1].isupper():  # an unknown critical chunk may change how pixels are read (PNG specification, 5.4)
            raise ValueError(f"it has an unknown critical chunk, {kind!r}")
        elif kind == b"tRNS" and whole:
            yield _transparency(contents, bits, color, colors)
        elif whole and (kind == b"eXIf" or (texts and contents.startswith(ORIENTING_TEXTS))):
            yield chunk


def _transparency(contents: bytes, bits: int, color: int | None, colors: int) -> bytes:
    """A tRNS chunk scaled as Pillow scales pixels, to 8 or 16 bits; empty if it is malformed."""
    if color == PALETTE and 1 <= len(contents) <= colors:
        return _chunk(b"tRNS", contents)
    if len(contents) != {GREY: 2, COLOR: 6}.get(color or GREY):
        return b""
    most = (1 << bits) - 1  # only the lowest bits count (PNG specification, 11.3.2.1)
    scale = 255 // max(most, 1) if bits < 8 else 1
    values = [(value & most) * scale for (value,) in struct.iter_unpack(">H", contents)]
    return _chunk(b"tRNS", struct.pack(f">{len(values)}H", *values))


def _chunk(kind: bytes, contents: bytes) -> bytes:
    return struct.pack(">I", len(contents)) + kind + contents + struct.pack(">I", zlib.crc32(kind + contents))


# --- JPEG ---


def segments(jpeg: bytes) -> Iterator[tuple[int, int, int, int]]:
    """The segments of a JPEG up to its end: marker, and the offsets of its marker, its contents and its end."""
    at = 2
    while match := MARKER.search(jpeg, at):
        marker, length = match[1][0], match.end()
        if marker == END_OF_IMAGE:
            return
        at = length + max(2, int.from_bytes(jpeg[length : length + 2]))
        yield marker, match.start(), length + 2, at


def count_scans(jpeg: bytes) -> int:
    """Number of scans of a JPEG; data after its end, such as an appended video, does not count."""
    return sum(marker == START_OF_SCAN for marker, *_ in segments(jpeg))


def _jpeg_essentials(jpeg: bytes) -> bytes:
    kept, done = [], 0
    for marker, start, contents, end in segments(jpeg):
        if marker == START_OF_SCAN:
            break
        if (marker in APPLICATION or marker == COMMENT) and end <= len(jpeg) and not _is_kept(jpeg[contents:end]):
            kept.append(memoryview(jpeg)[done:start])
            done = end
    return b"".join([*kept, memoryview(jpeg)[done:]]) if done else jpeg


def _is_kept(contents: bytes) -> bool:
    return any(contents.startswith(start) and len(contents) >= least for start, least in KEPT_SEGMENTS)


# --- WebP, AVIF and HEIC, which decode without error even if a partly downloaded file is filled up with zeros ---


def is_zero_filled(data: bytes, form: str) -> bool:
    """Whether zeros replace the end of the pixels of a WEBP, AVIF or HEIF file; padding and metadata after it may be.

    In a WebP or AVIF: the last fifth. An image of one color ends in zeros too, but at most for a twentieth of its data.
    In a HEIC: four bytes anywhere, which HEVC excludes (ITU-T H.265, 7.4.2.1).
    """
    if form == "HEIF":
        return any(ZEROS in item for item in _heif_pixels(data))
    items = _webp_pixels(data) if form == "WEBP" else _avif_pixels(data)
    return any(len(item) >= 5 and not any(item[-(len(item) // 5) :]) for item in items)


def _webp_pixels(webp: bytes) -> list[bytes]:
    """The data of the first frame."""
    at = 12
    while at + 8 <= len(webp):
        kind, length = webp[at : at + 4], int.from_bytes(webp[at + 4 : at + 8], "little")
        if kind in (b"VP8 ", b"VP8L", b"ANMF"):
            return [webp[at + 8 : at + 8 + length]]
        at += 8 + length + length % 2
    return []


def _avif_pixels(avif: bytes) -> list[bytes]:
    """The data of its AV1 items; of a video, which has no items, all media data."""
    try:
        items = list(_items(avif))
    except (struct.error, IndexError):
        items = []
    # an AV1 item begins with a temporal delimiter or a sequence header (AV1 specification, 5.3), unlike metadata
    pixels = [item for _, item in items if item[:1] in (b"\x12", b"\x0a")]
    return pixels or [avif[start:end] for kind, start, end in boxes(avif, 0, len(avif)) if kind == b"mdat"]


def _heif_pixels(heif: bytes) -> list[bytes]:
    """The data of its HEVC items."""
    try:
        types = {item: kind for info in _in_meta(heif, b"iinf") for item, kind in _item_types(info)}
        return [data for item, data in _items(heif) if types.get(item) in (b"hvc1", b"hev1")]
    except (struct.error, IndexError):
        return []


def _in_meta(data: bytes, wanted: bytes) -> Iterator[bytes]:
    """The contents of the boxes of a type that describe the items of a file (ISO/IEC 14496-12, 8.11)."""
    for meta, start, end in boxes(data, 0, len(data)):
        for kind, first, last in boxes(data, start + 4, end) if meta == b"meta" else ():
            if kind == wanted:
                yield data[first:last]


def _item_types(iinf: bytes) -> Iterator[tuple[int, bytes]]:
    for _, start, _ in boxes(iinf, 8 if iinf[0] else 6, len(iinf)):
        at = start + (8 if iinf[start] == 3 else 6)
        yield int.from_bytes(iinf[start + 4 : at]), iinf[at + 2 : at + 6]


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The items of a file, each with its number."""
    for iloc in _in_meta(data, b"iloc"):
        yield from _located(data, iloc)


def boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The boxes of ISO base media from ``at`` on: type, and where the contents start and end."""
    while at + 8 <= end:
        length, kind, header = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8], 8
        if length == 1:
            length, header = int.from_bytes(data[at + 8 : at + 16]), 16
        until = end if length == 0 else at + max(length, header)
        yield kind, at + header, min(until, end)
        at = until


def _located(file: bytes, iloc: bytes) -> Iterator[tuple[int, bytes]]:
    version = iloc[0]
    offset_size, length_size, base_size = iloc[4] >> 4, iloc[4] & 15, iloc[5] >> 4
    index_size = iloc[5] & 15 if version else 0
    at = 6

    def number(size: int) -> int:
        nonlocal at
        at += size
        if at > len(iloc):
            raise IndexError
        return int.from_bytes(iloc[at - size : at])

    for _ in range(number(4 if version == 2 else 2)):
        item = number(4 if version == 2 else 2)
        elsewhere = number(2) & 15 if version else 0
        number(2)  # which file
        base, data = number(base_size), b""
        for _ in range(number(2)):
            number(index_size)
            start, length = base + number(offset_size), number(length_size)
            data += file[start : start + length]
        if not elsewhere:
            yield item, data


# --- BMP and JPEG 2000 ---


def jpeg_2000_depth(data: bytes) -> tuple[int, int]:
    """Number of channels, and bits of the first; zeros if they cannot be found (ISO/IEC 15444-1, A.5.1)."""
    at = data.find(b"\xff\x4f\xff\x51", 0, 1 << 20) + 40  # the start of the codestream
    if at < 40 or len(data) < at + 3:
        return 0, 0
    return int.from_bytes(data[at : at + 2]), (data[at + 2] & 127) + 1


def _plain_bmp(bmp: bytes) -> bytes:
    """Rewrite a BMP whose bit fields Pillow does not read as one with standard masks."""
    if len(bmp) < 54:
        return bmp
    offset, header, width, height, _, bits, compression = struct.unpack_from("<IIiiHHI", bmp, 10)
    if header < 40 or compression not in (3, 6) or bits not in PLAIN_MASKS:
        return bmp
    count = 4 if header >= 56 or compression == 6 else 3  # they follow the header if it has no room for them
    masks = tuple(struct.unpack_from(f"<{count}I", bmp, 54)) + (0,) * (4 - count)
    stride, rows = (width * bits + 31) // 32 * 4, abs(height)
    if (compression == 3 and masks in PLAIN_MASKS[bits]) or width <= 0 or len(bmp) < offset + stride * rows:
        return bmp
    values = np.frombuffer(bmp, f"<u{bits // 8}", stride * rows * 8 // bits, offset).reshape(rows, -1)[:, :width]
    pixels = np.full((rows, width, 4), 255, np.uint8)  # blue, green, red, alpha
    for channel, mask in zip((2, 1, 0, 3), masks, strict=True):
        if mask:
            most = mask >> (shift := (mask & -mask).bit_length() - 1)
            for row in range(rows):  # all at once would take eight times the memory
                field = ((values[row] & mask) >> shift).astype(np.uint64)
                pixels[row, :, channel] = (field * 255 + most // 2) // most
    sizes, last = (108, width, height, 1, 32, 3), (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    plain = struct.pack("<IiiHHI20x4I52x", *sizes, *last)
    return BMP + struct.pack("<I4xI", 122 + pixels.nbytes, 122) + plain + pixels.tobytes()
