"""Family `python`: an encoder created by the user's own function, for anything the other families do not cover."""

import importlib
import sys
from pathlib import Path
from typing import Any

from lookalike.config import user_module
from lookalike.config.models import PythonFactory
from lookalike.embed.encoders import Encoder, Machine
from lookalike.embed.file_hashes import sha256
from lookalike.embed.trial import try_out
from lookalike.io import store
from lookalike.io.formats.records import Weights
from lookalike.job import gpus
from lookalike.job.devices import out_of_memory
from lookalike.job.errors import LookalikeError

REQUIRED = ("dimension", "device", "overlaps", "compute_dtype", "versions", "prepare", "encode")  # encoders.Encoder


def fetch(entry: PythonFactory) -> Weights:
    """Hash the module's file and the files in its options: together they define the vectors."""
    return Weights(source=f"function {entry.factory}", revision="", files=_hashes(entry))


def check_available(entry: PythonFactory) -> None:
    """Raise LookalikeError if the module's file is missing."""
    _file(entry)


def load(entry: PythonFactory, weights: Weights, machine: Machine) -> Encoder:
    """Call the function with the machine and the entry's options, and check and try the encoder it returns."""
    path = _file(entry)
    hashes = _hashes(entry)
    for name in sorted(hashes.keys() | weights.files):
        if hashes.get(name) != weights.files.get(name):
            change = (
                "was removed" if name not in hashes else "was added" if name not in weights.files else "has changed"
            )
            raise LookalikeError(
                f"{path if name == path.name else name}: {change} since fetch_weights recorded the files of "
                f"{entry.factory}. Run fetch_weights again (--forcerun fetch_weights)."
            )
    module, name = entry.factory.split(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    if machine.gpu:
        gpus.claim()  # what the module and its function compute or start sees only this device
    try:
        factory = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # the user's module may raise anything
        if out_of_memory(error):
            raise
        raise LookalikeError(
            f"{path}: cannot be imported: {type(error).__name__}: {error}. Fix the module, or install what it needs."
        ) from error
    if not callable(factory):
        raise LookalikeError(f"{path}: has no function '{name}'. Correct the 'factory' of the model's entry.")
    try:
        encoder = factory(machine=machine, **entry.options)
    except TypeError as error:
        raise LookalikeError(
            f"{path}: {name} was called with machine and the entry's options ({', '.join(entry.options) or 'none'}): "
            f"{error}. Change the options, or the function."
        ) from error
    where = f"{path}: the encoder returned by {name}"
    checked = _checked(encoder, where)
    dimension = try_out(
        checked,
        where,
        repeatable="Switch the network to evaluation mode (network.eval()), or seed its random numbers for each image.",
        otherwise="See docs/add-a-model.md.",
    )
    if dimension != checked.dimension:
        raise LookalikeError(
            f"{where}: its dimension is {checked.dimension}, but encode returns vectors of {dimension} numbers. "
            "Correct one of the two."
        )
    return checked


def _file(entry: PythonFactory) -> Path:
    path = user_module.module_file(entry.factory)
    if path is None:
        raise LookalikeError(
            f"factory {entry.factory}: no such module. Put it in the folder where snakemake is started, or use an "
            "installed module."
        )
    return path


def _hashes(entry: PythonFactory) -> dict[str, str]:
    path = _file(entry)
    options = {name: sha256(file) for name, file in user_module.option_files(entry.options).items()}
    return {path.name: store.sha256_file(path)} | options


def _checked(encoder: Any, where: str) -> Encoder:
    """Return ``encoder`` if it has the attributes of ``encoders.Encoder``, else raise LookalikeError."""
    lacking = [name for name in REQUIRED if not hasattr(encoder, name)]
    if lacking:
        raise LookalikeError(f"{where}: is not an encoder: it has no {', '.join(lacking)}. See docs/add-a-model.md.")
    if not isinstance(encoder.dimension, int) or not isinstance(encoder.versions, dict):
        raise LookalikeError(
            f"{where}: dimension must be a number and versions a mapping of names to versions. See docs/add-a-model.md."
        )
    checked: Encoder = encoder
    return checked
