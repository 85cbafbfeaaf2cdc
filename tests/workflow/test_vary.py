"""One model varied, under real Snakemake: what runs when a value is added, and what the run writes."""

import csv
import json
from pathlib import Path
from typing import Any

from workflow.conftest import SHARDS, Tree


def varied(**over: Any) -> dict[str, Any]:
    return {"dataset": "copies", "vary": {"model": "pixels", "over": over}}


def test_another_value_runs_its_variant_only_and_experiments_share_theirs(tree: Tree) -> None:
    """The finished run has embedded `pixels` already: it is the variant that differs in nothing."""
    config = tree.config
    config["experiments"]["sizes"] = varied(size=[8])
    tree.configure(config)
    runs = tree.would_run("sizes")
    assert runs.of("fetch_weights") == []  # variants share the weights of their model
    assert runs.of("embed") == [f"copies pixels.size-8 {shard}" for shard in SHARDS]
    assert runs.of("compare") == ["sizes"]

    config["experiments"]["both"] = varied(size=[8], stored_dtype=["float16"])
    tree.configure(config)
    ran = tree.run("both")
    new = ["pixels.size-8", "pixels.size-8.stored_dtype-float16", "pixels.stored_dtype-float16"]
    assert ran.of("fetch_weights") == []
    assert ran.of("measure") == [f"copies {model} flat" for model in new]
    assert len(ran.of("embed")) == len(SHARDS) * len(new)
    assert ran.of("compare") == ["both"]

    config["experiments"]["sizes"] = varied(size=[8, 4])
    tree.configure(config)
    runs = tree.would_run("sizes", "both")
    assert runs.of("fetch_weights") == []
    assert runs.of("embed") == [f"copies pixels.size-4 {shard}" for shard in SHARDS]
    assert runs.of("compare") == ["sizes"]
    check_report(tree.folder / "results/reports/both")


def check_report(folder: Path) -> None:
    record = json.loads((folder / "comparisons.json").read_text())
    accuracy = [one for one in record["effects"] if one["metric"] == "accuracy_at_1"]
    assert [(one["key"], one["value"], one["own"]) for one in accuracy] == [
        ("size", "8", "16"),
        ("stored_dtype", "float16", "float32"),
    ]
    assert accuracy[0]["pairs"] == [
        ["pixels.size-8", "pixels"],
        ["pixels.size-8.stored_dtype-float16", "pixels.stored_dtype-float16"],
    ]
    with (folder / "leaderboard.csv").open() as file:
        found = {(row["model"], row["metric"]): float(row["value"] or "nan") for row in csv.DictReader(file)}
    assert [found["pixels.size-8.stored_dtype-float16", name] for name in ("dimension", "bytes_per_vector")] == [
        64,
        128,
    ]
    assert [found["pixels", name] for name in ("dimension", "bytes_per_vector")] == [256, 1024]
    assert found["pixels", "queries_per_second"] > 0
    # 1,024 bytes of a vector in float32, and a header of few bytes that twelve references share
    assert 1024 < found["pixels", "index_bytes_per_vector"] < 1034
    page = (folder / "index.html").read_text()
    assert "Effect of each setting" in page
    assert "size: 8" in page
