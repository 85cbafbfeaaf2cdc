"""`lookalike check`: what a user has put there, told before a run."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

import published
from lookalike.cli.main import app


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
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


def test_a_complete_data_set_is_told_part_by_part_with_what_a_run_takes(here: Path) -> None:
    told = check("mine", "--configfile", "mine.yaml").stdout
    for line in (
        "DISC21 in data/disc21, as 'mine' uses it",
        "12 of 1,000,000 images",
        "refs_50k_0.zip, refs_50k_01.zip",
        "a run uses 8 references (expected: 8)",
        "a run uses 2 queries (expected: 2)",
        "a run uses 2 true pairs\n",
        "Complete.",
    ):
        assert line in told
    assert not (here / "results").exists()


def test_what_is_missing_is_told_with_where_to_get_it_and_status_1(here: Path) -> None:
    told = check("disc21", status=1).stdout
    assert "missing: references: R000012 to R149999 (149,988 images), of R000000 to R149999 that are requested" in told
    assert "Fetch it from: Meta AI" in told
    assert "Licence: " in told
    assert "Put it into: data/disc21" in told
    assert "Complete." not in told


def test_json_says_the_same_and_nothing_else(here: Path) -> None:
    told = json.loads(check("mine", "--configfile", "mine.yaml", "--json").stdout)
    assert told["complete"] is True
    assert told["counts"] == {"references": 8, "queries": 2, "training": 0, "pairs": 2}
    assert [part["name"] for part in told["parts"]] == ["references", "development queries", "ground truth"]
    assert told["parts"][0]["places"] == ["refs_50k_0.zip", "refs_50k_01.zip"]
    told = json.loads(check("flickr30k", "--json", status=1).stdout)
    assert told["complete"] is False
    assert [bool(part["missing"]) for part in told["parts"]] == [True, True]
    assert told["how_to_get"][2].startswith("Put it into: data/flickr30k")


def test_a_data_set_that_lies_a_folder_too_deep_is_seen(here: Path) -> None:
    published.coco(here / "data/coco/downloads", zipped=True)
    (here / "data/coco/notes").mkdir()
    told = check("coco", status=1).stdout
    too_deep = "one level too deep (move them up, or set 'root' to that folder): 1, downloads\n"
    assert f"note: annotations: folders with parts of it, {too_deep}" in told
    assert "that this data set does not use: 1, notes\n" in told


def test_a_download_that_was_cut_short_hides_nothing_else_that_is_missing(here: Path) -> None:
    published.coco(here / "data/coco", zipped=True)
    for name in ("val2017.zip", "annotations_trainval2017.zip"):
        (here / "data/coco" / name).write_text("<html>403</html>")
    told = check("coco", status=1).stdout
    for line in ("images: val2017.zip is not a zip", "annotations: annotations_trainval2017.zip is not a zip"):
        assert f"missing: {line}" in told
    assert told.count("fetch it again") == 2
    assert "Fetch it from: the COCO consortium" in told


def test_a_folder_of_outside_pictures_that_is_not_there_is_said_as_a_run_would(here: Path) -> None:
    entry = yaml.safe_load((here / "mine.yaml").read_text())["datasets"]["mine"]
    configure(here, {**entry, "showcase": "laptops"})
    told = check("mine", "--configfile", "mine.yaml", status=1)
    assert "datasets.mine.showcase: the folder 'laptops' does not exist" in told.stderr
    assert "Complete." not in told.stdout


def test_another_count_than_expected_is_status_1(here: Path) -> None:
    entry = yaml.safe_load((here / "mine.yaml").read_text())["datasets"]["mine"]
    configure(here, {**entry, "expect": {"queries": 3}})
    told = check("mine", "--configfile", "mine.yaml", status=1).stdout
    assert "unexpected: 3 queries were expected, and 2 found" in told
    assert "Likely missing: development queries: Q00006 to Q49999" in told


def test_the_cost_of_the_experiments_on_a_data_set_is_told_before_a_run(here: Path) -> None:
    experiment = {"dataset": "mine", "models": ["pixels", "color-histogram"]}
    entry = yaml.safe_load((here / "mine.yaml").read_text())["datasets"]["mine"]
    written = {"datasets": {"mine": entry}, "experiments": {"x": experiment}}
    (here / "mine.yaml").write_text(yaml.safe_dump(written))
    shown = check("mine", "--configfile", "mine.yaml").stdout
    assert "cost: mine: 2 models x 10 images to embed: time not known, since no such job has run yet, 30.7 kB" in shown
    unmeasured = {"images": 10, "seconds": None, "device": ""}
    assert json.loads(check("mine", "--configfile", "mine.yaml", "--json").stdout)["cost"] == [
        {"model": "pixels", "bytes": 10 * 256 * 4} | unmeasured,
        {"model": "color-histogram", "bytes": 10 * 512 * 4} | unmeasured,
    ]


def test_a_data_set_that_is_not_published_or_not_there_is_refused(here: Path) -> None:
    assert check("photo-tiles", status=1).stderr == (
        "lookalike: datasets.photo-tiles: is of kind 'photo_tiles', which needs no download. Choose a data set of "
        "kind disc21, flickr30k or coco.\n"
    )
    assert "data set 'disc12' is not defined. Did you mean 'disc21'?" in check("disc12", status=1).stderr
    assert check(status=2).stdout == ""


def test_help_has_an_example(here: Path) -> None:
    assert "lookalike check disc21" in check("--help").stdout
