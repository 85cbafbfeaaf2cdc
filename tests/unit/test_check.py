"""`lookalike check`: a downloaded data set, checked before a run."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

import published
from lookalike.cli.main import app


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: DISC21 in miniature where the catalogue looks for it, and an entry that needs no more."""
    published.disc21(tmp_path / "data/disc21", zipped=True)
    mine = {"kind": "disc21", "root": "data/disc21", "references": {"first": 8}, "queries": "positives"}
    configure(tmp_path, {**mine, "expect": {"references": 8, "queries": 2}})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def configure(folder: Path, entry: dict[str, Any]) -> None:
    (folder / "mine.yaml").write_text(yaml.safe_dump({"datasets": {"mine": entry}}))


def check(*arguments: str, status: int = 0) -> Result:
    result = CliRunner().invoke(app, ["check", *arguments])
    assert result.exit_code == status, result.output
    return result


def test_a_complete_data_set_is_listed_part_by_part_with_what_a_run_uses(workdir: Path) -> None:
    output = check("mine", "--configfile", "mine.yaml").stdout
    for line in (
        "DISC21 in data/disc21, as 'mine' uses it",
        "12 of 1,000,000 images",
        "refs_50k_0.zip, refs_50k_01.zip",
        "a run uses 8 references (expected: 8)",
        "a run uses 2 queries (expected: 2)",
        "a run uses 2 true pairs\n",
        "Complete.",
    ):
        assert line in output
    assert not (workdir / "results").exists()


def test_missing_parts_are_reported_with_their_source_and_status_1(workdir: Path) -> None:
    output = check("disc21", status=1).stdout
    assert (
        "missing: references: R000012 to R149999 (149,988 images), of R000000 to R149999 that are requested" in output
    )
    assert "Fetch it from: Meta AI" in output
    assert "Licence: " in output
    assert "Put it into: data/disc21" in output
    assert "Complete." not in output


def test_json_has_the_same_facts_and_nothing_else(workdir: Path) -> None:
    output = json.loads(check("mine", "--configfile", "mine.yaml", "--json").stdout)
    assert output["complete"] is True
    assert output["counts"] == {"references": 8, "queries": 2, "training": 0, "pairs": 2}
    assert [part["name"] for part in output["parts"]] == ["references", "development queries", "ground truth"]
    assert output["parts"][0]["places"] == ["refs_50k_0.zip", "refs_50k_01.zip"]
    output = json.loads(check("flickr30k", "--json", status=1).stdout)
    assert output["complete"] is False
    assert [bool(part["missing"]) for part in output["parts"]] == [True, True]
    assert output["how_to_get"][2].startswith("Put it into: data/flickr30k")


def test_a_data_set_one_folder_too_deep_is_recognised(workdir: Path) -> None:
    published.coco(workdir / "data/coco/downloads", zipped=True)
    (workdir / "data/coco/notes").mkdir()
    output = check("coco", status=1).stdout
    too_deep = "one level too deep (move them up, or set 'root' to that folder): 1, downloads\n"
    assert f"note: annotations: folders with parts of it, {too_deep}" in output
    assert "that this data set does not use: 1, notes\n" in output


def test_a_truncated_download_hides_no_other_missing_part(workdir: Path) -> None:
    published.coco(workdir / "data/coco", zipped=True)
    for name in ("val2017.zip", "annotations_trainval2017.zip"):
        (workdir / "data/coco" / name).write_text("<html>403</html>")
    output = check("coco", status=1).stdout
    for line in ("images: val2017.zip is not a zip", "annotations: annotations_trainval2017.zip is not a zip"):
        assert f"missing: {line}" in output
    assert output.count("fetch it again") == 2
    assert "Fetch it from: the COCO consortium" in output


def test_a_missing_showcase_folder_is_reported_as_by_a_run(workdir: Path) -> None:
    entry = yaml.safe_load((workdir / "mine.yaml").read_text())["datasets"]["mine"]
    configure(workdir, {**entry, "showcase": "laptops"})
    output = check("mine", "--configfile", "mine.yaml", status=1)
    assert "datasets.mine.showcase: the folder 'laptops' does not exist" in output.stderr
    assert "Complete." not in output.stdout


def test_another_count_than_expected_is_status_1(workdir: Path) -> None:
    entry = yaml.safe_load((workdir / "mine.yaml").read_text())["datasets"]["mine"]
    configure(workdir, {**entry, "expect": {"queries": 3}})
    output = check("mine", "--configfile", "mine.yaml", status=1).stdout
    assert "unexpected: 3 queries were expected, and 2 found" in output
    assert "Likely missing: development queries: Q00006 to Q49999" in output


def test_the_cost_of_the_experiments_on_a_data_set_is_estimated(workdir: Path) -> None:
    experiment = {"dataset": "mine", "models": ["pixels", "color-histogram"]}
    entry = yaml.safe_load((workdir / "mine.yaml").read_text())["datasets"]["mine"]
    written = {"datasets": {"mine": entry}, "experiments": {"x": experiment}}
    (workdir / "mine.yaml").write_text(yaml.safe_dump(written))
    shown = check("mine", "--configfile", "mine.yaml").stdout
    assert "cost: mine: 2 models x 10 images to embed: time unknown, since no such job has run yet, 30.7 kB" in shown
    unmeasured = {"images": 10, "seconds": None, "device": "", "approximate": False}
    assert json.loads(check("mine", "--configfile", "mine.yaml", "--json").stdout)["cost"] == [
        {"model": "pixels", "bytes": 10 * 256 * 4} | unmeasured,
        {"model": "color-histogram", "bytes": 10 * 512 * 4} | unmeasured,
    ]


def test_a_data_set_that_is_not_published_or_not_defined_is_refused(workdir: Path) -> None:
    assert check("photo-tiles", status=1).stderr == (
        "lookalike: datasets.photo-tiles: is of kind 'photo_tiles', which needs no download. Choose a data set of "
        "kind disc21, flickr30k or coco.\n"
    )
    assert "data set 'disc12' is not defined. Did you mean 'disc21'?" in check("disc12", status=1).stderr
    assert check(status=2).stdout == ""


def test_help_has_an_example(workdir: Path) -> None:
    assert "lookalike check disc21" in check("--help").stdout
