"""The JSON Schema of a configuration file, with which an editor completes keys, explains them and marks mistakes."""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from lookalike.config.mistakes import LONGEST, NAME
from lookalike.config.records import Config


class _Partial(GenerateJsonSchema):
    """A file is merged over the catalogue, so it may leave out any key, even the one that tells records apart."""

    def field_is_required(self, field: Any, total: bool) -> bool:  # the signature is pydantic's
        return False

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def tagged_union_schema(self, schema: Any) -> JsonSchemaValue:
        return {"anyOf": super().tagged_union_schema(schema)["oneOf"]}


def schema() -> dict[str, Any]:
    """The JSON Schema that config.yaml and any file to merge over it satisfy; unknown keys are errors.

    It cannot check what spans several places, such as names of models in experiments: ``loading.parse`` does.
    """
    generated = Config.model_json_schema(schema_generator=_Partial)
    for section in ("datasets", "models", "indexes", "experiments"):
        generated["properties"][section]["propertyNames"] = {"pattern": f"^{NAME.pattern}$", "maxLength": LONGEST}
    title = "A configuration of Lookalike: config.yaml, or a file that is merged over it"
    return {"$schema": _Partial.schema_dialect, **generated, "title": title}
