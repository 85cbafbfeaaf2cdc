"""The catalogue for commands and programs: finds and merges config.yaml, and loads models as the embed stage does."""

import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lookalike.config.files import read
from lookalike.config.records import Experiment
from lookalike.embed import encoders
from lookalike.io import images, in_work, store
from lookalike.io.formats.exports import Export
from lookalike.io.formats.records import Weights
from lookalike.job import packages
from lookalike.job.errors import ConfigError, LookalikeError, did_you_mean, nearest
from lookalike.plan import requirements
from lookalike.plan.code import WORKFLOW
from lookalike.plan.plan import Plan

E = TypeVar("E")


@dataclass(frozen=True)
class Catalogue:
    """A configuration, and the results of its runs."""

    plan: Plan
    configfiles: tuple[Path, ...]
    results: Path
    model_names: tuple[str, ...]  # entries in the files, without the variants that experiments add

    @classmethod
    def open(
        cls, configfiles: Sequence[Path] | None, results: Path, models: Mapping[str, Any] | None = None
    ) -> "Catalogue":
        """The workflow's config.yaml with a user's files, and entries of models, merged over it. Raises ConfigError."""
        files = [find(), *(configfiles or ())]
        raw: Any = {}
        for path in files:
            raw = merge(raw, _mapping(path))
        for entries in (dict.fromkeys(models or ()), models or {}):  # they replace entries of the same name
            raw = merge(raw, {"models": entries})
        return cls(Plan.of(raw, files), tuple(configfiles or ()), results, tuple(raw["models"]))

    def check_models(self, names: Sequence[str]) -> None:
        """Raise LookalikeError for a model that is not in the catalogue."""
        models = self.plan.config.models
        for name in names:
            if name not in models and not nearest(name, sorted(models)):  # a list of all would bury the message
                raise LookalikeError(f"model '{name}' is not defined. To list those that are: lookalike models")
            entry_of(models, "model", name)

    def experiment(self, name: str) -> Experiment:
        """An experiment's entry. Raises LookalikeError for an unknown name."""
        return entry_of(self.plan.config.experiments, "experiment", name)

    def dataset(self, name: str) -> Any:
        """A data set's entry. Raises LookalikeError for an unknown name."""
        return entry_of(self.plan.config.datasets, "data set", name)

    def recorded(self, model: str) -> Path:
        """Where a run records which weights it used."""
        return self.results / "weights" / self.plan.config.models[model].embed.weights_name() / "weights.json"

    def weights(self, model: str) -> Weights:
        """The weights that the run used, or without a run, those that it would use now."""
        if self.recorded(model).exists():
            return store.read_json(self.recorded(model), Weights)
        if lacking := requirements.missing(self.plan, model, self.results):  # before a download
            raise LookalikeError(f"models.{model}: {packages.why_missing(lacking)}")
        return self.fetched(model)

    def fetched(self, model: str) -> Weights:
        """The weights that a run would use now; nothing is recorded."""
        entry = self.plan.config.models[model].embed
        try:
            with redirect_stdout(sys.stderr):
                weights: Weights = encoders.family(entry).fetch(entry)
        except LookalikeError as error:
            raise LookalikeError(for_commands(str(error), model)) from error
        return weights

    def why_missing(self, model: str) -> str | None:
        """Why a model cannot be used without a download or installation; None if it can. Reads no weights."""
        if lacking := requirements.missing(self.plan, model, self.results):
            return packages.why_missing(lacking)
        entry = self.plan.config.models[model].embed
        try:
            encoders.family(entry).check_available(entry)
        except LookalikeError as error:
            return for_commands(str(error), model)
        return None

    def encoder(self, model: str, weights: Weights, threads: int) -> encoders.Encoder:
        """A model on the device that its embed jobs would use on this machine."""
        machine = encoders.Machine(threads, bool(self.plan.runtime(model).gpu))
        with redirect_stdout(sys.stderr):  # standard output is for results only, not for what libraries print
            return encoders.load(self.plan.embedding_key(model), weights, machine, self.export(model, weights))

    def export(self, model: str, weights: Weights) -> Path | None:
        """The run's record of a model's exported network, if there is one of these weights."""
        path, record = self._exported(model)
        return path if record and record.weights_checksum == store.checksum(weights) else None

    def engine(self, model: str) -> tuple[str | None, str]:
        """The engine that a run chose to embed on a CPU, and why it is torch; None where no run has."""
        _, record = self._exported(model)
        return (record.engine, record.reason) if record else (None, "")

    def _exported(self, model: str) -> tuple[Path | None, Export | None]:
        for export in self.plan.exports(model):
            if (path := self.results / Path(export).relative_to("results")).is_file():
                return path, store.read_json(path, Export)
        return None, None

    def how_to_run(self, experiment: str) -> str:
        """The command that makes an experiment's results."""
        files = ["--configfile", *map(str, self.configfiles)] if self.configfiles else []
        folder = self.results.parent
        place = "" if folder == Path() else f" (in {folder})"
        return f"Run it{place}: {shlex.join(['snakemake', '--cores', '2', *files, '--', experiment])}"


def find() -> Path:
    """The workflow's config.yaml."""
    return WORKFLOW / "config.yaml"


def for_commands(message: str, model: str = "MODEL") -> str:
    """A message of the stage `fetch_weights` with the command that does the same."""
    return re.sub("Run fetch_weights (?=with network|on a machine)", f"Run lookalike fetch {model} ", message)


def entry_of(entries: Mapping[str, E], what: str, name: str) -> E:
    """The entry of a name. Raises LookalikeError, with a suggestion, for an unknown one."""
    if name not in entries:
        raise LookalikeError(f"{what} '{name}' is not defined.{did_you_mean(name, entries)}")
    return entries[name]


def merge(base: Any, over: Any) -> Any:
    """Merge as Snakemake merges a --configfile: mappings key by key, everything else replaced."""
    if not isinstance(over, Mapping):
        return over
    known = base if isinstance(base, Mapping) else {}
    return {**known, **{key: merge(known.get(key), value) for key, value in over.items()}}


def _mapping(path: Path) -> Mapping[str, Any]:
    raw = read(path)
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{path}: should be a mapping (key: value), found {raw!r}.")
    return raw


@contextmanager
def offline() -> Iterator[None]:
    """Restrict the model hub's library to cached files.

    It reads the environment variable once, on import; if it is already imported, its own switch is set and restored.
    """
    variable, library = "HF_HUB_OFFLINE", "huggingface_hub.constants"
    before = os.environ.get(variable)
    hub = sys.modules.get(library)
    was_offline = getattr(hub, variable) if hub else (before or "").upper() in ("1", "ON", "YES", "TRUE")
    os.environ[variable] = "1"
    if hub:
        setattr(hub, variable, True)
    try:
        yield
    finally:
        del os.environ[variable]
        if before is not None:
            os.environ[variable] = before
        if hub := sys.modules.get(library):
            setattr(hub, variable, was_offline)


def read_image(path: Path, guard: in_work.Guard) -> bytes:
    """The bytes of an image file that can be decoded. Raises LookalikeError with the reason if it cannot."""
    try:
        data = images.read("", str(path))
        guard.decode({"image_id": str(path), "path": str(path)}, data)
        return data
    except images.BadImage as bad:
        raise LookalikeError(f"{path}: {bad}. Use another image, or fix this one.") from None
