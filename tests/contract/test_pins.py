"""Ranges in pyproject.toml, exact versions in constraints.txt, the same ones in envs/."""

import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from conftest import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
CONSTRAINTS = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^([\w.-]+)==(\S+)$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
}


def requirements(*extras: str) -> list[Requirement]:
    lines = PROJECT["dependencies"] + [line for extra in extras for line in PROJECT["optional-dependencies"][extra]]
    return [Requirement(line) for line in lines]


def test_every_requirement_is_pinned_within_its_range() -> None:
    for requirement in requirements(*PROJECT["optional-dependencies"]):
        pinned = CONSTRAINTS[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(Version(pinned)), requirement


def test_nothing_brings_torchvision() -> None:
    assert "torch" in CONSTRAINTS
    assert "torchvision" not in CONSTRAINTS


@pytest.mark.parametrize("environment", ["cpu", "gpu"])
def test_the_conda_environments_have_the_same_pins(environment: str) -> None:
    entries = yaml.safe_load((REPOSITORY / f"envs/{environment}.yaml").read_text())["dependencies"]
    (pip,) = (entry["pip"] for entry in entries if isinstance(entry, dict))
    pinned = {canonicalize_name(name): version for name, version in (line.split("==") for line in pip)}
    wanted = requirements(environment, "hub", "formats", "demo", "sscd")
    expected = {canonicalize_name(requirement.name) for requirement in wanted}
    assert pinned == {name: CONSTRAINTS[name] for name in expected}
