import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pytest

from lookalike.io import store
from lookalike.io.formats.tables import IMAGES, SHARD, TRUTH
from lookalike.job.errors import LookalikeError
from lookalike.sample import shard as sharding
from lookalike.sample.shard_number import shard_of
from tables import MADE, truth_table


def sample(references: list[str], queries: list[str] = ()) -> pa.Table:  # type: ignore[assignment]
    ids = [*references, *queries]
    columns = {
        "image_id": ids,
        "reference": [True] * len(references) + [False] * len(queries),
        "query": [False] * len(references) + [True] * len(queries),
        "training": [False] * len(ids),
        "root": ["photos"] * len(ids),
        "path": ids,
        "bytes": [1] * len(ids),
        "group": pa.nulls(len(ids), pa.string()),
        "content_hash": ["crc32:0badcafe"] * len(ids),
    }
    return pa.table(columns, IMAGES.schema("content_hash"))


def write(
    folder: Path, images: pa.Table, shards: dict[str, int], k: int = 1, expect: dict[str, int] | None = None
) -> dict[str, bytes]:
    path, truth = folder / "images.parquet", folder / "truth.parquet"
    store.write_table(images, path, IMAGES, MADE)
    store.write_table(truth_table([]), truth, TRUTH, MADE)
    outputs = [folder / f"{part}-{number}" for part, count in shards.items() for number in range(count)]
    key = json.dumps({"dataset": "mine", "k": k, "shards": shards, "expect": expect or {}})  # as plan.Plan.shard_key
    sharding.write_shards(sharding.ShardJob(path, truth, key, outputs))
    return {output.name: output.read_bytes() for output in outputs}


def ids(folder: Path, shard: str) -> list[str]:
    return [str(image_id) for image_id in store.read_table(folder / shard, SHARD)["image_id"].to_pylist()]


def test_the_id_of_an_image_decides_its_shard(tmp_path: Path) -> None:
    expected = int(hashlib.sha256(b"a.jpg").hexdigest(), 16) % 7
    assert shard_of("a.jpg", 7) == expected
    names = [f"{number}.jpg" for number in range(50)]
    write(tmp_path, sample(names), {"images": 3})
    assert [ids(tmp_path, f"images-{n}") for n in range(3)] == [
        sorted(name for name in names if shard_of(name, 3) == n) for n in range(3)
    ]


def test_a_new_image_changes_one_shard_only(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(20)]
    before = write(tmp_path, sample(names), {"images": 4})
    after = write(tmp_path, sample([*names, "new.jpg"]), {"images": 4})
    assert [name for name in before if before[name] != after[name]] == [f"images-{shard_of('new.jpg', 4)}"]


def test_roles_and_captions_do_not_change_a_shard(tmp_path: Path) -> None:
    images = sample(["a", "b"])
    before = write(tmp_path, images, {"images": 1})
    captioned = images.append_column("captions", pa.array([["x"], []], pa.list_(pa.string())))
    as_queries = captioned.set_column(2, "query", pa.array([True, True]))
    assert write(tmp_path, as_queries, {"images": 1}) == before


def test_each_part_has_its_own_shards_and_an_empty_shard_is_valid(tmp_path: Path) -> None:
    write(tmp_path, sample(["r"], ["q1", "q2"]), {"references": 3, "queries": 1})
    assert ids(tmp_path, "queries-0") == ["q1", "q2"]
    assert sorted(len(ids(tmp_path, f"references-{n}")) for n in range(3)) == [0, 0, 1]


def test_an_image_in_both_roles_is_embedded_once(tmp_path: Path) -> None:
    both = sample(["a"]).set_column(2, "query", pa.array([True]))
    write(tmp_path, both, {"references": 1, "queries": 1})
    assert (ids(tmp_path, "references-0"), ids(tmp_path, "queries-0")) == (["a"], [])


def test_more_neighbors_than_references_stops_before_anything_is_embedded(tmp_path: Path) -> None:
    with pytest.raises(LookalikeError) as caught:
        write(tmp_path, sample(["a", "b"]), {"images": 1}, k=10)
    assert str(caught.value) == (
        "datasets.mine.k: 10 neighbors are requested, but the data set has only 2 references. "
        "Set k to 2 or less, or add images."
    )


def test_another_count_than_expected_stops_before_anything_is_embedded(tmp_path: Path) -> None:
    images = sample(["a", "b"], ["c"])
    write(tmp_path, images, {"references": 1, "queries": 1}, expect={"references": 2, "queries": 1, "pairs": 0})
    with pytest.raises(LookalikeError) as caught:
        write(tmp_path, images, {"references": 1, "queries": 1}, expect={"references": 3, "queries": 1, "pairs": 2})
    assert str(caught.value) == (
        "datasets.mine.expect: 3 references were expected, and 2 found; 2 pairs were expected, and 0 found. Add what "
        f"is missing and sample again (--forcerun {tmp_path / 'images.parquet'}), or correct expect."
    )


def test_a_duplicate_image_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LookalikeError, match=r"duplicate image_id 'a' \(1 in total\)\. Rename one of the images\."):
        write(tmp_path, sample(["a", "a"]), {"images": 1})
