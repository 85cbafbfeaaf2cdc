"""Showcase images in the sample and in the shards."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from conftest import ImageFolder
from lookalike.io import store
from lookalike.io.formats.tables import IMAGES, SHARD
from lookalike.job.errors import LookalikeError
from lookalike.plan.plan import Plan
from lookalike.sample import sample as datasets
from lookalike.sample import showcase
from lookalike.sample.shard import ShardJob, parts, write_shards


def plan_of(**entry: object) -> Plan:
    return Plan.of(
        {
            "run": ["mine"],
            "datasets": {"own": {"kind": "folder", "root": "photos", "queries": "queries", "k": 2, **entry}},
            "models": {"pixels": {"embed": {"family": "pixels"}}},
            "indexes": {"flat": {"factory": "Flat"}},
            "experiments": {"mine": {"dataset": "own", "models": ["pixels"]}},
        }
    )


@pytest.fixture
def root(tmp_path: Path, image_folder: ImageFolder, monkeypatch: pytest.MonkeyPatch) -> Path:
    image_folder(tmp_path / "photos", 5)
    image_folder(tmp_path / "queries", 2, first=50)
    image_folder(tmp_path / "outside/deep", 3)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sample(**entry: object) -> pa.Table:
    plan = plan_of(**entry)
    datasets.sample(datasets.SampleJob("own", plan.dataset_key("own"), None, "images.parquet", "truth.parquet"))
    return store.read_table("images.parquet", IMAGES)


def test_showcase_images_have_no_role_and_ids_of_their_own(root: Path) -> None:
    before, after = sample(), sample(showcase="outside/deep")
    assert after.slice(0, before.num_rows).select(before.column_names).equals(before)
    rows = after.slice(before.num_rows).to_pylist()
    assert [row["image_id"] for row in rows] == ["showcase:p0.png", "showcase:p1.png", "showcase:p2.png"]
    for row in rows:
        assert (row["reference"], row["query"], row["training"], row["showcase"]) == (False, False, False, True)
        assert (root / row["root"] / row["path"]).stat().st_size == row["bytes"]
    assert sum(after["showcase"].to_pylist()) == 3


@pytest.mark.parametrize(
    ("showcase", "message"),
    [
        ("gone", "datasets.own.showcase: the folder 'gone' does not exist."),
        ("truth.parquet", "datasets.own.showcase: 'truth.parquet' is a file, not a folder."),
        ("empty", "datasets.own.showcase: 'empty' contains no images"),
        ("photos", "datasets.own.showcase: 'p0.png' is an image of the data set itself, in 'photos'."),
        (".", "datasets.own.showcase: 'p0.png' is an image of the data set itself, in 'photos'."),
        ("linked", "datasets.own.showcase: 'p50.png' is an image of the data set itself, in 'queries'."),
    ],
)
def test_a_showcase_that_is_missing_or_overlaps_its_data_set_fails(root: Path, showcase: str, message: str) -> None:
    sample()
    (root / "empty").mkdir()
    (root / "linked").symlink_to(root / "queries")
    with pytest.raises(LookalikeError) as refused:
        sample(showcase=showcase)
    assert str(refused.value).startswith(message)


def test_adding_a_showcase_changes_no_byte_of_any_other_shard(root: Path) -> None:
    def shards(**entry: object) -> dict[str, bytes]:
        sample(**entry)
        plan = plan_of(**entry)
        write_shards(ShardJob("images.parquet", "truth.parquet", plan.shard_key("own"), plan.shard_files("own")))
        return {path: Path(path).read_bytes() for path in plan.shard_files("own")}

    before = shards(shards={"references": 2})
    after = shards(shards={"references": 2}, showcase="outside")
    new = "results/own/sample/shards/showcase-00000.parquet"
    assert {path: after[path] for path in before} == before
    assert set(after) - set(before) == {new}
    assert store.read_table(new, SHARD)["path"].to_pylist() == ["deep/p0.png", "deep/p1.png", "deep/p2.png"]


def test_a_query_in_the_showcase_stays_in_its_part(root: Path) -> None:
    images = sample()
    marked = images.append_column("showcase", images["query"])
    assert parts(marked, ["images"])["images"].num_rows == images.num_rows
    divided = parts(marked, ["images", "showcase"])
    assert (divided["images"].num_rows, divided["showcase"].num_rows) == (images.num_rows, 0)
    extended = showcase.add(marked, "outside", "datasets.own.showcase")
    divided = parts(extended, ["references", "queries", "showcase"])
    assert {name: rows.num_rows for name, rows in divided.items()} == {"references": 5, "queries": 2, "showcase": 3}
    assert [row for row in extended.to_pylist() if row["showcase"] and row["query"]]


def test_a_showcase_changes_the_sample_but_not_the_images_that_are_made() -> None:
    with_showcase, without = plan_of(showcase="outside"), plan_of()
    assert with_showcase.dataset_key("own") != without.dataset_key("own")
    assert with_showcase.images_key("own") == without.images_key("own")
    assert json.loads(with_showcase.dataset_key("own"))["showcase"] == "outside"
    assert set(with_showcase.targets("mine")) > set(without.targets("mine"))
