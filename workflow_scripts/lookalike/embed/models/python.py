"""Family `python`: an encoder that a function of the user's makes, for what no other family foresaw."""

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
from lookalike.job.devices import out_of_memory
from lookalike.job.errors import LookalikeError

PROMISED = ("dimension", "device", "overlaps", "compute_dtype", "versions", "prepare", "encode")  # models.Encoder


def fetch(entry: PythonFactory) -> Weights:
    """Record the hashes of the module's file and of those that options name: only they say what made the vectors."""
    return Weights(source=f"function {entry.factory}", revision="", files=_hashes(entry))


def look(entry: PythonFactory) -> None:
    """Look for the module's file."""
    _file(entry)


def load(entry: PythonFactory, weights: Weights, machine: Machine) -> Encoder:
    """Call the function with the machine and the entry's options."""
    path = _file(entry)
    found = _hashes(entry)
    for name in sorted(found.keys() | weights.files):
        if found.get(name) != weights.files.get(name):
            happened = "has changed" if name in found and name in weights.files else "came or went"
            raise LookalikeError(
                f"{path if name == path.name else name}: {happened} since fetch_weights recorded what {entry.factory} "
                "is made from. Run fetch_weights again (--forcerun fetch_weights)."
            )
    module, name = entry.factory.split(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        make = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # whatever the user's module does when it is imported
        if out_of_memory(error):
            raise
        raise LookalikeError(f"{path}: cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(make):
        raise LookalikeError(f"{path}: has no function '{name}', which the model's 'factory' names.")
    try:
        encoder = make(machine=machine, **entry.options)
    except TypeError as error:
        raise LookalikeError(
            f"{path}: {name} was called with machine and the entry's options ({', '.join(entry.options) or 'none'}): "
            f"{error}"
        ) from error
    where = f"{path}: what {name} returned"
    kept = _kept(encoder, where)
    given = try_out(
        kept,
        where,
        repeatable="Switch the network to evaluation mode (network.eval()), or seed what it draws for every image.",
        otherwise="See docs/add-a-model.md.",
    )
    if given != kept.dimension:
        raise LookalikeError(
            f"{where}: its dimension is {kept.dimension}, and encode gives vectors of {given} numbers."
        )
    return kept


def _file(entry: PythonFactory) -> Path:
    path = user_module.module_file(entry.factory)
    if path is None:
        raise LookalikeError(
            f"factory {entry.factory}: there is no such module. Put it in the folder where snakemake is started, "
            "or name a module that is installed."
        )
    return path


def _hashes(entry: PythonFactory) -> dict[str, str]:
    path = _file(entry)
    options = {name: sha256(file) for name, file in user_module.option_files(entry.options).items()}
    return {path.name: store.sha256_file(path)} | options


def _kept(encoder: Any, where: str) -> Encoder:
    """``encoder``, if it keeps what ``encoders.Encoder`` promises."""
    lacking = [name for name in PROMISED if not hasattr(encoder, name)]
    if lacking:
        raise LookalikeError(f"{where} is no encoder: it has no {', '.join(lacking)}. See docs/add-a-model.md.")
    if not isinstance(encoder.dimension, int) or not isinstance(encoder.versions, dict):
        raise LookalikeError(f"{where}: dimension must be a number and versions a mapping of names to versions.")
    kept: Encoder = encoder
    return kept
