"""From a configuration: shards, and the path of every file that a rule reads or writes.

Paths are relative to the working directory, and follow from the configuration alone: a dry run knows them all.
"""

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass

from lookalike.config.datasets import Copies
from lookalike.config.records import Config

# Roles of pictures that add files to a search: data sets without them have a rule without those outputs.
SEARCH_EXTRAS: dict[str, dict[str, str]] = {
    "training": {
        "training": "results/{dataset}/neighbors/{model}/{index}.training.parquet",
        "candidates_sn": "results/{dataset}/neighbors/{model}/{index}.candidates_sn.parquet",
    },
}

REPORT_FILES = ("leaderboard.csv", "comparisons.json", "duplicates.json", "duplicates.parquet", "index.html")


@dataclass(frozen=True)
class Paths:
    """Which files there are, by data set, model, index and experiment."""

    config: Config

    # --- names, and the patterns that wildcards are held to ---

    def creating_datasets(self) -> list[str]:
        """Data sets whose pictures a run makes itself."""
        return [name for name, dataset in self.config.datasets.items() if dataset.creates_images]

    @staticmethod
    def pattern(names: Iterable[str]) -> str:
        """A regular expression that matches exactly these names."""
        return "|".join(re.escape(name) for name in sorted(names, reverse=True)) or "(?!)"

    def shard_pattern(self) -> str:
        """A regular expression for shard ids: of the parts, as an alternation of thousands of ids is slow."""
        parts = {part for dataset in self.config.datasets for part in self.config.parts(dataset)}
        return f"(?:{self.pattern(parts)})-[0-9]+"

    # --- targets ---

    def targets(self, experiment: str) -> list[str]:
        """A file of every job that an experiment needs, and all of the report, which comes last.

        Not the report alone: Snakemake makes no missing file that lies between files that are there, so after a failed
        job, whose output it removed, it would find an older report and say "Nothing to be done". One file of a job is
        enough for that, and more cost: with thousands of shards, how often each is named is what a dry run takes.
        """
        entry = self.config.experiments[experiment]
        dataset, folder = entry.dataset, f"results/reports/{experiment}"
        return [
            *(path for name in self._with_sources(dataset) for path in self._sample_files(name)),
            *self.shard_files(dataset)[:1],
            *(f"results/weights/{model}.json" for model in entry.models),
            *(path for model in entry.models for path in self.embeddings(dataset, model)),
            *self.per_model(experiment, "results/{dataset}/indexes/{model}/{index}.faiss"),
            *self.found_of(experiment, "neighbors"),
            *self.per_model(experiment, "results/{dataset}/metrics/{model}/{index}.json"),
            *(f"{folder}/{name}" for name in REPORT_FILES),
        ]

    def _with_sources(self, dataset: str) -> list[str]:
        entry = self.config.datasets[dataset]
        return [entry.of, dataset] if isinstance(entry, Copies) else [dataset]

    def _sample_files(self, dataset: str) -> list[str]:
        made = [f"results/{dataset}/images/manifest.parquet"] if self.config.datasets[dataset].creates_images else []
        return [*made, f"results/{dataset}/sample/images.parquet"]

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
        tables = [table for table in entry.tables() if not has_braces(table)]
        return {"tables": tables} if tables else {}

    def shard_ids(self, dataset: str) -> list[str]:
        """Names of a data set's shards, such as ``references-00000``; they follow from the configuration alone."""
        shards = self.config.datasets[dataset].shards
        return [f"{part}-{number:05d}" for part in self.config.parts(dataset) for number in range(shards.get(part, 1))]

    def shard_files(self, dataset: str) -> list[str]:
        """Paths of all shard files of a data set."""
        return [f"results/{dataset}/sample/shards/{shard}.parquet" for shard in self.shard_ids(dataset)]

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

    def showcase_neighbors(self, experiment: str) -> list[str]:
        """What every model and index of an experiment found for outside pictures; nothing where there are none."""
        shown = self.config.datasets[self.dataset_of(experiment)].showcase is not None
        return self.found_of(experiment, "showcase") if shown else []

    def rejected_of(self, experiment: str) -> list[str]:
        """The rejected tables of all models of an experiment."""
        entry = self.config.experiments[experiment]
        return [path for model in entry.models for path in self.rejected(entry.dataset, model)]

    def dataset_of(self, experiment: str) -> str:
        """The data set of an experiment."""
        return self.config.experiments[experiment].dataset


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


def has_braces(path: str) -> bool:
    """Whether Snakemake would take part of a path for a wildcard."""
    return "{" in path or "}" in path
