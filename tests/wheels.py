"""Builds the wheel of this repository, as `pip wheel` does."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPOSITORY, shared_folder

SOURCES = (
    *("Snakefile", "rules", "workflow_scripts", "profiles", "envs", "config.yaml", "docs"),
    *("setup.py", "pyproject.toml", "README.md", "LICENSE"),
)
LEFTOVERS = ("build/lib/lookalike/removed.py", "rules/.#embed.smk", "workflow_scripts/embed.py~")
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def build(kind: str, sources: Path, out: Path) -> Path:
    """Build a `wheel` or an `sdist` into an empty folder."""
    command = [sys.executable, "-c", BUILD, f"build_{kind}", str(out)]
    ended = subprocess.run(command, cwd=sources, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    (built,) = out.iterdir()
    return built


def built_wheel(factory: pytest.TempPathFactory) -> Path:
    """The wheel, which all workers of pytest share. An earlier build and an editor left files among its sources."""
    folder, out = shared_folder(factory) / "sources", shared_folder(factory) / "wheel"
    with (shared_folder(factory) / "wheel.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not out.exists():
            _copy(folder)
            (finished := out.with_suffix(".new")).mkdir()
            build("wheel", folder, finished)
            finished.rename(out)
    (wheel,) = out.iterdir()
    return wheel


def _copy(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in SOURCES:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, folder / name)
    for name in LEFTOVERS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
