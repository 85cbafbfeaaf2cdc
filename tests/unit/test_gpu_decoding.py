"""`decode: gpu`: what the device decodes and what is left to Pillow.

torchvision's decoder is replaced by one that returns the pixels of Pillow, so that everything else is seen; where
torchvision is installed, its own is compared, too.
"""

import functools
import importlib.util
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from conftest import made_image
from lookalike.config.models import EfficientNetLite, Onnx
from lookalike.embed import embed, encoders
from lookalike.embed.gpu_decoding import GpuDecoding
from lookalike.embed.watched import Watched
from lookalike.io import content_hashes
from lookalike.io.formats.records import Weights
from lookalike.io.formats.tables import SHARD
from lookalike.job.errors import LookalikeError

ENTRY = {"family": "efficientnet_lite", "variant": "lite0", "decode": "gpu"}
Decode = Callable[..., list[torch.Tensor]]


def by_pillow(files: list[torch.Tensor], mode: object, device: torch.device) -> list[torch.Tensor]:
    """As torchvision's decoder: a list of files to a list of pixels, and no word about which one failed."""
    decoded = []
    for file in files:
        try:
            pixels = Image.open(io.BytesIO(file.numpy().tobytes())).convert("RGB")
        except OSError:
            raise RuntimeError("nvjpeg failed") from None
        decoded.append(torch.from_numpy(np.asarray(pixels).copy()).permute(2, 0, 1).to(device))
    return decoded


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> Callable[[Decode], None]:
    """Install a torchvision with this decoder."""

    def install(decode: Decode) -> None:
        module = ModuleType("torchvision.io")
        module.decode_jpeg, module.ImageReadMode = decode, SimpleNamespace(RGB="RGB")  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
        monkeypatch.setitem(sys.modules, "torchvision.io", module)

    return install


def load(decode: str) -> encoders.Encoder:
    key = json.dumps(ENTRY | {"decode": decode})
    entry = encoders.parse(key)
    weights: Weights = encoders.family(entry).fetch(entry)
    return encoders.load(key, weights, encoders.Machine(2))


@functools.cache
def by_cpu() -> encoders.Encoder:
    """The model with `decode: full`, loaded once."""
    return load("full")


def loaded() -> Any:
    """The model with `decode: gpu`, and the decoder that is installed now."""
    return GpuDecoding(by_cpu())  # type: ignore[arg-type]


def jpeg(image: Image.Image, **settings: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90, **settings)
    return file.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return jpeg(made_image(3, (300, 200)), exif=exif)


def of_adobe_rgb() -> bytes:
    """A JPEG whose three components are red, green and blue, as its Adobe segment says."""
    return jpeg(made_image(5, (300, 200)), keep_rgb=True)


FILES = {
    "a.jpg": jpeg(made_image(0, (300, 200))),
    "b.jpg": jpeg(made_image(1, (200, 331))),
    "c.jpg": jpeg(made_image(2, (97, 97)).convert("L")),
    "d.jpg": turned(),
    "e.jpg": jpeg(made_image(4, (300, 200)), progressive=True),
    "f.jpg": of_adobe_rgb(),
    "g.jpg": jpeg(made_image(6, (300, 200)).convert("CMYK")),
    "h.png": b"",
    "i.jpg": jpeg(made_image(8, (300, 200)))[:-200],
    "j.jpg": jpeg(made_image(9, (900, 4))),
}


@pytest.fixture
def rows(tmp_path: Path) -> pa.Table:
    """A SHARD table of FILES."""
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    made_image(7, (300, 200)).save(tmp_path / "h.png")
    paths = [tmp_path / name for name in FILES]
    columns = {"image_id": list(FILES), "root": [str(tmp_path)] * len(paths), "path": list(FILES)}
    columns |= {"bytes": [path.stat().st_size for path in paths]}
    columns |= {"content_hash": [content_hashes.of_file(path) for path in paths]}
    return pa.table(columns, SHARD.schema())


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.einsum("nd,nd->n", one, other) / lengths


def test_vectors_are_those_of_pillow_but_for_rounding_whoever_decodes(
    torchvision: Callable[[Decode], None], rows: pa.Table
) -> None:
    seen: list[int] = []

    def decode(files: list[torch.Tensor], **settings: object) -> list[torch.Tensor]:
        seen.append(len(files))
        return by_pillow(files, **settings)  # type: ignore[arg-type]

    torchvision(decode)
    on_device = embed.embed_rows(rows, loaded(), batch_size=4, threads=2)
    full = embed.embed_rows(rows, by_cpu(), batch_size=4, threads=2)
    assert [(image.image_id, image.sha256, image.size) for image in on_device.images] == [
        (image.image_id, image.sha256, image.size) for image in full.images
    ]
    assert [(image.image_id, image.reason) for image in on_device.rejected] == [
        (image.image_id, image.reason) for image in full.rejected
    ]
    assert [image.image_id for image in full.rejected] == ["i.jpg", "j.jpg"]
    assert cosines(on_device.vectors, full.vectors).min() > 0.999999
    assert sum(seen) == 3  # a, b and c


def test_pillow_decodes_what_the_device_would_misread(torchvision: Callable[[Decode], None]) -> None:
    torchvision(by_pillow)
    encoder = load("gpu")
    taken = {name for name, data in FILES.items() if encoders.take(encoder, data)}
    assert taken == {"a.jpg", "b.jpg", "c.jpg"}
    assert encoders.take(by_cpu(), FILES["a.jpg"]) is None


def test_a_file_that_the_device_refuses_is_left_to_pillow(
    torchvision: Callable[[Decode], None], rows: pa.Table
) -> None:
    def decode(files: list[torch.Tensor], **settings: object) -> list[torch.Tensor]:
        if any(len(file) == len(FILES["b.jpg"]) for file in files):
            raise RuntimeError("nvjpegDecode failed: 5")
        return by_pillow(files, **settings)  # type: ignore[arg-type]

    assert len({len(data) for data in FILES.values()}) == len(FILES)
    torchvision(decode)
    refused = embed.embed_rows(rows, loaded(), batch_size=4, threads=2)
    full = embed.embed_rows(rows, by_cpu(), batch_size=4, threads=2)
    assert cosines(refused.vectors, full.vectors).min() > 0.999999


def test_batches_are_halved_when_the_decoder_runs_out_of_memory(
    torchvision: Callable[[Decode], None], rows: pa.Table
) -> None:
    def decode(files: list[torch.Tensor], **settings: object) -> list[torch.Tensor]:
        if len(files) > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return by_pillow(files, **settings)  # type: ignore[arg-type]

    torchvision(decode)
    done = embed.embed_rows(rows, loaded(), batch_size=4, threads=2)
    assert (len(done.images), done.batch_size) == (8, 1)


def test_one_image_has_the_vector_that_it_has_in_a_run(torchvision: Callable[[Decode], None], rows: pa.Table) -> None:
    torchvision(by_pillow)
    encoder = loaded()
    done = embed.embed_rows(rows, encoder, batch_size=4, threads=2)
    for place, image in enumerate(done.images):
        data = (Path(rows["root"][0].as_py()) / image.path).read_bytes()
        alone = embed.embed_image(data, image.path, encoder, json.dumps(ENTRY))
        np.testing.assert_allclose(alone, done.vectors[place], rtol=1e-4, atol=1e-5)


def test_a_command_sees_every_image_although_the_device_could_decode_it(
    torchvision: Callable[[Decode], None], rows: pa.Table
) -> None:
    torchvision(by_pillow)
    seen: list[tuple[int, int]] = []
    watched: encoders.Encoder = Watched(loaded(), lambda image: seen.append(image.size))  # type: ignore[assignment]
    assert len(embed.embed_rows(rows, watched, batch_size=4, threads=2).images) == len(seen) == 8


def test_without_torchvision_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(LookalikeError, match="pip install torchvision"):
        load("gpu")


def test_only_torch_decodes_on_the_device_and_profiles_are_not_applied() -> None:
    assert EfficientNetLite.model_validate(ENTRY).export_key() is None
    assert EfficientNetLite.model_validate(ENTRY | {"decode": "full"}).export_key() is not None
    with pytest.raises(ValidationError, match="ignores color profiles"):
        EfficientNetLite.model_validate(ENTRY | {"icc": "srgb"})
    with pytest.raises(ValidationError, match="decode"):
        Onnx.model_validate({"family": "onnx", "path": "a.onnx", "decode": "gpu"})


@pytest.mark.skipif(not importlib.util.find_spec("torchvision"), reason="torchvision is not installed")
def test_the_real_decoder_gives_nearly_the_same_vectors(rows: pa.Table) -> None:
    on_device = embed.embed_rows(rows, loaded(), batch_size=4, threads=2)
    full = embed.embed_rows(rows, by_cpu(), batch_size=4, threads=2)
    assert [image.image_id for image in on_device.images] == [image.image_id for image in full.images]
    assert cosines(on_device.vectors, full.vectors).min() > 0.99
