"""What the stage *sample* makes of a data set, or says about it."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import TypeAdapter

from lookalike.config.datasets import Dataset
from lookalike.io import store
from lookalike.io.formats.tables import IMAGES, TRUTH
from lookalike.job.errors import LookalikeError
from lookalike.sample import sample as datasets
from lookalike.sample.shard import ShardJob, write_shards
from published import DEVELOPMENT


def entry(kind: str, root: Path, **more: Any) -> Any:
    return TypeAdapter(Dataset).validate_python({"kind": kind, "root": str(root), **more})


def sample(kind: str, root: Path, **more: Any) -> tuple[pa.Table, pa.Table]:
    """The tables that the sample stage writes."""
    key = entry(kind, root, **more).model_dump_json(exclude_defaults=True)
    files = str(root.parent / "images.parquet"), str(root.parent / "truth.parquet")
    datasets.sample(datasets.SampleJob("mine", key, None, *files))
    return store.read_table(files[0], IMAGES), store.read_table(files[1], TRUTH)


def shard(root: Path, expect: dict[str, int]) -> None:
    """Cut what ``sample`` wrote into shards, where it holds what is expected."""
    key = json.dumps({"dataset": "mine", "k": 1, "shards": {"images": 1}, "expect": expect})
    files = str(root.parent / "images.parquet"), str(root.parent / "truth.parquet")
    write_shards(ShardJob(*files, key, [root.parent / "images-00000.parquet"]))


def ids(table: pa.Table, role: str) -> list[str]:
    return [str(one) for one in table.filter(table[role])["image_id"].to_pylist()]


def pairs(truth: pa.Table) -> dict[str, str]:
    return dict(zip(truth["query_id"].to_pylist(), truth["reference_id"].to_pylist(), strict=True))


def failure(kind: str, root: Path, **more: Any) -> str:
    with pytest.raises(LookalikeError) as caught:
        sample(kind, root, **more)
    return str(caught.value)


def remarks(kind: str, root: Path, **more: Any) -> list[str]:
    found = datasets.check("mine", entry(kind, root, **more)).found
    return [f"{part.name}: {note}" for part in found.parts for note in part.notes]


def distractors() -> list[str]:
    return [query for query, reference in DEVELOPMENT.items() if not reference]
