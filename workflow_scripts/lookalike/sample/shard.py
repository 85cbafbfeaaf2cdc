"""A data set cut into shards: which picture is embedded in which job."""

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from lookalike.io import identity, store
from lookalike.io.formats.tables import IMAGES, SHARD, TRUTH
from lookalike.job.errors import LookalikeError
from lookalike.sample import expectations
from lookalike.sample.expectations import ROLES
from lookalike.sample.shard_number import shard_of


def write_shards(images: str, truth: str, key: str, outputs: Sequence[str]) -> None:
    """Write a data set's shard files; their names (``plan.Plan.shard_files``) say which part and number each is.

    ``key`` is ``plan.Plan.shard_key``. Raises LookalikeError where the data set has fewer references than the
    neighbors that are asked for, or another count than is expected: better now than after hours of embedding.
    """
    settings = json.loads(key)
    identity.check_sample(images, truth)
    table = store.read_table(images, IMAGES)
    if "content_hash" not in table.column_names:
        raise LookalikeError(
            f"{images}: has no content hashes, so an earlier version wrote it. Sample again: --forcerun {images}"
        )
    references = pc.sum(table["reference"]).as_py() or 0
    if references < settings["k"]:
        raise LookalikeError(
            f"datasets.{settings['dataset']}.k: {settings['k']} neighbors are asked for, "
            f"but the data set has only {references} references. Set k to {references} or less, or add pictures."
        )
    dataset, expect = settings["dataset"], settings["expect"]
    absent = store.read_provenance(images).get("absent", [])
    likely = f"Likely missing: {'; '.join(absent)}. Add it" if absent else "Add what is missing"
    remedy = f"{likely} and sample again (--forcerun results/{dataset}/sample/images.parquet), or correct expect."
    expectations.check(f"datasets.{dataset}", expect, expectations.count(table, store.read_table(truth, TRUTH)), remedy)
    divided = parts(table, list(settings["shards"]))
    numbers = {part: _numbers(rows, settings["shards"][part]) for part, rows in divided.items()}
    for output in outputs:
        part, number = Path(output).stem.rsplit("-", 1)
        here = divided[part].filter(pc.equal(numbers[part], int(number)))
        # nothing but these rows decides about the file's bytes, and so about embedding them again
        rows = here.sort_by([("root", "ascending"), ("path", "ascending")])
        store.write_table(rows, output, SHARD, {"made_by": "lookalike shard"})


def _numbers(rows: pa.Table, count: int) -> pa.Array:
    return pa.array([shard_of(image_id, count) for image_id in rows["image_id"].to_pylist()], pa.int64())


def parts(images: pa.Table, names: list[str]) -> dict[str, pa.Table]:
    """Divide an images table into a data set's parts, each picture into one: the first of ROLES that it has.

    Outside pictures have none of these roles; their part is ``showcase``.
    """
    rows = images.select(list(SHARD.columns))
    divided = {}
    left = pa.array([True] * images.num_rows, pa.bool_())
    if "showcase" in names:
        here = outside(images)
        divided["showcase"] = rows.filter(here)
        left = pc.and_not(left, here)
    if "images" in names:
        return {"images": rows.filter(left), **divided}
    for name in (role for role in ROLES if role in names):
        here = pc.and_(left, images[ROLES[name]].combine_chunks())
        divided[name] = rows.filter(here)
        left = pc.and_not(left, here)
    if forgotten := images.filter(left)["image_id"].to_pylist():
        raise LookalikeError(f"picture '{forgotten[0]}' has no role that belongs to the parts {', '.join(names)}.")
    return divided


def outside(images: pa.Table) -> pa.Array:
    """Which rows of an images table are outside pictures: shown with what they find, and nothing else."""
    if "showcase" not in images.column_names:
        return pa.array([False] * images.num_rows, pa.bool_())
    chosen = pc.fill_null(images["showcase"].combine_chunks(), False)
    for role in ROLES.values():
        chosen = pc.and_not(chosen, images[role].combine_chunks())
    return chosen
