"""`icc: srgb` converts what a color profile describes to sRGB; `ignore`, the default, takes the numbers as they are."""

import json
import logging
import struct
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pyarrow as pa
import pytest
from PIL import Image

import profiles
from conftest import made_image
from lookalike.config.models import Pixels
from lookalike.embed import encoders
from lookalike.embed.embed import EmbedJob, embed_image, embed_shard
from lookalike.io import alone, content_hashes, image_containers, images, store
from lookalike.io.formats.records import Weights
from lookalike.io.formats.tables import EMBEDDINGS, SHARD
from lookalike.plan.keys import key
from odd_images import chunk, encoded

pillow_heif.register_heif_opener()
SIZE = (96, 72)
P3 = np.array(profiles.DISPLAY_P3).T  # linear RGB to XYZ, as columns
SRGB = np.array(profiles.SRGB).T
LOSSLESS = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}, "JPEG2000": {}}


def linear(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def coded(values: np.ndarray) -> np.ndarray:
    values = np.clip(values, 0, 1)
    return np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055)


def from_p3(image: Image.Image) -> np.ndarray:
    """The sRGB values of an image's colors in Display P3, by the definitions of both; clipped, as a display does."""
    light = linear(np.asarray(image) / 255) @ (np.linalg.inv(SRGB) @ P3).T
    return coded(light) * 255


def in_p3(image: Image.Image) -> Image.Image:
    """An image of the same colors, written in Display P3."""
    light = linear(np.asarray(image) / 255) @ (np.linalg.inv(P3) @ SRGB).T
    return Image.fromarray(np.rint(coded(light) * 255).astype(np.uint8))


def converted(data: bytes) -> np.ndarray:
    image = images.decode(data, icc="srgb")
    assert image.mode == "RGB"
    assert image.info == {"profile": "converted"}
    return np.asarray(image)


@pytest.mark.parametrize("form", [*LOSSLESS, "JPEG", "AVIF", "HEIF"])
def test_srgb_gives_the_colors_of_a_display_p3_image(form: str) -> None:
    image = made_image(0, SIZE)
    options = LOSSLESS.get(form, {"quality": 95})
    data = encoded(in_p3(image), form, icc_profile=profiles.display_p3(), **options)
    if form == "JPEG2000":  # Pillow writes no profile into it
        assert images.decode(data, icc="srgb").info == {}
        return
    difference = np.abs(converted(data).astype(int) - np.asarray(image))
    assert difference.mean() < (1 if form in LOSSLESS else 6)
    ignored = images.decode(data)
    assert np.array_equal(ignored, images.decode(encoded(in_p3(image), form, **options)))
    assert np.abs(np.asarray(ignored).astype(int) - np.asarray(image)).mean() > difference.mean() + 2


def test_colors_that_srgb_lacks_are_clipped() -> None:
    pure = Image.new("RGB", (8, 8), (0, 255, 0))
    assert converted(encoded(pure, "PNG", icc_profile=profiles.display_p3()))[0, 0].tolist() == [0, 255, 0]
    adobe = converted(encoded(Image.new("RGB", (8, 8), (100, 150, 100)), "PNG", icc_profile=profiles.adobe_rgb()))
    assert adobe[0, 0, 0] < 75
    assert abs(int(adobe[0, 0, 1]) - 151) <= 2


def test_a_profile_of_srgb_changes_no_pixel() -> None:
    data = encoded(made_image(0, SIZE), "PNG", icc_profile=profiles.srgb())
    image = images.decode(data, icc="srgb")
    assert np.array_equal(image, images.decode(data))
    assert image.info == {}


def test_profiles_of_grey_and_cmyk_images() -> None:
    grey = made_image(0, SIZE).convert("L")
    seen = converted(encoded(grey, "PNG", icc_profile=profiles.grey(1.0)))
    expected = coded(np.asarray(grey) / 255) * 255
    assert np.abs(seen - expected[..., None]).max() <= 2
    rows = np.asarray(grey).astype(">u2") * 257
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *SIZE, 16, 0, 0, 0, 0))
    profile = chunk(b"iCCP", b"linear\0\0" + zlib.compress(profiles.grey(1.0)))
    deep = b"\x89PNG\r\n\x1a\n" + head + profile + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    assert np.array_equal(converted(deep), seen)

    for form in ("JPEG", "TIFF"):
        inks = Image.merge("CMYK", [Image.new("L", SIZE, value) for value in (255, 0, 0, 0)])
        options = {"quality": 95} if form == "JPEG" else {}
        cyan = converted(encoded(inks, form, icc_profile=profiles.cmyk(), **options))[4, 4]
        assert np.abs(cyan - coded(np.array([0.2, 1, 1])) * 255).max() < 12
        naive = np.asarray(images.decode(encoded(inks, form, **options)))[4, 4]
        assert naive[0] < 5  # without a profile, full cyan takes away all red


def test_transparency_palettes_and_orientation_are_as_without_a_profile() -> None:
    image = in_p3(made_image(0, SIZE))
    clear = image.copy()
    clear.putalpha(0)
    assert (converted(encoded(clear, "PNG", icc_profile=profiles.display_p3())) >= 254).all()
    few = image.quantize(16)
    data = encoded(few, "PNG", icc_profile=profiles.display_p3())
    assert np.abs(converted(data) - from_p3(few.convert("RGB"))).max() <= 3
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = converted(encoded(image, "JPEG", quality=95, exif=exif, icc_profile=profiles.display_p3()))
    assert turned.shape == (SIZE[0], SIZE[1], 3)


def test_a_profile_in_several_segments_is_read_whole() -> None:
    large = profiles.display_p3() + bytes(100_000)
    data = encoded(in_p3(made_image(0, SIZE)), "JPEG", quality=95, icc_profile=large)
    assert data.count(b"ICC_PROFILE\0") == 2
    assert image_containers.icc_profile(data) == large
    assert np.array_equal(
        converted(data),
        converted(encoded(in_p3(made_image(0, SIZE)), "JPEG", quality=95, icc_profile=profiles.display_p3())),
    )
    first = data.index(b"\xff\xe2")
    end = first + 2 + int.from_bytes(data[first + 2 : first + 4])
    without = data[:first] + data[end:]
    image = images.decode(without, icc="srgb")
    assert image.info["profile"] == "its color profile is ignored: 1 of its 2 parts are in the file"
    assert np.array_equal(image, images.decode(without))


def broken_profiles() -> dict[str, bytes]:
    good = profiles.display_p3()
    return {
        "no profile": b"no profile at all",
        "cut short": good[: len(good) // 2],
        "of another space": good.replace(b"RGB XYZ ", b"HSV XYZ "),
        "of grey": profiles.grey(2.2),
        "of inks": profiles.cmyk(),
        "bomb": bytes(40 << 20),
    }


@pytest.mark.parametrize("name", broken_profiles())
def test_an_unusable_profile_is_ignored_and_said(name: str) -> None:
    profile = chunk(b"iCCP", b"name\0\0" + zlib.compress(broken_profiles()[name]))
    plain = encoded(made_image(0, SIZE), "PNG")
    data = plain[:33] + profile + plain[33:]
    image = images.decode(data, icc="srgb")
    assert image.info["profile"].startswith("its color profile is ignored: ")
    assert "\n" not in image.info["profile"]
    assert np.array_equal(image, images.decode(data))


def test_damaged_profiles_never_stop_an_image() -> None:
    draw = np.random.default_rng(0)
    plain = encoded(made_image(0, (12, 8)), "PNG")
    outcomes = set()
    for source in (profiles.display_p3(), profiles.cmyk(), profiles.grey(1.8)):
        for _ in range(50):
            profile = bytearray(source)
            for at in draw.integers(0, len(profile), int(draw.integers(1, 6))):
                profile[at] = draw.integers(256)
            data = plain[:33] + chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(profile))) + plain[33:]
            outcomes.add(images.decode(data, icc="srgb").info.get("profile", "")[:20])
    assert outcomes == {"converted", "its color profile is"}


def shard_of(folder: Path, root: Path) -> Path:
    paths = sorted(root.iterdir())
    rows = {"image_id": [path.name for path in paths], "root": [str(root)] * len(paths)}
    rows |= {"path": rows["image_id"], "bytes": [path.stat().st_size for path in paths]}
    rows["content_hash"] = [content_hashes.of_file(path) for path in paths]
    store.write_table(pa.table(rows, SHARD.schema()), folder / "shard.parquet", SHARD, {})
    store.write_json(Weights(source="none", revision="", files={}), folder / "weights.json")
    return folder / "shard.parquet"


def test_the_embed_stage_converts_and_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "images"
    root.mkdir()
    image = made_image(0, SIZE)
    (root / "a.png").write_bytes(encoded(image, "PNG"))
    (root / "b.png").write_bytes(encoded(in_p3(image), "PNG", icc_profile=profiles.display_p3()))
    (root / "c.png").write_bytes(encoded(image, "PNG", icc_profile=b"nonsense"))
    shard = shard_of(tmp_path, root)

    def embed(entry: str) -> np.ndarray:
        paths = {name: str(tmp_path / f"{name}.out") for name in ("out", "rejected_out", "timing_out")}
        job = EmbedJob(
            shard=str(shard),
            weights=str(tmp_path / "weights.json"),
            **paths,
            model="pixels",
            key=entry,
            code="c0de",
            batch_size=2,
            threads=1,
            gpu=False,
        )
        embed_shard(job)
        return np.stack(store.read_table(paths["out"], EMBEDDINGS)["embedding"].to_numpy())

    with caplog.at_level(logging.INFO, "lookalike"):
        plain = embed('{"family": "pixels"}')
        assert "color profile" not in caplog.text
        srgb = embed('{"family": "pixels", "icc": "srgb"}')
    assert "1 images were converted to sRGB as their color profiles say" in caplog.text
    assert "color profiles that cannot be used: 1. First: c.png: its color profile is ignored: " in caplog.text
    assert np.array_equal(plain[[0, 2]], srgb[[0, 2]])
    assert np.linalg.norm(srgb[1] - srgb[0]) < 0.2 * np.linalg.norm(plain[1] - plain[0])
    entry = '{"family": "pixels", "icc": "srgb"}'
    encoder = encoders.load(entry, store.read_json(tmp_path / "weights.json", Weights), encoders.Machine())
    assert np.array_equal(embed_image((root / "b.png").read_bytes(), "b.png", encoder, entry), srgb[1])


def test_a_suspect_decoded_in_its_own_process_is_converted_too() -> None:
    data = encoded(in_p3(made_image(0, SIZE)), "PNG", icc_profile=profiles.display_p3())
    image, _ = alone.decode(data, None, 60, "srgb")
    assert np.array_equal(image, converted(data))
    assert image.info == {"profile": "converted"}


def test_the_default_leaves_keys_as_they_were() -> None:
    assert key(Pixels(family="pixels", icc="ignore")) == key(Pixels(family="pixels")) == '{"family": "pixels"}'
    assert json.loads(key(Pixels(family="pixels", icc="srgb"))) == {"family": "pixels", "icc": "srgb"}
