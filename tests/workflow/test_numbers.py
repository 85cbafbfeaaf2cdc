"""Numbers that cannot be said, and what a data set brings, from a user's folder to the report."""

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq

from workflow.conftest import Tree


def test_a_collection_without_true_matches_runs_to_its_report_and_says_why_there_are_no_numbers(tmp_path: Path) -> None:
    folder = {"kind": "folder", "root": "photos", "queries": "queries", "about": "about.csv", "k": 3}
    experiment = {"dataset": "own", "models": ["pixels", "color-histogram"]}
    tree = Tree.new(
        tmp_path / "tree", {"run": ["own"], "datasets": {"own": folder}, "experiments": {"own": experiment}}
    )
    tree.write_images("photos", *range(12))
    tree.write_images("queries", 100, 101)
    (tree.folder / "about.csv").write_text("image_id,camera\np100.png,old\n")
    tree.run()
    results = tree.folder / "results"
    cameras = pq.read_table(results / "own/sample/images.parquet")["by_camera"].to_pylist()
    assert cameras == [None] * 12 + ["old", None]
    measured = json.loads((results / "own/metrics/pixels/flat.json").read_text())
    assert {"accuracy_at_1", "uap", "uap_k3", "recall_at_p90"} <= set(measured["metrics"])
    assert {one["value"] for one in measured["metrics"].values()} == {None}
    assert measured["thresholds"] == {}
    with (results / "reports/own/leaderboard.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] in measured["metrics"]]
    assert len(rows) == 2 * len(measured["metrics"])
    assert {row["value"] for row in rows} == {""}
    compared = json.loads((results / "reports/own/comparisons.json").read_text())
    assert {one["verdict"] for one in compared["comparisons"]} == {"cannot tell"}
    assert compared["cases"] == []
    page = (results / "reports/own/index.html").read_text()
    assert "Score thresholds (no query has a known match)" in page
    assert "no match" in page
