"""Images as phones write them, HEIC, JPEG XL, AVIF and JPEG: the pixels that their libraries decode, upright."""

import base64
import io
import struct
import sys

import numpy as np
import pillow_heif
import pillow_jxl
import pytest
from PIL import Image

from conftest import made_image
from lookalike.io import images, phone_formats
from odd_images import encoded

pillow_heif.register_heif_opener()

SIZE = (160, 120)
UPRIGHT = Image.fromarray(  # four colors, of which only one orientation is right
    np.kron(np.array([[[200, 40, 40], [40, 160, 60]], [[30, 60, 200], [220, 220, 90]]]), np.ones((8, 12, 1))).astype(
        np.uint8
    )
)
# 16 x 24 pixels on their side, written by `cjxl`: a lossless JPEG XL that says how to turn them, one that contains a
# JPEG with an EXIF orientation, and an animation of 12 x 8 pixels
TURNED = (
    "AAAADEpYTCANCocKAAAAFGZ0eXBqeGwgAAAAAGp4bCAAAABIanhsY/8KBYIFAopLAggCAQDEAEsoN9YfvFeQEAC14l1MxtQFggBIGHsACBTiJD"
    "EIhBKGkF80oAFikmlfDKgYIM8Wpl8="
)
WITH_JPEG = (
    "AAAADEpYTCANCocKAAAAFGZ0eXBqeGwgAAAAAGp4bCAAAAATanhscAAAAAD/CgWCBWICAAAAaGpicmTAcNsAgiAILQMCQCIAoUaBYAQAAADZgv"
    "F/ElgBAACA/sVjly066eCL/6+EEQAAAB2Ckf8vgVQAAACouj/Zoosvdujg/wv8AEBlAQALCIDgABBKRklGAAEBAAABAAEAAAMAAAArYnJvYkV4"
    "aWYbHQAABHRjGwcxW6KpvxMJZZRYtIAkD9CW/4seKRkAAAABGGp4bHCAAAAB4FsAEAAUBAxkDGQMZP7/DgAAGAAIAAEAAAAAAICAJYkjVC/miu"
    "+W0AMAFJIUFBTYgBiD58bo2CI22i6SYvBo15ApTF0S2sTrsyzJ1e/c/ltqD7idrxAT3CmwvIN9S/QDsGgngJiqiwAAPhRIMwFgk0sAqOYSAKAA"
    "AAAAgAYAAAAAAAAAAAAAeFuDe0N3hSiPZDVvgBHuRbuEUEFEG5imgcgRDIoCXEKAA2PIECpGiPhqBNI7BQCiZwHgNE8AgAIAACAvAAAAAAAAAA"
    "AAAAAAAAAAAACgkAIbKsUyRkUpMsbIGKNijIyMMSrGyJS8AICCLGXkyFlA6C/v1OOEvGyLLlxfi0933FEIAYEqAg=="
)
ANIMATED = (
    "/woBBQFYUFwSCAigAgAApABLGJOOg4MpMCJEyp0XEAIg7MS05n9W0KP/5UHyf1Owf8GYTI1b8QDRFggIoEIAAKgASxiTjoODKTAiGll3XkAIgI"
    "bTfoNjeEPjVpZHwQNNWX4Ce7A26kMYWFsA"
)


def heif(values: np.ndarray, mode: str, **options: object) -> bytes:
    """A HEIC written by pillow-heif, which this module's reader does not use to write."""
    buffer = io.BytesIO()
    file = pillow_heif.from_bytes(mode, (values.shape[1], values.shape[0]), values.tobytes())
    file.save(buffer, **options)
    return buffer.getvalue()


def by_pillow_heif(data: bytes) -> np.ndarray:
    """The primary image of a HEIC as pillow-heif's own interface decodes it."""
    return np.asarray(pillow_heif.open_heif(data, convert_hdr_to_8bit=True))


def jxl(image: Image.Image, **options: object) -> bytes:
    """A JPEG XL written by its plugin."""
    return encoded(image, "JXL", **options)


def pixels(data: bytes) -> np.ndarray:
    decoded = images.decode(data)
    assert decoded.mode == "RGB"
    assert decoded.getexif().get(0x0112, 1) == 1
    return np.asarray(decoded)


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = orientation
    return made


@pytest.mark.parametrize("chroma", [420, 444])
@pytest.mark.parametrize("tiles", [0, 64])
def test_heic_has_the_pixels_that_its_library_decodes(chroma: int, tiles: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pillow_heif.options, "GRID_TILE_SIZE", tiles)
    image = made_image(0, SIZE)
    data = encoded(image, "HEIF", quality=90, chroma=chroma)
    assert (b"grid" in data) == bool(tiles)
    assert np.array_equal(pixels(data), by_pillow_heif(data))
    assert np.abs(pixels(data).astype(int) - np.asarray(image)).mean() < 6


def test_heic_of_ten_bits_grey_and_alpha() -> None:
    image = made_image(0, SIZE)
    deep = np.asarray(image).astype(np.uint16) * 257
    ten = heif(deep, "RGB;16", quality=-1)
    assert pillow_heif.open_heif(ten, convert_hdr_to_8bit=False).info["bit_depth"] == 10
    assert np.array_equal(pixels(ten), by_pillow_heif(ten))
    assert np.abs(pixels(ten).astype(int) - np.asarray(image)).mean() < 3

    grey = encoded(image.convert("L"), "HEIF", quality=90)
    assert np.array_equal(pixels(grey), np.repeat(by_pillow_heif(grey)[..., None], 3, 2))
    deep_grey = heif(deep[..., 0].copy(), "I;16", quality=-1)
    assert np.abs(pixels(deep_grey)[..., 0].astype(int) - np.asarray(image)[..., 0]).max() <= 2

    half = image.copy()
    half.putalpha(128)
    clear = encoded(half, "HEIF", quality=90)
    decoded = Image.fromarray(by_pillow_heif(clear))
    white = Image.new("RGBA", SIZE, "white")
    assert np.array_equal(pixels(clear), np.asarray(Image.alpha_composite(white, decoded).convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_turned_once_although_it_says_so_twice(orientation: int) -> None:
    stored = encoded(UPRIGHT, "PNG", exif=exif(orientation))
    upright = np.asarray(images.decode(stored))
    data = encoded(UPRIGHT, "HEIF", quality=95, exif=exif(orientation).tobytes())
    assert struct.pack(">HHIH", 0x0112, 3, 1, orientation) in data  # as iPhones write it: EXIF says so, too
    assert (b"irot" in data or b"imir" in data) == (orientation > 1)
    assert np.abs(pixels(data).astype(int) - upright).mean() < 6


def test_of_several_images_the_primary_one_is_decoded() -> None:
    first, second = made_image(0, SIZE), made_image(1, SIZE)
    for primary, image in enumerate((first, second)):
        data = encoded(first, "HEIF", save_all=True, append_images=[second], quality=90, primary_index=primary)
        assert len(pillow_heif.open_heif(data)) == 2
        assert np.abs(pixels(data).astype(int) - np.asarray(image)).mean() < 6


@pytest.mark.parametrize("form", ["HEIF", "AVIF"])
def test_a_brand_of_both_formats_is_decoded_as_what_it_is(form: str) -> None:
    image = made_image(0, SIZE)
    data = encoded(image, form, quality=90)
    general = data[:8] + b"mif1" + data[12:]
    assert np.array_equal(pixels(general), pixels(data))


def test_a_gain_map_is_ignored() -> None:
    """Ultra HDR is a JPEG with a second, smaller and grey one behind it."""
    image = made_image(0, SIZE)
    gain = made_image(1, (80, 60)).convert("L")
    ultra = encoded(image, "MPO", save_all=True, append_images=[gain], quality=95)
    base = ultra[: ultra.index(b"\xff\xd9") + 2]
    assert len(base) < len(ultra)
    assert np.array_equal(pixels(ultra), np.asarray(Image.open(io.BytesIO(base))))


def test_of_an_animation_the_first_image_is_decoded() -> None:
    first, second = made_image(0, SIZE), made_image(1, SIZE)
    for form, options in (("AVIF", {"quality": 90}), ("WEBP", {"lossless": True}), ("PNG", {}), ("GIF", {})):
        data = encoded(first, form, save_all=True, append_images=[second], **options)
        with Image.open(io.BytesIO(data)) as opened:
            assert opened.n_frames == 2
        assert np.abs(pixels(data).astype(int) - np.asarray(first)).mean() < 8


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA"])
@pytest.mark.parametrize("lossless", [True, False])
def test_jpeg_xl_has_the_pixels_that_its_library_decodes(mode: str, lossless: bool) -> None:
    image = made_image(0, SIZE).convert(mode)
    if "A" in mode:
        image.putalpha(128)
    data = jxl(image, lossless=lossless)
    _, info, raw, *_ = pillow_jxl.Decoder()(data)
    decoded = Image.frombytes(mode, (info.width, info.height), raw)
    if "A" in mode:
        decoded = Image.alpha_composite(Image.new("RGBA", SIZE, "white"), decoded.convert("RGBA"))
    assert np.array_equal(pixels(data), np.asarray(decoded.convert("RGB")))
    if lossless:
        on_white = Image.alpha_composite(Image.new("RGBA", SIZE, "white"), image.convert("RGBA"))
        assert np.array_equal(pixels(data), np.asarray(on_white.convert("RGB")))


def test_jpeg_xl_of_sixteen_bits_grey() -> None:
    deep = np.asarray(made_image(0, SIZE).convert("L")).astype(np.uint16) * 257
    assert np.array_equal(pixels(jxl(Image.fromarray(deep), lossless=True))[..., 0], (deep >> 8).astype(np.uint8))
    with pytest.raises(images.BadImage, match="32-bit or signed"):
        images.decode(jxl(Image.fromarray((deep / 65535).astype(np.float32)), lossless=True))


def test_jpeg_xl_is_turned_once() -> None:
    turned = base64.b64decode(TURNED)
    assert np.array_equal(pixels(turned), np.asarray(UPRIGHT))
    block = bytes(4) + exif(6).tobytes().removeprefix(b"Exif\0\0")
    repeated = turned + struct.pack(">I", 8 + len(block)) + b"Exif" + block
    assert Image.open(io.BytesIO(repeated)).getexif().get(0x0112) == 6
    assert np.array_equal(pixels(repeated), np.asarray(UPRIGHT))
    # a JPEG in it is decoded as a JPEG, which has only the EXIF orientation
    assert np.abs(pixels(base64.b64decode(WITH_JPEG)).astype(int) - np.asarray(UPRIGHT)).mean() < 6


def test_an_animated_jpeg_xl_is_rejected_since_its_library_decodes_only_the_last_image() -> None:
    with pytest.raises(images.BadImage, match=r"is an animated JPEG XL, which is not supported; convert it to JPEG"):
        images.decode(base64.b64decode(ANIMATED))


@pytest.mark.parametrize("size", [(160, 120), (8, 8), (100, 80), (300, 200), (1, 1), (600, 3), (400, 200), (77, 300)])
@pytest.mark.parametrize("container", [True, False])
def test_the_header_of_a_jpeg_xl_says_its_size(size: tuple[int, int], container: bool) -> None:
    data = jxl(made_image(0, size), use_container=container, effort=1)
    assert data.startswith(b"\xff\x0a") != container
    assert phone_formats.jpeg_xl(data) == phone_formats.JpegXL(size, animated=False)
    assert images.count_pixels(data) == size[0] * size[1]


def test_a_large_jpeg_xl_is_rejected_and_counted_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = jxl(made_image(0, SIZE))
    taken: list[int] = []
    images.decode(data, reserve=taken.append)
    assert taken[0] >= SIZE[0] * SIZE[1] * 36
    monkeypatch.setattr(images, "MAX_PIXELS", SIZE[0] * SIZE[1] - 1)
    monkeypatch.setattr(phone_formats, "opened", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(images.BadImage, match="has 160 x 120 pixels; the limit is"):
        images.decode(data)
    with pytest.raises(images.BadImage, match="one side is more than 200 times the other"):
        images.decode(jxl(Image.new("RGB", (603, 3))))


@pytest.mark.parametrize(
    ("form", "options"),
    [("HEIF", {"quality": 90}), ("JXL", {}), ("JXL", {"lossless": True}), ("JXL", {"use_container": True})],
)
def test_a_truncated_or_zero_filled_file_is_rejected(form: str, options: dict[str, object]) -> None:
    data = encoded(made_image(0, SIZE), form, **options)
    for tenth in range(1, 10):
        cut = data[: len(data) * tenth // 10]
        for broken in (cut, cut.ljust(len(data), b"\0")):
            with pytest.raises(images.BadImage, match=r"^damaged: .") as caught:
                images.decode(broken)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("form", "missing", "reason"),
    [
        ("HEIF", "pillow_heif", r"is HEIC, which needs the extra `formats` \(pip install pillow-heif\)"),
        ("JXL", "pillow_jxl", r"is JPEG XL, which needs the extra `formats` \(pip install pillow-jxl-plugin\)"),
    ],
)
def test_without_the_extra_the_reason_names_it(
    form: str, missing: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(made_image(0, SIZE), form)
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(Image.OPEN, form)
    phone_formats.is_installed.cache_clear()
    try:
        with pytest.raises(images.BadImage, match=reason):
            images.decode(data)
    finally:
        phone_formats.is_installed.cache_clear()
