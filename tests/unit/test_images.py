import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import made_image
from lookalike.io import images


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def test_an_ordinary_image_keeps_its_pixels(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(made_image(0), "PNG"))
    assert np.array_equal(images.load(str(tmp_path), "a.png"), made_image(0))


def test_the_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    upright = images.decode(encoded(made_image(0), "PNG", exif=exif))
    assert np.array_equal(upright, made_image(0).transpose(Image.Transpose.ROTATE_270))


def test_transparency_is_composited_onto_white() -> None:
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    clear.putpixel((1, 0), (255, 0, 0, 255))
    assert np.asarray(images.decode(encoded(clear, "PNG"))).tolist() == [[[255, 255, 255], [255, 0, 0]]]


def test_sixteen_bit_grey_keeps_its_range() -> None:
    deep = Image.fromarray(np.array([[0, 256 * 100, 65535]], np.uint16))
    assert np.asarray(images.decode(encoded(deep, "PNG")))[0, :, 0].tolist() == [0, 100, 255]


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1", "LA"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    form = "TIFF" if mode == "CMYK" else "PNG"
    assert images.decode(encoded(made_image(0).convert(mode), form)).mode == "RGB"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"not an image at all", "is text, not an image"),
        (encoded(made_image(0), "PNG")[:-200], "damaged: "),
        (encoded(made_image(0, (300, 300)), "JPEG")[:2000], "damaged: image file is truncated"),
    ],
)
def test_a_bad_image_is_rejected_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(images.BadImage, match=reason):
        images.decode(data)


def test_an_image_with_too_many_pixels_is_rejected_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    with pytest.raises(images.BadImage, match=r"has 60 x 48 pixels; the limit is 100 in all"):
        images.decode(encoded(made_image(0), "PNG"))


def test_a_missing_file_and_a_folder_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(images.BadImage, match="the file is missing"):
        images.read(str(tmp_path), "none.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(images.BadImage, match="is not a regular file, but a folder, a named pipe or a device"):
        images.read(str(tmp_path), "folder.png")


# --- decoding at a reduced size ---


@pytest.mark.parametrize(
    ("size", "least", "expected"),
    [
        ((1024, 768), (224, 224), (512, 384)),  # a third would suffice, but JPEG has only halves, quarters and eighths
        ((1024, 768), (256, 192), (256, 192)),
        ((1023, 767), (256, 192), (512, 384)),
        ((500, 375), (224, 224), (500, 375)),
        ((4000, 3000), (8, 8), (500, 375)),
        ((90, 70), (224, 224), (90, 70)),
    ],
)
def test_a_jpeg_is_decoded_at_the_smallest_scale_that_suffices(
    size: tuple[int, int], least: tuple[int, int], expected: tuple[int, int]
) -> None:
    data = encoded(made_image(0, size), "JPEG")
    image = images.decode(data, lambda _: least)
    assert (image.mode, image.size) == ("RGB", expected)
    assert images.decode(data).size == images.full_size(data, image) == size


def test_the_needed_size_is_computed_from_the_upright_size() -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    data = encoded(made_image(0, (800, 400)), "JPEG", exif=exif)
    sizes = []

    def needs(size: tuple[int, int]) -> tuple[int, int]:
        sizes.append(size)
        return (200, 250)  # stored as 250 x 200: a half suffices

    image = images.decode(data, needs)
    assert image.size == (200, 400)
    assert images.full_size(data, image) == (400, 800)
    assert sizes == [(400, 800)]


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_only_jpeg_can_be_decoded_at_a_smaller_size(format: str) -> None:
    data = encoded(made_image(0, (800, 600)), format)
    assert np.array_equal(images.decode(data, lambda _: (10, 10)), images.decode(data))


@pytest.mark.parametrize("mode", ["CMYK", "L"])
def test_a_jpeg_of_another_mode_is_scaled_down_correctly(mode: str) -> None:
    data = encoded(made_image(0, (800, 600)).convert(mode), "JPEG", quality=95)
    half = np.asarray(images.decode(data, lambda _: (400, 300)), float)
    full = np.asarray(images.decode(data).reduce(2), float)
    assert half.shape == full.shape == (300, 400, 3)
    assert np.abs(half - full).mean() < 2
