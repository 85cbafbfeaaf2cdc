"""A labelled collection, and a folder without any right answer, from the folder to the report."""

import json
from pathlib import Path
from typing import Any

from conftest import made_image
from workflow.conftest import Tree

CONFIG: dict[str, Any] = {
    "run": ["mine"],
    "datasets": {
        "shoes": {"kind": "folder", "root": "shoes", "same": "folder", "k": 3},
        "bare": {"kind": "folder", "root": "shoes", "k": 3},
    },
    "experiments": {
        "mine": {"dataset": "shoes", "models": ["pixels", "color-histogram"]},
        "own": {"dataset": "bare", "models": ["pixels"]},
    },
}


def test_classes_are_measured_and_without_answers_the_neighbors_of_every_image_are_shown(tmp_path: Path) -> None:
    tree = Tree.new(tmp_path / "tree", CONFIG)
    for number in range(15):
        path = tree.folder / f"shoes/{['boot', 'clog', 'sock'][number % 3]}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        made_image(number % 3).rotate(number // 3 * 2).save(path)  # of a class: one image, turned a little
    tree.run("mine", "own")

    measured = json.loads((tree.folder / "results/shoes/metrics/color-histogram/flat.json").read_text())
    assert (measured["queries"], measured["groups"]) == (15, 3)
    assert measured["metrics"]["r_precision"]["value"] > 0.9
    compared = json.loads((tree.folder / "results/reports/mine/comparisons.json").read_text())["comparisons"]
    assert {"accuracy_at_1", "map_at_r", "r_precision"} <= {pair["metric"] for pair in compared}
    page = (tree.folder / "results/reports/mine/index.html").read_text()
    assert "mAP@R" in page
    assert "come from only 3\u00a0classes" in page

    bare = json.loads((tree.folder / "results/bare/metrics/pixels/flat.json").read_text())
    assert {(number["value"], number["n"]) for number in bare["metrics"].values()} == {(None, 0)}
    page = (tree.folder / "results/reports/own/index.html").read_text()
    assert page.count('<article class="row"') == 15
    assert "None of the 15\u00a0queries has a known match" in page
    assert tree.would_run("mine", "own").jobs == []
