import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import picture
from lookalike.io import images


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def test_an_ordinary_picture_comes_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(picture(0), "PNG"))
    assert np.array_equal(images.load(str(tmp_path), "a.png"), picture(0))


def test_the_cameras_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    upright = images.decode(encoded(picture(0), "PNG", exif=exif))
    assert np.array_equal(upright, picture(0).transpose(Image.Transpose.ROTATE_270))


def test_transparency_is_laid_over_white() -> None:
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    clear.putpixel((1, 0), (255, 0, 0, 255))
    assert np.asarray(images.decode(encoded(clear, "PNG"))).tolist() == [[[255, 255, 255], [255, 0, 0]]]


def test_sixteen_bit_grey_keeps_its_range() -> None:
    deep = Image.fromarray(np.array([[0, 256 * 100, 65535]], np.uint16))
    assert np.asarray(images.decode(encoded(deep, "PNG")))[0, :, 0].tolist() == [0, 100, 255]


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1", "LA"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    form = "TIFF" if mode == "CMYK" else "PNG"
    assert images.decode(encoded(picture(0).convert(mode), form)).mode == "RGB"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"not a picture at all", "is text, not a picture"),
        (encoded(picture(0), "PNG")[:-200], "damaged: "),
        (encoded(picture(0, (300, 300)), "JPEG")[:2000], "damaged: image file is truncated"),
    ],
)
def test_a_bad_picture_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(images.BadImage, match=reason):
        images.decode(data)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    with pytest.raises(images.BadImage, match=r"has 60 x 48 pixels; the limit is 100 in all"):
        images.decode(encoded(picture(0), "PNG"))


def test_a_vanished_and_an_unreadable_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(images.BadImage, match="the file is gone"):
        images.read(str(tmp_path), "none.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(images.BadImage, match="is no file, but a folder, a named pipe or a device"):
        images.read(str(tmp_path), "folder.png")


# --- decoding at a smaller size, where more is not needed ---


@pytest.mark.parametrize(
    ("size", "least", "expected"),
    [
        ((1024, 768), (224, 224), (512, 384)),  # a third would do, but JPEG knows halves, quarters and eighths
        ((1024, 768), (256, 192), (256, 192)),
        ((1023, 767), (256, 192), (512, 384)),
        ((500, 375), (224, 224), (500, 375)),
        ((4000, 3000), (8, 8), (500, 375)),
        ((90, 70), (224, 224), (90, 70)),
    ],
)
def test_a_jpeg_is_decoded_no_larger_and_never_smaller_than_what_is_needed(
    size: tuple[int, int], least: tuple[int, int], expected: tuple[int, int]
) -> None:
    data = encoded(picture(0, size), "JPEG")
    image = images.decode(data, lambda _: least)
    assert (image.mode, image.size) == ("RGB", expected)
    assert images.decode(data).size == images.full_size(data, image) == size


def test_what_is_needed_is_asked_of_the_upright_picture() -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    data = encoded(picture(0, (800, 400)), "JPEG", exif=exif)
    asked = []

    def needs(size: tuple[int, int]) -> tuple[int, int]:
        asked.append(size)
        return (200, 250)  # lying down, 250 x 200: a half has to do

    image = images.decode(data, needs)
    assert image.size == (200, 400)
    assert images.full_size(data, image) == (400, 800)
    assert asked == [(400, 800)]


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_only_jpeg_can_be_decoded_at_a_smaller_size(format: str) -> None:
    data = encoded(picture(0, (800, 600)), format)
    assert np.array_equal(images.decode(data, lambda _: (10, 10)), images.decode(data))


@pytest.mark.parametrize("mode", ["CMYK", "L"])
def test_a_jpeg_of_other_colors_is_the_same_picture_smaller(mode: str) -> None:
    data = encoded(picture(0, (800, 600)).convert(mode), "JPEG", quality=95)
    half = np.asarray(images.decode(data, lambda _: (400, 300)), float)
    full = np.asarray(images.decode(data).reduce(2), float)
    assert half.shape == full.shape == (300, 400, 3)
    assert np.abs(half - full).mean() < 2
