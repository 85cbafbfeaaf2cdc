"""A scripted file is code: it is run only when it is the file that the entry means."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import picture
from lookalike import models, store
from lookalike.errors import LookalikeError

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Convolution(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Conv2d(3, 8, 3)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.first(pixels).relu().mean((2, 3))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.jit.save(torch.jit.script(Convolution()), tmp_path / "network.torchscript.pt")
    return tmp_path / "network.torchscript.pt"


def key(file: Path, **more: Any) -> str:
    sha256 = store.sha256_file(file) if file.exists() else "0" * 64
    entry = {"path": str(file), "sha256": sha256, "size": 32, "mean": MEAN, "std": STD, **more}
    return json.dumps({"family": "torchscript", **entry})


def load(key: str) -> models.Encoder:
    entry = models.parse(key)
    return models.load(key, models.family(entry).fetch(entry), models.Machine(threads=1))


def resized(image: Image.Image, resize: str) -> Image.Image:
    if resize == "squash":
        return image.resize((32, 32), Image.Resampling.BICUBIC)
    width, height = image.size
    sides = (int(32 * width / height), 32) if width > height else (32, int(32 * height / width))
    larger = image.resize(sides, Image.Resampling.BICUBIC)
    left, top = (larger.width - 32) // 2, (larger.height - 32) // 2
    return larger.crop((left, top, left + 32, top + 32))


@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_vectors_equal_straightforward_code(file: Path, resize: str) -> None:
    encoder = load(key(file, resize=resize, interpolation="bicubic"))
    pictures = [picture(1, (131, 64)), picture(2, (41, 97))]
    found = encoder.encode(np.stack([encoder.prepare(image) for image in pictures]))
    for row, image in zip(found, pictures, strict=True):
        pixels = (np.asarray(resized(image, resize), np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
        with torch.no_grad():
            expected = Convolution()(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0].numpy()
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert encoder.dimension == 8


def test_the_hash_is_checked_before_the_file_is_loaded(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = key(file)
    weights = models.family(models.parse(expected)).fetch(models.parse(expected))
    assert weights.files == {file.name: store.sha256_file(file)}
    file.write_bytes(file.read_bytes() + b"\0")
    monkeypatch.setattr(torch.jit, "load", lambda *a, **k: pytest.fail("it was loaded"))
    with pytest.raises(LookalikeError, match=r"is not run unless they agree\. Download it again"):
        models.load(expected, weights, models.Machine())
    with pytest.raises(LookalikeError, match=r"is not run unless they agree"):
        load(expected)


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(LookalikeError, match=r"there is no such file\. Download it from where its authors publish it"):
        load(key(tmp_path / "sscd.torchscript.pt"))


class Site(ThreadingHTTPServer):
    """A web server with one file; it can break off in the middle."""

    def __init__(self, contents: bytes, sent: int | None = None) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if self.path == "/network.pt" else 404)
                self.send_header("Content-Length", str(len(contents)))
                self.end_headers()
                self.wfile.write(contents[:sent])

            def log_message(self, *arguments: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self, name: str = "network.pt") -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


def test_a_file_that_is_not_there_yet_is_fetched_once_and_checked(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(file.read_bytes())
    here = tmp_path / "weights/network.pt"
    wanted = key(file, path=str(here), url=site.url())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(LookalikeError, match="there is no such file"):
        load(wanted)  # whoever only asks what is here fetches nothing
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert load(wanted).dimension == 8
    site.shutdown()
    site.server_close()
    assert load(wanted).dimension == 8, "the second time it is there"
    with pytest.raises(LookalikeError, match="is not run unless they agree"):
        load(key(file, path=str(here), url=site.url(), sha256="0" * 64))


def test_what_cannot_be_fetched_says_what_to_do_and_leaves_nothing(file: Path, tmp_path: Path) -> None:
    site = Site(file.read_bytes(), sent=100)
    for url in (site.url(), site.url("gone.pt"), "http://127.0.0.1:1/network.pt"):
        with pytest.raises(LookalikeError, match=r"cannot be fetched: .* put it at .*network\.pt"):
            load(key(file, path=str(tmp_path / "weights/network.pt"), url=url))
    assert not (tmp_path / "weights").exists()
    site.shutdown()
    site.server_close()


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.pt").write_bytes(b"no network")
    with pytest.raises(LookalikeError, match=r"is no TorchScript file"):
        load(key(tmp_path / "other.pt"))


def test_a_network_without_one_vector_a_picture_is_refused(tmp_path: Path) -> None:
    class Map(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels

    torch.jit.save(torch.jit.script(Map()), tmp_path / "map.pt")
    with pytest.raises(LookalikeError, match=r"gives \(1, 3, 32, 32\) for 1 pictures, not one vector for each"):
        load(key(tmp_path / "map.pt"))
