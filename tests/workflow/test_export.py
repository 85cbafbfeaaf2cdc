"""One exported network serves all models that differ only in pooling, and other working folders."""

import shutil
from pathlib import Path

import tiny
from lookalike.io import store
from lookalike.io.formats.exports import Export
from workflow.conftest import MINE, Tree, write_collection


def test_a_network_is_exported_once_and_embeds_without_torch(tmp_path: Path) -> None:
    folder = tiny.vit(tmp_path / "vit")
    entry = {"family": "transformers", "checkpoint": str(folder), "feature": "last_hidden_state"}
    models = {
        f"vit-{pooling}": {"embed": {**entry, "pooling": pooling}, "runtime": {"gpu": 0}} for pooling in ("cls", "gem")
    }
    config = {**MINE, "datasets": {"photos": MINE["datasets"]["photos"]}, "models": models}
    config["experiments"] = {"mine": {"dataset": "photos", "models": ["pixels", *models]}}
    tree = Tree.new(tmp_path / "first", config)
    write_collection(tree)
    embedded = [f"results/photos/embeddings/{model}/images-00000.parquet" for model in ("pixels", *models)]
    assert len(tree.run(*embedded).of("export")) == 1
    (path,) = tree.folder.glob("results/exports/*/*/export.json")
    record = store.read_json(path, Export)
    assert (record.engine, record.reason) == ("onnxruntime", "")
    engines = [store.read_provenance(tree.folder / shard)["engine"]["name"] for shard in embedded]
    assert engines == ["python", "onnxruntime", "onnxruntime"]
    assert tree.would_run(*embedded).jobs == []

    second = Tree.new(tmp_path / "second", tree.config)
    shutil.copytree(tree.folder / "photos", second.folder / "photos")
    second.run(str(path.relative_to(tree.folder)))
    (log,) = second.folder.glob("results/logs/export/*/*.log")
    assert "exported before" in log.read_text()

    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    (fetched,) = tree.folder.glob("results/weights/vit-local-*/weights.json")
    again = tree.run(*embedded, options=("--forcerun", str(fetched.relative_to(tree.folder))))
    assert len(again.of("export")) == 1
    assert again.of("embed") == [f"photos {model} images-00000" for model in models]
    assert store.read_json(path, Export).weights_checksum != record.weights_checksum
