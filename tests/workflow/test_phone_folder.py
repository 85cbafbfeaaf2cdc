"""A phone folder (shots of scenes, re-saved copies, screenshots): the first sentence is right for both needs."""

import json
from pathlib import Path

import phone_folder
from workflow.conftest import Tree

MODELS = ["efficientnet-lite0", "color-histogram", "pixels"]


def test_the_headline_of_a_phone_folder_is_right_for_both_needs(tmp_path: Path) -> None:
    """Strictly, other shots of the right scene are misses; the answer is by what a person would call right."""
    entry = {**phone_folder.make(tmp_path / "photos").entry(), "k": 5}
    tree = Tree.new(
        tmp_path / "tree",
        {
            "run": ["phone"],
            "datasets": {"phone": entry},
            "experiments": {"phone": {"dataset": "phone", "models": MODELS}},
        },
    )
    tree.run()
    compared = json.loads((tree.folder / "results/reports/phone/comparisons.json").read_text())
    looks, acts = compared["answers"]["someone_looks"], compared["answers"]["acts_alone"]
    measured = {
        model: json.loads((tree.folder / f"results/phone/metrics/{model}/flat.json").read_text()) for model in MODELS
    }
    # near-duplicates and other shots are no misses, and that matters here
    assert (looks["metric"], looks["best"][0]) == ("accuracy_at_1_scene", "efficientnet-lite0")
    of_network = measured["efficientnet-lite0"]["metrics"]
    assert looks["estimate"]["value"] == of_network["accuracy_at_1_scene"]["value"] > looks["strict"]["value"]
    assert looks["strict"] == of_network["accuracy_at_1"]
    # each answer is the one that its metric and the tests give
    for answer in (looks, acts):
        values = {model: measured[model]["metrics"][answer["metric"]]["value"] for model in MODELS}
        assert values[answer["best"][0]] == max(values.values())
        verdicts = {
            (one["a"], one["b"]): one["verdict"] for one in compared["comparisons"] if one["metric"] == answer["metric"]
        }
        turned = {(b, a): {"better": "worse", "worse": "better"}.get(one, one) for (a, b), one in verdicts.items()}
        top = answer["best"][0]
        assert set(answer["worse"]) == {
            b for (a, b), one in (verdicts | turned).items() if a == top and one == "better"
        }
    page = (tree.folder / "results/reports/phone/index.html").read_text()
    (sentence,) = [line for line in page.splitlines() if line.startswith('<p class="answer">')]
    assert "EfficientNet-Lite0 ranks a true match first" in sentence
    assert "if another image of the same scene is a miss)" in sentence
    if acts["best"] and acts["estimate"]["value"]:
        leader = {"color-histogram": "Color histogram", "pixels": "Grey thumbnail", "efficientnet-lite0": "it finds"}
        assert leader[acts["best"][0]] in sentence.partition("o act alone, ")[2]
