"""The configuration as a whole: the catalogue, and the experiments that pick from it."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from lookalike.config.datasets import Copies, Dataset
from lookalike.config.entry import Entry
from lookalike.config.indexes import Index
from lookalike.config.models import Model


class Vary(Entry):
    """Variants of one model: all combinations of other values in its `embed:` entry."""

    model: str = Field(description="name of the model to vary")
    over: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(
        min_length=1, description="keys of the model's embed: entry, each with a list of values"
    )


class Report(Entry):
    """What HTML reports contain."""

    images: bool | None = Field(
        None, description="whether the report shows thumbnails (default: true); without them it shows ids only"
    )


class Experiment(Entry):
    """A comparison on one data set: of several models, or of one model's variants."""

    dataset: str = Field(description="name of the data set")
    models: tuple[str, ...] = Field((), min_length=1, description="names of the models to compare")
    if_installed: tuple[str, ...] = Field(
        (), description="those of `models` to leave out, with a warning, if their Python package is not installed"
    )
    vary: Vary | None = Field(None, description="instead of `models`: one model with other settings")
    indexes: tuple[str, ...] = Field(("flat",), min_length=1, description="names of the indexes to search with")
    title: str = Field("", description="the question that the experiment answers, as the report's title")
    report: Report = Field(Report(), description="what the report contains, instead of the run's setting")

    @model_validator(mode="after")
    def _one_source_of_models(self) -> "Experiment":
        if not self.models and not self.vary:
            raise ValueError(
                "has nothing to compare. Add models: [...], or vary: {model: ..., over: {...}} (docs/vary.md)."
            )
        if self.models and self.vary:
            raise ValueError(
                "has both models: and vary:, so it is unclear what to compare. Keep one of them; to compare variants "
                "with other models, list all of them under models: in another experiment. (Entries of a --configfile "
                "are merged over the catalogue's, so one of them may come from the experiment of this name there.)"
            )
        return self


class Config(Entry):
    """A catalogue of data sets, models and indexes, and the experiments that pick from it."""

    run: tuple[str, ...] = Field(min_length=1, description="experiments that `snakemake` builds by default")
    environment: Literal["cpu", "gpu"] = Field("cpu", description="environment file in envs/ for --sdm conda")
    report: Report = Field(Report(), description="what reports contain, unless an experiment says otherwise")
    datasets: dict[str, Dataset] = Field(description="data sets by name")
    models: dict[str, Model] = Field(description="models by name")
    indexes: dict[str, Index] = Field(description="indexes by name")
    experiments: dict[str, Experiment] = Field(description="experiments by name")

    def parts(self, dataset: str) -> tuple[str, ...]:
        """The parts of a data set's images: its own, for copies the source's training images, and the showcase."""
        entry = self.datasets[dataset]
        source = self.datasets.get(entry.of) if isinstance(entry, Copies) else None
        training = ("training",) if source and "training" in source.source_parts else ()
        return (*entry.source_parts, *training, *(("showcase",) if entry.showcase else ()))
