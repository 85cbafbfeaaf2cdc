"""Showcase images change no number, embed nothing but themselves, and are shown."""

import json
import shutil
from typing import Any

import pyarrow.parquet as pq

from conftest import made_image
from workflow.conftest import Tree

AFTER_SAMPLE = {
    "sample",
    "shard_copies",
    "embed",
    "index",
    "search",
    "project",
    "audit",
    "measure",
    "compare",
    "find_duplicates",
    "report",
}


def with_showcase(tree: Tree, showcase: str | None) -> None:
    config = tree.config
    config["datasets"]["copies"].pop("showcase", None)
    if showcase:
        config["datasets"]["copies"]["showcase"] = showcase
    tree.configure(config)


MADE_FROM = ("sample_sha256", "shards_sha256", "metrics", "checksum")  # which files a record was made from


def numbers(tree: Tree) -> Any:
    """All that a run measured, but for what it took, and the neighbors of every query."""
    metrics = {}
    for path in sorted(tree.folder.glob("results/copies/metrics/*/*.json")):
        found = json.loads(path.read_text())
        for name in ("timing", "sample_sha256", "made_from", "checksum"):  # and which files it is of
            found.pop(name)
        neighbors = pq.read_table(tree.folder / f"results/copies/neighbors/{found['model']}/flat.parquet")
        metrics[found["model"]] = (found, neighbors.to_pydict())
    told = []
    for name in ("comparisons", "duplicates"):
        read = json.loads((tree.folder / f"results/reports/mine/{name}.json").read_text())
        told.append({key: value for key, value in read.items() if key not in MADE_FROM})
    return metrics, *told


def test_a_showcase_comes_changes_and_goes_and_no_number_moves(tree: Tree) -> None:
    """For copies, whose images are made by the run: 12 of a folder, one of them broken."""
    config = tree.config
    config["experiments"]["mine"]["models"] = ["pixels"]
    tree.configure(config)
    tree.run()
    before = numbers(tree)
    vectors = tree.bytes_of("results/copies/embeddings/*/[qr]*.parquet")
    images = tree.bytes_of("results/copies/images/*")
    outside = tree.folder / "outside"
    outside.mkdir()
    made_image(100).save(outside / "p1.png")  # a name that a reference has too
    shutil.copy(tree.folder / "photos/p3.png", outside / "twin.png")
    (outside / "broken.png").write_bytes(b"no image")

    with_showcase(tree, "outside")
    ran = tree.run()
    assert ran.of("embed") == ["copies pixels showcase-00000"]
    assert ran.rules == AFTER_SAMPLE
    assert numbers(tree) == before
    found = pq.read_table(tree.folder / "results/copies/neighbors/pixels/flat.showcase.parquet").to_pylist()
    assert {row["query_id"] for row in found} == {"showcase:p1.png", "showcase:twin.png"}
    assert next(row["reference_id"] for row in found if row["query_id"] == "showcase:twin.png") == "p3.png"
    page = (tree.folder / "results/reports/mine/index.html").read_text()
    assert page.count('data-outcome="showcase"') == 3
    assert "showcase:broken.png" in page.partition('<section id="rejected"')[2]
    assert tree.would_run().jobs == []

    (tree.folder / "other").mkdir()
    made_image(101).save(tree.folder / "other/laptop.png")
    with_showcase(tree, "other")
    ran = tree.run("results/copies/embeddings/pixels/showcase-00000.parquet", "results/copies/metrics/pixels/flat.json")
    assert ran.of("embed") == ["copies pixels showcase-00000"]
    assert ran.rules == AFTER_SAMPLE - {"project", "compare", "find_duplicates", "report"}

    with_showcase(tree, None)
    ran = tree.run()
    assert ran.of("embed") == []
    assert ran.rules == AFTER_SAMPLE - {"embed"}
    assert numbers(tree) == before
    assert (
        "Showcase image" not in (tree.folder / "results/reports/mine/index.html").read_text().partition("</style>")[2]
    )
    assert tree.bytes_of("results/copies/embeddings/*/[qr]*.parquet") == vectors
    assert tree.bytes_of("results/copies/images/*") == images
