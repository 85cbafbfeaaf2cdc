"""DISC21 as it is distributed: its parts, samples of it, its ground truth, and a million references."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from pydantic import TypeAdapter

import published
from conftest import REPOSITORY
from lookalike.io import images
from lookalike.job.errors import LookalikeError
from lookalike.sample import expectations
from lookalike.sample.shard import ShardJob, write_shards
from published import DEVELOPMENT
from sampled import distractors, failure, ids, pairs, remarks, sample, shard


@pytest.mark.parametrize("packed", ["zip", "tar", ""])
@pytest.mark.parametrize("header", [True, False])
def test_disc21_is_the_same_from_folders_and_archives_and_from_both_formats_of_truth(
    tmp_path: Path, packed: str, header: bool
) -> None:
    root = published.disc21(tmp_path / "disc21", zipped=bool(packed), header=header)
    if packed == "tar":
        published.as_tars(root)
    before = {path.name for path in root.iterdir()}
    table, truth = sample("disc21", root, queries="all", training={"first": 3})
    assert ids(table, "reference") == [f"R{number:06d}" for number in range(12)]
    assert ids(table, "query") == [*DEVELOPMENT, "Q50000", "Q50001"]
    assert ids(table, "training") == ["T000000", "T000001", "T000002"]
    assert pairs(truth) == {"Q00000": "R000003", "Q00001": "R000007", "Q00003": "R000010", "Q50000": "R000001"}
    for row in table.to_pylist():
        assert len(images.read(row["root"], row["path"])) == row["bytes"]
    assert {path.name for path in root.iterdir()} == before


@pytest.mark.parametrize(
    ("queries", "expected"),
    [
        ("development", list(DEVELOPMENT)),
        ("test", ["Q50000", "Q50001"]),
        ("all", [*DEVELOPMENT, "Q50000", "Q50001"]),
    ],
)
def test_distractors_stay_though_the_truth_names_positives_only(
    tmp_path: Path, queries: str, expected: list[str]
) -> None:
    root = published.disc21(tmp_path / "disc21", zipped=True, header=False)
    table, _ = sample("disc21", root, queries=queries)
    assert ids(table, "query") == expected


def test_queries_of_both_sets_may_lie_in_one_folder(tmp_path: Path) -> None:
    root = published.disc21(tmp_path / "disc21", zipped=False)
    (root / "dev_queries").rename(root / "query_images")
    for path in (root / "final_queries").iterdir():
        path.rename(root / "query_images" / path.name)
    for queries, expected in {"development": list(DEVELOPMENT), "test": ["Q50000", "Q50001"]}.items():
        assert ids(sample("disc21", root, queries=queries)[0], "query") == expected


def test_positives_are_the_development_queries_whose_reference_is_chosen(tmp_path: Path) -> None:
    root = published.disc21(tmp_path / "disc21", zipped=True)  # the truth of the test queries is there too
    table, truth = sample("disc21", root, references={"first": 8}, queries="positives")
    assert ids(table, "reference") == [f"R{number:06d}" for number in range(8)]
    assert ids(table, "query") == ["Q00000", "Q00001"]
    assert pairs(truth) == {"Q00000": "R000003", "Q00001": "R000007"}


def test_a_query_whose_reference_is_not_chosen_stays_without_a_match(tmp_path: Path) -> None:
    root = published.disc21(tmp_path / "disc21", zipped=False)
    table, truth = sample("disc21", root, references={"first": 8}, queries="development")
    assert ids(table, "query") == list(DEVELOPMENT)
    assert pairs(truth) == {"Q00000": "R000003", "Q00001": "R000007"}


def test_a_sample_is_stable_and_a_larger_one_contains_it(tmp_path: Path) -> None:
    root = published.disc21(tmp_path / "disc21", zipped=True)
    chosen = {
        number: ids(sample("disc21", root, references={"sample": number, "seed": 1})[0], "reference")
        for number in (4, 8, 12)
    }
    assert set(chosen[4]) < set(chosen[8]) < set(chosen[12])
    assert len(chosen[4]) == 4
    assert ids(sample("disc21", root, references={"sample": 4, "seed": 2})[0], "reference") != chosen[4]
    # the hash of "1 R000000" and so on decides, on every machine and for ever
    by_hash = sorted(chosen[12], key=lambda image_id: hashlib.sha256(f"1 {image_id}".encode()).digest()[:8])
    assert chosen[4] == sorted(by_hash[:4])


def test_a_protocols_counts_are_checked_and_what_is_likely_missing_is_named(tmp_path: Path) -> None:
    root = published.disc21(tmp_path / "disc21", zipped=False)
    settings: dict[str, Any] = {"references": {"first": 8}, "queries": "positives"}
    sample("disc21", root, **settings)
    shard(root, {"references": 8, "queries": 2, "training": 0, "pairs": 2})
    (root / "dev_queries/Q00001.jpg").unlink()
    sample("disc21", root, **settings)
    with pytest.raises(LookalikeError) as caught:
        shard(root, {"references": 8, "queries": 2, "pairs": 2})
    assert str(caught.value).startswith(
        "datasets.mine.expect: 2 queries were expected, and 1 found; 2 pairs were expected, and 1 found. Likely "
        "missing: development queries: Q00001, Q00006 to Q49999 (49,995 images), of what is published; ground truth: "
        "the query of 1 true pairs of the development queries, e.g. Q00001. Add it and sample again"
    )


def test_a_missing_reference_stops_and_is_named(tmp_path: Path) -> None:
    root = published.disc21(tmp_path / "disc21", zipped=False)
    (root / "references/R000002.jpg").unlink()
    (root / "references/R000005.jpg").unlink()
    (root / "references/R000006.jpg").unlink()
    message = failure("disc21", root, references={"first": 12})
    assert "Missing: references: R000002, R000005 to R000006 (3 images), of R000000 to R000011" in message
    assert "the first of the archives refs_50k_*.zip" in message
    sample("disc21", root, references={"first": 2}, queries="development")  # what is not requested may be missing
    assert "12 random images are requested, but only 9 were found" in failure("disc21", root, references={"sample": 12})


def test_what_is_not_expected_is_counted_and_nothing_of_it_is_taken(tmp_path: Path) -> None:
    root = published.disc21(tmp_path / "disc21", zipped=True)
    with zipfile.ZipFile(root / "refs_50k_01.zip", "a") as archive:
        archive.writestr("__MACOSX/._R000008.jpg", b"resource fork")
        archive.writestr("readme.txt", b"text")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("R000009.jpg", b"another one of this name")
    published.put(root, "refs", {"R000000.jpg": published.jpeg(0), "Thumbs.db": b""}, zipped=False)
    for name in (".DS_Store", "a.mov", "b.mov", "c.mov", "d.mov", "refs_50k_02.zip.part"):
        (root / name).write_bytes(b"half of a download")
    assert [line for line in remarks("disc21", root) if "published" not in line] == [
        "references: thumbnails that Windows keeps (Thumbs.db): 1, refs/Thumbs.db",
        "references: metadata that macOS puts into zip archives (__MACOSX): 1, refs_50k_01.zip!__MACOSX/",
        "references: files that are not among its images: 1, refs_50k_01.zip!readme.txt",
        "references: duplicate images, of which the first is used: 2, such as refs/R000000.jpg and "
        "refs_50k_0.zip!refs_50k_0/R000000.jpg",
        "ground truth: hidden files and folders: 1, .DS_Store",
        "ground truth: files and folders that this data set does not use: 5, such as a.mov, b.mov, c.mov",
    ]
    table, _ = sample("disc21", root)
    paths = dict(zip(table["image_id"].to_pylist(), table["path"].to_pylist(), strict=True))
    assert paths["R000000"] == "refs/R000000.jpg"
    assert table.num_rows == len(paths) == 18
    with pytest.raises(images.BadImage, match="2 members with the name"):  # embedding rejects it, with this reason
        images.read(str(root), paths["R000009"])


def test_a_damaged_archive_stops_only_what_needs_it(tmp_path: Path) -> None:
    root = published.disc21(tmp_path / "disc21", zipped=True)
    whole = (root / "refs_50k_01.zip").read_bytes()
    (root / "refs_50k_01.zip").write_bytes(whole[: len(whole) // 2])
    sample("disc21", root, references={"first": 7})
    assert "references: refs_50k_01.zip is not a zip archive, or is truncated" in failure("disc21", root)
    message = failure("disc21", root, references={"first": 8})
    assert (
        "R000007 (1 image), of R000000 to R000007 that are requested; refs_50k_01.zip is not a zip archive" in message
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"Q00000,R000003\nQ00001;R000007\n", "line 2: is 'Q00001;R000007', expected a query and its reference"),
        (b"query,reference\n", "line 1: is 'query,reference'"),
        (b"\xff\xfe", "is not UTF-8 text"),
    ],
)
def test_a_ground_truth_of_another_format_is_named_with_its_line(tmp_path: Path, text: bytes, message: str) -> None:
    root = published.disc21(tmp_path / "disc21", zipped=False)
    (root / "dev_queries_groundtruth.csv").write_bytes(text)
    said = failure("disc21", root)
    assert said.startswith(f"datasets.mine: {root}/dev_queries_groundtruth.csv")
    assert message in said


def test_ground_truth_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    root = published.disc21(tmp_path / "disc21", zipped=False)
    (root / "my_ground_truth.csv").write_bytes(b"query_id,reference_id\nQ00000,\n")
    assert "'Q00000' has a match in this file, but none in" in failure("disc21", root)
    table, truth = sample("disc21", root, truth=["dev_queries_groundtruth.csv"])
    assert (table.num_rows, truth.num_rows) == (18, 3)
    assert "ground truth: put other.csv there" in failure("disc21", root, truth=["other.csv"])


def test_the_truth_of_other_queries_is_not_enough(tmp_path: Path) -> None:
    root = published.disc21(tmp_path / "disc21", zipped=False)
    (root / "dev_queries_groundtruth.csv").unlink()
    message = failure("disc21", root)
    assert "ground truth: no pairs of the development queries in test_queries_groundtruth.csv: put" in message


@pytest.mark.parametrize("inside", ["images", "images/references", "refs_50k_0/images"])
def test_disc21_archives_that_were_unpacked_into_images_are_read(tmp_path: Path, inside: str) -> None:
    root = published.disc21(tmp_path / "disc21", zipped=False)
    (root / inside).mkdir(parents=True)
    for path in sorted((root / "references").iterdir()):
        path.rename(root / inside / path.name)
    (root / "references").rmdir()
    table, truth = sample("disc21", root)
    assert (len(ids(table, "reference")), len(ids(table, "query")), truth.num_rows) == (12, 6, 3)


MILLION = """
import json, resource, sys, time
import numpy as np, pyarrow as pa
from pydantic import TypeAdapter
from lookalike.io import store
from lookalike.sample import shard as sharding
from lookalike.config.datasets import Dataset
from lookalike.sample import disc21, published
from lookalike.io.formats.tables import IMAGES, TRUTH

def listed(spell, count):
    names = [spell.format(number) for number in range(count)]
    paths = [f"part_{number // 50_000}.zip!{name}.jpg" for number, name in enumerate(names)]
    return pa.table([names, paths, np.full(count, 90_000), ["crc32:0badcafe"] * count], schema=published.LISTED)

parts = {"references": listed("R{:06d}", 1_000_000), "development queries": listed("Q{:05d}", 50_000)}
pairs = [(f"Q{5 * number:05d}", f"R{97 * number:06d}") for number in range(10_000)]
truth = pa.table(list(zip(*pairs)), schema=TRUTH.schema())
found = disc21.Found(disc21.SOURCE, "data", [], parts, truth)
shards = {"references": 38, "queries": 2}
counts = {}
started = time.process_time()
for name, more in {
    "all": {"references": "all", "queries": "development"},
    "first": {"references": {"first": 150_000}, "queries": "positives"},
    "sample": {"references": {"sample": 150_000, "seed": 3}, "queries": "positives"},
}.items():
    entry = TypeAdapter(Dataset).validate_python({"kind": "disc21", "root": "data", **more})
    images, true = disc21.choose(entry, found)
    counts[name] = [images.num_rows, true.num_rows]
    if name == "all":
        store.write_table(images, "images.parquet", IMAGES, {"sample_sha256": "a"})
        store.write_table(true, "truth.parquet", TRUTH, {"sample_sha256": "a"})
files = [f"{part}-{number:05d}.parquet" for part, count in shards.items() for number in range(count)]
expect = {"references": 1_000_000, "queries": 50_000, "pairs": 10_000}
key = json.dumps({"dataset": "disc21-dev", "k": 10, "shards": shards, "expect": expect})
sharding.write_shards(sharding.ShardJob("images.parquet", "truth.parquet", key, files))
seconds = time.process_time() - started
rows = [store.read_columns(file, "image_id").num_rows for file in files]
if sys.platform == "linux":  # where ru_maxrss begins with the memory of the process that started this one
    status = open("/proc/self/status").read()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 2**10
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"counts": counts, "rows": rows, "seconds": seconds, "megabytes": peak}))
"""


def test_a_million_references_are_sampled_joined_and_sharded_in_seconds_and_little_memory(tmp_path: Path) -> None:
    """Made as ids only. In a process of its own, so that its memory can be told; it takes about 10 s and 0.7 GB."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "workflow_scripts")}
    command = [sys.executable, "-c", MILLION]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    told = TypeAdapter(dict[str, Any]).validate_json(ran.stdout)
    first = -(-150_000 // 97)  # true pairs among R000000 to R149999
    assert told["counts"]["all"] == [1_050_000, 10_000]
    assert told["counts"]["first"] == [150_000 + first, first]
    queries = told["counts"]["sample"][1]
    assert told["counts"]["sample"] == [150_000 + queries, queries]
    assert 1_300 < queries < 1_700
    assert sum(told["rows"]) == 1_050_000
    assert all(abs(rows - 1_000_000 / 38) < 1_000 for rows in told["rows"][:38])
    assert told["seconds"] < 60
    assert told["megabytes"] < 2_000


def test_counts_say_what_a_sample_holds(tmp_path: Path) -> None:
    root = published.disc21(tmp_path / "disc21", zipped=True)
    table, truth = sample("disc21", root, training="all")
    assert expectations.count(table, truth) == {"references": 12, "queries": 6, "training": 5, "pairs": 3}
    assert pc.sum(table["query"]).as_py() == len(DEVELOPMENT)
    assert set(distractors()) <= set(ids(table, "query"))


def test_an_archive_that_is_packed_again_changes_no_shard(tmp_path: Path) -> None:
    """Another order, other dates and another method: where an image is in its archive is in no table."""
    root = published.coco(tmp_path / "coco", zipped=True)

    def shards() -> list[bytes]:
        sample("coco", root)
        files = [str(tmp_path / f"images-{number}.parquet") for number in range(3)]
        key = json.dumps({"dataset": "mine", "k": 1, "shards": {"images": 3}, "expect": {}})
        write_shards(ShardJob(tmp_path / "images.parquet", tmp_path / "truth.parquet", key, files))
        return [Path(file).read_bytes() for file in files]

    before = shards()
    with zipfile.ZipFile(root / "val2017.zip") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(root / "val2017.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in reversed(members):
            archive.writestr(zipfile.ZipInfo(name, (1999, 1, 1, 0, 0, 0)), members[name], zipfile.ZIP_DEFLATED)
    assert shards() == before
