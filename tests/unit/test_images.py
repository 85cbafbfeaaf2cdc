import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import picture
from lookalike import images


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
