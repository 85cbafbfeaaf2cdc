"""The configuration as a whole: the catalogue, and the experiments that pick from it."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from lookalike.config.datasets import Copies, Dataset
from lookalike.config.entry import Entry
from lookalike.config.indexes import Index
from lookalike.config.models import Model


class Vary(Entry):
    """One model with other values in its ``embed:`` entry, in all combinations (``config.vary``)."""

    model: str
    over: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(
        min_length=1, description="keys of the model's embed: entry, each with a list of values"
    )


class Experiment(Entry):
    """A comparison on one data set: of models, or of one model's variants, which ``parse`` makes its models."""

    dataset: str
    models: tuple[str, ...] = Field((), min_length=1)
    vary: Vary | None = None
    indexes: tuple[str, ...] = Field(("flat",), min_length=1)
    title: str = ""

    @model_validator(mode="after")
    def _one_source_of_models(self) -> "Experiment":
        if not self.models and not self.vary:
            raise ValueError(
                "names nothing to compare. Add models: [...], or vary: {model: ..., over: {...}} (docs/vary.md)."
            )
        if self.models and self.vary:
            raise ValueError(
                "has both models: and vary:, so it is not clear what is compared. Keep one of them; to compare "
                "variants with other models, name all of them in the models: of another experiment. (Entries of a "
                "--configfile are merged over the catalogue's: an experiment of the same name there counts too.)"
            )
        return self


class Config(Entry):
    """All of ``config.yaml``."""

    run: tuple[str, ...] = Field(min_length=1, description="the experiments that a bare `snakemake` builds")
    environment: Literal["cpu", "gpu"] = Field("cpu", description="the file of envs/ that --sdm conda uses")
    datasets: dict[str, Dataset]
    models: dict[str, Model]
    indexes: dict[str, Index]
    experiments: dict[str, Experiment]

    def parts(self, dataset: str) -> tuple[str, ...]:
        """The parts of a data set's pictures: its own, its source's training pictures for copies, outside pictures."""
        entry = self.datasets[dataset]
        source = self.datasets.get(entry.of) if isinstance(entry, Copies) else None
        training = ("training",) if source and "training" in source.source_parts else ()
        return (*entry.source_parts, *training, *(("showcase",) if entry.showcase else ()))
