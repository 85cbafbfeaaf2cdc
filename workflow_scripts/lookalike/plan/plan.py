"""Every question that a rule file asks, answered from the configuration alone.

The Snakefile imports this module, so it never imports torch, and takes no decision that Snakemake cannot see.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lookalike.config import factories
from lookalike.config import loading as configuration
from lookalike.config.files import check
from lookalike.config.indexes import IndexRuntime
from lookalike.config.models import Runtime
from lookalike.config.records import Config
from lookalike.job.errors import ConfigError
from lookalike.plan.code import WORKFLOW
from lookalike.plan.installed import without_missing
from lookalike.plan.keys import Keys

RULES = (
    *("make_images", "sample", "shard", "find_near_duplicates", "fetch_weights", "export", "embed", "index", "search"),
    *("audit", "measure", "project", "compare", "find_duplicates", "report"),
)


@dataclass(frozen=True)
class Plan(Keys):
    """Paths, keys, and the resources that jobs request."""

    @classmethod
    def of(cls, raw: Mapping[str, Any], files: Iterable[str | Path] = (), *, installed_here: bool = True) -> "Plan":
        """Check a configuration as YAML gives it, and the files it was merged from. Raises ConfigError.

        Optional models whose Python package is missing are left out, unless jobs have an environment of their own, not
        ``installed_here``.
        """
        check([*files])
        datasets = raw.get("datasets")
        names = datasets if isinstance(datasets, Mapping) else ()
        per_dataset = [f"{rule}_{name}" for rule in ("make_images", "shard") for name in names]
        config = configuration.parse(dict(raw), frozenset({"all", *RULES, *per_dataset}))
        if unfit := list(_unfit(config)):
            raise ConfigError("\n".join(unfit))
        config, left_out = without_missing(config) if installed_here else (config, {})
        return cls(config, left_out=left_out)

    @property
    def environment(self) -> str:
        """The conda environment's file; braces are doubled, since Snakemake takes single ones for a wildcard."""
        root = str(WORKFLOW).replace("{", "{{").replace("}", "}}")
        return f"{root}/envs/{self.config.environment}.yaml"

    def title(self, experiment: str) -> str:
        """An experiment's question, for people; by default its name."""
        return self.config.experiments[experiment].title or experiment

    def index_runtime(self, index: str) -> IndexRuntime:
        """How an index is built and searched; nothing of it changes what is found."""
        return self.config.indexes[index].runtime

    def build_gpu(self, index: str) -> int:
        """GPUs to request for building an index: none unless it learns clusters (IVF), so that none is idle."""
        entry = self.config.indexes[index]
        return entry.runtime.gpu if "IVF" in (entry.factory or "") else 0

    def runtime(self, model: str) -> Runtime:
        """How a model is run; nothing of it changes a vector."""
        return self.config.models[model].runtime

    def image_seconds(self, dataset: str) -> int:
        """How long decoding one image of a data set may take, by the most patient of the models that embed it."""
        models = {
            model for entry in self.config.experiments.values() if entry.dataset == dataset for model in entry.models
        }
        return max((self.runtime(model).image_seconds for model in models), default=300)

    def download_seconds(self, weights: str) -> int:
        """How long one chunk of a download of weights may take, by the most patient of the models that share them."""
        entries = self.config.models.values()
        return max(entry.runtime.download_seconds for entry in entries if entry.embed.weights_name() == weights)

    def export_memory(self, model: str) -> int:
        """Memory to request for exporting a model's network, in MB: of all models with it, what embedding requests."""
        path = self.exports(model)
        return max(entry.runtime.mem_mb for name, entry in self.config.models.items() if self.exports(name) == path)

    def batch_size(self, model: str, attempt: int) -> int:
        """Images per forward pass: halved with every retry, since memory may have run out."""
        return max(1, self.runtime(model).batch_size >> (attempt - 1))

    def on_bad_image(self, dataset: str) -> str:
        """What happens to an image that cannot be used: "reject" or "fail"."""
        return self.config.datasets[dataset].on_bad_image


def _unfit(config: Config) -> Iterator[str]:
    """One line for each index of an experiment that FAISS cannot build for a model whose dimensions its entry tells."""
    for name, experiment in config.experiments.items():
        for index in experiment.indexes:
            factory = config.indexes[index].factory
            if factory in (None, "Flat"):
                continue
            for model in experiment.models:
                dimension = config.models[model].embed.dimension
                if dimension and (why := factories.why_rejected(factory, (dimension,))) is not None:
                    yield (
                        f"experiments.{name}.indexes: FAISS cannot build '{index}' ({factory}) for model '{model}', "
                        f"whose vectors have {dimension} dimensions: {why}. Name another index, or change its factory."
                    )
