"""Experiments that vary one model: variants of its ``embed:`` entry, as models of their own.

``expand`` turns such an experiment into an ordinary one, so that everything after it sees only models.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from lookalike.config import mistakes
from lookalike.config.models import Embed, Model
from lookalike.config.records import Config, Vary
from lookalike.job.errors import did_you_mean

LONGEST = 40  # characters of a value in a variant's name: names are parts of paths
_EMBED: TypeAdapter[Any] = TypeAdapter(Embed)


def expand(config: Config) -> tuple[Config, list[str]]:
    """The configuration with the variants of every varied model among its models, and one line per mistake.

    A variant is named after its model and the values in which it differs, ``dinov2-base.pooling-mean``; a combination
    without a difference is the model itself. So experiments share their variants, and adding a value or a key renames
    none. An experiment with a mistake keeps only the model.
    """
    models, lines = dict(config.models), []
    experiments = dict(config.experiments)
    for name, experiment in config.experiments.items():
        if not experiment.vary:
            continue
        where = f"experiments.{name}.vary"
        variants, mistaken = _variants(where, experiment.vary, config.models)
        for variant, model in variants.items():
            if (known := models.setdefault(variant, model)).embed != model.embed:
                mistaken.append(
                    f"{where}: creates a model '{variant}', but models.{variant} has other settings: "
                    f"{_settings(known)}. Give that model another name."
                )
        lines += mistaken
        experiments[name] = experiment.model_copy(update={"models": tuple(variants)})
    return config.model_copy(update={"models": models, "experiments": experiments}), lines


def levels(vary: Vary, model: Model) -> dict[str, dict[str, Any]]:
    """Each varied key with its values by their text in names and tables, the model's own value first.

    Its own value is included whether it is listed or not: the others are compared with it.
    """
    own = model.embed.model_dump(mode="json")
    return {
        key: {as_text(level): level for level in [own[key], *(_value(model, key, value) for value in values)]}
        for key, values in vary.over.items()
    }


def as_text(value: Any) -> str:
    """A value as readable text: a string unchanged, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def variant_name(model: str, differing: Mapping[str, str]) -> str:
    """``dinov2-base.pooling-mean.size-448``: keys in alphabetical order, whatever their order in the file.

    Characters that are not safe in a path become a hyphen; such a value gets a few digits of its hash, so that names
    stay unique.
    """
    return ".".join([model, *(f"{key}-{_slug(text)}" for key, text in sorted(differing.items()))])


def _slug(text: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-")[:LONGEST]
    return safe if safe == text else f"{safe}-{hashlib.sha256(text.encode()).hexdigest()[:4]}".lstrip("-")


def _variants(where: str, vary: Vary, models: Mapping[str, Model]) -> tuple[dict[str, Model], list[str]]:
    """All combinations by name, the model's own first, and mistakes; if there are any, only the model itself."""
    base = models.get(vary.model)
    if not base:
        return {}, [f"{where}.model: model '{vary.model}' is not defined.{did_you_mean(vary.model, models)}"]
    lines = [line for key in vary.over for line in _bad_key(where, vary, key, base)]
    if lines:
        return {vary.model: base}, lines
    variants = {}
    factors = levels(vary, base)
    for combination in product(*(texts for texts in factors.values())):
        differing = {
            key: text
            for (key, texts), text in zip(factors.items(), combination, strict=True)
            if text != next(iter(texts))
        }
        try:
            changes = {key: factors[key][text] for key, text in differing.items()}
            embed = _EMBED.validate_python({**base.embed.model_dump(), **changes})
        except ValidationError as error:
            place = f"{where}.over.{next(iter(differing))}" if len(differing) == 1 else f"{where}.over"
            settings = ", ".join(f"{key}: {text}" for key, text in differing.items())
            lines += [
                f"{place}: '{vary.model}' with {settings} is not possible: {details['ctx']['error']}"
                for details in error.errors()
            ]
        else:
            variants[variant_name(vary.model, differing)] = (
                Model(embed=embed, runtime=base.runtime) if differing else base
            )
    return variants, lines


def _bad_key(where: str, vary: Vary, key: str, model: Model) -> Iterator[str]:
    """Mistakes in one key, and in each of its values."""
    place, known = f"{where}.over.{key}", set(type(model.embed).model_fields) - {"family"}
    if key == "family":
        yield f"{place}: cannot be varied: another family is another model. List it under an experiment's models:."
        return
    if key not in known:
        yield f"{place}: unknown key of family '{model.embed.family}'.{did_you_mean(key, known)}"
        return
    texts = []
    for number, value in enumerate(vary.over[key]):
        try:
            texts.append(as_text(_value(model, key, value)))
        except ValidationError as error:
            yield from (_in_place(f"{place}.{number}", vary.model, key, model, details) for details in error.errors())
    for text in mistakes.repeated(texts):
        yield f"{place}: '{text}' is listed more than once. List it once."
    own = as_text(model.embed.model_dump(mode="json")[key])
    if texts == [own]:
        yield f"{place}: '{own}' is already the value of '{vary.model}'. Add another value to compare it with."


def _in_place(place: str, name: str, key: str, model: Model, error: Any) -> str:
    """The message about a value, worded as for the same mistake in a model's entry."""
    raw = {"models": {name: {"embed": {"family": model.embed.family}}}}
    entry = ("models", name, "embed", model.embed.family, key, *error["loc"])
    message = mistakes.explain_one({**error, "loc": entry}, raw)
    return place + message.removeprefix(f"models.{name}.embed.{key}")


def _value(model: Model, key: str, value: Any) -> Any:
    """A value converted to the key's type, independent of other keys: 448 for 448.0."""
    field = type(model.embed).model_fields[key]
    kind: Any = Annotated[field.annotation, field]
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    return adapter.dump_python(adapter.validate_python(value), mode="json")


def _settings(model: Model) -> str:
    return json.dumps(model.embed.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
