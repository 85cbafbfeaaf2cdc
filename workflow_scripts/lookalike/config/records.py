"""The configuration as a whole: the catalogue, and the experiments that pick from it."""

from typing import Literal

from pydantic import Field

from lookalike.config.datasets import Copies, Dataset
from lookalike.config.entry import Entry
from lookalike.config.indexes import Index
from lookalike.config.models import Model


class Experiment(Entry):
    """A comparison of models on one data set."""

    dataset: str
    models: tuple[str, ...] = Field(min_length=1)
    indexes: tuple[str, ...] = Field(("flat",), min_length=1)
    title: str = ""


class Config(Entry):
    """All of ``config.yaml``."""

    run: tuple[str, ...] = Field(min_length=1, description="the experiments that a bare `snakemake` builds")
    environment: Literal["cpu", "gpu"] = Field("cpu", description="the file of envs/ that --sdm conda uses")
    datasets: dict[str, Dataset]
    models: dict[str, Model]
    indexes: dict[str, Index]
    experiments: dict[str, Experiment]

    def pools(self, dataset: str) -> tuple[str, ...]:
        """The pools of a data set's pictures: its own, its source's training pictures for copies, outside pictures."""
        entry = self.datasets[dataset]
        source = self.datasets.get(entry.of) if isinstance(entry, Copies) else None
        training = ("training",) if source and "training" in source.source_pools else ()
        return (*entry.source_pools, *training, *(("gallery",) if entry.gallery else ()))
