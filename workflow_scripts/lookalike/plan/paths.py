"""From a configuration: shards, and the path of every file that a rule reads or writes.

Paths are relative to the working directory, and follow from the configuration alone: a dry run knows them all.
"""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from lookalike.config.datasets import Copies
from lookalike.config.records import Config

# What a search writes, by name in the rules.
SEARCHED = {
    "neighbors": "results/{dataset}/neighbors/{model}/{index}.parquet",
    "showcase": "results/{dataset}/neighbors/{model}/{index}.showcase.parquet",
    "candidates": "results/{dataset}/neighbors/{model}/{index}.candidates.parquet",
    "training": "results/{dataset}/neighbors/{model}/{index}.training.parquet",
    "candidates_sn": "results/{dataset}/neighbors/{model}/{index}.candidates_sn.parquet",
    "classes": "results/{dataset}/neighbors/{model}/{index}.classes.parquet",
}

AUDITED = "results/{dataset}/audit/{model}/{index}.parquet"
MAPPED = "results/{dataset}/map/{model}/{index}.parquet"

SHARDS_OF_A_JOB = 100  # shard files that one job writes

REPORT_FILES = ("leaderboard.csv", "comparisons.json", "duplicates.json", "duplicates.parquet", "cases", "index.html")


@dataclass(frozen=True)
class Paths:
    """Which files there are, by data set, model, index and experiment."""

    config: Config

    # --- names, and the patterns that wildcards are held to ---

    def creating_datasets(self) -> list[str]:
        """Data sets whose images are made by the run."""
        return [name for name, dataset in self.config.datasets.items() if dataset.creates_images]

    @staticmethod
    def pattern(names: Iterable[str]) -> str:
        """A regular expression that matches exactly these names."""
        return "|".join(re.escape(name) for name in sorted(names, reverse=True)) or "(?!)"

    @staticmethod
    def with_wildcard(stage: str, paths: Iterable[str]) -> list[str]:
        """Paths with the wildcard ``{stage}`` in the name of their folder, where it says ``stage``."""
        return [re.sub(rf"{stage}(?=[^/]*/[^/]+$)", "{stage}", path) for path in paths]

    def shard_pattern(self) -> str:
        """A regular expression for shard ids: of the parts, as an alternation of thousands of ids is slow."""
        parts = {part for dataset in self.config.datasets for part in self.config.parts(dataset)}
        return f"(?:{self.pattern(parts)})-[0-9]+"

    # --- targets ---

    def targets(self, experiment: str) -> list[str]:
        """Every file that an experiment needs, the report last; of thousands of shards, one file of each job.

        Not the report alone: Snakemake makes no missing file that lies between files that are there, so after a failed
        job, whose output it removed, it would find an older report and say "Nothing to be done". The time of a dry run
        grows with how often each shard is named.
        """
        entry = self.config.experiments[experiment]
        dataset, folder = entry.dataset, f"results/reports/{experiment}"
        return [
            *(path for name in self._with_sources(dataset) for path in self._sample_files(name)),
            *self.shard_files(dataset)[::SHARDS_OF_A_JOB],
            *dict.fromkeys(self.weights(model) for model in entry.models),
            *dict.fromkeys(path for model in entry.models for path in self.exports(model)),
            *(path for model in entry.models for path in self.embeddings(dataset, model)),
            *self.per_model(experiment, "results/{dataset}/indexes/{model}/{index}.faiss"),
            *self.per_model(experiment, "results/{dataset}/indexes/{model}/{index}.ids.parquet"),
            *self.seen_of(experiment),
            *(path for name in SEARCHED for path in self.searched(experiment, name)),
            *self.near_duplicates(dataset),
            *self.audited(experiment),
            *self.maps(experiment),
            *self.per_model(experiment, "results/{dataset}/metrics/{model}/{index}.json"),
            *(f"{folder}/{name}" for name in REPORT_FILES),
        ]

    def _with_sources(self, dataset: str) -> list[str]:
        entry = self.config.datasets[dataset]
        return [entry.of, dataset] if isinstance(entry, Copies) else [dataset]

    def _sample_files(self, dataset: str) -> list[str]:
        made = [*self.archives(dataset)]
        made += [f"results/{dataset}/images/manifest.parquet"] if made else []
        return [*made, f"results/{dataset}/sample/images.parquet", f"results/{dataset}/sample/truth.parquet"]

    def all_targets(self) -> list[str]:
        """What a bare `snakemake` builds."""
        return [target for experiment in self.config.run for target in self.targets(experiment)]

    # --- images, samples, shards ---

    def images_input(self, dataset: str) -> dict[str, str | list[str]]:
        """What make_images reads: for copies, the sample of the data set that is copied, and images made for that."""
        entry = self.config.datasets[dataset]
        if not isinstance(entry, Copies):
            return {}
        return {"sources": f"results/{entry.of}/sample/images.parquet", "archives": self.archives(entry.of)}

    def archives(self, dataset: str) -> list[str]:
        """The archives of the images that a run makes: one for each shard of the part that they are."""
        entry = self.config.datasets[dataset]
        numbers = range(entry.shards.get(entry.made_part, 1)) if entry.creates_images else ()
        return [f"results/{dataset}/images/{entry.made_part}-{number:05d}.zip" for number in numbers]

    def all_archives(self, dataset: str) -> list[str]:
        """The archives of made images that the images of a data set can be in."""
        return [archive for name in self._with_sources(dataset) for archive in self.archives(name)]

    def archives_of_shard(self, dataset: str, shard: str) -> list[str]:
        """The archives of made images that a shard's images can be in.

        Copies have references in the archives of their source. A shard's number is a hash modulo the number of shards,
        so that of the source agrees with it modulo what both numbers of shards are divisible by.
        """
        entry = self.config.datasets[dataset]
        part, number = shard.rsplit("-", 1)
        if part == entry.made_part:
            return [f"results/{dataset}/images/{shard}.zip"]
        if not isinstance(entry, Copies) or part == "showcase":
            return []
        archives = self.archives(entry.of)
        both = math.gcd(len(archives), entry.shards.get(part, 1))
        return [archive for at, archive in enumerate(archives) if at % both == int(number) % both]

    def sample_input(self, dataset: str) -> dict[str, str | list[str]]:
        """What sample reads besides images: the manifest of images that the run makes, or truth, captions and labels.

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

    def shard_jobs(self) -> Iterator[tuple[str, str, list[str]]]:
        """The jobs that split samples: a name of a rule, which no experiment can have, a data set, and shard files."""
        for dataset in self.config.datasets:
            files = self.shard_files(dataset)
            for first in range(0, len(files), SHARDS_OF_A_JOB):
                yield f"shard_{dataset}" + f"+{first}" * (first > 0), dataset, files[first : first + SHARDS_OF_A_JOB]

    # --- weights ---

    @cached_property
    def _with_weights(self) -> dict[str, str]:
        """One model for each name of weights: all that have the name have the same weights."""
        return {described.embed.weights_name(): model for model, described in self.config.models.items()}

    def weights_names(self) -> list[str]:
        """Names of all weights, for the wildcard's pattern: models may share them."""
        return list(self._with_weights)

    def weights(self, model: str) -> str:
        """The file that says what a model's weights are."""
        return self.config.models[model].embed.weights_file()

    # --- exported networks ---

    @cached_property
    def _with_export(self) -> dict[str, str]:
        """One model for each exported network: all that have it share it."""
        return {path: model for model in self.config.models for path in self.exports(model)}

    def export_names(self) -> list[str]:
        """Names of all exported networks, below those of their weights, for the wildcard's pattern."""
        return [path.split("/")[-2] for path in self._with_export]

    def exports(self, model: str) -> list[str]:
        """The file that describes a model's exported network, where jobs may embed with it on a CPU; or nothing."""
        path = self._export_files[model]
        return [path] if path and self.config.environment == "cpu" else []

    @cached_property
    def _export_files(self) -> dict[str, str | None]:
        """Where each model's network is exported to, for CPUs; cached, since every shard needs it."""
        return {name: model.embed.export_file() for name, model in self.config.models.items()}

    def exported_model(self, weights: str, export: str) -> str:
        """A model that an exported network belongs to."""
        return self._with_export[f"results/exports/{weights}/{export}/export.json"]

    # --- embeddings, neighbors, metrics ---

    def embeddings(self, dataset: str, model: str) -> list[str]:
        """All embedding shards of a model on a data set."""
        return [f"results/{dataset}/embeddings/{model}/{shard}.parquet" for shard in self.shard_ids(dataset)]

    def rejected(self, dataset: str, model: str) -> list[str]:
        """The tables of rejected images that belong to ``embeddings``."""
        return [f"results/{dataset}/rejected/{model}/{shard}.parquet" for shard in self.shard_ids(dataset)]

    def timings(self, dataset: str, model: str) -> list[str]:
        """Where the embed jobs leave their timings, on which no rerun depends (rules/measure.smk)."""
        return [f"results/logs/embed/{dataset}/{model}/{shard}.json" for shard in self.shard_ids(dataset)]

    def per_model(self, experiment: str, pattern: str) -> list[str]:
        """``pattern`` filled in for every model and index of an experiment, in the order of the configuration."""
        entry = self.config.experiments[experiment]
        return [
            pattern.format(dataset=entry.dataset, model=model, index=index)
            for model in entry.models
            for index in entry.indexes
        ]

    def searched(self, experiment: str, name: str) -> list[str]:
        """The files of one name of SEARCHED for every model and index of an experiment."""
        return self.per_model(experiment, SEARCHED[name])

    def compared_shards(self, dataset: str) -> list[str]:
        """The shard files of the images in which near-duplicates are looked for: all but those of the showcase."""
        return [path for path in self.shard_files(dataset) if "/showcase-" not in path]

    def near_duplicates(self, dataset: str) -> list[str]:
        """The groups of a data set's near-duplicates, one file; none where its entry leaves them out."""
        return [f"results/{dataset}/sample/near_duplicates.parquet"] * self.config.datasets[dataset].near_duplicates

    def audited(self, experiment: str) -> list[str]:
        """The verdicts on wrong answers for every model and index of an experiment."""
        return self.per_model(experiment, AUDITED)

    def maps(self, experiment: str) -> list[str]:
        """The maps of an experiment's models, of what they found with its first index."""
        entry = self.config.experiments[experiment]
        return [MAPPED.format(dataset=entry.dataset, model=model, index=entry.indexes[0]) for model in entry.models]

    def seen_of(self, experiment: str) -> list[str]:
        """What every model saw of the images: the tables that are written beside every index."""
        return self.per_model(experiment, "results/{dataset}/indexes/{model}/{index}.images.parquet")

    def dataset_of(self, experiment: str) -> str:
        """The data set of an experiment."""
        return self.config.experiments[experiment].dataset


def has_braces(path: str) -> bool:
    """Whether Snakemake would take part of a path for a wildcard."""
    return "{" in path or "}" in path
