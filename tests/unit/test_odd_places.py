"""Unusual images and paths: what a path may lead to, and what the embed stage makes of all of them."""

import logging
import os
import socket
import stat
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from conftest import made_image
from lookalike.embed import encoders
from lookalike.embed.embed import EmbedJob, embed_shard
from lookalike.io import archives, content_hashes, images, store
from lookalike.io.formats.records import Weights
from lookalike.io.formats.tables import EMBEDDINGS, REJECTED, SHARD
from lookalike.job.errors import LookalikeError
from odd_images import encoded, odd_images

KEY = '{"family": "pixels", "size": 4}'
WHOLE = encoded(made_image(0), "PNG")


def refusal(root: Path, path: str) -> str:
    with pytest.raises(images.BadImage) as caught:
        images.read(str(root), path)
    return str(caught.value)


@pytest.fixture
def odd_archives(tmp_path: Path) -> Path:
    """A folder with archives, and a file outside of it that must not be read."""
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.png").write_bytes(encoded(made_image(9), "PNG"))
    with zipfile.ZipFile(root / "a.zip", "w") as archive:
        archive.writestr("in/a.png", WHOLE)
        archive.writestr("/absolute.png", WHOLE)
        archive.writestr("../secret.png", WHOLE)
        link = zipfile.ZipInfo("link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "../secret.png")
        archive.writestr("twice.png", WHOLE)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("twice.png", encoded(made_image(1), "PNG"))
        for tenth in range(1, 10):
            archive.writestr(f"cut-{tenth}.png", WHOLE[: len(WHOLE) * tenth // 10])
    whole = (root / "a.zip").read_bytes()
    for tenth in range(1, 10):
        (root / f"cut-{tenth}.zip").write_bytes(whole[: len(whole) * tenth // 10])
    os.mkfifo(root / "pipe.zip")
    return root


ARCHIVED = {
    "a.zip!in/a.png": "",
    "a.zip!/absolute.png": "",  # harmless: members are only read into memory
    "a.zip!../secret.png": "",
    "a.zip!link.png": "is text, not an image",
    "a.zip!twice.png": "the archive has 2 members with the name 'twice.png'",
    "a.zip!none.png": "the archive has no member 'none.png'",
    "none.zip!a.png": "the archive is missing",
    "pipe.zip!a.png": "the archive is not a regular file, but a folder, a named pipe or a device",
    "../a.zip!in/a.png": "its path leads outside the data set's folder, so it is not read",
    **{f"a.zip!cut-{tenth}.png": "damaged" for tenth in range(1, 10)},
    **{f"cut-{tenth}.zip!in/a.png": "the archive is not a zip archive, or is truncated" for tenth in range(1, 10)},
}


@pytest.mark.parametrize(("path", "reason"), ARCHIVED.items())
def test_members_of_archives(odd_archives: Path, path: str, reason: str) -> None:
    if not reason:
        assert np.array_equal(images.load(str(odd_archives), path), made_image(0))
        return
    with pytest.raises(images.BadImage) as caught:
        images.load(str(odd_archives), path)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "path", ["../secret.png", "/etc/hostname", "a/../../secret.png", "..", "a.zip!x/../../secret.png"]
)
def test_no_path_outside_the_root_is_read(odd_archives: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Not even where `a.zip!x` is also the name of an existing folder."""
    (odd_archives / "a.zip!x").mkdir()
    monkeypatch.setattr(images, "_read_file", lambda path: pytest.fail(f"{path} is read"))
    absolute = str(odd_archives.parent / "secret.png")
    for outside in (path, absolute):
        reason = refusal(odd_archives, outside)
        assert reason in (
            "its path leads outside the data set's folder, so it is not read",
            "the archive has no member 'x/../../secret.png'",
        )


def test_a_path_from_the_command_line_may_lead_anywhere(odd_archives: Path) -> None:
    assert images.read("", str(odd_archives / "../secret.png")) == (odd_archives.parent / "secret.png").read_bytes()


def test_links_are_followed_out_of_the_root(odd_archives: Path) -> None:
    (odd_archives / "link.png").symlink_to("../secret.png")
    assert images.read(str(odd_archives), "link.png") == (odd_archives.parent / "secret.png").read_bytes()


def test_anything_but_a_regular_file_is_rejected_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "self.jpg").symlink_to("self.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket.jpg"))
    started = time.perf_counter()
    not_a_file = "is not a regular file, but a folder, a named pipe or a device"
    assert [refusal(tmp_path, name) for name in ("pipe.jpg", "folder.jpg", "zero.jpg")] == [not_a_file] * 3
    assert refusal(tmp_path, "self.jpg") == "cannot be read: Too many levels of symbolic links"
    assert refusal(tmp_path, "socket.jpg") == "cannot be read: No such device or address"
    assert refusal(tmp_path, "a\0.jpg") == "cannot be read: its name contains a zero byte"
    assert refusal(tmp_path, "n" * 300) == "cannot be read: File name too long"
    assert time.perf_counter() - started < 60  # seconds; opening a pipe or reading /dev/zero never ends


def test_a_file_without_read_permission_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(WHOLE)
    (tmp_path / "a.jpg").chmod(0)
    if os.geteuid() == 0:  # root may read everything

        def refusing(*_: Any) -> int:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "open", refusing)
    assert refusal(tmp_path, "a.jpg") == "cannot be read: Permission denied"


def test_a_file_larger_than_the_limit_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "film.jpg").open("wb") as file:
        file.truncate(archives.LARGEST + 1)
    assert refusal(tmp_path, "film.jpg") == "has 1,073,741,825 bytes; the limit is 1,073,741,824"


class Collection:
    """All unusual images in a folder, as a shard."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root
        self.expected = {odd.name: odd.reason for odd in odd_images()} | ARCHIVED
        sizes = dict.fromkeys(ARCHIVED, 0)
        for odd in odd_images():
            (root / odd.name).write_bytes(odd.data)
            sizes[odd.name] = len(odd.data)
        for path, reason in ARCHIVED.items():
            if not reason or "damaged" in reason or "text" in reason:
                sizes[path] = len(images.read(str(root), path))
        for name, reason in {
            "vanished.jpg": "the file is missing",
            "pipe.jpg": "is not a regular file",
            "dir.jpg": "is not a regular file",
        }.items():
            self.expected[name], sizes[name] = reason, 7
        os.mkfifo(root / "pipe.jpg")
        (root / "dir.jpg").mkdir()
        self.expected["/etc/hostname"], sizes["/etc/hostname"] = "its path leads outside", 7
        rows = {
            "image_id": list(sizes),
            "root": [str(root)] * len(sizes),
            "path": list(sizes),
            "bytes": list(sizes.values()),
            "content_hash": [self.content_hash(path) for path in sizes],
        }
        store.write_table(pa.table(rows, SHARD.schema()), folder / "shard.parquet", SHARD, {})
        self.order = list(sizes)
        store.write_json(Weights(source="none", revision="", files={}), folder / "weights.json")

    def content_hash(self, path: str) -> str:
        try:
            archived = archives.split(path) and not (self.root / path).exists()
            return (
                content_hashes.of_crc(zlib.crc32(images.read(str(self.root), path)))
                if archived
                else (content_hashes.of_file(self.root / path))
            )
        except images.BadImage:
            return content_hashes.UNREADABLE

    def embed(self) -> tuple[pa.Table, pa.Table]:
        out, rejected = self.folder / "out.parquet", self.folder / "rejected.parquet"
        embed_shard(
            EmbedJob(
                shard=str(self.folder / "shard.parquet"),
                weights=str(self.folder / "weights.json"),
                out=str(out),
                rejected_out=str(rejected),
                timing_out=str(self.folder / "timing.json"),
                model="pixels",
                key=KEY,
                code="c0de",
                batch_size=16,
                threads=4,
                gpu=False,
            )
        )
        return store.read_table(out, EMBEDDINGS), store.read_table(rejected, REJECTED)


def test_every_image_of_the_collection_is_embedded_or_rejected(
    odd_archives: Path, caplog: pytest.LogCaptureFixture
) -> None:
    collection = Collection(odd_archives.parent, odd_archives)
    caplog.set_level(logging.INFO)
    started = time.perf_counter()
    embedded, rejected = collection.embed()
    assert time.perf_counter() - started < 300  # seconds; it takes one or two unless one of them blocks
    assert embedded.num_rows + rejected.num_rows == len(collection.expected) > 200
    assert set(embedded["image_id"].to_pylist()) == {name for name, reason in collection.expected.items() if not reason}
    for row in rejected.to_pylist():
        assert collection.expected[row["image_id"]] in row["reason"]
    assert f"{embedded.num_rows} embedded + {rejected.num_rows} rejected = {len(collection.expected)}" in caplog.text

    encoder = encoders.load(KEY, Weights(source="", revision="", files={}), encoders.Machine())
    vectors = dict(zip(embedded["image_id"].to_pylist(), embedded["embedding"].to_pylist(), strict=True))
    for odd in odd_images():
        if odd.pixels is not None:
            upright = encoder.encode(encoder.prepare(images.decode(odd.data))[None])[0]
            np.testing.assert_array_equal(vectors[odd.name], upright)


def test_an_error_of_a_model_names_the_image(odd_archives: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        overlaps, dimension, compute_dtype, device, versions = False, 1, "float32", "CPU", {}

        def prepare(self, image: Any) -> Any:
            raise MemoryError("no room")

    collection = Collection(odd_archives.parent, odd_archives)
    monkeypatch.setattr(encoders, "load", lambda *_: Failing())
    with pytest.raises(
        LookalikeError, match=r"in/a\.png: out of memory while reading it \(no room\)\. Run on"
    ) as caught:
        collection.embed()
    assert "in/a.png, 60 x 48 pixels" in caught.value.__cause__.__notes__[0]
