"""`lookalike compare` up to the workflow: what it takes, writes and refuses. tests/workflow/test_compare.py runs it."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from conftest import REPOSITORY, ImageFolder, made_image
from lookalike.cli import runs, workflow_run
from lookalike.cli.main import app
from lookalike.cli.workflow_run import Workflow
from lookalike.config.datasets import OPERATIONS
from lookalike.config.files import read
from lookalike.embed import catalogue, onnx_files
from lookalike.embed.models import efficientnet_lite, pixels
from lookalike.job.errors import LookalikeError
from lookalike.plan.plan import Plan
from lookalike.sample import sample


@pytest.fixture
def workdir(tmp_path: Path, image_folder: ImageFolder, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory next to a folder of images; the workflow is not run."""
    image_folder(tmp_path / "My Images (2024)", 9)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(workflow_run, "run", fails)
    return tmp_path


def fails(workflow: Workflow, options: list[str], *, verbose: bool, again: str) -> None:
    raise LookalikeError(f"not run. Then resume with: {again}")


def attempt(*arguments: str, status: int = 1, command: str = "compare", out: str = ".") -> Result:
    """A call that ends with a status: 1 for a refusal, and, in these tests, for the workflow that was not run."""
    result = CliRunner().invoke(app, [command, *arguments, *(["--out", out] if "--out" not in arguments else [])])
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    assert result.stdout == ""
    return result


def written(name: str = "my-my-images-2024") -> Any:
    raw = yaml.safe_load(Path(f"{name}.yaml").read_text(encoding="utf-8"))
    Plan.of(catalogue.merge(yaml.safe_load((REPOSITORY / "config.yaml").read_text()), raw))
    return raw


def test_the_configuration_is_one_that_a_person_can_keep(workdir: Path) -> None:
    stderr = attempt("../My Images (2024)").stderr
    assert written() == {
        "run": ["my-my-images-2024"],
        "datasets": {
            "my-my-images-2024": {"kind": "folder", "root": str(workdir / "My Images (2024)"), "sample": 2000},
            "my-my-images-2024-copies": {"kind": "copies", "of": "my-my-images-2024"}
            | {"queries": 8, "without_match": 1, "operations": list(OPERATIONS), "k": 4},
        },
        "experiments": {
            "my-my-images-2024": {
                "title": "Which model finds the images of My Images (2024)?",
                "dataset": "my-my-images-2024-copies",
                "models": [
                    *("pixels", "color-histogram", "phash-256"),
                    *("efficientnet-lite0", "efficientnet-lite2", "sscd-int8"),
                ],
            }
        },
    }
    text = Path("my-my-images-2024.yaml").read_text()
    command = f"snakemake -s {REPOSITORY}/Snakefile --cores 2 --configfile my-my-images-2024.yaml -- my-my-images-2024"
    assert f"#   {command}\n" in text
    assert "images: 9 in ../My Images (2024); all are used\n" in stderr
    assert "(--models adds others)" in stderr
    assert stderr.endswith("lookalike: not run. Then resume with: lookalike compare '../My Images (2024)' --out .\n")


def test_options_are_what_the_configuration_says(workdir: Path) -> None:
    options = ("--models", "pixels, color-histogram", "--model", "dinov2-base", "--queries", "30", "--sample", "7")
    stderr = attempt("../My Images (2024)", *options, "--name", "two", "--out", "deep/er").stderr
    assert "images: 9 in ../My Images (2024); a random sample of 7 is used (--sample sets its size)" in stderr
    os.chdir("deep/er")
    raw = written("two")
    assert raw["experiments"]["two"]["models"] == ["pixels", "color-histogram", "dinov2-base"]
    assert raw["datasets"]["two"]["sample"] == 7
    assert (raw["datasets"]["two-copies"]["queries"], raw["datasets"]["two-copies"]["k"]) == (30, 3)


def test_a_fifth_of_the_queries_has_no_match(workdir: Path) -> None:
    for number in range(300):
        Path(f"many/{number}").mkdir(parents=True)
        made_image(number, (8, 8)).save(f"many/{number}/a.png")
    attempt("many", "--models", "pixels", "--name", "many")
    copies = written("many")["datasets"]["many-copies"]
    assert (copies["queries"], copies["without_match"]) == (200, 50)


def test_a_configuration_of_an_earlier_version_is_run_unchanged(workdir: Path) -> None:
    arguments = ("../My Images (2024)", "--models", "pixels", "--name", "old", "--queries", "9")
    attempt(*arguments)
    lines = Path("old.yaml").read_text().splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if "More copies, of images" in line)
    last = next(number for number, line in enumerate(lines) if line.startswith("    k: "))
    Path("old.yaml").write_text("".join(lines[:first] + lines[last:]))
    assert "configuration: old.yaml (unchanged)" in attempt(*arguments).stderr
    assert set(written("old")["datasets"]["old-copies"]) == {"kind", "of", "queries", "k"}


def test_the_default_models_are_those_with_local_weights(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet_lite, "_package", lambda variant: f"no-such-package-{variant}")
    in_package = onnx_files._in_package
    monkeypatch.setattr(onnx_files, "_in_package", lambda package, file: in_package(f"no_such_{package}", file))
    attempt("../My Images (2024)")
    assert written()["experiments"]["my-my-images-2024"]["models"] == ["pixels", "color-histogram", "phash-256"]


def test_finding_local_models_reads_no_weights(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for family in (pixels, efficientnet_lite):
        monkeypatch.setattr(family, "fetch", lambda entry: pytest.fail("fetched"))
    attempt("../My Images (2024)")


def test_a_second_comparison_adds_to_the_first_and_keeps_what_a_person_wrote(workdir: Path) -> None:
    folder = "../My Images (2024)"
    attempt(folder, "--models", "pixels", "--name", "mine")
    file = Path("mine.yaml")
    file.write_text(file.read_text().replace("title:", "report: {images: false} # a note of mine\n    title:"))
    assert "configuration: mine.yaml (unchanged)" in attempt(folder, "--models", "pixels", "--name", "mine").stderr
    assert "configuration: mine.yaml (unchanged)" in attempt(folder, "--name", "mine").stderr
    more = attempt(folder, "--models", "phash-256,pixels", "--name", "mine", "--queries", "5").stderr
    assert "configuration: mine.yaml (added to)" in more
    assert "models: pixels, phash-256\n" in more
    assert written("mine")["experiments"]["mine"]["models"] == ["pixels", "phash-256"]
    assert written("mine")["datasets"]["mine-copies"]["queries"] == 5
    text = file.read_text()
    assert "a note of mine" in text
    assert "# Altered copies of them" in text
    file.write_text(text.replace("[pixels, phash-256]", "[pixels,\n      phash-256]"))  # not as it was written
    attempt(folder, "--models", "color-histogram", "--name", "mine")
    assert written("mine")["experiments"]["mine"]["models"] == ["pixels", "phash-256", "color-histogram"]
    file.write_text("run: [mine")
    assert "mine.yaml, line 1: is not valid YAML" in attempt(folder, "--models", "pixels", "--name", "mine").stderr


def test_folders_of_one_name_have_comparisons_of_their_own(workdir: Path, image_folder: ImageFolder) -> None:
    for place in ("a", "b"):
        image_folder(workdir / place / "Pictures", 6)
        attempt(f"../{place}/Pictures", "--models", "pixels")
    first, second = sorted((path.stem for path in Path().glob("*.yaml")), key=len)
    assert first == "my-pictures"
    assert second.startswith("my-pictures-")
    roots = [written(name)["datasets"][name]["root"] for name in (first, second)]
    assert roots == [str(workdir / place / "Pictures") for place in ("a", "b")]
    again = attempt("../b/Pictures", "--models", "phash-256").stderr
    assert f"configuration: {second}.yaml (added to)" in again
    refused = attempt("../b/Pictures", "--name", "my-pictures").stderr
    assert refused.startswith(
        "lookalike: my-pictures.yaml: is not a comparison of ../b/Pictures. Choose another --name"
    )


def test_without_a_place_everything_is_in_the_home_of_comparisons(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_HOME", str(workdir / "home"))
    CliRunner().invoke(app, ["compare", "../My Images (2024)"])
    assert [path.name for path in (workdir / "home").glob("*")] == ["my-my-images-2024.yaml"]
    monkeypatch.delenv("LOOKALIKE_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(workdir / "data"))
    assert runs.home() == workdir / "data/lookalike"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert runs.home() == Path.home() / ".local/share/lookalike"


def test_a_home_that_is_hidden_in_the_folder_is_no_part_of_it(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_HOME", str(workdir / "My Images (2024)/.local/share/lookalike"))
    result = CliRunner().invoke(app, ["compare", "../My Images (2024)"])
    assert "lookalike: not run." in result.stderr


def test_the_earlier_name_works_and_tells_the_new_one(workdir: Path) -> None:
    stderr = attempt("../My Images (2024)", "--models", "pixels", command="try").stderr
    assert stderr.startswith("`lookalike try` is now `lookalike compare`.\nimages: 9 in")
    assert written()
    assert " try " not in CliRunner().invoke(app, ["--help"]).stdout


def test_a_changed_folder_is_read_again_with_the_same_configuration(
    workdir: Path, image_folder: ImageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def run(workflow: Workflow, options: list[str], *, verbose: bool, again: str) -> None:
        """What a run does first, if it is necessary."""
        calls.append(options)
        images = Path("results/mine/sample/images.parquet")
        if options or not images.exists():
            images.parent.mkdir(parents=True, exist_ok=True)
            key = Plan.of(catalogue.merge(read(catalogue.find()), read(Path("mine.yaml")))).dataset_key("mine")
            sample.sample(sample.SampleJob("mine", key, None, images, images.with_name("truth.parquet")))
        fails(workflow, options, verbose=verbose, again=again)

    monkeypatch.setattr(workflow_run, "run", run)
    again = ["--forcerun", "results/mine/sample/images.parquet"]
    folder = workdir / "My Images (2024)"
    for change, expected in [
        (lambda: None, []),
        (lambda: None, []),
        (lambda: image_folder(folder / "more", 5), again),
        (lambda: None, []),
        ((folder / "more/p0.png").unlink, again),
        (lambda: next(folder.glob("*.png")).write_bytes(b"another one"), again),
        (lambda: None, []),
        (lambda: (folder / "more/p1.png").write_bytes(bytes((folder / "more/p1.png").stat().st_size)), again),
    ]:
        change()
        stderr = attempt("../My Images (2024)", "--models", "pixels", "--name", "mine").stderr
        assert calls[-1] == expected
        assert ("the folder has changed since the last run: reading it again\n" in stderr) == bool(expected)
    copies = written("mine")["datasets"]["mine-copies"]
    assert (copies["queries"], copies["without_match"], copies["k"]) == (12, 2, 7)  # as for 14 images, once there were


def test_chosen_numbers_do_not_grow_with_the_folder(workdir: Path, image_folder: ImageFolder) -> None:
    attempt("../My Images (2024)", "--models", "pixels", "--name", "mine", "--queries", "5")
    image_folder(workdir / "My Images (2024)/more", 5)
    attempt("../My Images (2024)", "--name", "mine")
    assert written("mine")["datasets"]["mine-copies"]["queries"] == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["../few"], "FOLDER: '../few' has only 5 images. Choose one with 6 or more"),
        (["../none"], "FOLDER: '../none' contains no images (looked for .jpg"),
        (["../enough", "--models", "pixel"], "model 'pixel' is not defined. Did you mean 'pixels'?"),
        (["../enough", "--name", "demo"], "--name demo: 'demo' is already in the catalogue's experiments. Choose"),
        (
            ["../enough", "--name", "photo-tiles"],
            "--name photo-tiles: 'photo-tiles' is already in",
        ),
        (["../enough", "--name", "search"], "--name search: experiments.search: is already the name of a rule"),
        (["../enough", "--name", "a/b"], "--name a/b: names are parts of paths."),
        (["../enough", "--out", "../enough/x"], "--out ../enough/x: is inside the folder of the images"),
        ([".."], "--out .: is inside the folder of the images"),
        (["../enough", "--out", "/proc/no"], "/proc/no: cannot be written ("),
    ],
)
def test_a_refusal_gives_the_reason_and_writes_nothing(
    workdir: Path, image_folder: ImageFolder, arguments: list[str], message: str
) -> None:
    image_folder(workdir / "enough", 6)
    image_folder(workdir / "few", 5)
    (workdir / "none").mkdir()
    stderr = attempt(*arguments).stderr
    assert stderr.startswith(f"lookalike: {message}")
    assert stderr.count("\n") == 1
    assert not list(workdir.rglob("*.yaml"))


@pytest.mark.parametrize(
    ("command", "remedy"),
    [
        (["compare", "IMAGES"], "Set LOOKALIKE_HOME to a folder that you can write to."),
        (["find", "IMAGE", "IMAGES", "--no-sheet"], "Set LOOKALIKE_HOME to a folder that you can write to."),
        (["find", "IMAGE", "IMAGES", "--sheet", "file/x.png"], "Choose --sheet FILE in another folder, or --no-sheet."),
        (["duplicates", "IMAGES", "--out", "file/x"], "Choose a folder for the results: --out FOLDER"),
        (["export", "demo", "--trec", "--out", "file/x"], "Choose a folder for the files: --out FOLDER"),
    ],
)
def test_results_that_could_not_be_written_are_not_computed_first(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], remedy: str
) -> None:
    Path("file").write_text("in the way of a folder")
    monkeypatch.setenv("LOOKALIKE_HOME", str(Path("file/home").absolute()))
    images = workdir / "My Images (2024)"
    names = {"IMAGES": str(images), "IMAGE": str(next(iter(sorted(images.iterdir()))))}
    result = CliRunner().invoke(app, [names.get(word, word) for word in command])
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"lookalike: {Path('file').absolute()}")
    assert line.endswith(f" {remedy}")
    assert "cannot be written" in line


@pytest.mark.parametrize(("folder", "name"), [('Ferien: #1 "ö"', "my-ferien-1"), ("写真", "my-images")])
def test_a_folder_can_have_any_name(workdir: Path, image_folder: ImageFolder, folder: str, name: str) -> None:
    image_folder(workdir / folder, 6)
    attempt(f"../{folder}", "--models", "pixels")
    assert written(name)["datasets"][name]["root"] == str(workdir / folder)
