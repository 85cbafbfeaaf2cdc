"""Weights belong to a checkpoint and revision, and a large file is hashed once per machine."""

import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import tiny
from conftest import REPOSITORY
from lookalike.config.models import from_key
from lookalike.embed import checkpoints, encoders, file_hashes
from lookalike.embed.fetch_weights import fetch_weights
from lookalike.io import store
from lookalike.io.formats.records import Weights
from lookalike.job.errors import LookalikeError
from lookalike.plan.plan import Plan

COMMIT = "a" * 40
SCRIPT = {"family": "torchscript", "size": 32, "mean": [0, 0, 0], "std": [1, 1, 1], "sha256": "b" * 64}


def vit(checkpoint: str = "owner/vit", **settings: Any) -> dict[str, Any]:
    return {"family": "transformers", "feature": "pooler_output", "checkpoint": checkpoint, **settings}


def blip2(checkpoint: str, **settings: Any) -> dict[str, Any]:
    return {"family": "blip2", "checkpoint": checkpoint, **settings}


def own(factory: str, **options: Any) -> dict[str, Any]:
    return {"family": "python", "factory": factory, **({"options": options} if options else {})}


def name(entry: dict[str, Any]) -> str:
    return str(encoders.parse(json.dumps(entry)).weights_name())


DISTINCT = [  # all have different weights, however similar their names
    {"family": "pixels"},
    {"family": "color_histogram"},
    {"family": "efficientnet_lite", "variant": "lite0"},
    {"family": "efficientnet_lite", "variant": "lite1"},
    vit(),
    vit(revision=COMMIT),
    vit(revision=COMMIT[:12]),
    vit(revision="refs/pr/7"),
    vit(revision="refs-pr-7"),
    vit(remote_code=True),
    vit(revision="main-remote_code"),
    vit("owner/vit-main"),
    vit("owner/vit", revision="main-main"),
    vit("owner--vit"),
    vit("owner-/vit"),
    vit("owner/-vit"),
    vit("owner/vit-main", revision="blip2"),
    vit("owner/vit-main-blip2"),
    blip2("owner/vit"),
    blip2("owner/vit-main"),
    vit("/models/vit"),
    vit("/other/vit"),
    vit("./vit"),
    vit("/models/{vit} é"),
    vit("/models/" + "v" * 240 + "1"),
    vit("/models/" + "v" * 240 + "2"),
    SCRIPT | {"path": "a/net.pt"},
    SCRIPT | {"path": "b/net.pt"},
    SCRIPT | {"path": "a/net.pt", "url": "http://a/net.pt"},
    SCRIPT | {"path": "a/net.pt", "sha256": "c" * 64},
    own("mine:make"),
    own("mine.make:make"),
    own("mine:make", weights="a.pt"),
    own("mine:make", weights="b.pt"),
    own("müne:make"),
    own("mune:make"),
]


def test_different_weights_never_share_a_folder_and_every_name_is_legal() -> None:
    names = [name(entry) for entry in DISTINCT]
    assert [pair for pair in itertools.combinations(range(len(names)), 2) if names[pair[0]] == names[pair[1]]] == []
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}", name) for name in names), names


def test_a_name_is_checkpoint_and_revision_unless_ambiguous() -> None:
    assert name(vit("facebook/dinov2-base", revision=COMMIT)) == f"facebook--dinov2-base-{COMMIT}"
    assert name(vit("facebook/dinov2-base")) == "facebook--dinov2-base-main"
    assert name({"family": "efficientnet_lite", "variant": "lite0"}) == "efficientnet_lite-lite0"
    assert re.fullmatch("vit-local-[0-9a-f]{12}", name(vit("/models/vit")))
    assert re.fullmatch("net.pt-b{12}-[0-9a-f]{12}", name(SCRIPT | {"path": "a/net.pt"}))


@pytest.mark.parametrize("entry", DISTINCT, ids=name)
def test_a_key_determines_the_weights(entry: dict[str, Any]) -> None:
    """The key is all that the fetch job gets."""
    parsed = encoders.parse(json.dumps(entry))
    from_its_key = from_key(parsed.weights_key())
    assert from_its_key.weights_name() == parsed.weights_name()
    assert [getattr(from_its_key, field) for field in parsed.weights_fields] == [
        getattr(parsed, field) for field in parsed.weights_fields
    ]


def test_four_poolings_of_a_network_share_one_job() -> None:
    raw = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    poolings = ("cls", "mean", "mean_patches", "gem")
    for pooling in poolings:
        embed = vit(feature="last_hidden_state", pooling=pooling, size=64, stored_dtype="float16")
        raw["models"][f"vit-{pooling}"] = {"embed": embed}
    raw["experiments"]["mine"] = {"dataset": "photo-tiles-copies", "models": [f"vit-{pooling}" for pooling in poolings]}
    plan = Plan.of(raw)
    weights = [path for path in plan.targets("mine") if path.startswith("results/weights/")]
    assert weights == ["results/weights/owner--vit-main/weights.json"]
    assert {plan.weights(f"vit-{pooling}") for pooling in poolings} == set(weights)
    assert json.loads(plan.weights_key("owner--vit-main")) == {"family": "transformers", "checkpoint": "owner/vit"}


def test_poolings_and_precisions_share_an_export_and_a_gpu_environment_has_none() -> None:
    raw = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    tokens = {"feature": "last_hidden_state", "size": 64}
    entries = {
        "cls": vit(**tokens, pooling="cls", stored_dtype="float16"),
        "gem": vit(**tokens, pooling="gem", decode="fast", compute_dtype="float16"),
        "pooled": vit(feature="pooler_output", size=64),
        "larger": vit(feature="last_hidden_state", pooling="cls", size=80),
        "brain": vit(**tokens, pooling="cls", compute_dtype="bfloat16"),
        "grey": {"family": "pixels"},
    }
    raw["models"] |= {name: {"embed": embed, "runtime": {"mem_mb": 3000}} for name, embed in entries.items()}
    raw["models"]["gem"]["runtime"] = {"mem_mb": 5000}
    raw["experiments"]["mine"] = {"dataset": "photo-tiles-copies", "models": list(entries)}
    plan = Plan.of(raw)
    exports = {name: plan.exports(name) for name in entries}
    assert exports["cls"] == exports["gem"]
    assert (exports["brain"], exports["grey"]) == ([], [])
    assert len({path for paths in exports.values() for path in paths}) == 3
    assert plan.export_memory("cls") == 5000
    targets = [path for path in plan.targets("mine") if path.startswith("results/exports/owner--vit-main/")]
    assert sorted(targets) == sorted({path for paths in exports.values() for path in paths})
    for name, paths in exports.items():
        for path in paths:
            *_, weights, export, _ = path.split("/")
            key = json.loads(plan.export_key(plan.exported_model(weights, export)))
            assert key == json.loads(plan.export_key(name))
            encoders.parse(json.dumps(key))  # a whole entry
            assert {"decode", "stored_dtype"}.isdisjoint(key)
    on_gpus = Plan.of(raw | {"environment": "gpu"})
    assert all(on_gpus.exports(name) == [] for name in entries)
    assert [on_gpus.code("embed", model=name) for name in entries] == [
        plan.code("embed", model=name) for name in entries
    ]


# --- cached hashes ---


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """The files that have been read for hashing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(file_hashes, "SETTLED", -1)  # the files of these tests have just been written
    files: list[Path] = []
    real = store.sha256_file

    def counted(path: str | Path) -> str:
        files.append(Path(path))
        return real(path)

    monkeypatch.setattr(store, "sha256_file", counted)
    return files


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    return path


def test_the_second_job_does_not_read_the_weights_and_a_changed_file_is_rejected(
    tmp_path: Path, read: list[Path]
) -> None:
    folder = tiny.vit(tmp_path / "vit")
    key = json.dumps(vit(str(folder)))
    out = tmp_path / "weights.json"
    fetch_weights(encoders.parse(key).weights_key(), out)
    assert {path.name for path in read} == {"config.json", "preprocessor_config.json", "model.safetensors"}
    read.clear()
    weights = store.read_json(out, Weights)
    assert checkpoints.locate(str(folder), weights) == folder
    assert encoders.load(key, weights, encoders.Machine()).dimension == 32
    assert read == []

    changed, before = folder / "model.safetensors", (folder / "model.safetensors").stat()
    data = changed.read_bytes()
    changed.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))  # same size and date
    with pytest.raises(LookalikeError, match=r"model\.safetensors: has changed since fetch_weights recorded it"):
        checkpoints.locate(str(folder), weights)
    assert read == [changed]


def test_a_replaced_file_of_the_same_size_is_read(file: Path, read: list[Path]) -> None:
    first = file_hashes.sha256(file)
    other = file.with_name("other")
    other.write_bytes(b"WEIGHTS")
    other.replace(file)
    assert file_hashes.sha256(file) == store.sha256_file(file) != first


def test_symlinks_to_one_file_read_it_once(file: Path, read: list[Path]) -> None:
    (file.parent / "linked").symlink_to(file)
    assert file_hashes.sha256(file) == file_hashes.sha256(file.parent / "linked")
    assert len(read) == 1


@pytest.mark.parametrize("damage", ["", "[" * 100_000, "{}", "another file's", "edited"])
def test_a_cached_hash_that_is_damaged_or_of_another_file_is_not_used(
    damage: str, file: Path, read: list[Path]
) -> None:
    expected = file_hashes.sha256(file)
    (cached,) = (file.parent / "cache").rglob("*.json")
    if damage == "another file's":
        store.write_json(file_hashes.FileHash(path="/other", stamp="1 2 3 4", sha256="0" * 64), cached)
    elif damage == "edited":
        cached.write_text(cached.read_text().replace(expected, "0" * 64))
    else:
        cached.write_text(damage)
    assert file_hashes.sha256(file) == expected
    assert len(read) == 2
    assert file_hashes.sha256(file) == expected
    assert len(read) == 2  # cached again


def test_hashing_works_without_a_writable_cache(file: Path, read: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    (file.parent / "cache").write_text("a file, so nothing can be written in it")
    assert file_hashes.sha256(file) == file_hashes.sha256(file)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert file_hashes.sha256(file) == store.sha256_file(file)
    assert len(read) == 4


def test_the_hash_of_a_file_that_has_just_changed_is_not_cached(
    file: Path, read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another change within the same tick of the clock would not change its dates."""
    monkeypatch.setattr(file_hashes, "SETTLED", 3600)
    assert file_hashes.sha256(file) == file_hashes.sha256(file)
    assert len(read) == 2


def test_code_is_hashed_every_time(tmp_path: Path, read: list[Path]) -> None:
    """Write access to the cache folder must not be enough to change what runs."""
    folder = tiny.vit(tmp_path / "vit")
    (folder / "modeling.py").write_text("")
    weights = checkpoints.fetch(str(folder), "main", code=True)
    read.clear()
    checkpoints.locate(str(folder), weights)
    assert [path.name for path in read] == ["modeling.py"]
