"""From a configuration: the keys and code hashes that decide what runs again."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel

from lookalike.config import user_module
from lookalike.config.models import PythonFactory
from lookalike.config.vary import as_text
from lookalike.plan.code import Code
from lookalike.plan.installed import LeftOut
from lookalike.plan.paths import Paths, has_braces

LATER = frozenset(
    {"k", "shards", "on_bad_image", "expect", "near_duplicates"}
)  # keys of a data set that change no sample


@dataclass(frozen=True)
class Keys(Paths):
    """What changes the files of ``Paths``: each key is a JSON string, sorted and without defaults."""

    source: Code = field(default_factory=Code, repr=False, compare=False)
    left_out: LeftOut = field(default_factory=dict)  # optional models that are not installed, by experiment

    def dataset_key(self, dataset: str) -> str:
        """What decides which images a data set has: its entry without what later stages use."""
        return key(self.config.datasets[dataset], leave_out=LATER)

    def images_key(self, dataset: str) -> str:
        """What decides which images the run makes for a data set, and their shards; showcase images do not count."""
        entry = self.config.datasets[dataset]
        shards = {part: count for part, count in entry.shards.items() if part == entry.made_part and count > 1}
        return key(entry.model_copy(update={"shards": shards}), leave_out=(LATER - {"shards"}) | {"showcase"})

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

    def weights_key(self, weights: str) -> str:
        """What decides which files the weights of a name are: that part of the `embed:` entry of its models."""
        return self.config.models[self._with_weights[weights]].embed.weights_key()

    def export_key(self, model: str) -> str:
        """What changes a model's exported network."""
        return self.config.models[model].embed.export_key() or ""

    def weights_code(self, weights: str) -> str:
        """``factory_hash`` of the models with the weights of a name."""
        return self.factory_hash(self._with_weights[weights])

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
        """What the report shows besides its inputs: the experiment, the models' labels, and whether to show images."""
        entry = self.config.experiments[experiment]
        design = self._design(experiment)
        labels = {model: _said(design[model]) if design else self.label(model) for model in entry.models}
        images = next((one.images for one in (entry.report, self.config.report) if one.images is not None), True)
        return json.dumps(
            {
                "experiment": experiment,
                "title": entry.title,
                "dataset": entry.dataset,
                "labels": labels,
                "k": self.config.datasets[entry.dataset].k,
                "about": {model: about for model in entry.models if (about := self.config.models[model].about.summary)},
                "not_installed": {
                    self.label(model): package for model, package in self.left_out.get(experiment, {}).items()
                },
                **({"varied": self.label(next(iter(design)))} if design else {}),
                **({} if images else {"images": False}),
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
        if model:
            embed = self.config.models[model].embed
            chosen += [f"embed.models.{embed.family}"]
            chosen += ["embed.exported"] if self._export_files[model] and stage == "embed" else []
            chosen += ["embed.gpu_decoding"] if getattr(embed, "decode", "full") == "gpu" else []
        also = self.factory_hash(model) if model else self._hash_of_tables(dataset) if stage == "sample" else ""
        return self.source.hash(stage, *chosen) + also

    def _hash_of_tables(self, dataset: str) -> str:
        """A hash over the tables that cannot be inputs of sample; nothing where all can."""
        tables = [table for table in self.config.datasets[dataset].tables() if has_braces(table)]
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


def _said(values: Mapping[str, str]) -> str:
    return " · ".join(f"{name}: {value}" for name, value in values.items())


def key(entry: BaseModel, leave_out: frozenset[str] = frozenset()) -> str:
    """One sorted JSON string of an entry, defaults left out: neither a new option nor key order reruns anything."""
    return json.dumps(entry.model_dump(mode="json", exclude_defaults=True, exclude=set(leave_out)), sort_keys=True)
