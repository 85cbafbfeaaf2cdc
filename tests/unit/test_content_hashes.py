"""A changed file is noticed by its contents, and sampling again reads no file that did not change."""

import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from conftest import ImageFolder, made_image
from lookalike.io import content_hashes, store
from lookalike.io.formats.tables import IMAGES
from lookalike.job.errors import LookalikeError
from lookalike.sample import hashing
from lookalike.sample import sample as datasets

KIB = 1 << 10


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def sample() -> pa.Table:
    """Sample ``photos/`` as the workflow does."""
    key = json.dumps({"kind": "folder", "root": "photos"})
    datasets.sample(datasets.SampleJob("mine", key, None, "results/images.parquet", "results/truth.parquet"))
    return store.read_table("results/images.parquet", IMAGES)


def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images that are opened from now on."""
    names: list[str] = []
    look = content_hashes.look

    def counted(path: str | Path) -> tuple[str, str]:
        names.append(Path(path).name)
        return look(path)

    monkeypatch.setattr(content_hashes, "look", counted)
    return names


def settle(folder: Path) -> None:
    """Make the files old enough that a change cannot go unnoticed in the same date."""
    for path in folder.rglob("*"):
        os.utime(path, (1e9, 1e9))


@pytest.fixture
def settled(image_folder: ImageFolder, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = image_folder(Path("photos"), 5)
    settle(folder)
    monkeypatch.setattr(hashing, "SETTLED", 0)
    return folder


@pytest.mark.parametrize("size", [0, 1, 64 * KIB, 192 * KIB - 1, 192 * KIB, 192 * KIB + 1, 1 << 20])
def test_a_file_has_the_hash_of_its_bytes(size: int) -> None:
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    Path("a.bmp").write_bytes(data)
    assert content_hashes.of_file("a.bmp") == content_hashes.of(data) != content_hashes.of(data + b"\0")


@pytest.mark.parametrize("at", [0, 100 * KIB, 192 * KIB - 1])
def test_any_byte_of_a_file_of_192_kib_counts(at: int) -> None:
    data = bytearray(192 * KIB)
    before = content_hashes.of(bytes(data))
    data[at] = 1
    assert content_hashes.of(bytes(data)) != before


@pytest.mark.parametrize(("at", "seen"), [(0, True), (512 * KIB, True), (1024 * KIB - 1, True), (300 * KIB, False)])
def test_of_a_larger_file_the_first_middle_and_last_64_kib_count(at: int, *, seen: bool) -> None:
    data = bytearray(1 << 20)
    before = content_hashes.of(bytes(data))
    data[at] = 1
    assert (content_hashes.of(bytes(data)) != before) is seen


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path)])
def test_a_file_that_cannot_be_read_has_no_hash_and_never_blocks(make: Callable[[Path], None]) -> None:
    make(Path("a.jpg"))
    assert content_hashes.of_file("a.jpg") == content_hashes.UNREADABLE
    assert content_hashes.of_file("zero\0byte.jpg") == content_hashes.UNREADABLE


def test_a_changed_file_is_refused_with_a_remedy_that_fits_it() -> None:
    Path("made").mkdir()
    row = {"root": "made", "path": "a.jpg", "bytes": 3, "content_hash": content_hashes.of(b"abc")}
    content_hashes.check(row, b"abc")
    content_hashes.check(row | {"content_hash": content_hashes.of_crc(zlib.crc32(b"abc"))}, b"abc")
    for row_changes, data, message in [
        ({}, b"abcd", "it had 3 bytes and has 4 now. Sample again"),
        ({}, b"abd", "it still has 3 bytes, but different ones. Sample again"),
        ({"content_hash": "crc32:00000000"}, b"abc", "but different ones"),
        ({"content_hash": content_hashes.UNREADABLE}, b"abc", "it could not be read then and can be read now"),
    ]:
        with pytest.raises(LookalikeError) as caught:
            content_hashes.check(row | row_changes, data)
        assert str(caught.value).startswith("made/a.jpg: has changed since the data set was sampled: ")
        assert message in str(caught.value)
        assert str(caught.value).endswith("--forcerun sample")
    # an image of the run's own, which sampling again would list unchanged
    with pytest.raises(LookalikeError, match=r"A run made it; make it again: --forcerun made/manifest\.parquet$"):
        content_hashes.check(row | {"content_hash": content_hashes.of_made(b"abc")}, b"abd")


def test_every_row_of_a_sample_has_the_hash_of_its_file(image_folder: ImageFolder) -> None:
    folder = image_folder(Path("photos"), 3)
    rows = sample().to_pylist()
    assert [row["content_hash"] for row in rows] == [content_hashes.of_file(folder / row["path"]) for row in rows]


def test_sampling_again_opens_only_files_that_changed(settled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sample()
    names = opened(monkeypatch)
    assert sample().equals(first)
    assert names == []

    made_image(9).save(settled / "p9.png")
    data = bytearray((settled / "p3.png").read_bytes())
    data[-1] ^= 1
    (settled / "p3.png").write_bytes(data)
    os.utime(settled / "p3.png", (1e9, 1e9))  # the same date and size: the change time reveals it
    again = sample()
    assert sorted(names) == ["p3.png", "p9.png"]
    assert [
        before != after
        for before, after in zip(
            first["content_hash"].to_pylist(), again.slice(0, 5)["content_hash"].to_pylist(), strict=True
        )
    ] == [False, False, False, True, False]


def test_a_copy_without_dates_has_the_same_hashes(settled: Path) -> None:
    before = sample()
    settled.rename("old")
    shutil.copytree("old", "photos", copy_function=shutil.copyfile)
    after = sample()
    assert after.equals(before)
    assert store.read_provenance("results/images.parquet")["rows"] == 5


def test_a_file_that_changed_a_moment_ago_is_read_again(
    image_folder: ImageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two changes within one tick of a file system's clock leave the same date."""
    image_folder(Path("photos"), 3)
    sample()
    names = opened(monkeypatch)
    sample()
    assert sorted(names) == ["p0.png", "p1.png", "p2.png"]


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "another file", "gone"])
def test_without_a_whole_cache_everything_is_hashed_again(
    settled: Path, damage: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = sample()
    cache = datasets.cache_of("results/images.parquet")
    whole = cache.read_bytes()
    places = range(0, len(whole), 7) if damage == "flipped" else [0]
    for place in places:
        data = {"cut": whole[:-20], "empty": b"", "another file": b"?" * 99}.get(damage, whole)
        if damage == "flipped":
            data = whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :]
        cache.unlink()
        if damage != "gone":
            cache.write_bytes(data)
        with monkeypatch.context() as patch:
            names = opened(patch)
            assert sample().equals(first)
        assert len(names) == 5
    assert ("is damaged; every file is hashed again" in caplog.text) is (damage != "gone")


def test_the_sample_contains_no_date(settled: Path) -> None:
    sample()
    before = Path("results/images.parquet").read_bytes()
    for number, path in enumerate(settled.iterdir()):
        os.utime(path, (number, number))
    sample()
    assert Path("results/images.parquet").read_bytes() == before


def test_members_of_archives_have_the_checksum_that_the_archive_records(tmp_path: Path) -> None:
    import published

    published.coco(tmp_path / "coco", zipped=True)
    key = json.dumps({"kind": "coco", "root": "coco"})
    datasets.sample(datasets.SampleJob("coco", key, None, "results/images.parquet", "results/truth.parquet"))
    rows = store.read_table("results/images.parquet", IMAGES).to_pylist()
    with zipfile.ZipFile("coco/val2017.zip") as archive:
        expected = {f"val2017.zip!{member.filename}": f"crc32:{member.CRC:08x}" for member in archive.infolist()}
    assert {row["path"]: row["content_hash"] for row in rows} == expected
