"""`lookalike use`, and the verdicts of `pair`: the model and the threshold of the last comparison."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner, Result

from conftest import made_image
from lookalike.cli import runs
from lookalike.cli.main import app
from lookalike.io import store
from lookalike.io.formats.answers import Answer
from lookalike.io.formats.records import Comparisons, Estimate, Metrics
from lookalike.io.formats.tables import NEIGHBORS
from lookalike.io.formats.thresholds import Safe, Target, Transfer

NOTHING = Estimate(value=None, low=None, high=None, n=0)
CONFIG = {
    "run": ["mine"],
    "datasets": {"mine": {"kind": "folder", "root": "/x"}, "mine-copies": {"kind": "copies", "of": "mine"}},
    "models": {"tiny": {"label": "Tiny", "embed": {"family": "pixels", "size": 4}}},
    "experiments": {"mine": {"dataset": "mine-copies", "models": ["color-histogram", "tiny", "pixels"]}},
}
FEW = {"verdict": "too few queries", "queries_needed": 900}


def target(score: float | None, verdict: str = "holds", queries_needed: int | None = None) -> Target:
    safe = None if score is None else Safe(score=score, precision=0.97, bound=0.951, recall=0.6, groups=90)
    transfer = Transfer(precision=NOTHING, recall=0.5, without=0.0, halves=100)
    rest = {"queries_needed": queries_needed, "false_matches_per_query": 0.01, "share_with_match": 0.8}
    return Target(seen=None, safe=safe, transfer=transfer, verdict=verdict, **rest)


@pytest.fixture
def compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A remembered comparison of three models: the best has no threshold that holds for 95 %, the second has."""
    monkeypatch.setenv("LOOKALIKE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(CONFIG))
    order = ["color-histogram", "tiny", "pixels"]
    answer = Answer(need="acts_alone", metric="uap", index="flat", verdict="cannot tell", best=order, estimate=NOTHING)
    looks = answer.model_copy(update={"need": "someone_looks", "best": order[::-1]})
    results = tmp_path / "results"
    both = {"acts_alone": answer, "someone_looks": looks}
    made = Comparisons(experiment="mine", comparisons=[], answers=both)
    store.write_json(made, results / "reports/mine/comparisons.json")
    few = target(None, **FEW)
    for model, targets in {
        "color-histogram": {"90": target(0.5), "95": few, "99": few},
        "tiny": {"90": target(0.4), "95": target(0.75), "99": few},
        "pixels": {"90": few, "95": few, "99": target(None, "does not hold")},
    }.items():
        counts = dict.fromkeys(("references", "queries", "groups", "rejected_references", "rejected_queries"), 9)
        names = {"dataset": "mine-copies", "model": model, "index": "flat"}
        metrics = Metrics(**names, **counts, metrics={}, breakdowns={}, thresholds=targets, timing={})
        store.write_json(metrics, results / f"mine-copies/metrics/{model}/flat.json")
        footer = {"key": json.dumps({"family": "pixels", "size": 4}), "dimension": 16}
        neighbors = results / f"mine-copies/neighbors/{model}/flat.parquet"
        store.write_table(NEIGHBORS.schema().empty_table(), neighbors, NEIGHBORS, footer)
    runs.remember(runs.Run(folder="/x", experiment="mine", configfile=str(tmp_path / "mine.yaml")))
    return tmp_path


def call(*arguments: str, status: int = 0) -> Result:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == status, result.output
    return result


def use(*arguments: str, status: int = 0) -> Any:
    return json.loads(call("use", *arguments, "--json", status=status).stdout)


def test_the_first_model_whose_threshold_holds_is_used(compared: Path) -> None:
    facts = use()
    assert (facts["experiment"], facts["model"], facts["precision"]) == ("mine", "tiny", 95)
    assert (facts["verdict"], facts["threshold"], facts["recall"]) == ("holds", 0.75, 0.6)
    assert use("mine", "--precision", "90")["model"] == "color-histogram"
    shown = call("use").stdout
    assert "model: tiny (Tiny)\nthreshold: 0.7500\nverdict: holds. Of the pairs with at least this score, 97" in shown
    assert "where 80% of the queries have a match" in shown


def test_any_percentage_gets_the_threshold_of_the_next_stricter_one_and_is_told(compared: Path) -> None:
    assert use("--precision", "92") == use()
    told = "thresholds are measured for 90, 95 and 99 % precision: that for 95 % is used\n"
    assert (call("use", "--precision", "92").stderr, call("use").stderr) == (told, "")


def test_the_code_computes_with_the_run_s_model_and_threshold(compared: Path) -> None:
    for name, number in (("a.jpg", 1), ("b.jpg", 2), ("query.jpg", 2)):
        made_image(number).save(compared / name)
    names: dict[str, Any] = {}
    exec(use()["code"], names)
    assert (names["model"].dimension, names["threshold"]) == (16, 0.75)
    np.testing.assert_array_equal(names["accepted"], [[False, True]])


def test_where_no_threshold_holds_the_status_is_1_and_the_last_line_helps(compared: Path) -> None:
    facts = use("--precision", "99", status=1)
    assert (facts["verdict"], facts["threshold"]) == ("too few queries", None)
    assert "threshold =" not in facts["code"], "an unproven number is none to copy"
    assert call("use", "--precision", "99", status=1).stderr == (
        "lookalike: no threshold of color-histogram for 99 % precision holds: too few queries. About 900 queries are "
        "needed: lookalike compare /x --queries 900\n"
    )
    assert call("use", "--model", "pixels", "--precision", "99", status=1).stderr.endswith(
        "does not hold. Compare other models (`lookalike models` lists them): lookalike compare /x --models A,B\n"
    )


def test_a_lower_precision_is_suggested_only_where_it_holds(compared: Path) -> None:
    def without_estimate(model: str, **targets: Target) -> None:
        path = compared / f"results/mine-copies/metrics/{model}/flat.json"
        metrics = store.read_json(path, Metrics)
        few = dict.fromkeys(("90", "95", "99"), target(None, "too few queries"))
        store.write_json(metrics.model_copy(update={"thresholds": few | targets}), path)

    without_estimate("color-histogram")
    assert call("use", "--precision", "99", status=1).stderr.endswith(
        "That of tiny for 95 % holds: lookalike use mine --precision 95\n"
    )
    without_estimate("tiny")
    for precision in ("90", "99"):  # nothing holds, so a lower precision would only lead to the same answer
        assert call("use", "--precision", precision, status=1).stderr.endswith(
            "Add images to the folder, or at least compare with more copies: lookalike compare /x --queries 200\n"
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["mien"], "there is no comparison or experiment 'mien'. Did you mean 'mine'?"),
        (["--precision", "100"], "--precision 100: is in percent. Choose a whole number from 1 to 99."),
        (["--precision", "0"], "--precision 0: is in percent. Choose a whole number from 1 to 99."),
        (["--model", "tinny"], "experiment 'mine' has no model 'tinny'. Did you mean 'tiny'?"),
    ],
)
def test_what_is_not_there_is_refused(compared: Path, options: list[str], message: str) -> None:
    assert call("use", *options, status=1).stderr == f"lookalike: {message}\n"


def test_without_a_comparison_use_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_HOME", str(tmp_path))
    assert call("use", status=1).stderr.endswith("Compare models on your images: lookalike compare FOLDER\n")


def test_a_pair_is_judged_by_the_last_comparison(compared: Path) -> None:
    for number in (1, 2):
        made_image(number).save(f"{number}.png")

    def verdicts(*options: str) -> dict[str, str]:
        rows = json.loads(call("pair", *options, "--models", "tiny,pixels", "--json").stdout)["models"]
        return {row["model"]: row["verdict"] for row in rows}

    assert verdicts("1.png", "1.png") == {"tiny": "same", "pixels": "no threshold"}
    assert verdicts("1.png", "2.png")["tiny"] == "not the same"
    assert "at 90 % precision" in call("pair", "1.png", "2.png", "--model", "tiny", "--precision", "90").stdout


def test_the_doctor_shows_the_last_comparison_and_folders_that_cannot_be_written(
    compared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_CACHE", str(compared / "mine.yaml/cache"))
    shown = CliRunner().invoke(app, ["doctor"])
    assert shown.exit_code == 1
    assert "\nlast comparison: mine, of /x\n" in shown.stdout
    assert f"\ncomparisons: {compared}, " in shown.stdout
    problem = f"PROBLEM cache: {compared}/mine.yaml/cache: cannot be written; set LOOKALIKE_CACHE to another folder\n"
    assert problem in shown.stdout
    (record,) = (compared / "runs").glob("*.json")
    record.write_text(record.read_text().replace("/x", "/y"))
    assert f"PROBLEM last comparison: {record}: " in CliRunner().invoke(app, ["doctor"]).stdout
