"""Images are read from zip and tar archives in place."""

import io
import os
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from lookalike.io import archives, images
from lookalike.io.archives import ArchiveError


def pack(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def pack_tar(path: Path, members: dict[str, bytes], format: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_every_member_is_read_whole_and_listed_where_it_lies(tmp_path: Path, method: int) -> None:
    contents = {f"refs/R{number:06d}.jpg": os.urandom(1000 + number) for number in reversed(range(20))}
    archive = pack(tmp_path / "refs_0.zip", contents, method)
    listed = archives.members(archive)
    assert [(one.name, one.bytes) for one in listed] == [(name, len(data)) for name, data in contents.items()]
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda one: archives.read(archive, one.name), listed)
    assert list(found) == list(contents.values())


def test_folders_are_no_members(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.mkdir("refs")
        archive.writestr("refs/a.jpg", b"a")
    assert [one.name for one in archives.members(tmp_path / "a.zip")] == ["refs/a.jpg"]


@pytest.mark.parametrize("limit", [100, zipfile.ZIP64_LIMIT])
def test_an_archive_is_understood_as_zipfile_understands_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """Of more than 4 GB and 65,535 members, as zipfile writes it, who is told that both are small numbers."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", limit)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", limit // 50)
    (tmp_path / "a.zip").write_bytes(b"#!/bin/sh: something before the archive\n")
    contents = {"a.jpg": b"", "ä/日本.jpg": os.urandom(300), "b.jpg": b"b" * 1000, "c.jpg": b"c" * 50}
    with zipfile.ZipFile(tmp_path / "a.zip", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = b"PK\5 comment " * 100
        for name, data in contents.items():
            archive.writestr(name, data)
    assert (b"PK\6\6" in (tmp_path / "a.zip").read_bytes()) == (limit == 100)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        expected = [
            (one.filename, one.header_offset, one.compress_size, one.file_size, one.compress_type, one.CRC)
            for one in archive.infolist()
        ]
    listed = archives.members(tmp_path / "a.zip")
    assert [(one.name, one.offset, one.packed, one.bytes, one.method, one.crc) for one in listed] == expected
    assert {name: archives.read(tmp_path / "a.zip", name) for name in contents} == contents


def test_an_archive_that_ends_or_is_changed_anywhere_is_read_right_or_refused(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", {"a": b"a" * 50, "b": b"b"}, zipfile.ZIP_STORED)
    whole = archive.read_bytes()
    for at in range(len(whole)):
        for data in (whole[:at], whole[:at] + b"\xff" + whole[at + 1 :]):
            archive.write_bytes(data)
            archives._read_index.cache_clear()  # of the same size and date, perhaps
            with suppress(ArchiveError):
                assert archives.read(archive, "a") == b"a" * 50
                archives.members(archive)


def test_a_place_beyond_what_a_file_can_have_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 10)
    archive = pack(tmp_path / "a.zip", {"a": b"a" * 50, "b": b"b"}, zipfile.ZIP_STORED)
    whole = bytearray(archive.read_bytes())
    extra = whole.index(b"b", whole.rindex(b"PK\1\2")) + 1  # what follows the name in the table of contents
    whole[extra + 4 : extra + 12] = b"\xff" * 8
    archive.write_bytes(whole)
    with pytest.raises(ArchiveError, match="damaged"):
        archives.read(archive, "b")


def test_an_image_of_an_archive_is_named_by_both(tmp_path: Path) -> None:
    pack(tmp_path / "Refs.ZIP", {"a!b/c.jpg": b"inside"})
    assert images.read(str(tmp_path), "Refs.ZIP!a!b/c.jpg") == b"inside"


def test_a_plain_file_whose_name_looks_like_a_member_is_a_plain_file(tmp_path: Path) -> None:
    (tmp_path / "a.zip!b.jpg").write_bytes(b"plain")
    assert images.read(str(tmp_path), "a.zip!b.jpg") == b"plain"


def test_an_archive_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", {"a": b"first"})
    assert archives.read(archive, "a") == b"first"
    pack(archive, {"b": b"second one"})
    assert archives.read(archive, "b") == b"second one"


def test_what_cannot_be_read_is_refused_with_its_reason(tmp_path: Path) -> None:
    whole = pack(tmp_path / "whole.zip", {"a": b"a" * 5000, "b": os.urandom(5000)})
    bytes_of = whole.read_bytes()
    (tmp_path / "short.zip").write_bytes(bytes_of[: len(bytes_of) // 2])
    flipped = bytearray(bytes_of)
    flipped[len(bytes_of) // 2] ^= 255
    (tmp_path / "flipped.zip").write_bytes(flipped)
    odd = pack(tmp_path / "odd.zip", {"a": b"a" * 100}, zipfile.ZIP_LZMA)
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as two:
        two.writestr("a", b"1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            two.writestr("a", b"2")
    locked = bytearray(bytes_of)
    locked[locked.rindex(b"PK\1\2", 0, locked.rindex(b"PK\1\2")) + 8] |= 1  # the first entry of the table of contents
    (tmp_path / "locked.zip").write_bytes(locked)

    for archive, name, reason in [
        (tmp_path / "none.zip", "a", "is missing"),
        (tmp_path, "a", "is not a regular file, but a folder"),
        (whole, "c", "has no member 'c'"),
        (tmp_path / "short.zip", "a", "truncated"),
        (tmp_path / "flipped.zip", "b", "'b' is damaged"),
        (odd, "a", r"unsupported compression \(method 14\)"),
        (tmp_path / "two.zip", "a", "2 members with the name 'a'"),
        (tmp_path / "locked.zip", "a", "encrypted"),
    ]:
        with pytest.raises(ArchiveError, match=reason):
            archives.read(archive, name)


def test_a_member_that_claims_to_be_huge_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = pack(tmp_path / "bomb.zip", {"a": bytes(100_000)})
    monkeypatch.setattr(archives, "LARGEST", 99_999)
    with pytest.raises(ArchiveError, match="100,000 bytes; the limit is 99,999"):
        archives.read(bomb, "a")


def test_a_bad_archive_is_a_bad_image_with_a_reason(tmp_path: Path) -> None:
    pack(tmp_path / "a.zip", {"a.jpg": b"a"})
    with pytest.raises(images.BadImage, match=r"the archive has no member 'b\.jpg'"):
        images.read(str(tmp_path), "a.zip!b.jpg")


# --- tar ---


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_member_of_a_tar_is_read_whole_in_every_format(tmp_path: Path, format: int) -> None:
    contents = {f"{'long/' * 25}ä日本 {number}.jpg": os.urandom(number * 300) for number in reversed(range(20))}
    contents |= {"a.jpg": b"", "a!b.tar!c.jpg": b"c" * 512}
    archive = pack_tar(tmp_path / "Train.TAR", contents, format)
    assert [(one.name, one.bytes) for one in archives.members(archive)] == [(n, len(d)) for n, d in contents.items()]
    with ThreadPoolExecutor(8) as pool:
        assert (
            dict(zip(contents, pool.map(lambda name: archives.read(archive, name), contents), strict=True)) == contents
        )
    assert images.read(str(tmp_path), "Train.TAR!a!b.tar!c.jpg") == b"c" * 512


def test_a_tar_is_indexed_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack_tar(tmp_path / "a.tar", {"a": b"first", "b": b"b"})
    reads = []
    read_tar = archives._read_tar
    monkeypatch.setattr(archives, "_read_tar", lambda file: reads.append(1) or read_tar(file))
    assert [archives.read(archive, name) for name in "abab"] == [b"first", b"b"] * 2
    assert len(reads) == 1
    pack_tar(archive, {"a": b"x" * 20_000})
    assert archives.read(archive, "a") == b"x" * 20_000
    assert len(reads) == 2


def test_a_truncated_tar_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    whole = pack_tar(tmp_path / "a.tar", {"a": b"a" * 600, "b": b"b" * 512}).read_bytes()
    archive = tmp_path / "cut.tar"
    end = 5 * 512  # two headers, two blocks of a, one of b; then the mark of the end
    for size in [*range(0, end + 512, 100), end, end + 511]:
        archive.write_bytes(whole[:size])
        with pytest.raises(ArchiveError, match="truncated"):
            archives.members(archive)
    archive.write_bytes(whole[: end + 512])
    assert [one.name for one in archives.members(archive)] == ["a", "b"]


def test_a_tar_with_a_damaged_header_is_refused_and_not_taken_for_its_end(tmp_path: Path) -> None:
    archive = pack_tar(tmp_path / "a.tar", {"a": b"a" * 512, "b": b"b"})
    whole = archive.read_bytes()
    for at in (*range(0, 512, 37), *range(1024, 1536, 37)):
        archive.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        archives._read_index.cache_clear()  # of the same size and date, perhaps
        with pytest.raises(ArchiveError, match="damaged"):
            archives.members(archive)


def test_joined_tars_are_refused_since_the_second_would_be_missing(tmp_path: Path) -> None:
    one = pack_tar(tmp_path / "a.tar", {"a": b"a"})
    one.write_bytes(one.read_bytes() + pack_tar(tmp_path / "b.tar", {"b": b"b"}).read_bytes())
    with pytest.raises(ArchiveError, match="tar -i"):
        archives.members(one)


@pytest.mark.parametrize(("mode", "kind"), [("w:gz", "gzip"), ("w:bz2", "bzip2"), ("w:xz", "xz")])
def test_a_compressed_tar_says_what_to_do(tmp_path: Path, mode: str, kind: str) -> None:
    with tarfile.open(tmp_path / "a.tar", mode) as archive:  # type: ignore[call-overload]
        archive.addfile(tarfile.TarInfo("a.jpg"))
    with pytest.raises(ArchiveError, match=f"compressed with {kind}.*decompress it"):
        archives.members(tmp_path / "a.tar")


def test_links_duplicates_and_missing_members_of_a_tar_are_refused_with_a_reason(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("two.jpg", "two.jpg", "./dotted.jpg"):
            archive.addfile(tarfile.TarInfo(name))
        for name, kind in (
            ("soft.jpg", tarfile.SYMTYPE),
            ("hard.jpg", tarfile.LNKTYPE),
            ("pipe.jpg", tarfile.FIFOTYPE),
        ):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "two.jpg"
            archive.addfile(link)
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    listed = {one.name: one.special for one in archives.members(tmp_path / "a.tar")}
    assert [name for name, special in listed.items() if special] == ["soft.jpg", "hard.jpg", "pipe.jpg"]
    assert "folder" not in listed
    assert archives.read(tmp_path / "a.tar", "dotted.jpg") == b""
    for name, reason in [
        ("two.jpg", "has 2 members with the name 'two.jpg'"),
        ("soft.jpg", "'soft.jpg' is a link or a device, not a regular file"),
        ("hard.jpg", "not a regular file"),
        ("none.jpg", "has no member 'none.jpg'"),
    ]:
        with pytest.raises(ArchiveError, match=reason):
            archives.read(tmp_path / "a.tar", name)
