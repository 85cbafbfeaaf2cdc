"""TorchScript is executable code: only a file with the entry's hash is loaded."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import made_image
from lookalike.embed import downloads, encoders, time_limit
from lookalike.io import store
from lookalike.job.errors import LookalikeError

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*")
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


def load(key: str) -> encoders.Encoder:
    entry = encoders.parse(key)
    return encoders.load(key, encoders.family(entry).fetch(entry), encoders.Machine(threads=1))


def resized(image: Image.Image, resize: str) -> Image.Image:
    if resize == "squash":
        return image.resize((32, 32), Image.Resampling.BICUBIC)
    width, height = image.size
    sides = (int(32 * width / height), 32) if width > height else (32, int(32 * height / width))
    larger = image.resize(sides, Image.Resampling.BICUBIC)
    left, top = (larger.width - 32) // 2, (larger.height - 32) // 2
    return larger.crop((left, top, left + 32, top + 32))


@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_vectors_equal_the_reference_implementation(file: Path, resize: str) -> None:
    encoder = load(key(file, resize=resize, interpolation="bicubic"))
    images = [made_image(1, (131, 64)), made_image(2, (41, 97))]
    vectors = encoder.encode(np.stack([encoder.prepare(image) for image in images]))
    for row, image in zip(vectors, images, strict=True):
        pixels = (np.asarray(resized(image, resize), np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
        with torch.no_grad():
            expected = Convolution()(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0].numpy()
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert encoder.dimension == 8


def test_the_hash_is_checked_before_the_file_is_loaded(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = key(file)
    weights = encoders.family(encoders.parse(expected)).fetch(encoders.parse(expected))
    assert weights.files == {file.name: store.sha256_file(file)}
    file.write_bytes(file.read_bytes() + b"\0")
    monkeypatch.setattr(torch.jit, "load", lambda *a, **k: pytest.fail("the file was loaded"))
    with pytest.raises(LookalikeError, match=r"only this hash is accepted\. Download the file again"):
        encoders.load(expected, weights, encoders.Machine())
    with pytest.raises(LookalikeError, match=r"only this hash is accepted"):
        load(expected)


def test_a_missing_file_is_reported_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(LookalikeError, match=r"no such file\. Download it from its authors"):
        load(key(tmp_path / "sscd.torchscript.pt"))


Respond = Callable[[BaseHTTPRequestHandler, bytes], None]


def whole(handler: BaseHTTPRequestHandler, contents: bytes, sent: int | None = None) -> None:
    """Announce the whole file, and send all of it, or only its first ``sent`` bytes."""
    handler.send_header("Content-Length", str(len(contents)))
    handler.end_headers()
    handler.wfile.write(contents[:sent])


def without_length(handler: BaseHTTPRequestHandler, contents: bytes, sent: int | None = None) -> None:
    handler.end_headers()
    handler.wfile.write(contents[:sent])


def trickling(handler: BaseHTTPRequestHandler, contents: bytes) -> None:
    """Send single bytes at short intervals, so that no single wait is long."""
    handler.send_header("Content-Length", str(len(contents)))
    handler.end_headers()
    for byte in contents:
        handler.wfile.write(bytes([byte]))
        time.sleep(0.05)


class Site(ThreadingHTTPServer):
    """A web server with one file; request i gets response i, and later requests the last one."""

    def __init__(self, contents: bytes, *responses: Respond) -> None:
        self.requests = 0

        class Handler(BaseHTTPRequestHandler):
            def do_GET(handler) -> None:  # noqa: N805
                self.requests += 1
                handler.send_response(200 if handler.path == "/network.pt" else 404)
                with suppress(OSError):  # the client may have closed the connection
                    responses[min(self.requests, len(responses)) - 1](handler, contents)

            def log_message(self, *arguments: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self, name: str = "network.pt") -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


@pytest.fixture
def site() -> Iterator[Callable[..., Site]]:
    sites: list[Site] = []

    def start(*arguments: Any) -> Site:
        sites.append(Site(*arguments))
        return sites[-1]

    yield start
    for started in sites:
        started.shutdown()
        started.server_close()


def test_a_missing_file_is_downloaded_once_and_checked(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: Callable[..., Site]
) -> None:
    server = site(file.read_bytes(), whole)
    path = tmp_path / "weights/network.pt"
    model_key = key(file, path=str(path), url=server.url())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(LookalikeError, match="no such file"):
        load(model_key)  # offline: nothing is downloaded
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert load(model_key).dimension == 8
    assert load(model_key).dimension == 8
    assert server.requests == 1, "the second time it is already there"
    with pytest.raises(LookalikeError, match="only this hash is accepted"):
        load(key(file, path=str(path), url=server.url(), sha256="0" * 64))
    assert path.read_bytes() == file.read_bytes(), "another file does not replace it"


def test_a_failed_download_is_reported_with_a_remedy_and_leaves_no_file(
    file: Path, tmp_path: Path, site: Callable[..., Site]
) -> None:
    server = site(file.read_bytes(), partial(whole, sent=100))
    for url in (server.url(), server.url("gone.pt"), "http://127.0.0.1:1/network.pt"):
        with pytest.raises(LookalikeError, match=r"cannot be fetched: .* put it at .*network\.pt"):
            load(key(file, path=str(tmp_path / "weights/network.pt"), url=url))
    assert not [*(tmp_path / "weights").glob("*")]
    assert server.requests == downloads.TRIES + 1, "a file that the server does not have is requested once"


@pytest.mark.parametrize("broken", [partial(whole, sent=100), partial(without_length, sent=100)])
def test_a_truncated_download_is_retried(
    broken: Respond, file: Path, tmp_path: Path, site: Callable[..., Site]
) -> None:
    server = site(file.read_bytes(), broken, broken, whole)
    path = tmp_path / "weights/network.pt"
    assert load(key(file, path=str(path), url=server.url())).dimension == 8
    assert server.requests == 3
    assert path.read_bytes() == file.read_bytes()


def test_a_download_that_is_always_truncated_leaves_no_file(
    file: Path, tmp_path: Path, site: Callable[..., Site]
) -> None:
    server = site(file.read_bytes(), partial(without_length, sent=100))
    message = r"cannot be fetched: the SHA-256 of the 100 bytes received is \w{64}, but the model's entry"
    with pytest.raises(LookalikeError, match=message):
        load(key(file, path=str(tmp_path / "weights/network.pt"), url=server.url()))
    assert not [*(tmp_path / "weights").glob("*")]


def test_a_truncated_file_of_an_earlier_download_is_downloaded_again(
    file: Path, tmp_path: Path, site: Callable[..., Site]
) -> None:
    path = tmp_path / "network.pt"
    path.write_bytes(file.read_bytes()[:100])
    assert load(key(file, path=str(path), url=site(file.read_bytes(), whole).url())).dimension == 8


def test_a_download_with_another_hash_is_rejected_and_leaves_no_file(
    file: Path, tmp_path: Path, site: Callable[..., Site]
) -> None:
    server = site(b"another network", whole)
    message = r"127\.0\.0\.1.*network\.pt: the SHA-256 of the 15 bytes received is .*only this hash is accepted"
    with pytest.raises(LookalikeError, match=message):
        load(key(file, path=str(tmp_path / "weights/network.pt"), url=server.url()))
    assert server.requests == 1, "it was complete, so there is no retry"
    assert not [*(tmp_path / "weights").glob("*")]


def test_a_stalling_download_is_aborted(file: Path, tmp_path: Path, site: Callable[..., Site]) -> None:
    server = site(file.read_bytes(), trickling)
    message = r"cannot be fetched: received less than 65,536 bytes in 0\.3 seconds"
    with time_limit.limited(0.3), pytest.raises(LookalikeError, match=message):
        load(key(file, path=str(tmp_path / "weights/network.pt"), url=server.url()))


def test_a_file_that_is_not_torchscript_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "other.pt").write_bytes(b"no network")
    with pytest.raises(LookalikeError, match=r"is not a TorchScript file"):
        load(key(tmp_path / "other.pt"))


def test_a_network_without_one_vector_per_image_is_rejected(tmp_path: Path) -> None:
    class Map(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels

    torch.jit.save(torch.jit.script(Map()), tmp_path / "map.pt")
    with pytest.raises(LookalikeError, match=r"returns \(1, 3, 32, 32\) for 1 images, not one vector per image"):
        load(key(tmp_path / "map.pt"))
