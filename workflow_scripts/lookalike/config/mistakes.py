"""Messages about mistakes in a configuration, one line each: the place, the fact, the remedy."""

import re
from collections.abc import Sequence
from datetime import date
from typing import Any, get_args

from pydantic import ValidationError

from lookalike.config.about import About
from lookalike.config.datasets import Copies, Dataset
from lookalike.config.entry import Entry
from lookalike.config.indexes import Index, IndexRuntime, Normalise, Train
from lookalike.config.models import Embed, Model, Runtime
from lookalike.config.records import Config, Experiment, Vary
from lookalike.job.errors import did_you_mean, nearest

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
LONGEST = 200  # characters of a name; file names are limited to 255, and endings are added
# What search writes besides {index}.parquet.
BESIDE = ("candidates", "candidates_sn", "training", "showcase", "classes")

# Renamed keys and entries of earlier versions, by section.
RENAMED = {
    "datasets": {"gallery": "showcase"},
    "models": {"kind": "architecture"},
    "indexes": {"streamed": "scan"},
}

# For a union, pydantic inserts the chosen member's tag into the place: (..., 'embed', 'pixels', 'siz').
_UNIONS = {"datasets": ("kind", Dataset), "models": ("family", Embed)}


# The mappings within an entry of a section, and their records.
_INNER: dict[str, dict[str, tuple[type[Entry], ...]]] = {
    "models": {"embed": get_args(get_args(Embed)[0]), "runtime": (Runtime,), "about": (About,)},
    "indexes": {"runtime": (IndexRuntime,)},
}


def explain(error: ValidationError, raw: Any) -> list[str]:
    """One line per error that pydantic found in a raw configuration."""
    return [explain_one(details, raw) for details in _without_consequences(error.errors())]


def of(config: Config, rule_names: frozenset[str]) -> list[str]:
    """One line per name that is taken, not valid in a path, or not defined, and per other mistake between entries."""
    return [*_bad_names(config, rule_names), *_dangling(config), *_bad_parts(config), *_bad_indexes(config)]


def _without_consequences(errors: list[Any]) -> list[Any]:
    """Drop a list's "too short" if one of its items is wrong, since it is short only without that item."""
    places = [error["loc"] for error in errors]
    return [
        error
        for error in errors
        if error["type"] != "too_short"
        or not any(place[: len(error["loc"])] == error["loc"] != place for place in places)
    ]


def _members(union: Any) -> dict[str, type[Entry]]:
    tag, members = union.__metadata__[0].discriminator, union.__origin__.__args__
    return {member.model_fields[tag].annotation.__args__[0]: member for member in members}


def explain_one(error: Any, raw: Any) -> str:
    """One line for one of pydantic's errors: ``models.x.embed.poolng: unknown key. Did you mean 'pooling'?``."""
    place, value = list(error["loc"]), error.get("input")
    is_name = place[-1:] == ["[key]"]
    if is_name:
        del place[-2:]
    chosen = _pop_tag(place)
    where = ".".join(str(part) for part in place) or "configuration"
    if is_name:
        return f"{where}: a name should be text, but YAML reads this one as {_as_yaml_reads(value)}"
    match error["type"]:
        case "invalid_key":
            return (
                f"{where.rpartition('.')[0] or where}: {value!r} is not a valid key. Inside {{ }} a comma ends an "
                "entry: write numbers without commas (1000), and put text with commas in quotes."
            )
        case "extra_forbidden":
            if renamed := _renamed(str(place[0]), str(place[-1])):
                return f"{where}: is now called '{renamed}'. Rename the key."
            return f"{where}: unknown key.{_where_it_belongs(place, chosen, value)}"
        case "missing":
            return f"{where}: is missing. Add it; config.yaml explains every key."
        case "union_tag_not_found":
            tag, members = _union(error)
            return f"{where}.{tag}: is missing. Known: {', '.join(sorted(members))}."
        case "union_tag_invalid":
            tag, members = _union(error)
            name = str(error["ctx"]["tag"])
            return f"{where}.{tag}: unknown {tag} '{name}'.{did_you_mean(name, members)}"
        case "value_error":
            return f"{where}: {error['ctx']['error']}"
    return f"{where}: {_wrong_value(error, place, raw)}"


def _renamed(block: str, name: str) -> str:
    """The present name of a key, or of an entry of the catalogue, of an earlier version; empty if not renamed."""
    return RENAMED.get(block, {}).get(name, "")


def _pop_tag(place: list[Any]) -> str:
    """Remove the chosen member's tag from a place, if it has one, and return it."""
    match place:
        case ["datasets", _, _, *_]:
            return str(place.pop(2))
        case ["models", _, "embed", _, *_]:
            return str(place.pop(3))
    return ""


def _union(error: Any) -> tuple[str, dict[str, type[Entry]]]:
    """The key that tells a union's records apart, which an error is about, and the records by its values."""
    tag = error["ctx"]["discriminator"].strip("'")
    return tag, _members(Dataset if tag == "kind" else Embed)


def _where_it_belongs(place: list[Any], chosen: str, value: Any) -> str:
    """A hint on an unknown key: it may be another family's, belong to another mapping of the entry, or be a typo."""
    key, inside = place[-1], place[2:-1]
    known = _known_keys(place)
    if chosen:
        tag, union = _UNIONS[str(place[0])]
        members = _members(union)
        known = set(members[chosen].model_fields) if chosen in members else set()
        if owners := [name for name, member in members.items() if key in member.model_fields and name != chosen]:
            return (
                f" It belongs to {tag} '{owners[0]}', and this entry's {tag} is '{chosen}'. Entries of a --configfile"
                f" are merged over the catalogue's: to change the {tag}, give the entry another name."
            )
    for name, records in _INNER.get(str(place[0]), {}).items():
        if inside != [name] and any(key in record.model_fields for record in records):
            return f" It belongs under {name}:."
    if value is None:
        return " It has no value: inside { } a comma ends an entry, so put text with commas in quotes."
    return did_you_mean(str(key), known)


def _wrong_value(error: Any, place: list[Any], raw: Any) -> str:
    """What a value should be, and what it is."""
    value = error.get("input")
    if value is None:
        return "has no value. Add one, or remove the line."
    match error["type"]:
        case "model_type" | "dict_type" | "model_attributes_type":
            return f"should be a mapping (key: value), found {value!r}."
        case "tuple_type":
            return f"should be a list, such as [{value}], found {value!r}."
        case "too_short":
            return "is empty. Add at least one."
        case "string_type" if isinstance(value, bool | int | float | date):
            return f"should be text, but YAML reads it as {_as_yaml_reads(value)}"
    message = _MESSAGES.get(error["type"], f"{error['msg'][0].lower()}{error['msg'][1:]}")
    suggestion = ""
    if error["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        suggestion = did_you_mean(str(value), choices) if nearest(str(value), choices) else ""
    return f"{message}, found {value!r}{_description(place, raw)}.{suggestion}"


# Where pydantic's own messages are longer, or do not say what to write.
_MESSAGES = {
    "string_type": "should be text",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "should be a whole number in digits, such as 30"),
    **dict.fromkeys(("float_type", "float_parsing"), "should be a number in digits, such as 0.5"),
}


def _as_yaml_reads(value: Any) -> str:
    """How YAML reads a value without quotes, and the remedy."""
    if isinstance(value, bool):
        words = ("yes", "on") if value else ("no", "off")
        return f'{str(value).lower()}, like {" and ".join(words)}. Put the word in quotes, such as "{words[0]}".'
    what = "date" if isinstance(value, date) else "number" if isinstance(value, int | float) else "value"
    return f'the {what} {value}. Put it in quotes: "{value}".'


def _record_at(place: list[Any], raw: Any = None) -> type[Entry] | None:
    """The record type of which the last part of ``place`` is a key."""
    match [str(part) for part in place]:
        case [_]:
            return Config
        case ["datasets", name, _, *_]:
            kind = raw.get("datasets", {}).get(name, {}).get("kind") if raw else None
            return _members(Dataset).get(str(kind))
        case ["models", name, "embed", _, *_]:
            family = raw["models"][name]["embed"].get("family") if raw else None
            return _members(Embed).get(str(family))
        case ["models", _, "runtime", _]:
            return Runtime
        case ["models", _, "about", _]:
            return About
        case ["models", _, _]:
            return Model
        case ["indexes", _, "train", _]:
            return Train
        case ["indexes", _, "normalise", _]:
            return Normalise
        case ["indexes", _, "runtime", _]:
            return IndexRuntime
        case ["indexes", _, _, *_]:
            return Index
        case ["experiments", _, "vary", _, *_]:
            return Vary
        case ["experiments", _, _, *_]:
            return Experiment
    return None


def _known_keys(place: list[Any]) -> set[str]:
    record = _record_at(place)
    return set(record.model_fields) if record else set()


def _description(place: list[Any], raw: Any) -> str:
    """``" (side of a tile, in pixels)"``, or nothing for a key without a description."""
    record = _record_at(place, raw)
    for part in reversed(place):
        if record and part in record.model_fields and record.model_fields[part].description:
            return f" ({record.model_fields[part].description})"
    return ""


def repeated(names: Sequence[str]) -> list[str]:
    """The names that occur more than once, sorted."""
    return sorted({name for name in names if names.count(name) > 1})


def why_not_a_name(name: str) -> str:
    """Why an entry cannot have a name; "" where it can."""
    if not NAME.fullmatch(name):
        return "names are parts of paths. Use letters, digits, '.', '_' and '-', and start with a letter or digit."
    if len(name) > LONGEST:
        return f"has {len(name)} characters. Names are parts of paths: use {LONGEST} or fewer."
    return ""


def _bad_names(config: Config, rule_names: frozenset[str]) -> list[str]:
    mistakes = []
    for section in ("datasets", "models", "indexes", "experiments"):
        for name in getattr(config, section):
            if reason := why_not_a_name(name):
                mistakes.append(f"{section}.{name}: {reason}")
    for name in config.experiments:
        if name in rule_names:
            mistakes.append(f"experiments.{name}: is already the name of a rule of the workflow. {_other_name(name)}")
    for name in config.datasets:
        if name in ("weights", "exports", "vector_store", "reports", "logs"):
            mistakes.append(f"datasets.{name}: results/{name}/ is reserved for the workflow. {_other_name(name)}")
    for name in config.indexes:
        start, dot, end = name.rpartition(".")
        if dot and end in BESIDE:
            mistakes.append(
                f"indexes.{name}: its files would have the same names as other files of an index '{start}'. "
                f"Choose a name that does not end in '.{end}', for example '{start}-{end}'."
            )
    return mistakes


def _other_name(name: str) -> str:
    return f"Choose another name, for example 'my-{name}'."


def _dangling(config: Config) -> list[str]:
    mistakes = []

    def check(where: str, what: str, name: str, known: dict[str, Any]) -> None:
        if name not in known:
            renamed = _renamed(f"{what}es", name)
            hint = f" It is now called '{renamed}'." if renamed in known else did_you_mean(name, known)
            mistakes.append(f"{where}: {what} '{name}' is not defined.{hint}")

    def check_unique(where: str, names: tuple[str, ...]) -> None:
        for name in repeated(names):
            mistakes.append(f"{where}: '{name}' is listed more than once. List it once.")

    for name in dict.fromkeys(config.run):
        check("run", "experiment", name, config.experiments)
    check_unique("run", config.run)
    for name, dataset in config.datasets.items():
        if isinstance(dataset, Copies):
            where = f"datasets.{name}.of"
            check(where, "data set", dataset.of, config.datasets)
            if isinstance(config.datasets.get(dataset.of), Copies):
                mistakes.append(f"{where}: '{dataset.of}' consists of copies itself. Use the data set that it copies.")
    for name, experiment in config.experiments.items():
        where = f"experiments.{name}"
        check(f"{where}.dataset", "data set", experiment.dataset, config.datasets)
        for model in experiment.models:
            check(f"{where}.models", "model", model, config.models)
        for model in experiment.if_installed:
            check(f"{where}.if_installed", "model", model, config.models)
        for index in experiment.indexes:
            check(f"{where}.indexes", "index", index, config.indexes)
        known_dataset = config.datasets.get(experiment.dataset)
        if known_dataset and not known_dataset.has_queries:
            mistakes.append(
                f"{where}.dataset: '{experiment.dataset}' has no queries. "
                f"Add a data set {{kind: copies, of: {experiment.dataset}}} and use that one (docs/copies.md)."
            )
        known_models = [model for model in dict.fromkeys(experiment.models) if model in config.models]
        labels = [config.models[model].label or model for model in known_models]
        for label in repeated(labels):
            mistakes.append(f"{where}.models: two models have the label '{label}'. Give them different labels.")
        for key in ("models", "indexes"):
            check_unique(f"{where}.{key}", getattr(experiment, key))
    return mistakes


def _bad_indexes(config: Config) -> list[str]:
    return [f"indexes.{name}{mistake}" for name, index in config.indexes.items() for mistake in index.mistakes()]


def _bad_parts(config: Config) -> list[str]:
    return [
        f"datasets.{name}.shards.{part}: unknown part.{did_you_mean(_renamed('datasets', part) or part, parts)}"
        for name, dataset in config.datasets.items()
        for parts in [config.parts(name)]
        for part in dataset.shards
        if part not in parts
    ]
