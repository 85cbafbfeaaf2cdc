"""Files with the names and dates that people really have: each is sampled, embedded and named by its own path."""

import hashlib
import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from conftest import made_image
from lookalike.embed.embed import EmbedJob, embed_shard
from lookalike.embed.fetch_weights import fetch_weights
from lookalike.io import store
from lookalike.io.formats.tables import EMBEDDINGS, IMAGES, REJECTED
from lookalike.sample.sample import SampleJob, sample
from lookalike.sample.shard import ShardJob, write_shards

PIXELS = '{"family": "pixels", "size": 4}'
NAMES = (
    *("a" * 251 + ".jpg", "ü" * 125 + ".jpg", "deep/" * 60 + "deep.jpg"),  # 255 bytes, the longest name of a file
    *("line\nbreak.jpg", "tab\there.jpg", "cr\rreturn.jpg", "\x01control.jpg", "zero\u200bwidth.jpg", "\ufeffbom.jpg"),
    *(unicodedata.normalize(form, "Müller é.jpg") for form in ("NFC", "NFD")),
    *("emoji 🍀☣️👩‍👩‍👧.jpg", "日本語.jpg", "rtl\u202egpj.jpg", "í\xa0½.jpg"),
    *("Case.jpg", "case.jpg", "CASE.JPG", "a.b.c.JPG", "IMG_1.jpeg.JPG", "x..jpg", " leading.jpg"),
    *("quote'single.jpg", 'quote"double.jpg', "{braces}.jpg", "*star?.jpg", "back\\slash.jpg", "pipe|.jpg"),
    *("-dash.jpg", "--help.jpg", "$HOME.jpg", "`id`.jpg", "percent%20.jpg", "hash#1.jpg", "semi;colon.jpg"),
    *("comma,name.jpg", "<script>alert(1)</script>.jpg", "&amp;.jpg"),
    *("null.jpg", "NaN.jpg", "1e5.jpg", "True.jpg", "COM1.jpg", "showcase:x.jpg", "wow.zip!x.jpg"),
)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(number: int, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    made_image(number).save(path, "JPEG")


def embed(shards: int) -> dict[str, tuple[str, list[float]]]:
    """Sample ``photos/`` and embed its shards, as the workflow does: hash and vector of each image, by id."""
    key = json.dumps({"kind": "folder", "root": "photos"})
    sample(SampleJob("mine", key, None, "images.parquet", "truth.parquet"))
    key = json.dumps({"dataset": "mine", "k": 1, "shards": {"images": shards}, "expect": {}})
    paths = [f"images-{number:05d}.parquet" for number in range(shards)]
    write_shards(ShardJob("images.parquet", "truth.parquet", key, paths))
    fetch_weights(PIXELS, "weights.json")
    rows = []
    for path in paths:
        embed_shard(
            EmbedJob(
                shard=path,
                weights="weights.json",
                out="embeddings.parquet",
                rejected_out="rejected.parquet",
                timing_out="timing.json",
                model="pixels",
                key=PIXELS,
                code="c0de",
                batch_size=16,
                threads=1,
                gpu=False,
            )
        )
        assert store.read_table("rejected.parquet", REJECTED).num_rows == 0
        rows += store.read_table("embeddings.parquet", EMBEDDINGS).to_pylist()
    return {row["image_id"]: (row["sha256"], row["embedding"]) for row in rows}


def test_an_image_of_any_name_has_the_hash_and_the_vector_of_its_own_file() -> None:
    for number, name in enumerate(NAMES):
        write(number, Path("photos", name))
    embedded = embed(shards=3)
    assert sorted(embedded) == sorted(NAMES)
    for name in NAMES:
        assert embedded[name][0] == hashlib.sha256(Path("photos", name).read_bytes()).hexdigest()
    assert len(np.unique([vector for _, vector in embedded.values()], axis=0)) == len(NAMES)


def test_links_to_a_file_are_images_of_their_own_and_dates_do_not_matter() -> None:
    folder = Path("photos")
    for number, (name, date) in enumerate({"original.jpg": 1e9, "epoch.jpg": 0, "future.jpg": 4e9}.items()):
        write(number, folder / name)
        os.utime(folder / name, (date, date))
    os.link(folder / "original.jpg", folder / "hardlink.jpg")
    (folder / "symlink.jpg").symlink_to("original.jpg")
    (folder / "broken.jpg").symlink_to("nowhere.jpg")
    (folder / "loop").symlink_to(".")
    embedded = embed(shards=1)
    assert sorted(embedded) == ["epoch.jpg", "future.jpg", "hardlink.jpg", "original.jpg", "symlink.jpg"]
    assert embedded["original.jpg"] == embedded["hardlink.jpg"] == embedded["symlink.jpg"] != embedded["epoch.jpg"]
    left_out = store.read_provenance("images.parquet")["left_out"]
    assert sorted(example for row in left_out for example in row["examples"]) == ["broken.jpg", "loop/"]
    assert store.read_table("images.parquet", IMAGES).num_rows == len(embedded)
