"""The images that a run makes are in archives, one for each shard, whose bytes follow from those images alone."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from conftest import ImageFolder
from lookalike.io import images, made_images
from lookalike.job.errors import LookalikeError
from lookalike.plan.plan import Plan
from lookalike.sample import sample as datasets
from lookalike.sample.make_images import Album, MakeImagesJob, make_images
from lookalike.sample.shard_number import shard_of


def pack(folder: Path, images: dict[str, bytes], shards: int = 3) -> dict[str, bytes]:
    paths = [folder / f"queries-{number:05d}.zip" for number in range(shards)]
    with Album([str(path) for path in paths]) as album:
        for image_id, data in images.items():
            row = album.add(image_id, data)
            assert row["path"] == f"queries-{shard_of(image_id, shards):05d}.zip!{image_id}"
        album.pack()
    assert sorted(folder.iterdir()) == paths, "nothing else is left in the folder"
    return {path.name: path.read_bytes() for path in paths}


def planned(tiles: dict[str, Any], copies: dict[str, Any]) -> Plan:
    return Plan.of(
        {
            "datasets": {"tiles": tiles, "copies": copies},
            "models": {"pixels": {"embed": {"family": "pixels"}}},
            "indexes": {"flat": {"factory": "Flat"}},
            "experiments": {"mine": {"dataset": "copies", "models": ["pixels"], "indexes": ["flat"]}},
            "run": ["mine"],
        }
    )


IMAGES = {f"copy-{number}.jpg": bytes([number]) * (100 + number) for number in range(20)}


def test_any_program_that_opens_zip_archives_shows_the_images(tmp_path: Path) -> None:
    pack(tmp_path, IMAGES)
    found = {}
    for path in tmp_path.iterdir():
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            assert archive.namelist() == sorted(archive.namelist())
            found |= {name: archive.read(name) for name in archive.namelist()}
    assert found == IMAGES


def test_the_order_in_which_images_were_made_changes_no_byte(tmp_path: Path) -> None:
    assert pack(tmp_path / "a", IMAGES) == pack(tmp_path / "b", dict(reversed(IMAGES.items())))


def test_one_more_image_changes_the_archive_of_its_shard_only(tmp_path: Path) -> None:
    before, after = pack(tmp_path / "a", IMAGES), pack(tmp_path / "b", IMAGES | {"copy-77.jpg": b"more"})
    assert [name for name in before if before[name] != after[name]] == [f"queries-{shard_of('copy-77.jpg', 3):05d}.zip"]


def test_a_shard_without_images_has_an_empty_archive(tmp_path: Path) -> None:
    pack(tmp_path, {"a.jpg": b"a"})
    counts = [len(zipfile.ZipFile(path).namelist()) for path in tmp_path.iterdir()]
    assert sorted(counts) == [0, 0, 1]


@pytest.mark.parametrize(("made", "cut"), [(1, 1), (1, 4), (4, 4), (4, 6), (6, 4), (4, 1), (3, 2)])
def test_a_shard_declares_the_archives_that_its_images_are_in_and_as_few_others_as_can_be_told(
    made: int, cut: int
) -> None:
    """``made`` archives of tiles, whose copies have their references in ``cut`` shards."""
    plan = planned(
        {"kind": "photo_tiles", "shards": {"images": made}},
        {"kind": "copies", "of": "tiles", "shards": {"references": cut, "queries": 2}},
    )
    archives = plan.archives("tiles")
    read: dict[str, set[str]] = {f"references-{number:05d}": set() for number in range(cut)}
    for number in range(1000):
        image_id = f"tile-{number}.png"
        read[f"references-{shard_of(image_id, cut):05d}"].add(archives[shard_of(image_id, made)])
    assert {shard: set(plan.archives_of_shard("copies", shard)) for shard in read} == read
    assert plan.archives_of_shard("copies", "queries-00001") == ["results/copies/images/queries-00001.zip"]
    assert set(archives) | set(plan.archives("copies")) <= set(plan.targets("mine"))


def test_how_copies_are_divided_is_part_of_their_key_and_how_others_are_is_not() -> None:
    def key(**shards: int) -> str:
        return planned({"kind": "photo_tiles"}, {"kind": "copies", "of": "tiles", "shards": shards}).images_key(
            "copies"
        )

    assert key() == key(references=5) == key(queries=1)
    assert key() != key(queries=2)


def test_an_image_of_an_archive_is_read_as_it_was_made(tmp_path: Path) -> None:
    with Album([str(tmp_path / "images-00000.zip")]) as album:
        row = album.add("a.png", b"contents")
        album.pack()
    assert images.read_row(row) == b"contents"


def test_archives_of_shards_that_there_are_no_more_are_deleted_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image_folder: ImageFolder
) -> None:
    monkeypatch.chdir(tmp_path)
    image_folder(Path("root"), 6)
    datasets.sample(
        datasets.SampleJob("mine", '{"kind": "folder", "root": "root"}', None, "images.parquet", "truth.parquet")
    )
    key = json.dumps({"kind": "copies", "of": "mine", "queries": 4})

    def make(shards: int) -> list[str]:
        archives = [f"made/queries-{number:05d}.zip" for number in range(shards)]
        files = ("images.parquet", archives, "made/manifest.parquet", "make_images.in_work")
        make_images(MakeImagesJob("copies", key, *files))
        return sorted(path.name for path in Path("made").iterdir())

    assert len(make(3)) == 4
    for name in ("queries-mine.zip", "other-00002.zip"):
        Path("made", name).touch()
    assert make(1) == ["manifest.parquet", "other-00002.zip", "queries-00000.zip", "queries-mine.zip"]


def test_images_are_found_in_the_folder_that_a_job_has_them_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With remote storage, each job has its inputs in another folder; tables name none of them."""
    monkeypatch.setattr(made_images, "_folders", {})
    made, moved = (tmp_path / name / "results/copies/images" for name in ("one", "two"))
    with Album([made / "queries-00000.zip"]) as album:
        row = album.add("copy.jpg", b"an image")
        album.pack()
    assert row["root"] == "results/copies/images"
    with pytest.raises(LookalikeError, match=r"results/copies/images/queries-00000\.zip!copy\.jpg: cannot be read"):
        images.read_row(row)
    moved.parent.mkdir(parents=True)
    made.rename(moved)
    made_images.locate([moved / "queries-00000.zip"])
    assert images.read_row(row) == b"an image"
    images.check_roots(pa.Table.from_pylist([row]), "a shard")


def test_in_the_folder_of_a_run_tables_name_the_folder_itself() -> None:
    assert made_images.root_of(Path("results/copies/images")) == "results/copies/images"
    assert made_images.root_of(Path("made")) == "made"
