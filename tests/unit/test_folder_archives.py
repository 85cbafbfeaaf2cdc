"""Zip archives and tar shards in a folder are sources of images and captions; nothing in them is skipped silently."""

import io
import json
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from conftest import made_image
from lookalike.io import images, store
from lookalike.io.formats.tables import IMAGES
from lookalike.job.errors import LookalikeError
from lookalike.sample import sample as datasets
from lookalike.sample.shard import ShardJob, write_shards

Files = dict[str, bytes]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def png(seed: int) -> bytes:
    data = io.BytesIO()
    made_image(seed, (24, 16)).save(data, "PNG")
    return data.getvalue()


def put(path: str, files: Files, *, mode: str = "", date: int = 0) -> None:
    """A zip or tar archive of files, as its name says; ``mode`` deflates a zip."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if path.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if mode else zipfile.ZIP_STORED) as zipped:
            for name, data in files.items():
                zipped.writestr(zipfile.ZipInfo(name, (1980 + date, 1, 1, 0, 0, 0)), data, zipped.compression)
        return
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT if mode else tarfile.USTAR_FORMAT) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), date
            tar.addfile(member, io.BytesIO(data))


def sample(**entry: Any) -> tuple[pa.Table, dict[str, int]]:
    """The images table of a folder, and how much was left out for which reason."""
    key = json.dumps({"kind": "folder", "root": "root", **entry})
    datasets.sample(datasets.SampleJob("mine", key, None, "results/images.parquet", "results/truth.parquet"))
    left_out = store.read_provenance("results/images.parquet")["left_out"]
    return store.read_table("results/images.parquet", IMAGES), {row["reason"]: row["count"] for row in left_out}


def shards(number: int = 3) -> list[bytes]:
    files = [f"results/references-{shard}.parquet" for shard in range(number)]
    key = json.dumps({"dataset": "mine", "k": 1, "shards": {"references": number}, "expect": {}})
    write_shards(ShardJob("results/images.parquet", "results/truth.parquet", key, files))
    return [Path(file).read_bytes() for file in files]


SAMPLES: Files = {f"{number:06d}.png": png(number) for number in range(8)}


@pytest.mark.parametrize("ending", ["tar", "zip"])
def test_images_in_archives_are_images_with_the_archive_in_their_ids(ending: str) -> None:
    put(f"root/train/00003.{ending}", {"./a.png" if ending == "tar" else "a.png": png(1), "deep/b.png": png(2)})
    Path("root/c.png").write_bytes(png(3))
    table, left_out = sample()
    assert table["image_id"].to_pylist() == ["c.png", f"train/00003.{ending}/a.png", f"train/00003.{ending}/deep/b.png"]
    assert table["path"].to_pylist()[1:] == [f"train/00003.{ending}!a.png", f"train/00003.{ending}!deep/b.png"]
    assert not left_out
    assert "captions" not in table.column_names
    for row in table.to_pylist():
        assert len(images.read_row(row)) == row["bytes"]


@pytest.mark.parametrize("ending", ["tar", "zip"])
def test_captions_beside_images_are_captions_and_all_other_members_are_counted(ending: str) -> None:
    put(
        f"root/00000.{ending}",
        {
            "0.png": png(0),
            "0.txt": "Ein Hund läuft.\n".encode(),
            "0.json": b'{"caption": "not this one"}',
            "1.png": png(1),
            "1.json": json.dumps({"caption": "a boat", "width": 3}).encode(),
            "2.png": png(2),
            "2.json": json.dumps({"text": ["a train", " ", "rails"]}).encode(),
            "3.jpg.png": png(3),
            "3.txt": b"to the first dot",
            "4.png": png(4),
            "4.json": b'{"width": 3}',
            "5.png": png(5),
            "5.txt": b"\xff",
            "6.png": png(6),
            "0.cls": b"7",
            "1.cls": b"7",
            "0.npy": b"",
            "readme.txt": b"beside no image",
            "__MACOSX/0.png": b"",
            "__MACOSX/1.png": b"",
        },
    )
    table, left_out = sample()
    captions = dict(zip(table["image_id"].to_pylist(), table["captions"].to_pylist(), strict=True))
    assert {image_id.rpartition("/")[2]: texts for image_id, texts in captions.items()} == {
        "0.png": ["Ein Hund läuft."],
        "1.png": ["a boat"],
        "2.png": ["a train", "rails"],
        "3.jpg.png": ["to the first dot"],
        "4.png": [],
        "5.png": [],
        "6.png": [],
    }
    assert left_out == {
        ".cls files": 2,
        ".npy files": 1,
        ".txt files": 1,
        ".json files": 1,
        "files beside images in archives that hold no caption": 2,
        "metadata that macOS puts into zip archives (__MACOSX)": 1,
    }


def test_what_is_in_archives_and_cannot_be_taken_is_counted() -> None:
    Path("root").mkdir()
    with zipfile.ZipFile("root/twice.zip", "w") as archive:
        for name in ("a.png", "../b.png", "/c.png", "d.png"):
            archive.writestr(name, png(1))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.png", png(2))
    with tarfile.open("root/links.tar", "w") as tar:
        for name, kind in (("a.png", tarfile.REGTYPE), ("b.png", tarfile.SYMTYPE), ("c.png", tarfile.LNKTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "a.png"
            tar.addfile(member)
    put("root/code.zip", {"a.py": b"", "b.py": b""})
    Path("root/more.tar.gz").write_bytes(b"")
    table, left_out = sample()
    assert table["image_id"].to_pylist() == ["links.tar/a.png", "twice.zip/d.png"]
    assert left_out == {
        "archives that hold no images": 1,
        "links, devices and sparse files in archives": 2,
        "compressed tar archives, which cannot be read in place (decompress them to use them)": 1,
        "members of archives with the same name as another one there": 2,
        "members of archives whose names lead out of it": 2,
    }


@pytest.mark.parametrize("ending", ["tar", "zip"])
def test_a_truncated_archive_stops_the_sample_and_is_named(ending: str) -> None:
    put(f"root/a.{ending}", SAMPLES)
    whole = Path(f"root/a.{ending}").read_bytes()
    Path(f"root/a.{ending}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        LookalikeError, match=rf"datasets\.mine\.root: the archive 'root/a\.{ending}' .*truncated.*fetch"
    ):
        sample()


@pytest.mark.parametrize("ending", ["tar", "zip"])
def test_an_archive_that_is_packed_again_and_a_copied_tree_change_no_shard(ending: str, tmp_path: Path) -> None:
    """Order, dates, compression and format: where an image is in its archive is in no table."""
    put(f"root/a.{ending}", SAMPLES)
    sample()
    before = shards()
    put(f"root/a.{ending}", dict(reversed(SAMPLES.items())), mode="other", date=7)
    sample()
    assert shards() == before
    Path("root").rename("elsewhere")
    Path("root").symlink_to("elsewhere")
    Path("results/content_hashes.cache").unlink(missing_ok=True)
    sample()
    assert shards() == before


@pytest.mark.parametrize("ending", ["tar", "zip"])
def test_one_more_image_in_an_archive_changes_the_shard_of_its_id_only(ending: str) -> None:
    put(f"root/a.{ending}", SAMPLES)
    sample()
    before = shards()
    put(f"root/a.{ending}", {"0.png": png(99), **SAMPLES})
    sample()
    assert sum(old != new for old, new in zip(before, shards(), strict=True)) == 1


@pytest.mark.parametrize("ending", ["tar", "zip"])
def test_another_image_of_the_same_size_and_name_changes_its_shard_and_is_not_embedded_for_the_old(ending: str) -> None:
    put(f"root/a.{ending}", {**SAMPLES, "x.png": b"x" * 100})
    sample()
    before, rows = shards(), store.read_table("results/images.parquet", IMAGES).to_pylist()
    put(f"root/a.{ending}", {**SAMPLES, "x.png": b"y" * 100})
    with pytest.raises(LookalikeError, match=r"x\.png: has changed since the data set was sampled"):
        images.read_row(rows[-1])
    sample()
    assert sum(old != new for old, new in zip(before, shards(), strict=True)) == 1


def test_hashes_of_a_tars_members_are_kept_until_the_tar_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    put("root/a.tar", SAMPLES)
    os.utime("root/a.tar", (1, 1))
    sample()
    first = store.read_table("results/images.parquet", IMAGES)
    monkeypatch.setattr("lookalike.sample.hashing._is_settled", lambda *_: True)
    sample()
    monkeypatch.setattr("lookalike.io.archives.read", lambda *_: pytest.fail("a member was read again"))
    assert sample()[0].equals(first)


def test_truth_about_and_showcase_work_with_images_in_archives() -> None:
    put("root/a.tar", SAMPLES)
    put("queries/q.zip", {"q.png": png(3)})
    put("outside/o.tar", {"o.png": png(50)})
    Path("truth.csv").write_text("query_id,reference_id\nq.zip/q.png,a.tar/000003.png\n")
    Path("about.csv").write_text("image_id,camera\nq.zip/q.png,old\n")
    table, _ = sample(queries="queries", truth="truth.csv", about="about.csv", showcase="outside", sample=2)
    rows = {row["image_id"]: row for row in table.to_pylist()}
    assert len(rows) == 4
    assert rows["q.zip/q.png"]["by_camera"] == "old"
    assert rows["showcase:o.tar/o.png"]["path"] == "o.tar!o.png"
    assert "a.tar/000003.png" in rows
    for row in rows.values():
        assert len(images.read_row(row)) == row["bytes"]
