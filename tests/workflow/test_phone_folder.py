"""A phone folder (shots of scenes, re-saved copies, screenshots): the first sentence is right for both needs."""

import json
import re
from pathlib import Path

import phone_folder
from workflow.conftest import Tree, keep_report

MODELS = ["efficientnet-lite0", "pixels"]


def test_the_headline_of_a_phone_folder_is_right_for_both_needs(tmp_path: Path) -> None:
    """Strictly, other shots of the right scene are misses; the answer is by what a person would call right."""
    entry = {**phone_folder.make(tmp_path / "photos", scenes=30).entry(), "k": 5}
    tree = Tree.new(
        tmp_path / "tree",
        {
            "run": ["phone"],
            "datasets": {"phone": entry},
            "experiments": {"phone": {"dataset": "phone", "models": MODELS}},
        },
    )
    tree.run()
    keep_report(tree, "phone", "phone")
    compared = json.loads((tree.folder / "results/reports/phone/comparisons.json").read_text())
    looks, acts = compared["answers"]["someone_looks"], compared["answers"]["acts_alone"]
    measured = {
        model: json.loads((tree.folder / f"results/phone/metrics/{model}/flat.json").read_text()) for model in MODELS
    }
    # Strictly, models look equal, and none can act alone; but most of what the network found shows the right scene.
    network, thumbnail = (measured[model]["metrics"] for model in MODELS)
    verdicts = {one["metric"]: one["verdict"] for one in compared["comparisons"]}
    assert abs(network["accuracy_at_1"]["value"] - thumbnail["accuracy_at_1"]["value"]) < 0.15
    assert network["accuracy_at_1_scene"]["value"] > thumbnail["accuracy_at_1_scene"]["value"] + 0.1
    assert (verdicts["accuracy_at_1"], verdicts["accuracy_at_1_scene"]) == ("cannot tell", "better")
    assert network["recall_at_p90"]["value"] < 0.1 < network["recall_at_p90_scene"]["value"]
    for answer in (looks, acts):
        assert answer["metric"].endswith("_scene")
        of_top = measured[answer["best"][0]]["metrics"]
        strict = answer["metric"].removesuffix("_scene")
        assert answer["estimate"] == of_top[answer["metric"]]
        assert answer["strict"] == of_top[strict]
    assert (looks["best"], looks["verdict"]) == ([MODELS[0]], "best")
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
    (looking, acting), (compared_by, _) = (
        re.findall(rf'<p class="{part}">(.*)</p>', page)[:2] for part in ("answer", "more")
    )
    assert all("if another image of the same scene is a miss)" in sentence for sentence in (looking, acting))
    assert compared_by == "EfficientNet-Lite0 is significantly better than the other model."
    assert "90\N{NO-BREAK SPACE}% precision" in acting
    assert "Misses that may be right." in page
