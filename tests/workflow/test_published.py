"""DISC21, Flickr30k and COCO in miniature, from the archives as they are distributed to the reports."""

import json
from pathlib import Path
from typing import Any

import published
from lookalike.io import store
from lookalike.io.formats.tables import IMAGES, NEIGHBORS
from workflow.conftest import Tree, keep_report

CONFIG: dict[str, Any] = {
    "run": ["copies", "scenes", "things"],
    "datasets": {
        "my-disc21": {
            "kind": "disc21",
            "root": "data/disc21",
            "references": {"first": 8},
            "queries": "positives",
            "training": {"first": 2},
            "k": 3,
            "expect": {"references": 8, "queries": 2, "training": 2, "pairs": 2},
        },
        "my-flickr30k": {"kind": "flickr30k", "root": "data/flickr30k", "sample": 10, "k": 5},
        "my-coco": {"kind": "coco", "root": "data/coco", "k": 5},
    },
    "experiments": {
        "copies": {"dataset": "my-disc21", "models": ["pixels"]},
        "scenes": {"dataset": "my-flickr30k", "models": ["color-histogram"]},
        "things": {"dataset": "my-coco", "models": ["color-histogram"]},
    },
}


def test_a_missing_data_set_stops_only_what_needs_it_and_all_three_run_from_their_archives(tmp_path: Path) -> None:
    tree = Tree.new(tmp_path / "tree", CONFIG)
    results = tree.folder / "results"
    published.disc21(tree.folder / "data/disc21", zipped=True)
    published.coco(tree.folder / "data/coco", zipped=True)
    ran = tree.run(options=("--keep-going",), status=1)
    assert "sample my-flickr30k: datasets.my-flickr30k.root: 'data/flickr30k' does not hold the Flickr30k" in ran.output
    assert "Fetch it from: its authors" in ran.output
    assert "Traceback" not in ran.output
    assert sorted(path.parent.name for path in results.glob("reports/*/index.html")) == ["copies", "things"]

    # found by their pixels: the queries are smaller copies
    metrics = json.loads((results / "my-disc21/metrics/pixels/flat.json").read_text())
    assert (metrics["references"], metrics["queries"], metrics["rejected_references"]) == (8, 2, 0)
    assert metrics["metrics"]["accuracy_at_1"]["value"] == 1.0
    assert len(list(results.glob("my-disc21/embeddings/pixels/*-00000.parquet"))) == 3

    published.flickr30k(tree.folder / "data/flickr30k", zipped=True)
    published.as_tars(tree.folder / "data/flickr30k")
    config = tree.config
    config["datasets"]["my-coco"]["expect"] = {"references": 8}  # changes no sample, and embeds nothing
    tree.configure(config)
    ran = tree.run()
    keep_report(tree, "scenes", "my-flickr30k")
    assert ran.of("sample") == ["my-flickr30k"]
    assert ran.of("embed") == ["my-flickr30k color-histogram images-00000"]
    images = store.read_table(results / "my-flickr30k/sample/images.parquet", IMAGES)
    assert images.filter(images["showcase"])["image_id"].to_pylist() == sorted(published.NAMED)
    neighbors = store.read_table(results / "my-flickr30k/neighbors/color-histogram/flat.parquet", NEIGHBORS).to_pylist()
    assert len(neighbors) == 10 * 6
    assert all(row["query_id"] != row["reference_id"] for row in neighbors)  # an image does not find itself
    # without true matches, captions and categories say what neighbors are worth, between chance and the text itself
    scenes = json.loads((results / "my-flickr30k/metrics/color-histogram/flat.json").read_text())
    between = scenes["baselines"]["caption_agreement_at_5"]
    assert 0 < between["floor"]["value"] < between["ceiling"]["value"] < 1
    assert 0 < scenes["metrics"]["caption_agreement_at_5"]["value"] <= between["ceiling"]["value"]
    assert "text ceiling" in (results / "reports/scenes/index.html").read_text()
    things = json.loads((results / "my-coco/metrics/color-histogram/flat.json").read_text())
    assert things["metrics"]["category_overlap_at_5"]["n"] == 2  # the others show no object
    assert things["baselines"]["category_overlap_at_5"]["not_counted"] == 6
    assert "shard_my-coco" in ran.rules  # the expectation was checked again

    config["datasets"]["my-coco"]["expect"] = {"references": 5000}
    tree.configure(config)
    (results / "my-coco/sample/images.parquet").unlink()
    for _ in range(2):  # a failed check is not forgotten
        output = tree.run("things", status=1).output
        assert "shard_my-coco: datasets.my-coco.expect: 5,000 references were expected, and 8 found." in output


def test_the_full_reproduction_without_any_data_says_what_to_fetch_and_downloads_nothing(tmp_path: Path) -> None:
    tree = Tree.new(tmp_path / "tree", {"environment": "cpu"})
    ran = tree.run(options=("--cores", "8"), status=1)  # as the README has it: room for more than looking
    assert not ran.jobs
    for name in ("DISC21", "Flickr30k", "COCO"):  # all missing data is reported at once
        assert ran.output.count(f"does not hold the {name} images and tables") == 1
    for line in ("Missing: ", "Fetch it from: ", "Licence: ", "Put it into: data/", "Every step: docs/"):
        assert line in ran.output
    assert "Traceback" not in ran.output
