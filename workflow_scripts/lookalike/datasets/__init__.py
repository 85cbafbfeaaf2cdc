"""Data sets: one module a kind, each giving the same two tables, images and truth.

A kind that creates its pictures has ``make_images(entry, sources, folder) -> manifest``; any other has
``sample(entry, where) -> (images, truth)``.
"""

import importlib
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from lookalike import store
from lookalike.config import Dataset
from lookalike.datasets import outside
from lookalike.errors import LookalikeError
from lookalike.formats import IMAGES, MANIFEST, TRUTH


def make_images(name: str, key: str, sources: str | None, manifest: str) -> None:
    """Make a data set's pictures beside ``manifest`` (``results/{name}/images/manifest.parquet``) and list them in it.

    ``key`` is the data set's entry as JSON (``plan.Plan.dataset_key``); ``sources`` the sample of the data set that is
    copied, for copies.
    """
    entry = _entry(key)
    table_of_sources = store.read_table(sources, IMAGES) if sources else None
    try:
        table = _module(entry).make_images(entry, table_of_sources, Path(manifest).parent)
    except LookalikeError as error:  # a kind knows its keys, and not its name
        raise LookalikeError(f"datasets.{name}.{error}") from None
    if not table.num_rows:
        raise LookalikeError(f"datasets.{name}: no pictures could be made. The log says why.")
    store.write_table(table, manifest, MANIFEST, {"made_by": "lookalike make_images", "key": key})


def sample(name: str, key: str, manifest: str | None, images_out: str, truth_out: str) -> None:
    """Write which pictures a data set has, in which roles, and the true matches; outside pictures have no role."""
    entry = _entry(key)
    if manifest:
        made = store.read_table(manifest, MANIFEST)
        images = made.drop_columns(["source"])
        copies = made.filter(made["source"].is_valid())
        truth = copies.select(["image_id", "source"]).rename_columns(["query_id", "reference_id"])
    else:
        images, truth = _module(entry).sample(entry, f"datasets.{name}")
    if entry.gallery:
        images = outside.add(images, entry.gallery, f"datasets.{name}.gallery")
    provenance = {"made_by": "lookalike sample", "key": key}
    store.write_table(truth, truth_out, TRUTH, provenance)
    store.write_table(images, images_out, IMAGES, provenance)


def _entry(key: str) -> Any:
    return TypeAdapter(Dataset).validate_json(key)


def _module(entry: Any) -> Any:
    return importlib.import_module(f"lookalike.datasets.{entry.kind}")
