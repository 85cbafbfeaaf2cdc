"""Checkpoints are fetched from the Hub once, recorded by commit and hash, and loaded offline.

A local server speaks the Hub's protocol. Clients run in their own processes, because huggingface_hub reads the address
when it is imported.
"""

import hashlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

import onnx_networks
import tiny
from conftest import REPOSITORY
from lookalike.embed import encoders
from lookalike.io import store
from lookalike.io.formats.records import Weights
from lookalike.job.errors import LookalikeError
from warm import Warm

# without huggingface_hub and transformers, which imports it
PYTHON = Warm("torch", "pyarrow.parquet", "pydantic", "lookalike.embed.encoders", path=REPOSITORY / "workflow_scripts")
MAIN, CONVERTED = "a" * 40, "b" * 40  # commits


class Hub:
    """A model hub: model name -> commit -> file name -> bytes, and refs -> commit."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, dict[str, bytes]]] = {}
        self.refs = {"main": MAIN, "refs/pr/7": CONVERTED, MAIN: MAIN, CONVERTED: CONVERTED}
        self.status: dict[str, tuple[int, str]] = {}  # model -> HTTP status and Hub error code for every request
        self.requests: list[str] = []
        self.parent = MAIN  # of the conversion's commit
        self.declared: dict[str, str] = {}  # file name -> a wrong hash to announce
        self.dripping: tuple[str, ...] = ()  # file names that are sent byte by byte
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.respond(self, body=True)

            def do_HEAD(self) -> None:
                hub.respond(self, body=False)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def respond(self, handler: BaseHTTPRequestHandler, body: bool) -> None:
        path = urlsplit(handler.path).path
        self.requests.append(path)
        content, headers, status = self.route(path)
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if body and path.rsplit("/")[-1] in self.dripping:
            for byte in content:
                handler.wfile.write(bytes([byte]))
                time.sleep(0.5)
        elif body:
            handler.wfile.write(content)

    def route(self, path: str) -> tuple[bytes, dict[str, str], int]:
        api = path.startswith("/api/models/")
        parts = [unquote(part) for part in path.removeprefix("/api/models/").strip("/").split("/")]
        model, rest = "/".join(parts[:2]), parts[2:]
        if model in self.status:
            status, code = self.status[model]
            return b'{"error": "no"}', {"X-Error-Code": code}, status
        if model not in self.files:
            return b"{}", {"X-Error-Code": "RepoNotFound"}, 404
        if api and rest[:1] == ["discussions"]:
            request = {
                "num": 7,
                "title": "Adding `safetensors` variant of this model",
                "author": {"name": "SFconvertbot"},
                "status": "open",
                "isPullRequest": True,
                "createdAt": "2023-01-01T00:00:00.000Z",
                "repo": {"name": model, "type": "model"},
            }
            count = int(CONVERTED in self.files[model])
            return json.dumps({"discussions": [request] * count, "count": count, "start": 0}).encode(), {}, 200
        if api and rest[:1] == ["commits"]:
            commits = [
                {"id": commit, "authors": [], "date": "2023-01-01T00:00:00.000Z", "title": "", "message": ""}
                for commit in (CONVERTED, self.parent)
            ]
            return json.dumps(commits).encode(), {}, 200
        if api:
            commit = self.refs.get("/".join(rest[1:]) if rest else "main", "")
            if commit not in self.files[model]:
                return b"{}", {"X-Error-Code": "RevisionNotFound"}, 404
            files = [self.describe(name, data) for name, data in self.files[model][commit].items()]
            return json.dumps({"id": model, "sha": commit, "siblings": files}).encode(), {}, 200
        commit, name = self.refs.get(rest[1], ""), "/".join(rest[2:])
        data = self.files[model].get(commit, {}).get(name)
        if data is None:
            return b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, 404
        return data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": commit}, 200

    def describe(self, name: str, data: bytes) -> dict[str, Any]:
        description = {"rfilename": name, "size": len(data), "blobId": hashlib.sha1(data).hexdigest()}
        if name.endswith((".safetensors", ".onnx")):
            sha256 = self.declared.get(name, hashlib.sha256(data).hexdigest())
            description["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 134}
        return description


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tiny.vit(tmp_path_factory.mktemp("checkpoint") / "vit")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def hub(vit: dict[str, bytes]) -> Iterator[Hub]:
    hub = Hub()
    other_formats = {"pytorch_model.bin": b"a pickle", "tf_model.h5": b"", "onnx/model.safetensors": b"no"}
    hub.files["owner/vit"] = {MAIN: {**vit, **other_formats}}
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


def entry(checkpoint: str = "owner/vit", **more: Any) -> str:
    return json.dumps(
        {
            "family": "transformers",
            "checkpoint": checkpoint,
            "feature": "last_hidden_state",
            "pooling": "cls",
            **more,
        }
    )


class Client:
    """Runs code in child processes with a separate cache."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder, self.address = folder, address
        self.weights = folder / "weights.json"

    def run(self, code: str, key: str) -> subprocess.CompletedProcess[str]:
        program = f"""
import logging, sys
from lookalike.embed import encoders
from lookalike.embed.fetch_weights import fetch_weights
from lookalike.io import store
from lookalike.io.formats.records import Weights
from lookalike.job.errors import LookalikeError
logging.basicConfig(level=logging.INFO)
key, weights = {key!r}, {str(self.weights)!r}
try:
    {code}
except LookalikeError as error:
    sys.exit(str(error))
"""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        environment |= {"HF_ENDPOINT": self.address, "HF_HOME": str(self.folder / "cache"), "HF_HUB_DISABLE_XET": "1"}
        environment |= {"PYTHONPATH": str(REPOSITORY / "workflow_scripts"), "no_proxy": "127.0.0.1"}
        return PYTHON.run("-c", program, cwd=self.folder, env=environment)

    def fetch(self, key: str) -> subprocess.CompletedProcess[str]:
        return self.run("fetch_weights(key, weights)", key)

    def load(self, key: str) -> subprocess.CompletedProcess[str]:
        code = "print(encoders.load(key, store.read_json(weights, Weights), encoders.Machine()).dimension)"
        return self.run(code, key)


@pytest.fixture
def client(tmp_path: Path, hub: Hub) -> Client:
    return Client(tmp_path, hub.address)


def test_a_checkpoint_is_recorded_by_commit_and_hash_and_loaded_offline(
    client: Client, hub: Hub, vit: dict[str, bytes]
) -> None:
    fetched = client.fetch(entry())
    assert fetched.returncode == 0, fetched.stderr
    recorded = store.read_json(client.weights, Weights)
    assert recorded == Weights(
        source="hub owner/vit",
        revision=MAIN,
        files={
            name: hashlib.sha256(vit[name]).hexdigest()
            for name in ("config.json", "preprocessor_config.json", "model.safetensors")
        },
    )
    assert not [path for path in hub.requests if path.endswith((".bin", ".h5", "onnx/model.safetensors"))]

    hub.requests.clear()
    hub.refs["main"] = CONVERTED  # the branch moves on; the recorded commit is loaded
    loaded = client.load(entry())
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.strip() == "32"
    assert hub.requests == []


def test_fetching_offline_uses_the_cache(client: Client, hub: Hub) -> None:
    assert client.fetch(entry()).returncode == 0
    first = client.weights.read_text()
    client.address = "http://127.0.0.1:1"
    again = client.fetch(entry())
    assert again.returncode == 0, again.stderr
    assert f"the Hub is unreachable; using commit {MAIN}" in again.stderr
    assert client.weights.read_text() == first


def test_a_download_that_drips_is_given_up_and_resumed_later(client: Client, hub: Hub, vit: dict[str, bytes]) -> None:
    hub.dripping = ("model.safetensors",)
    hours = 0.5 * len(vit["model.safetensors"]) / 3600  # the whole file would take
    assert hours > 1
    dripped = client.run("fetch_weights(key, weights, chunk_seconds=2)", entry())  # ends within minutes
    assert dripped.returncode == 1
    assert "owner/vit: a download received less than one chunk in 2 seconds. Run fetch_weights again" in dripped.stderr
    assert not client.weights.exists()
    hub.dripping = ()
    fetched = client.fetch(entry())
    assert fetched.returncode == 0, fetched.stderr


def test_cached_weights_are_available_without_requests_or_reading_them(client: Client, hub: Hub) -> None:
    check = "encoders.family(encoders.parse(key)).check_available(encoders.parse(key))"
    missing = client.run(check, entry())
    assert (missing.returncode, hub.requests) == (1, [])
    assert missing.stderr.startswith("owner/vit: revision 'main' is not in the Hugging Face cache.")
    assert client.fetch(entry()).returncode == 0
    hub.requests.clear()
    (cached,) = (client.folder / "cache").rglob("snapshots/*/model.safetensors")
    cached.resolve().write_bytes(b"")  # its contents are not checked until it is loaded
    available = client.run(check, entry())
    assert (available.returncode, hub.requests) == (0, []), available.stderr
    cached.unlink()
    assert "owner/vit: has no model.safetensors" in client.run(check, entry()).stderr


def test_a_file_that_differs_from_the_recorded_one_is_rejected(client: Client, hub: Hub) -> None:
    assert client.fetch(entry()).returncode == 0
    (cached,) = (client.folder / "cache").rglob("snapshots/*/model.safetensors")
    data = bytearray(cached.read_bytes())
    data[-1] ^= 1
    cached.resolve().write_bytes(data)
    loaded = client.load(entry())
    assert loaded.returncode == 1
    assert "has changed since fetch_weights recorded it, or is damaged. Restore the recorded files" in loaded.stderr


def test_loading_without_the_cache_fails_with_a_remedy(client: Client, hub: Hub) -> None:
    assert client.fetch(entry()).returncode == 0
    (client.folder / "cache").rename(client.folder / "elsewhere")
    loaded = client.load(entry())
    assert loaded.returncode == 1
    assert f"of revision {MAIN} is not in the cache" in loaded.stderr
    assert "HF_HOME sets its location), or run fetch_weights again on a machine with network" in loaded.stderr


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ((403, "GatedRepo"), "owner/vit: is gated. Accept its terms at http://127.0.0.1"),
        ((401, "GatedRepo"), "log in (hf auth login, or HF_TOKEN), and run again."),
        ((404, "RepoNotFound"), "owner/vit: the Hub has no such model, or it is private. Check the name"),
        ((401, ""), "owner/vit: the Hub has no such model, or it is private. Check the name"),
        ((404, "RevisionNotFound"), "owner/vit: has no revision 'main'. Use one of its branches, tags or full commit"),
        ((500, ""), "owner/vit: the Hub responded:"),
    ],
    ids=str,
)
def test_an_error_of_the_hub_is_reported_with_a_remedy(
    status: tuple[int, str], message: str, client: Client, hub: Hub
) -> None:
    hub.status["owner/vit"] = status
    fetched = client.fetch(entry())
    assert fetched.returncode == 1
    assert message in fetched.stderr
    assert "Traceback" not in fetched.stderr
    assert not client.weights.exists()


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ("owner/vti", "owner/vti: the Hub has no such model"),
        ("no name", "no name: is neither a valid Hub name nor a local folder"),
        ("/no/such/folder", "/no/such/folder: this folder does not exist."),
    ],
)
def test_a_wrong_checkpoint_name_is_reported_with_a_remedy(checkpoint: str, message: str, client: Client) -> None:
    fetched = client.fetch(entry(checkpoint))
    assert fetched.returncode == 1
    assert message in fetched.stderr


def test_fetching_without_network_and_cache_fails_with_a_remedy(client: Client) -> None:
    client.address = "http://127.0.0.1:1"
    fetched = client.fetch(entry())
    assert fetched.returncode == 1
    assert "owner/vit: the Hub is unreachable (" in fetched.stderr
    assert "Run fetch_weights on a machine with network access." in fetched.stderr


def test_a_download_whose_hash_differs_from_the_hubs_is_rejected(client: Client, hub: Hub) -> None:
    hub.declared["model.safetensors"] = "0" * 64
    fetched = client.fetch(entry())
    assert fetched.returncode == 1
    assert "model.safetensors: is damaged: its hash differs from the Hub's. Delete it and" in fetched.stderr


def test_without_published_safetensors_the_hubs_conversion_is_used(
    client: Client, hub: Hub, vit: dict[str, bytes]
) -> None:
    without = {name: data for name, data in vit.items() if name != "model.safetensors"}
    hub.files["owner/vit"] = {MAIN: {**without, "pytorch_model.bin": b"a pickle"}, CONVERTED: vit}
    fetched = client.fetch(entry())
    assert fetched.returncode == 0, fetched.stderr
    assert "using the Hub's conversion, refs/pr/7" in fetched.stderr
    assert store.read_json(client.weights, Weights).revision == CONVERTED
    assert client.load(entry()).returncode == 0


def test_a_conversion_of_another_commit_is_not_used_but_reported(
    client: Client, hub: Hub, vit: dict[str, bytes]
) -> None:
    without = {name: data for name, data in vit.items() if name != "model.safetensors"}
    hub.files["owner/vit"] = {MAIN: {**without, "pytorch_model.bin": b"a pickle"}, CONVERTED: vit}
    hub.parent = "c" * 40
    fetched = client.fetch(entry())
    assert fetched.returncode == 1
    assert (
        "refs/pr/7 is a safetensors conversion of a different commit; to use it, set revision: refs/pr/7"
        in fetched.stderr
    )
    explicit = client.fetch(entry(revision="refs/pr/7"))
    assert explicit.returncode == 0, explicit.stderr
    assert store.read_json(client.weights, Weights).revision == CONVERTED


def test_other_formats_than_safetensors_are_rejected(client: Client, hub: Hub, vit: dict[str, bytes]) -> None:
    without = {name: data for name, data in vit.items() if name != "model.safetensors"}
    hub.files["owner/vit"] = {MAIN: {**without, "pytorch_model.bin": b"a pickle"}}
    fetched = client.fetch(entry())
    assert fetched.returncode == 1
    assert "has no model.safetensors. Loading other formats can run code" in fetched.stderr


# --- local folders ---


def test_a_local_folder_is_recorded_by_hash_and_rejected_once_it_changes(tmp_path: Path, vit: dict[str, bytes]) -> None:
    for name, data in vit.items():
        (tmp_path / name).write_bytes(data)
    key = entry(str(tmp_path))
    weights = encoders.family(encoders.parse(key)).fetch(encoders.parse(key))
    assert weights.source == f"folder {tmp_path}"
    assert set(weights.files) == {"config.json", "preprocessor_config.json", "model.safetensors"}

    encoders.family(encoders.parse(key)).check_available(encoders.parse(key))
    (tmp_path / "processor_config.json").write_text("{}")
    with pytest.raises(LookalikeError, match=r"processor_config\.json was added after fetch_weights ran\. Remove it"):
        encoders.load(key, weights, encoders.Machine())
    (tmp_path / "processor_config.json").unlink()
    (tmp_path / "preprocessor_config.json").write_bytes(vit["preprocessor_config.json"].replace(b"0.5", b"0.4"))
    with pytest.raises(LookalikeError, match=r"preprocessor_config\.json: has changed since fetch_weights recorded it"):
        encoders.load(key, weights, encoders.Machine())
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(LookalikeError, match=r"has no model\.safetensors"):
        encoders.family(encoders.parse(key)).fetch(encoders.parse(key))


@pytest.fixture
def onnx_key(hub: Hub, tmp_path: Path) -> str:
    """Of a network in a folder of a checkpoint, with its weights in a file beside it."""
    folder = tmp_path / "exported"
    folder.mkdir()
    onnx_networks.save(folder / "model.onnx", external=True)
    content = {f"onnx/{path.name}": path.read_bytes() for path in folder.iterdir()}
    hub.files["owner/network"] = {MAIN: {"README.md": b"", "onnx/other.onnx": b"", **content}}
    values = {"size": onnx_networks.SIDE, "mean": [0, 0, 0], "std": [1, 1, 1]}
    return json.dumps({"family": "onnx", "checkpoint": "owner/network", "file": "onnx/model.onnx", **values})


def test_an_onnx_file_is_fetched_with_the_weights_beside_it_and_loaded_offline(
    client: Client, hub: Hub, onnx_key: str
) -> None:
    fetched = client.fetch(onnx_key)
    assert fetched.returncode == 0, fetched.stderr
    weights = store.read_json(client.weights, Weights)
    content = hub.files["owner/network"][MAIN]
    assert (weights.source, weights.revision) == ("hub owner/network", MAIN)
    assert weights.files == {
        name: hashlib.sha256(content[f"onnx/{name}"]).hexdigest() for name in ("model.onnx", "model.onnx.data")
    }
    assert not any("other.onnx" in request for request in hub.requests), "nothing else is fetched"
    requests = len(hub.requests)
    loaded = client.load(onnx_key)
    assert (loaded.stdout, len(hub.requests)) == ("8\n", requests), loaded.stderr
    hub.server.shutdown()
    hub.server.server_close()
    again = client.fetch(onnx_key)
    assert "the Hub cannot be reached; using" in again.stderr
    assert store.read_json(client.weights, Weights) == weights


def test_an_onnx_file_that_the_checkpoint_lacks_or_that_is_damaged_is_said(
    client: Client, hub: Hub, onnx_key: str
) -> None:
    hub.declared["onnx/model.onnx"] = "0" * 64
    assert "model.onnx: is damaged: its hash differs from the Hub's" in client.fetch(onnx_key).stderr
    missing = client.fetch(onnx_key.replace("onnx/model.onnx", "onnx/modle.onnx"))
    assert "owner/network: has no file 'onnx/modle.onnx'. Did you mean 'onnx/model.onnx'?" in missing.stderr
    hub.server.shutdown()
    hub.server.server_close()
    offline = client.fetch(onnx_key.replace("onnx/model.onnx", "onnx/other.onnx"))
    assert "the Hub cannot be reached" in offline.stderr
    assert "Run fetch_weights with network access" in offline.stderr


def test_an_onnx_file_of_a_local_folder_needs_no_hub(client: Client, onnx_key: str, tmp_path: Path) -> None:
    entry = json.loads(onnx_key) | {"checkpoint": str(tmp_path / "exported"), "file": "model.onnx"}
    assert client.fetch(json.dumps(entry)).returncode == 0
    assert client.load(json.dumps(entry)).stdout == "8\n"
    wrong = client.fetch(json.dumps(entry | {"file": "net.onnx"}))
    assert "net.onnx: no such file. Fix the model's 'file' or 'checkpoint'" in wrong.stderr
