"""Split a data set into shards: which image is embedded in which job."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from lookalike.io import identity, store
from lookalike.io.formats.tables import IMAGES, SHARD, TRUTH
from lookalike.job.errors import LookalikeError
from lookalike.sample import expectations
from lookalike.sample.expectations import ROLES
from lookalike.sample.shard_number import shard_of


@dataclass(frozen=True)
class ShardSettings:
    """How a data set is split into shards, and what is checked before any model runs: ``plan.Plan.shard_key``."""

    dataset: str
    k: int
    shards: Mapping[str, int]  # the number of shards of each part
    expect: Mapping[str, int]


@dataclass(frozen=True)
class ShardJob:
    """One sample to split into shards: its files, and how.

    The names of ``shards_out`` (``plan.Plan.shard_files``) say which part and number each is.
    """

    images: str | Path
    truth: str | Path
    key: str
    shards_out: Sequence[str | Path]

    @cached_property
    def settings(self) -> ShardSettings:
        """The settings, parsed from ``key``."""
        return ShardSettings(**json.loads(self.key))


def write_shards(job: ShardJob) -> None:
    """Write a data set's shard files.

    Raises LookalikeError where the data set has fewer references than the requested neighbors, or other counts than
    expected: better now than after hours of embedding.
    """
    settings = job.settings
    entry = f"datasets.{settings.dataset}"
    identity.check_sample(job.images, job.truth)
    images = store.read_table(job.images, IMAGES)
    if "content_hash" not in images.column_names:
        raise LookalikeError(
            f"{job.images}: has no content hashes, so an earlier version wrote it. Sample again: "
            f"--forcerun {job.images}"
        )
    references = pc.sum(images["reference"]).as_py() or 0
    if references < settings.k:
        raise LookalikeError(
            f"{entry}.k: {settings.k} neighbors are requested, but the data set has only {references} references. "
            f"Set k to {references} or less, or add images."
        )
    absent = store.read_provenance(job.images).get("absent", [])
    likely = f"Likely missing: {'; '.join(absent)}. Add it" if absent else "Add what is missing"
    remedy = f"{likely} and sample again (--forcerun {job.images}), or correct expect."
    counts = expectations.count(images, store.read_table(job.truth, TRUTH))
    expectations.check(entry, settings.expect, counts, remedy)
    divided = parts(images, list(settings.shards))
    numbers = {part: _numbers(rows, settings.shards[part]) for part, rows in divided.items()}
    for output in job.shards_out:
        part, number = Path(output).stem.rsplit("-", 1)
        rows = divided[part].filter(pc.equal(numbers[part], int(number)))
        # nothing but these rows decides the file's bytes, and so whether they are embedded again
        rows = rows.sort_by([("root", "ascending"), ("path", "ascending")])
        store.write_table(rows, output, SHARD, {"made_by": "lookalike shard"})


def _numbers(rows: pa.Table, count: int) -> pa.Array:
    return pa.array([shard_of(image_id, count) for image_id in rows["image_id"].to_pylist()], pa.int64())


def parts(images: pa.Table, names: list[str]) -> dict[str, pa.Table]:
    """Divide an images table into a data set's parts, each image into one: the first of ROLES that it has.

    Showcase images have none of these roles; their part is ``showcase``.
    """
    rows = images.select(list(SHARD.columns))
    divided = {}
    remaining = pa.array([True] * images.num_rows, pa.bool_())
    if "showcase" in names:
        mask = only_showcase(images)
        divided["showcase"] = rows.filter(mask)
        remaining = pc.and_not(remaining, mask)
    if "images" in names:
        return {"images": rows.filter(remaining), **divided}
    for name in (role for role in ROLES if role in names):
        mask = pc.and_(remaining, images[ROLES[name]].combine_chunks())
        divided[name] = rows.filter(mask)
        remaining = pc.and_not(remaining, mask)
    if unassigned := images.filter(remaining)["image_id"].to_pylist():
        raise LookalikeError(f"image '{unassigned[0]}' has no role among {', '.join(names)}. Sample again.")
    return divided


def only_showcase(images: pa.Table) -> pa.Array:
    """A mask of the rows of an images table that are only in the showcase: shown, and counted in no metric."""
    if "showcase" not in images.column_names:
        return pa.array([False] * images.num_rows, pa.bool_())
    mask = pc.fill_null(images["showcase"].combine_chunks(), False)
    for role in ROLES.values():
        mask = pc.and_not(mask, images[role].combine_chunks())
    return mask
