"""The configuration as a whole: the catalogue, and the experiments that pick from it."""

from typing import Literal

from pydantic import Field

from lookalike.config.datasets import Dataset
from lookalike.config.entry import Entry
from lookalike.config.models import Model


class Train(Entry):
    """What an index learns from: training pictures, or the references where the data set has none."""

    sample: int = Field(100_000, ge=1, description="vectors to train on; all where there are fewer")
    seed: int = Field(0, ge=0, description="of the draw; another seed, other vectors")


class Normalise(Entry):
    """Score normalisation, where the data set has training pictures: what is taken off a query's scores.

    beta times the mean of its inner products with its nearest training pictures, from the first to the last (SSCD).
    """

    beta: float = 1.0
    first: int = Field(1, ge=1)
    last: int = Field(3, ge=1)


class IndexRuntime(Entry):
    """How an index is built and searched: nothing here changes what is found, but for ties."""

    gpu: int = Field(0, ge=0, le=1, description="1: on a GPU, where FAISS can use one")
    threads: int = Field(4, ge=1)
    mem_mb: int = Field(2000, ge=1, description="memory to ask a cluster for, in MB; doubled by a retry")
    minutes: int = Field(30, ge=1, description="run time to ask a cluster for")


class Index(Entry):
    """An index: a FAISS factory, or, streamed, no more than the list of shards that are searched."""

    factory: str | None = Field(None, min_length=1, description="a FAISS factory string; Flat is exact")
    streamed: bool = Field(False, description="build nothing, search the shards themselves")
    search: dict[str, float] = Field({}, description="FAISS search parameters, such as nprobe and efSearch")
    train: Train = Train()
    normalise: Normalise = Normalise()
    runtime: IndexRuntime = IndexRuntime()

    @property
    def exact(self) -> bool:
        """Whether it finds the true nearest neighbors of the vectors as they are."""
        return self.streamed or self.factory == "Flat"


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
