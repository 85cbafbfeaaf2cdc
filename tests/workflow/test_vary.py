"""One model varied, under real Snakemake: what runs when a value is added, and what the run writes."""

import csv
import json
from pathlib import Path

from workflow.conftest import Tree


def test_another_value_runs_its_variants_only_and_experiments_share_theirs(tree: Tree) -> None:
    """The finished run has embedded `pixels` already: it is the variant that differs in nothing."""
    config = tree.config
    config["experiments"]["sizes"] = {"dataset": "copies", "vary": {"model": "pixels", "over": {"size": [8]}}}
    tree.configure(config)
    ran = tree.run("sizes")
    assert ran.of("fetch_weights") == ["pixels.size-8"]
    assert ran.of("embed") == [f"copies pixels.size-8 {shard}" for shard in shards()]
    assert ran.of("compare") == ["sizes"]

    config["experiments"]["both"] = {
        "dataset": "copies",
        "vary": {"model": "pixels", "over": {"stored_dtype": ["float16"], "size": [8]}},
    }
    tree.configure(config)
    ran = tree.run("both")
    assert ran.of("measure") == [
        "copies pixels.size-8.stored_dtype-float16 flat",
        "copies pixels.stored_dtype-float16 flat",
    ]
    assert tree.run("sizes").of("compare") == []

    config["experiments"]["sizes"]["vary"]["over"]["size"] = [8, "oops"]
    tree.configure(config)
    output = tree.run("sizes", status=1).output
    assert "experiments.sizes.vary.over.size.1: input should be a valid integer" in output
    assert "Traceback" not in output

    check_report(tree.folder / "results/reports/both")


def shards() -> list[str]:
    return [f"{pool}-{number:05d}" for pool in ("queries", "references") for number in range(2)]


def check_report(folder: Path) -> None:
    record = json.loads((folder / "comparisons.json").read_text())
    accuracy = [one for one in record["effects"] if one["metric"] == "accuracy_at_1"]
    assert [(one["key"], one["value"], one["own"]) for one in accuracy] == [
        ("stored_dtype", "float16", "float32"),
        ("size", "8", "16"),
    ]
    assert accuracy[1]["pairs"] == [
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
    assert "What each choice does" in page
    assert "size: 8" in page
