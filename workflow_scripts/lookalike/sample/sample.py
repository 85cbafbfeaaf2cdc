"""Data sets: one module per kind, each giving the same two tables, images and truth.

The images of some kinds are made by the run (``make_images``). A published kind has ``look(entry) -> found``, what the
user has put into its root, and ``choose(entry, found) -> (images, truth)``. Any other has
``sample(entry, where, skipped) -> (images, truth)``.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from lookalike.config.datasets import Dataset, Folder, Published
from lookalike.io import identity, relevance, store
from lookalike.io.formats.tables import IMAGES, MANIFEST, TRUTH
from lookalike.job.errors import LookalikeError
from lookalike.sample import expectations, folder, hashing, showcase
from lookalike.sample.left_out import LeftOut


@dataclass(frozen=True)
class SampleJob:
    """One data set to sample: its files and its entry.

    ``key`` is ``plan.Plan.dataset_key``; ``manifest`` lists the images of a data set that the run makes itself.
    """

    dataset: str
    key: str
    manifest: str | Path | None
    images_out: str | Path
    truth_out: str | Path

    @cached_property
    def entry(self) -> Any:
        """The data set's entry in the configuration, parsed from ``key``."""
        return TypeAdapter(Dataset).validate_json(self.key)


def sample(job: SampleJob) -> None:
    """Write which images a data set has, their roles, and the true matches; showcase images have no role.

    Raises LookalikeError for a data set that is missing, wholly or in part.
    """
    name, entry = job.dataset, job.entry
    absent: list[str] = []
    skipped: dict[str, LeftOut] = {}
    left_out: list[dict[str, Any]] = []
    if job.manifest:
        manifest = store.read_table(job.manifest, MANIFEST)
        _check_manifest(job.manifest, entry)
        left_out = store.read_provenance(job.manifest).get("left_out", [])
        images = manifest.drop_columns(["source"])
        copies = manifest.filter(manifest["source"].is_valid())
        truth = copies.select(["image_id", "source"]).rename_columns(["query_id", "reference_id"])
    elif isinstance(entry, Published):
        found_parts = _look(name, entry)
        found_parts.stop_where_incomplete(name)
        found_parts.log()
        images, truth = _module(entry).choose(entry, found_parts)
        absent = found_parts.absent
        left_out = found_parts.left_out
    else:
        images, truth = _module(entry).sample(entry, f"datasets.{name}", skipped)
    if entry.showcase:
        images = showcase.add(images, entry.showcase, f"datasets.{name}.showcase", skipped)
    images = hashing.fill(images, cache_of(job.images_out))
    provenance = {"made_by": "lookalike sample", "dataset": name, "key": job.key}
    provenance[identity.SAMPLE] = identity.hash_sample(images, truth)
    left_out += [row for folder, files in skipped.items() for row in files.rows(folder)]
    by_class = {"relevance": relevance.CLASS} if relevance.is_labelled(images) else {}  # the pairs are not listed
    store.write_table(truth, job.truth_out, TRUTH, provenance | by_class)
    store.write_table(images, job.images_out, IMAGES, provenance | {"left_out": left_out, "absent": absent})


def cache_of(images_out: str | Path) -> Path:
    """The file in which a sample caches the content hashes of its files, with the dates for which they hold."""
    return Path(images_out).with_name("content_hashes.cache")


def _check_manifest(manifest: str | Path, entry: Any) -> None:
    """Raise LookalikeError where the images were made with other settings, such as another seed."""
    footer = store.read_provenance(manifest)
    made_with = TypeAdapter(Dataset).validate_json(footer["key"])
    if made_with.model_copy(update={"showcase": entry.showcase, "shards": entry.shards}) != entry:
        raise LookalikeError(
            f"{manifest}: lists images that were made with other settings ({footer['key']}). Make them again: "
            f"--forcerun {manifest}"
        )


def why_missing(name: str, entry: Any) -> str | None:
    """The error message for a data set that is missing, wholly or in part; None where ``sample`` could start.

    Lists the entry's folders and opens no image.
    """
    try:
        if isinstance(entry, Published):
            _look(name, entry).stop_where_incomplete(name)
        elif isinstance(entry, Folder):
            folder.check(entry, f"datasets.{name}")
        if entry.showcase:
            folder.existing(entry.showcase, f"datasets.{name}.showcase")
    except LookalikeError as error:
        return str(error)
    return None


def missing_data(datasets: Mapping[str, Any]) -> str:
    """The error message for all missing ``datasets`` (entries by name); empty where none is missing."""
    reasons = [reason for name, entry in datasets.items() if (reason := why_missing(name, entry))]
    return "\n\n".join(["Data sets are missing.", *reasons] if reasons else [])


@dataclass(frozen=True)
class Check:
    """What a user has put into the root of a published data set, and what a run would use of it.

    ``counts`` is empty where something is missing; ``differences`` from the entry's ``expect`` are phrases.
    """

    found: Any  # found.FoundParts
    counts: dict[str, int]
    differences: list[str]

    @property
    def complete(self) -> bool:
        """Whether a run would continue."""
        return not self.found.missing and not self.differences


def check(name: str, entry: Any) -> Check:
    """Inspect a published data set as the sample stage does, without writing anything.

    Raises LookalikeError for a data set of another kind, and for invalid tables or showcase images.
    """
    if not isinstance(entry, Published):
        raise LookalikeError(
            f"datasets.{name}: is of kind '{entry.kind}', which needs no download. Choose a data set of kind disc21, "
            "flickr30k or coco."
        )
    found_parts = _look(name, entry)
    if found_parts.missing:
        return Check(found_parts, {}, [])
    images, truth = _module(entry).choose(entry, found_parts)
    if entry.showcase:  # raises where its folder is missing
        showcase.add(images, entry.showcase, f"datasets.{name}.showcase")
    counts = expectations.count(images, truth)
    return Check(found_parts, counts, expectations.differences(entry.expect, counts))


def _look(name: str, entry: Published) -> Any:
    try:
        return _module(entry).look(entry)
    except LookalikeError as error:  # the kind's module does not know the data set's name
        raise LookalikeError(f"datasets.{name}: {error}") from None


def _module(entry: Any) -> Any:
    return importlib.import_module(f"lookalike.sample.{entry.kind}")
