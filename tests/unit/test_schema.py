"""The JSON Schema of a configuration: an editor accepts what a run accepts, and marks what a run rejects."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from conftest import REPOSITORY
from lookalike.cli.main import app
from lookalike.config.schema import schema

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
SCHEMA = schema()


def errors(configuration: Any) -> list[str]:
    return [error.json_path for error in Draft202012Validator(SCHEMA).iter_errors(configuration)]


def test_the_schema_is_valid_and_the_command_prints_it() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    result = CliRunner().invoke(app, ["schema"])
    assert (result.exit_code, json.loads(result.stdout)) == (0, SCHEMA)


def test_the_catalogue_satisfies_the_schema() -> None:
    assert errors(yaml.safe_load((REPOSITORY / "config.yaml").read_text())) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_configuration_in_the_docs_satisfies_the_schema(page: Any) -> None:
    for text in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL):
        assert errors(yaml.safe_load(text)) == [], text


@pytest.mark.parametrize(
    "text",
    [
        "datasets: {coco: {root: /data/coco}}",  # no kind: it is the catalogue's
        "models: {dinov2-base: {runtime: {batch_size: 8}}}",
        "models: {dinov2-base: {embed: {size: 448}}}",
        "datasets: {disc21: {references: all, training: {sample: 5, seed: 1}}}",
        "experiments: {demo: {indexes: [flat, hnsw]}}",
    ],
)
def test_a_file_that_changes_one_key_of_the_catalogue_satisfies_the_schema(text: str) -> None:
    assert errors(yaml.safe_load(text)) == []


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("modles: {}", "$"),
        ("run: demo", "$.run"),
        ("datasets: {mine: {kind: folder, rot: x}}", "$.datasets.mine"),
        ("datasets: {mine: {kind: folder, tile: 144}}", "$.datasets.mine"),  # a key of another kind
        ("datasets: {coco: {expect: {query: 5}}}", "$.datasets.coco"),
        ("datasets: {coco: {shards: {image: 5}}}", "$.datasets.coco"),
        ("datasets: {disc21: {references: {fist: 5}}}", "$.datasets.disc21"),
        ("models: {mine: {lable: x}}", "$.models.mine"),
        ("models: {mine: {embed: {family: pixels, siz: 3}}}", "$.models.mine.embed"),
        ("models: {mine: {embed: {family: pixel}}}", "$.models.mine.embed"),
        ("models: {mine: {runtime: {batchsize: 3}}}", "$.models.mine.runtime"),
        ("models: {a b: {label: x}}", "$.models"),
        ("indexes: {mine: {factor: Flat}}", "$.indexes.mine"),
        ("indexes: {mine: {search: {nprob: 3}}}", "$.indexes.mine.search"),
        ("experiments: {mine: {vary: {ower: {}}}}", "$.experiments.mine.vary"),
    ],
)
def test_an_unknown_key_or_a_wrong_value_is_marked_in_its_place(text: str, place: str) -> None:
    marked = errors(yaml.safe_load(text))
    assert marked
    assert all(path == place or path.startswith(f"{place}.") for path in marked)


def properties(record: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for mapping in [record, *record.get("anyOf", [])]:
        yield from mapping.get("properties", {}).items()


@pytest.mark.parametrize("name", ["", *SCHEMA["$defs"]])
def test_every_key_has_a_description(name: str) -> None:
    record = SCHEMA["$defs"][name] if name else SCHEMA
    assert record["description"]
    for key, value in properties(record):
        assert value.get("description") or "const" in value or "$ref" in value, key
