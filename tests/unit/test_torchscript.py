"""A scripted file is code: it is run only when it is the file that the entry means."""

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

from conftest import picture
from lookalike import models, store
from lookalike.errors import LookalikeError
from lookalike.models import torchscript

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


Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


def whole(handler: BaseHTTPRequestHandler, contents: bytes, sent: int | None = None) -> None:
    """All of the file, or, where it breaks off, only the first bytes of it."""
    handler.send_header("Content-Length", str(len(contents)))
    handler.end_headers()
    handler.wfile.write(contents[:sent])


def without_length(handler: BaseHTTPRequestHandler, contents: bytes, sent: int | None = None) -> None:
    handler.end_headers()
    handler.wfile.write(contents[:sent])


def trickling(handler: BaseHTTPRequestHandler, contents: bytes) -> None:
    """A byte now and then: no single wait is long."""
    handler.send_header("Content-Length", str(len(contents)))
    handler.end_headers()
    for byte in contents:
        handler.wfile.write(bytes([byte]))
        time.sleep(0.05)


class Site(ThreadingHTTPServer):
    """A web server with one file. It answers as told, one request after the other, and then like the last of them."""

    def __init__(self, contents: bytes, *answers: Answer) -> None:
        self.requests = 0

        class Handler(BaseHTTPRequestHandler):
            def do_GET(handler) -> None:  # noqa: N805
                self.requests += 1
                handler.send_response(200 if handler.path == "/network.pt" else 404)
                with suppress(OSError):  # whoever asked may have hung up
                    answers[min(self.requests, len(answers)) - 1](handler, contents)

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
    for one in sites:
        one.shutdown()
        one.server_close()


def test_a_file_that_is_not_there_yet_is_fetched_once_and_checked(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: Callable[..., Site]
) -> None:
    server = site(file.read_bytes(), whole)
    here = tmp_path / "weights/network.pt"
    wanted = key(file, path=str(here), url=server.url())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(LookalikeError, match="there is no such file"):
        load(wanted)  # whoever only asks what is here fetches nothing
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert load(wanted).dimension == 8
    assert load(wanted).dimension == 8
    assert server.requests == 1, "the second time it is there"
    with pytest.raises(LookalikeError, match="is not run unless they agree"):
        load(key(file, path=str(here), url=server.url(), sha256="0" * 64))
    assert here.read_bytes() == file.read_bytes(), "another file does not take its place"


def test_what_cannot_be_fetched_says_what_to_do_and_leaves_nothing(
    file: Path, tmp_path: Path, site: Callable[..., Site]
) -> None:
    server = site(file.read_bytes(), partial(whole, sent=100))
    for url in (server.url(), server.url("gone.pt"), "http://127.0.0.1:1/network.pt"):
        with pytest.raises(LookalikeError, match=r"cannot be fetched: .* put it at .*network\.pt"):
            load(key(file, path=str(tmp_path / "weights/network.pt"), url=url))
    assert not [*(tmp_path / "weights").glob("*")]
    assert server.requests == torchscript.TRIES + 1, "a file that is not on the server is asked for once"


@pytest.mark.parametrize("broken", [partial(whole, sent=100), partial(without_length, sent=100)])
def test_a_download_that_is_cut_is_fetched_again(
    broken: Answer, file: Path, tmp_path: Path, site: Callable[..., Site]
) -> None:
    server = site(file.read_bytes(), broken, broken, whole)
    here = tmp_path / "weights/network.pt"
    assert load(key(file, path=str(here), url=server.url())).dimension == 8
    assert server.requests == 3
    assert here.read_bytes() == file.read_bytes()


def test_a_download_that_is_always_cut_never_takes_the_files_name(
    file: Path, tmp_path: Path, site: Callable[..., Site]
) -> None:
    server = site(file.read_bytes(), partial(without_length, sent=100))
    with pytest.raises(
        LookalikeError, match=r"cannot be fetched: what came, 100 bytes, has the SHA-256 \w{64}, and the"
    ):
        load(key(file, path=str(tmp_path / "weights/network.pt"), url=server.url()))
    assert not [*(tmp_path / "weights").glob("*")]


def test_what_an_earlier_download_left_of_the_file_is_fetched_again(
    file: Path, tmp_path: Path, site: Callable[..., Site]
) -> None:
    here = tmp_path / "network.pt"
    here.write_bytes(file.read_bytes()[:100])
    assert load(key(file, path=str(here), url=site(file.read_bytes(), whole).url())).dimension == 8


def test_another_file_than_the_entrys_is_refused_before_it_takes_its_name(
    file: Path, tmp_path: Path, site: Callable[..., Site]
) -> None:
    server = site(b"another network", whole)
    with pytest.raises(
        LookalikeError, match=r"127\.0\.0\.1.*network\.pt: what came, 15 bytes, .*is not run unless they"
    ):
        load(key(file, path=str(tmp_path / "weights/network.pt"), url=server.url()))
    assert server.requests == 1, "it came whole"
    assert not [*(tmp_path / "weights").glob("*")]


def test_a_download_that_trickles_is_given_up(
    file: Path, tmp_path: Path, site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchscript, "PATIENCE", 0.3)
    server = site(file.read_bytes(), trickling)
    with pytest.raises(LookalikeError, match=r"cannot be fetched: less than 65,536 bytes came in 0\.3 seconds"):
        load(key(file, path=str(tmp_path / "weights/network.pt"), url=server.url()))


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
