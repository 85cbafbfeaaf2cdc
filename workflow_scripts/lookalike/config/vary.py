"""Experiments that vary one model: its ``embed:`` entry with other values, as models of their own.

``expand`` turns such an experiment into an ordinary one, so that whatever comes after it sees models and nothing else.
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

LONGEST = 40  # characters of a value within a name: names are parts of paths
_EMBED: TypeAdapter[Any] = TypeAdapter(Embed)


def expand(config: Config) -> tuple[Config, list[str]]:
    """The configuration with every varied model's variants among its models, and one line for each mistake.

    A variant is named after its model and the values in which it differs, ``dinov2-base.pooling-mean``; a combination
    that differs in nothing is the model itself. So experiments share their variants, and another value or another key
    renames none. An experiment with a mistake keeps the model alone.
    """
    models, found = dict(config.models), []
    experiments = dict(config.experiments)
    for name, experiment in config.experiments.items():
        if not experiment.vary:
            continue
        where = f"experiments.{name}.vary"
        variants, wrong = _variants(where, experiment.vary, config.models)
        for variant, model in variants.items():
            if (known := models.setdefault(variant, model)).embed != model.embed:
                wrong.append(
                    f"{where}: makes a model named '{variant}', and models.{variant} has other settings: "
                    f"{_settings(known)}. Give that model another name."
                )
        found += wrong
        experiments[name] = experiment.model_copy(update={"models": tuple(variants)})
    return config.model_copy(update={"models": models, "experiments": experiments}), found


def levels(vary: Vary, model: Model) -> dict[str, dict[str, Any]]:
    """Each key that is varied with its values as names of files and tables have them, the model's own value first.

    The own value takes part whether it is listed or not: it is what the others are compared with.
    """
    own = model.embed.model_dump(mode="json")
    return {
        key: {as_text(one): one for one in [own[key], *(_value(model, key, value) for value in values)]}
        for key, values in vary.over.items()
    }


def as_text(value: Any) -> str:
    """A value as people read it: a string as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def variant_name(model: str, differing: Mapping[str, str]) -> str:
    """``dinov2-base.pooling-mean.size-448``: keys in alphabetical order, whatever the order that they are written in.

    What a path cannot hold becomes a hyphen, and the value gets a few digits of its hash, so that no two share a name.
    """
    return ".".join([model, *(f"{key}-{_slug(text)}" for key, text in sorted(differing.items()))])


def _slug(text: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-")[:LONGEST]
    return safe if safe == text else f"{safe}-{hashlib.sha256(text.encode()).hexdigest()[:4]}".lstrip("-")


def _variants(where: str, vary: Vary, models: Mapping[str, Model]) -> tuple[dict[str, Model], list[str]]:
    """All combinations by name, the model's own first; and mistakes, with which only the model itself comes back."""
    base = models.get(vary.model)
    if not base:
        return {}, [f"{where}.model: model '{vary.model}' is not defined.{did_you_mean(vary.model, models)}"]
    found = [one for key in vary.over for one in _bad_key(where, vary, key, base)]
    if found:
        return {vary.model: base}, found
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
            said = ", ".join(f"{key}: {text}" for key, text in differing.items())
            found += [
                f"{place}: '{vary.model}' with {said} is not possible: {one['ctx']['error']}" for one in error.errors()
            ]
        else:
            variants[variant_name(vary.model, differing)] = (
                Model(embed=embed, runtime=base.runtime) if differing else base
            )
    return variants, found


def _bad_key(where: str, vary: Vary, key: str, model: Model) -> Iterator[str]:
    """What is wrong with one key and its values, each by itself."""
    place, known = f"{where}.over.{key}", set(type(model.embed).model_fields) - {"family"}
    if key == "family":
        yield f"{place}: cannot be varied: another family is another model. Name it in an experiment's models:."
        return
    if key not in known:
        yield f"{place}: unknown key of family '{model.embed.family}'.{did_you_mean(key, known)}"
        return
    texts = []
    for number, value in enumerate(vary.over[key]):
        try:
            texts.append(as_text(_value(model, key, value)))
        except ValidationError as error:
            yield from (_in_place(f"{place}.{number}", vary.model, key, model, one) for one in error.errors())
    for twice in sorted({text for text in texts if texts.count(text) > 1}):
        yield f"{place}: '{twice}' is named twice. Name it once."
    own = as_text(model.embed.model_dump(mode="json")[key])
    if texts == [own]:
        yield f"{place}: '{own}' is the value that '{vary.model}' has anyway. Add another to compare it with."


def _in_place(place: str, name: str, key: str, model: Model, error: Any) -> str:
    """A mistake in a value, told as the same mistake in a model's entry would be."""
    raw = {"models": {name: {"embed": {"family": model.embed.family}}}}
    entry = ("models", name, "embed", model.embed.family, key, *error["loc"])
    said = mistakes.explain_one({**error, "loc": entry}, raw)
    return place + said.removeprefix(f"models.{name}.embed.{key}")


def _value(model: Model, key: str, value: Any) -> Any:
    """A value as the key's type has it, whatever the other keys are: 448 for 448.0."""
    field = type(model.embed).model_fields[key]
    kind: Any = Annotated[field.annotation, field]
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    return adapter.dump_python(adapter.validate_python(value), mode="json")


def _settings(model: Model) -> str:
    return json.dumps(model.embed.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
