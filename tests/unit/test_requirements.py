"""Without the packages of an extra everything else works, and what needs them says how to install them."""

import importlib.util
import json
import os
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import published
import tiny
from conftest import REPOSITORY, made_image
from lookalike.cli.main import app
from lookalike.embed import encoders, export
from lookalike.io import store
from lookalike.io.formats.exports import Export
from lookalike.io.formats.records import Weights
from lookalike.job import packages
from lookalike.job.errors import ConfigError, LookalikeError
from lookalike.plan import requirements, start
from lookalike.plan.plan import Plan

HUB = "torch and transformers are not installed. Run: pip install 'lookalike[hub]'"
CATALOGUE = yaml.safe_load((REPOSITORY / "config.yaml").read_text())


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python in which torch and transformers cannot be imported, as where they are not installed."""
    real, absent = importlib.util.find_spec, ("torch", "transformers")
    for name in absent:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name in absent else real(name, *more))


def encoded(checkpoint: Path) -> tuple[str, Weights]:
    """The key of a checkpoint's `embed:` entry, and its weights."""
    key = json.dumps({"family": "transformers", "checkpoint": str(checkpoint), "feature": "pooler_output"})
    parsed = encoders.parse(key)
    return key, encoders.family(parsed).fetch(parsed)


def test_what_is_missing_says_which_extra_has_it() -> None:
    assert packages.why_missing(["torch", "transformers"]) == HUB
    assert packages.why_missing(["faiss"]).startswith("faiss is not installed. Run: pip install 'lookalike[cpu]' (")
    assert packages.missing(["numpy", "no_such_package"]) == ["no_such_package"]
    assert packages.missing_import(ModuleNotFoundError("gone", name="torch.cuda")) == packages.why_missing(["torch"])
    assert packages.missing_import(ModuleNotFoundError("gone", name="numpi")) is None
    assert packages.missing_import(ImportError("libcudart is gone", name="torch")) is None


def test_each_package_of_an_extra_is_in_it_and_none_in_the_base_installation() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    for module, extra in packages.EXTRAS.items():
        name = module.replace("_", "-")
        assert any(line.startswith(name) for line in project["optional-dependencies"][extra]), module
        assert not any(line.startswith(name) for line in project["dependencies"]), module
    assert {module for modules in requirements.NEEDS.values() for module in modules} <= packages.EXTRAS.keys()


def test_loading_a_model_of_the_hub_without_torch_is_an_error_with_the_remedy(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    key, weights = encoded(tiny.vit(tmp_path / "vit"))
    request.getfixturevalue("without_torch")
    with pytest.raises(LookalikeError, match=r"vit: torch is not installed\. Run: pip install 'lookalike\[hub\]'$"):
        encoders.load(key, weights, encoders.Machine())


def test_an_exported_network_needs_no_torch_and_one_that_is_not_exported_yet_does(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    key, weights = encoded(tiny.vit(tmp_path / "vit"))
    models = {"vit": {"embed": json.loads(key), "runtime": {"gpu": 0}}}
    plan = Plan.of({**CATALOGUE, "models": {**CATALOGUE["models"], **models}})
    store.write_json(weights, plan.weights("vit"))
    (path,) = plan.exports("vit")
    exporting = export.ExportJob(plan.weights("vit"), path, plan.export_key("vit"), "code", batch_size=2, threads=1)
    export.export(exporting)
    image = encoders.load(key, weights, encoders.Machine(), path).prepare(made_image(1))
    expected = encoders.load(key, weights, encoders.Machine(), path).encode(image[None])

    request.getfixturevalue("without_torch")
    assert requirements.missing(plan, "vit") == []
    assert (encoders.load(key, weights, encoders.Machine(), path).encode(image[None]) == expected).all()
    wildcards = {"weights": path.split("/")[2], "export": path.split("/")[3]}
    embed = ("embed", {"dataset": "photos", "model": "vit", "shard": "images-00000"})
    assert requirements.report(plan, [embed, ("measure", {})]) == []
    assert requirements.report(plan, [("export", wildcards), embed]) == [f"models.vit: {HUB}"]
    with pytest.raises(LookalikeError, match="torch is not installed"):
        export.export(export.ExportJob(plan.weights("vit"), "other/export.json", plan.export_key("vit"), "x", 2, 1))
    assert not Path("other/export.json").exists(), "a record would make a later run embed with torch"
    store.write_json(store.read_json(path, Export).model_copy(update={"engine": "torch", "network": None}), path)
    assert requirements.report(plan, [embed]) == [f"models.vit: {HUB}"]


@pytest.mark.usefixtures("without_torch")
def test_check_says_what_the_models_of_a_data_set_need_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.disc21(tmp_path / "data/disc21", zipped=True)
    monkeypatch.chdir(tmp_path)
    mine = {"kind": "disc21", "root": "data/disc21", "references": {"first": 8}, "queries": "positives"}
    experiment = {"dataset": "mine", "models": ["pixels", "dinov2-base", "clip-vit-b32"]}
    Path("mine.yaml").write_text(yaml.safe_dump({"datasets": {"mine": mine}, "experiments": {"x": experiment}}))
    ran = CliRunner().invoke(app, ["check", "mine", "--configfile", "mine.yaml"])
    message = f"models.dinov2-base, models.clip-vit-b32: {HUB}"
    assert (ran.exit_code, ran.stdout.splitlines()[-1]) == (1, f"missing: {message}")
    as_json = json.loads(CliRunner().invoke(app, ["check", "mine", "--configfile", "mine.yaml", "--json"]).stdout)
    assert (as_json["complete"], as_json["packages"]) == (True, [message])


@pytest.mark.usefixtures("without_torch")
def test_commands_say_it_before_a_download_and_list_such_models_as_not_available(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made_image(1).save("a.png")
    ran = CliRunner().invoke(app, ["pair", "a.png", "a.png", "--model", "dinov2-base"])
    assert (ran.exit_code, ran.stderr) == (1, f"lookalike: models.dinov2-base: {HUB}\n")
    rows = json.loads(CliRunner().invoke(app, ["models", "--json"]).stdout)["models"]
    state = {row["model"]: (row["local"], row["missing"]) for row in rows}
    assert state["pixels"] == state["phash-256"] == (True, None)
    assert state["dinov2-base"] == (False, HUB)


def test_a_snakefile_of_another_copy_than_the_library_is_refused(tmp_path: Path) -> None:
    start.check_same_copy(str(REPOSITORY))
    (tmp_path / "link").symlink_to(REPOSITORY)
    start.check_same_copy(str(tmp_path / "link"))
    with pytest.raises(ConfigError, match="imports the library of another copy of Lookalike"):
        start.check_same_copy(str(tmp_path))


def test_an_installed_library_reaches_a_conda_environment_without_the_packages_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site-packages"
    (site / "lookalike").mkdir(parents=True)
    (site / "numpy").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "/mine")
    monkeypatch.setattr(start, "LIBRARY", site / "lookalike")
    monkeypatch.setattr(start, "IN_WHEEL", True)
    start.share_library(own_environment=False)
    assert os.environ["PYTHONPATH"] == "/mine", "jobs run in this Python"
    for _ in range(2):
        start.share_library(own_environment=True)
    folder, mine = os.environ["PYTHONPATH"].split(os.pathsep)
    assert mine == "/mine"
    assert [(path.name, path.resolve()) for path in Path(folder).iterdir()] == [("lookalike", site / "lookalike")]
