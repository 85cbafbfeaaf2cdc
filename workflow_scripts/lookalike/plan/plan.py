"""From a configuration: targets, shards, paths, and the keys that decide what runs again.

The Snakefile imports this module, so it never imports torch, and takes no decision that Snakemake cannot see:
every input, output and param of a rule is computed here, from the configuration alone.
"""

import hashlib
import itertools
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from lookalike.config import factories, user_module
from lookalike.config import loading as configuration
from lookalike.config.datasets import Copies
from lookalike.config.files import check
from lookalike.config.indexes import IndexRuntime
from lookalike.config.models import PythonFactory, Runtime
from lookalike.config.records import Config
from lookalike.config.vary import as_text
from lookalike.job.errors import ConfigError
from lookalike.plan.code import LIBRARY, Code

RULES = (
    *("make_images", "sample", "shard", "fetch_weights", "embed", "index", "search", "measure"),
    *("compare", "find_duplicates", "report"),
)

# Roles of pictures that add files to a search: data sets without them have a rule without those outputs.
SEARCH_EXTRAS: dict[str, dict[str, str]] = {
    "training": {
        "training": "results/{dataset}/neighbors/{model}/{index}.training.parquet",
        "candidates_sn": "results/{dataset}/neighbors/{model}/{index}.candidates_sn.parquet",
    },
}

REPORT_FILES = ("leaderboard.csv", "comparisons.json", "duplicates.json", "duplicates.parquet", "index.html")
LATER = frozenset({"k", "shards", "on_bad_image", "expect"})  # keys of a data set that change no sample


@dataclass(frozen=True)
class Plan:
    """Answers every question that a rule file asks. Paths are relative to the working directory."""

    config: Config
    source: Code = field(default_factory=Code, repr=False, compare=False)

    @classmethod
    def of(cls, raw: Mapping[str, Any], files: Iterable[str | Path] = ()) -> "Plan":
        """Check a configuration as YAML gives it, and the files it was merged from. Raises ConfigError."""
        check([*files])
        datasets = raw.get("datasets")
        shards = [f"shard_{name}" for name in datasets] if isinstance(datasets, Mapping) else []
        config = configuration.parse(dict(raw), frozenset({"all", *RULES, *search_variants(), *shards}))
        if unfit := list(_unfit(config)):
            raise ConfigError("\n".join(unfit))
        return cls(config)

    # --- names, and the patterns that wildcards are held to ---

    def creating_datasets(self) -> list[str]:
        """Data sets whose pictures a run makes itself."""
        return [name for name, dataset in self.config.datasets.items() if dataset.creates_images]

    @staticmethod
    def pattern(names: Iterable[str]) -> str:
        """A regular expression that matches exactly these names."""
        return "|".join(re.escape(name) for name in sorted(names, reverse=True)) or "(?!)"

    @property
    def environment(self) -> str:
        """The conda environment's file; braces are doubled, since Snakemake takes single ones for a wildcard."""
        root = str(LIBRARY.parents[1]).replace("{", "{{").replace("}", "}}")
        return f"{root}/envs/{self.config.environment}.yaml"

    # --- targets ---

    def targets(self, experiment: str) -> list[str]:
        """Every file that an experiment needs, the report last.

        All of them and not only the report: Snakemake makes no missing file that lies between files that are there, so
        after a failed job, whose output it removed, it would find an older report and say "Nothing to be done".
        """
        entry = self.config.experiments[experiment]
        dataset, folder = entry.dataset, f"results/reports/{experiment}"
        return [
            *(path for name in self._with_sources(dataset) for path in self._sample_files(name)),
            *self.shard_files(dataset),
            *(f"results/weights/{model}.json" for model in entry.models),
            *(path for model in entry.models for path in self.embeddings(dataset, model)),
            *self.rejected_of(experiment),
            *self.per_model(experiment, "results/{dataset}/indexes/{model}/{index}.faiss"),
            *self.per_model(experiment, "results/{dataset}/indexes/{model}/{index}.ids.parquet"),
            *(path for made in self.search_outputs(dataset).values() for path in self.per_model(experiment, made)),
            *self.per_model(experiment, "results/{dataset}/metrics/{model}/{index}.json"),
            *(f"{folder}/{name}" for name in REPORT_FILES),
        ]

    def _with_sources(self, dataset: str) -> list[str]:
        entry = self.config.datasets[dataset]
        return [entry.of, dataset] if isinstance(entry, Copies) else [dataset]

    def _sample_files(self, dataset: str) -> list[str]:
        made = [f"results/{dataset}/images/manifest.parquet"] if self.config.datasets[dataset].creates_images else []
        return [*made, f"results/{dataset}/sample/images.parquet", f"results/{dataset}/sample/truth.parquet"]

    def all_targets(self) -> list[str]:
        """What a bare `snakemake` builds."""
        return [target for experiment in self.config.run for target in self.targets(experiment)]

    # --- images, samples, shards ---

    def images_input(self, dataset: str) -> list[str]:
        """What make_images reads: for copies, the sample of the data set that is copied."""
        entry = self.config.datasets[dataset]
        return [f"results/{entry.of}/sample/images.parquet"] if isinstance(entry, Copies) else []

    def sample_input(self, dataset: str) -> dict[str, str | list[str]]:
        """What sample reads besides pictures: the manifest of those that are made here, or truth, captions and labels.

        A file that is missing is left to the stage, which says so better than Snakemake; one with braces in its path
        cannot be an input, since they are wildcards there, and counts by its hash (``code``).
        """
        entry = self.config.datasets[dataset]
        if entry.creates_images:
            return {"manifest": f"results/{dataset}/images/manifest.parquet"}
        tables = [table for table in entry.tables() if not _has_braces(table)]
        return {"tables": tables} if tables else {}

    def expect(self, dataset: str) -> str:
        """How many of each role there must be, as JSON: checked where the data set is sampled, and changing nothing."""
        return json.dumps(self.config.datasets[dataset].expect, sort_keys=True)

    def shard_ids(self, dataset: str) -> list[str]:
        """Names of a data set's shards, such as ``references-00000``; they follow from the configuration alone."""
        shards = self.config.datasets[dataset].shards
        return [f"{part}-{number:05d}" for part in self.config.parts(dataset) for number in range(shards.get(part, 1))]

    def shard_files(self, dataset: str) -> list[str]:
        """Paths of all shard files of a data set."""
        return [f"results/{dataset}/sample/shards/{shard}.parquet" for shard in self.shard_ids(dataset)]

    def all_shard_ids(self) -> list[str]:
        """Every shard id of the catalogue, for the wildcard's pattern."""
        return sorted({shard for dataset in self.config.datasets for shard in self.shard_ids(dataset)})

    # --- embeddings, neighbors, metrics ---

    def embeddings(self, dataset: str, model: str) -> list[str]:
        """All embedding shards of a model on a data set."""
        return [f"results/{dataset}/embeddings/{model}/{shard}.parquet" for shard in self.shard_ids(dataset)]

    def rejected(self, dataset: str, model: str) -> list[str]:
        """The tables of rejected pictures that belong to ``embeddings``."""
        return [f"results/{dataset}/embeddings/{model}/{shard}.rejected.parquet" for shard in self.shard_ids(dataset)]

    def timings(self, dataset: str, model: str) -> list[str]:
        """Where the embed jobs leave their timings: beside the logs, so that no rule's input changes with the clock."""
        return [f"results/logs/embed/{dataset}/{model}/{shard}.json" for shard in self.shard_ids(dataset)]

    def per_model(self, experiment: str, pattern: str) -> list[str]:
        """``pattern`` filled in for every model and index of an experiment, in the order of the configuration."""
        entry = self.config.experiments[experiment]
        return [
            pattern.format(dataset=entry.dataset, model=model, index=index)
            for model in entry.models
            for index in entry.indexes
        ]

    def search_extras(self, dataset: str) -> tuple[str, ...]:
        """Which of SEARCH_EXTRAS a data set has: those of the parts that it has."""
        return tuple(part for part in SEARCH_EXTRAS if part in self.config.parts(dataset))

    def search_outputs(self, dataset: str) -> dict[str, str]:
        """What a search on a data set writes: patterns of {dataset}, {model} and {index} by name."""
        return search_outputs(self.search_extras(dataset))

    def found(self, dataset: str, model: str, index: str) -> dict[str, str]:
        """What one search writes: paths by name."""
        made = self.search_outputs(dataset).items()
        return {name: path.format(dataset=dataset, model=model, index=index) for name, path in made}

    def found_of(self, experiment: str, name: str) -> list[str]:
        """The files of one name of ``search_outputs`` for every model and index; none where the data set has none."""
        pattern = self.search_outputs(self.dataset_of(experiment)).get(name)
        return self.per_model(experiment, pattern) if pattern else []

    def searched_by(self, extras: tuple[str, ...]) -> list[str]:
        """Data sets with exactly these extras."""
        return [dataset for dataset in self.config.datasets if self.search_extras(dataset) == extras]

    def index_runtime(self, index: str) -> IndexRuntime:
        """How an index is built and searched; nothing of it changes what is found.

        An exact index is computed on the CPU, so a scheduler is not asked for a GPU that would stand idle.
        """
        entry = self.config.indexes[index]
        exact = entry.scan or entry.factory == "Flat"
        return entry.runtime.model_copy(update={"gpu": 0}) if exact else entry.runtime

    def showcase_neighbors(self, experiment: str) -> list[str]:
        """What every model and index of an experiment found for outside pictures; nothing where there are none."""
        shown = self.config.datasets[self.dataset_of(experiment)].showcase is not None
        return self.found_of(experiment, "showcase") if shown else []

    def rejected_of(self, experiment: str) -> list[str]:
        """The rejected tables of all models of an experiment."""
        entry = self.config.experiments[experiment]
        return [path for model in entry.models for path in self.rejected(entry.dataset, model)]

    def runtime(self, model: str) -> Runtime:
        """How a model is run; nothing of it changes a vector."""
        return self.config.models[model].runtime

    def batch_size(self, model: str, attempt: int) -> int:
        """Pictures per forward pass: halved with every retry, since memory may have run out."""
        return max(1, self.runtime(model).batch_size >> (attempt - 1))

    def on_bad_image(self, dataset: str) -> str:
        """What happens to a picture that cannot be used: "reject" or "fail"."""
        return self.config.datasets[dataset].on_bad_image

    def dataset_of(self, experiment: str) -> str:
        """The data set of an experiment."""
        return self.config.experiments[experiment].dataset

    # --- keys: what decides about reruns ---

    def dataset_key(self, dataset: str) -> str:
        """What decides which pictures a data set has: its entry without what later stages use."""
        return key(self.config.datasets[dataset], leave_out=LATER)

    def images_key(self, dataset: str) -> str:
        """What decides which pictures a data set makes: outside pictures are none of them."""
        return key(self.config.datasets[dataset], leave_out=LATER | {"showcase"})

    def shard_key(self, dataset: str) -> str:
        """What decides about the shard files, and what is checked before any model runs."""
        entry = self.config.datasets[dataset]
        return json.dumps(
            {
                "dataset": dataset,
                "k": entry.k,
                "shards": {part: entry.shards.get(part, 1) for part in self.config.parts(dataset)},
                "expect": entry.expect,
            },
            sort_keys=True,
        )

    def embedding_key(self, model: str) -> str:
        """What changes a model's vectors: its `embed:` entry, sorted, defaults left out."""
        return key(self.config.models[model].embed)

    def architectures(self, experiment: str) -> dict[str, str]:
        """What an experiment's models are, where that is known: the articles' kind, or ``color_histogram``.

        In the experiment's order and of plain strings, so that it is the same param in every run.
        """
        entries = {model: self.config.models[model] for model in self.config.experiments[experiment].models}
        architectures = {
            model: "color_histogram" if entry.embed.family == "color_histogram" else entry.architecture
            for model, entry in entries.items()
        }
        return {model: kind for model, kind in architectures.items() if kind}

    def index_key(self, index: str) -> str:
        """What changes what is found with an index."""
        return key(self.config.indexes[index], leave_out=frozenset({"runtime"}))

    def build_key(self, index: str) -> str:
        """What changes an index itself: other search parameters build nothing again."""
        return key(self.config.indexes[index], leave_out=frozenset({"runtime", "search", "normalise"}))

    def report_key(self, experiment: str) -> str:
        """What the report shows besides its inputs: the experiment and the models' labels."""
        entry = self.config.experiments[experiment]
        design = self._design(experiment)
        labels = {model: _said(design[model]) if design else self.label(model) for model in entry.models}
        return json.dumps(
            {
                "experiment": experiment,
                "title": entry.title,
                "dataset": entry.dataset,
                "labels": labels,
                "k": self.config.datasets[entry.dataset].k,
                **({"varied": self.label(next(iter(design)))} if design else {}),
            },
            sort_keys=True,
        )

    def design(self, experiment: str) -> str:
        """What an experiment varies, as JSON: model -> key -> value, the model that is varied first; or ``{}``."""
        return json.dumps(self._design(experiment))

    def _design(self, experiment: str) -> dict[str, dict[str, str]]:
        entry = self.config.experiments[experiment]
        if not entry.vary:
            return {}
        embeds = {model: self.config.models[model].embed.model_dump(mode="json") for model in entry.models}
        return {model: {name: as_text(embed[name]) for name in entry.vary.over} for model, embed in embeds.items()}

    def label(self, model: str) -> str:
        """A model's name for people."""
        return self.config.models[model].label or model

    def code(self, stage: str, *, dataset: str = "", model: str = "") -> str:
        """A hash over the modules that make a stage's numbers: editing one of them runs the stage again."""
        entry = self.config.datasets.get(dataset)
        made = entry is not None and entry.creates_images  # whose sample is read from the manifest
        chosen = [f"sample.{entry.kind}"] if entry and not (made and stage == "sample") else []
        chosen += [f"embed.models.{self.config.models[model].embed.family}"] if model else []
        besides = self.factory_hash(model) if model else self._hash_of_tables(dataset) if stage == "sample" else ""
        return self.source.hash(stage, *chosen) + besides

    def _hash_of_tables(self, dataset: str) -> str:
        """A hash over the tables that cannot be inputs of sample; nothing where all can."""
        tables = [table for table in self.config.datasets[dataset].tables() if _has_braces(table)]
        digest = hashlib.sha256()
        for table in tables:
            with Path(table).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()[:16] if tables else ""

    def factory_hash(self, model: str) -> str:
        """A hash over the user's module and the files that options name, for a model of the family `python`.

        For any other model, or where the module is missing, nothing.
        """
        entry = self.config.models[model].embed
        file = user_module.module_file(entry.factory) if isinstance(entry, PythonFactory) else None
        if not file or not isinstance(entry, PythonFactory):
            return ""
        digest = hashlib.sha256(file.read_bytes())
        for name, path in sorted(user_module.option_files(entry.options).items()):
            digest.update(name.encode() + b"\0" + user_module.fingerprint(path))
        return digest.hexdigest()[:16]


def _unfit(config: Config) -> Iterator[str]:
    """One line for each index of an experiment that FAISS cannot make for a model whose dimensions its entry tells."""
    from lookalike.embed import encoders  # not at the start: most configurations ask for exact indexes alone

    for name, experiment in config.experiments.items():
        for index in experiment.indexes:
            factory = config.indexes[index].factory
            if factory in (None, "Flat"):
                continue
            for model in experiment.models:
                entry = config.models[model].embed
                dimension = encoders.family(entry).dimension(entry)
                if dimension and (why := factories.refused(factory, (dimension,))) is not None:
                    yield (
                        f"experiments.{name}.indexes: FAISS cannot make '{index}' ({factory}) for model '{model}', "
                        f"whose vectors have {dimension} dimensions: {why}. Name another index, or change its factory."
                    )


def search_variants() -> dict[str, tuple[str, ...]]:
    """The search rules: name -> the extras whose files it writes besides, every combination."""
    counts = range(len(SEARCH_EXTRAS) + 1)
    combinations = [extras for count in counts for extras in itertools.combinations(SEARCH_EXTRAS, count)]
    return {"_".join(["search", *(f"with_{extra}" for extra in extras)]): extras for extras in combinations}


def search_outputs(extras: tuple[str, ...]) -> dict[str, str]:
    """What a search with these extras writes: patterns by name."""
    folder = "results/{dataset}/neighbors/{model}/"
    always = {"neighbors": "{index}", "showcase": "{index}.showcase", "candidates": "{index}.candidates"}
    outputs = {name: f"{folder}{stem}.parquet" for name, stem in always.items()}
    return outputs | {name: path for extra in extras for name, path in SEARCH_EXTRAS[extra].items()}


def _has_braces(path: str) -> bool:
    return "{" in path or "}" in path


def _said(values: Mapping[str, str]) -> str:
    return " · ".join(f"{name}: {value}" for name, value in values.items())


def why_not_writable(folder: str) -> str | None:
    """Why a run cannot write its results, and what to do; None where it can.

    Asked before the first job: where a disk is read-only Snakemake itself fails, with a traceback.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return (
            f"{Path(folder).absolute()}: cannot be written ({error.strerror}), so nothing was run. Mount the disk "
            "writable, give yourself the rights, or run in another folder (--directory)."
        )


def share_library() -> None:
    """Make the scripts, which run in processes of their own, find this copy of the library before any installed one."""
    paths = [str(LIBRARY.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))


def check_working_directory() -> None:
    """Raise ConfigError for a working directory in which Snakemake cannot find its locks.

    It looks for them with a pattern that begins with the directory, so that braces in its name are wildcards.
    """
    here = str(Path.cwd())
    for name, constraint in re.findall(r"\{\s*([.\w]+)\s*(,[^{}]*)?\}", here):
        if constraint or name == "n" or not name.isidentifier():
            raise ConfigError(
                f"{here}: Snakemake takes the braces in the name of this folder for a wildcard, and cannot work in it. "
                "Rename it, or run in another folder with --directory."
            )


def key(entry: BaseModel, leave_out: frozenset[str] = frozenset()) -> str:
    """One sorted JSON string of an entry, defaults left out: neither a new option nor key order reruns anything."""
    return json.dumps(entry.model_dump(mode="json", exclude_defaults=True, exclude=set(leave_out)), sort_keys=True)
