"""``config.yaml`` as typed records: a catalogue of data sets, models and indexes, and experiments that pick from it.

Unknown keys are errors with a suggestion. A released default is frozen: the keys that decide about reruns leave it out
(``plan.Plan.embedding_key``), so a setting whose meaning changes gets a new name.
"""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lookalike.config import mistakes, vary
from lookalike.config.files import read
from lookalike.config.records import Config
from lookalike.job.errors import ConfigError


def load(path: str | Path, rule_names: frozenset[str] = frozenset()) -> Config:
    """Read and check a configuration file. Raises ConfigError with one line per mistake."""
    return parse(read(path), rule_names)


def parse(raw: Any, rule_names: frozenset[str] = frozenset()) -> Config:
    """Check a configuration that was read from YAML.

    ``rule_names`` cannot be names of experiments, since both are targets of Snakemake.
    Raises ConfigError with one line per mistake: the place, the fact, the remedy.
    """
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError("\n".join(mistakes.explain(error, raw))) from None
    config, lines = vary.expand(config)
    if lines := [*lines, *mistakes.of(config, rule_names)]:
        raise ConfigError("\n".join(lines))
    return config
