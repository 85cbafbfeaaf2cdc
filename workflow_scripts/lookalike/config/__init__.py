"""``config.yaml`` as typed records: a catalogue of data sets, models and indexes, and experiments that pick from it.

Unknown keys are errors with a suggestion. A default, once released, is frozen: it is left out of the keys that decide
about reruns (see ``plan.Plan.embedding_key``), so a changed meaning gets a new name.
"""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lookalike.config import mistakes, vary
from lookalike.config.datasets import (
    OPERATIONS,
    Coco,
    Copies,
    Dataset,
    Disc21,
    Flickr30k,
    Folder,
    Operation,
    PhotoTiles,
    Published,
    Selection,
    Strength,
)
from lookalike.config.files import check, read
from lookalike.config.indexes import Index, IndexRuntime, Normalise, Train
from lookalike.config.models import (
    Blip2,
    Checkpoint,
    ColorHistogram,
    EfficientNetLite,
    Embed,
    Pixels,
    PythonFactory,
    Runtime,
    TorchScript,
    Transformers,
    is_commit,
)
from lookalike.config.records import Config, Experiment, Vary
from lookalike.errors import ConfigError

__all__ = [
    "OPERATIONS",
    "Blip2",
    "Checkpoint",
    "Coco",
    "ColorHistogram",
    "Config",
    "Copies",
    "Dataset",
    "Disc21",
    "EfficientNetLite",
    "Embed",
    "Experiment",
    "Flickr30k",
    "Folder",
    "Index",
    "IndexRuntime",
    "Normalise",
    "Operation",
    "PhotoTiles",
    "Pixels",
    "Published",
    "PythonFactory",
    "Runtime",
    "Selection",
    "Strength",
    "TorchScript",
    "Train",
    "Transformers",
    "Vary",
    "check",
    "is_commit",
    "load",
    "parse",
    "read",
]


def load(path: str | Path, rule_names: frozenset[str] = frozenset()) -> Config:
    """Read and check a configuration file. Raises ConfigError with one line a mistake."""
    return parse(read(path), rule_names)


def parse(raw: Any, rule_names: frozenset[str] = frozenset()) -> Config:
    """Check a configuration that was read from YAML.

    ``rule_names`` may not be used as names of experiments, since both are targets of Snakemake.
    Raises ConfigError with one line a mistake: the place, the fact, the remedy.
    """
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError("\n".join(mistakes.explain(error, raw))) from None
    config, found = vary.expand(config)
    if found := [*found, *mistakes.of(config, rule_names)]:
        raise ConfigError("\n".join(found))
    return config
