"""The demo, as the README runs it: real photographs, real trained networks."""

import csv
import json
from pathlib import Path

import pytest

from workflow.conftest import Tree, built_once


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return built_once(tmp_path_factory, "demo", {"run": ["demo"]}, lambda tree: tree.run("demo"))


def accuracy(folder: Path) -> dict[str, float]:
    with (folder / "leaderboard.csv").open() as file:
        return {row["model"]: float(row["value"]) for row in csv.DictReader(file) if row["metric"] == "accuracy_at_1"}


def test_the_networks_are_above_the_baselines_and_cannot_be_told_apart(demo: Tree) -> None:
    report = demo.folder / "results/reports/demo"
    found = accuracy(report)
    baselines = max(found["pixels"], found["color-histogram"])
    assert min(found["efficientnet-lite0"], found["efficientnet-lite2"]) > baselines > 0.2
    comparisons = json.loads((report / "comparisons.json").read_text())["comparisons"]
    (verdict,) = (
        one["verdict"]
        for one in comparisons
        if one["metric"] == "accuracy_at_1" and {one["a"], one["b"]} == {"efficientnet-lite0", "efficientnet-lite2"}
    )
    assert verdict == "cannot tell"


def test_the_report_is_one_page_that_names_every_model(demo: Tree) -> None:
    page = (demo.folder / "results/reports/demo/index.html").read_text()
    for label in ("Grey thumbnail", "Color histogram", "EfficientNet-Lite0", "EfficientNet-Lite2"):
        assert label in page


def test_it_says_how_far_each_model_follows_colors(demo: Tree) -> None:
    report = demo.folder / "results/reports/demo"
    found = json.loads((report / "comparisons.json").read_text())
    overlap = {
        one["model"]: one["evidence"]["color_overlap"] for one in found["follows"] if "color_overlap" in one["evidence"]
    }
    assert set(overlap) == {"pixels", "efficientnet-lite0", "efficientnet-lite2"}
    # a grey thumbnail knows no colors; networks see them, among other things
    assert (
        overlap["pixels"]["high"] < overlap["efficientnet-lite0"]["low"] < overlap["efficientnet-lite0"]["high"] < 0.6
    )
    changes = {name for one in found["follows"] for name in one["evidence"]} - {"color_overlap"}
    assert changes == {"color", "grey", "text", "paste"}
    # the demo has no other architectures, so the claim about CNNs has no model to be compared with
    assert {(one["verdict"], one["reason"]) for one in found["claims"]} == {
        ("undecided", "no model to compare it with")
    }
    page = (report / "index.html").read_text()
    assert "Overlap with color histogram" in page
    assert "follows color and texture" not in page, "claims that cannot be tested are not listed"


def test_a_second_run_has_nothing_to_do(demo: Tree) -> None:
    assert demo.would_run("demo").jobs == []
