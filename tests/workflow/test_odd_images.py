"""A real run over images as they occur in the wild, in a folder and in archives."""

import json
import os
import zipfile
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from conftest import made_image
from lookalike.io import content_hashes, store
from lookalike.io.formats.tables import IMAGES
from odd_images import encoded, odd_images
from workflow.conftest import Tree

ODD = {
    "run": ["mine"],
    "datasets": {
        "own": {
            "kind": "folder",
            "root": "photos",
            "queries": "queries",
            "training": "more",
            "truth": "truth.csv",
            "k": 3,
            "shards": {"references": 2},
        }
    },
    "experiments": {"mine": {"dataset": "own", "models": ["pixels"]}},
}
NAMES = ('it\'s "quoted" & <b>.png', "new\nline.png", "東京/写真.png")
ARCHIVED = {
    "a.zip!in/a.png": "",
    "a.zip!../a.png": "",
    "a.zip!none.png": "the archive has no member 'none.png'",
    "cut.zip!in/a.png": "the archive is not a zip archive, or is truncated",
    "../truth.csv": "its path leads outside the data set's folder, so it is not read",
}
CHANGED = {
    "vanished.png": "the file is missing",
    "pipe.png": "is not a regular file, but a folder, a named pipe or a device",
}


def write_collection(tree: Tree) -> dict[str, str]:
    """Fill the tree's folders; return the expected rejection reason of each reference by id, empty if embedded."""
    root = tree.folder / "photos"
    root.mkdir()
    for odd in odd_images():
        (root / odd.name).write_bytes(odd.data)
    for name in (*NAMES, *CHANGED):
        (root / name).parent.mkdir(exist_ok=True)
        made_image(7).save(root / name)
    tree.write_images("queries", 20, 21)
    tree.write_images("more", 30, 31, 32)
    (tree.folder / "more/broken.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    (tree.folder / "truth.csv").write_text("query_id,reference_id\np20.png,ordinary.png\n")
    return {odd.name: odd.reason for odd in odd_images()} | dict.fromkeys(NAMES, "") | CHANGED


def write_archives(root: Path) -> None:
    """Once the folder is listed: its own archives are its images' too, and one that is truncated would stop that."""
    with zipfile.ZipFile(root / "a.zip", "w") as archive:
        archive.writestr("in/a.png", encoded(made_image(5), "PNG"))
        archive.writestr("../a.png", encoded(made_image(6), "PNG"))
    (root / "cut.zip").write_bytes((root / "a.zip").read_bytes()[:200])


def add_archived(sample: Path, members: dict[str, bytes]) -> None:
    """Add members of archives to a sample, like a kind of data set that lists them."""
    table = store.read_table(sample, IMAGES)
    roles = {"reference": True, "query": False, "training": False, "root": "photos", "group": None}
    rows = [
        {"image_id": path, "path": path, "bytes": len(data), "content_hash": content_hashes.of_crc(zlib.crc32(data))}
        for path, data in members.items()
    ]
    more = pa.Table.from_pylist([row | roles for row in rows], table.schema)
    store.write_table(pa.concat_tables([table, more]), sample, IMAGES, store.read_provenance(sample))


def test_every_image_is_embedded_or_listed_with_its_reason(tmp_path: Path) -> None:
    tree = Tree.new(tmp_path / "tree", ODD)
    expected = write_collection(tree)
    sample = tree.folder / "results/own/sample/images.parquet"
    tree.run(str(sample.relative_to(tree.folder)))

    (tree.folder / "photos/vanished.png").unlink()
    (tree.folder / "photos/pipe.png").unlink()
    os.mkfifo(tree.folder / "photos/pipe.png")
    write_archives(tree.folder / "photos")
    members = {"a.zip!in/a.png": encoded(made_image(5), "PNG"), "a.zip!../a.png": encoded(made_image(6), "PNG")}
    add_archived(sample, {path: members.get(path, b"?") for path in ARCHIVED})
    expected |= ARCHIVED
    tree.run()

    rejected = {
        row["image_id"]: row["reason"]
        for path in tree.folder.glob("results/own/rejected/pixels/references-*.parquet")
        for row in pq.read_table(path).to_pylist()
    }
    assert set(rejected) == {image_id for image_id, reason in expected.items() if reason}
    assert [image_id for image_id, reason in rejected.items() if expected[image_id] not in reason] == []
    metrics = json.loads((tree.folder / "results/own/metrics/pixels/flat.json").read_text())
    assert (metrics["references"], metrics["rejected_references"]) == (len(expected), len(rejected))
    assert (metrics["queries"], metrics["rejected_queries"]) == (2, 0)
    page = (tree.folder / "results/reports/mine/index.html").read_text()
    assert "damaged: it starts like HEIC, but cannot be decoded" in page

    training = tree.folder / "results/own/embeddings/pixels/training-00000.parquet"
    assert pq.read_table(training)["image_id"].to_pylist() == ["p30.png", "p31.png", "p32.png"]
    assert pq.read_table(tree.folder / "results/own/rejected/pixels/training-00000.parquet")[
        "image_id"
    ].to_pylist() == ["broken.heic"]
    ids = pq.read_table(tree.folder / "results/own/indexes/pixels/flat.ids.parquet")["image_id"].to_pylist()
    assert set(ids) == set(expected) - set(rejected)
