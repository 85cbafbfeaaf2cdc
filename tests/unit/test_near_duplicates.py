"""Files that show the same image are found however they were saved, and others are not taken for them."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import imagehash
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageDraw

from lookalike.io import content_hashes, store
from lookalike.io.formats.tables import NEAR_DUPLICATES, SHARD
from lookalike.sample.near_duplicates import candidates, groups
from lookalike.sample.near_duplicates.find import NearDuplicatesJob, find_near_duplicates
from lookalike.sample.near_duplicates.groups import same_images, stars
from lookalike.sample.near_duplicates.signatures import TURNS, Rows, Signatures, joined, sign, thumbnail, turned
from phone_folder import compressed, resave, scene_canvas, take_shot

SCENES = 40


def shots(count: int, of_each: int = 1, seed: int = 7) -> list[Image.Image]:
    """Shots of made scenes: those of one scene follow each other."""
    draw = np.random.default_rng(seed)
    return [take_shot(canvas, draw) for canvas in (scene_canvas(draw) for _ in range(count)) for _ in range(of_each)]


def found(images: Sequence[Image.Image]) -> set[tuple[int, int]]:
    pairs = same_images(sign(np.stack([thumbnail(image) for image in images]))).pairs
    return {(int(one), int(other)) for one, other in pairs}


@pytest.fixture(scope="module")
def originals() -> list[Image.Image]:
    return shots(SCENES)


@pytest.mark.parametrize(
    ("kind", "least"),
    [("quality 30", 1.0), ("quarter", 1.0), ("resaved", 1.0), ("webp", 1.0), ("turned", 1.0), ("mirrored", 1.0)],
)
def test_a_copy_saved_in_another_way_is_the_same_image(originals: list[Image.Image], kind: str, least: float) -> None:
    make = {
        "quality 30": lambda image: compressed(image, 30),
        "quarter": lambda image: image.resize((image.width // 4, image.height // 4), Image.Resampling.LANCZOS),
        "resaved": resave,
        "webp": lambda image: compressed(image, 50, "WEBP"),
        "turned": lambda image: compressed(image.transpose(Image.Transpose.ROTATE_90), 70),
        "mirrored": lambda image: compressed(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 70),
    }[kind]
    pairs = found([*originals, *(make(image) for image in originals)])
    expected = {(number, number + SCENES) for number in range(SCENES)}
    assert len(pairs & expected) >= least * SCENES
    assert pairs <= expected


def test_of_thousands_of_pairs_of_different_images_none_is_the_same(originals: list[Image.Image]) -> None:
    others = shots(40, of_each=3, seed=8)  # among them shots of one scene, which are not the same image
    assert len(others) * (len(others) - 1) / 2 > 7000
    assert found(others) == set()


@pytest.mark.parametrize("flags", TURNS)
def test_every_orientation_is_found(originals: list[Image.Image], flags: tuple[bool, bool, bool]) -> None:
    small = np.stack([thumbnail(image) for image in originals[:10]])
    pairs = same_images(sign(np.concatenate([small, turned(small, flags)]))).pairs
    assert pairs.tolist() == [[number, number + 10] for number in range(10)]


def test_two_images_in_one_frame_are_two_images(originals: list[Image.Image]) -> None:
    framed = []
    for image in originals[:12]:
        screen = Image.new("RGB", (300, 300), (12, 12, 14))
        screen.paste(image.resize((160, 120)), (70, 110))
        ImageDraw.Draw(screen).rectangle((20, 20, 280, 60), fill=(240, 240, 240))
        framed.append(screen)
    assert found(framed) == set()


def test_another_color_is_another_image(originals: list[Image.Image]) -> None:
    recolored = [Image.merge("YCbCr", (y, cr, cb)) for y, cb, cr in (one.convert("YCbCr").split() for one in originals)]
    assert found([*originals[:10], *recolored[:10]]) == set()


def test_flat_images_are_never_the_same_but_counted() -> None:
    flat = [Image.new("RGB", (80, 60), (value, value, value)) for value in (0, 0, 250, 251)]
    signatures = sign(np.stack([thumbnail(image) for image in flat]))
    assert signatures.flat.all()
    assert not len(same_images(signatures).pairs)


def test_hashes_are_those_of_imagehash(originals: list[Image.Image]) -> None:
    small = np.stack([thumbnail(image) for image in originals[:8]])
    signatures = sign(small)
    for row in range(8):
        upright = [turned(small[[row], ..., 0], flags)[0] for flags in TURNS]
        theirs = [imagehash.phash(Image.fromarray(one), hash_size=16).hash.ravel() for one in upright]
        mine = np.unpackbits(signatures.phash[row]).astype(bool)
        assert min(int((mine != one).sum()) for one in theirs) <= 2  # of the canonical orientation, but for rounding


def test_signatures_of_parts_are_those_of_the_whole(originals: list[Image.Image]) -> None:
    small = np.stack([thumbnail(image) for image in [*originals, *map(resave, originals)]])
    parts = joined([sign(small[:30]), sign(small[30:])])
    assert same_images(parts).pairs.tolist() == same_images(sign(small)).pairs.tolist()
    assert (parts.image[: len(small)] == np.arange(len(small))).all()


def test_no_pair_is_lost_between_blocks_and_few_are_compared(
    originals: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    turned_copies = [one.transpose(turn) for one, turn in zip(originals, [*Image.Transpose] * 6, strict=False)]
    copies = [*turned_copies, *map(resave, originals), *(compressed(one, 30) for one in originals)]
    signatures = sign(np.stack([thumbnail(image) for image in [*originals, *copies]]))
    blocks: list[int] = []
    compare = candidates._near

    def count(signatures: Signatures, probes: Rows, images: Rows) -> Iterator[candidates.Block]:
        blocks.append(len(probes) * len(images))
        return compare(signatures, probes, images)

    monkeypatch.setattr(candidates, "_near", count)
    pairs = {}
    for small in (1 << 30, 1):
        blocks.clear()
        monkeypatch.setattr(candidates, "SMALL", small)
        pairs[small] = same_images(signatures).pairs.tolist()
        if small > 1:
            assert len(blocks) == 1, "all pairs are compared"
            everything = blocks[0]
    assert len(pairs[1]) > 4 * SCENES, "copies of all kinds are found"
    assert pairs[1] == pairs[1 << 30]
    assert len(blocks) > SCENES
    assert sum(blocks) < everything / 10


def test_images_that_all_look_alike_are_compared_in_one_block() -> None:
    parts = np.full((3000, candidates.PARTS**2), 800, np.int16)
    rows = np.arange(3000)
    assert [(len(one), len(other)) for one, other in candidates._blocks((rows, rows), parts)] == [(3000, 3000)]


def test_a_chain_is_not_one_group() -> None:
    chain = np.array([[number, number + 1] for number in range(6)])
    group = stars(chain, 8)
    assert group[7] == -1
    for one, other in combinations(range(7), 2):
        if group[one] == group[other] != -1:
            assert abs(one - other) <= 2, "of a group, every image was compared with its center"
    assert stars(np.array([[1, 4], [1, 2], [2, 4]]), 5).tolist() == [-1, 1, 1, -1, 1]


def test_too_many_pairs_are_said_to_be_too_many(originals: list[Image.Image], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "MOST_PAIRS", 3)
    assert same_images(sign(np.stack([thumbnail(image) for image in [*originals[:9], *originals[:9]]]))).capped


def shard(folder: Path, path: Path, names: Sequence[str]) -> Path:
    """A shard of files of a folder."""
    columns = {
        "image_id": list(names),
        "root": [str(folder)] * len(names),
        "path": list(names),
        "bytes": [(folder / name).stat().st_size for name in names],
        "content_hash": [content_hashes.of_file(folder / name) for name in names],
    }
    store.write_table(pa.table(columns, SHARD.schema()), path, SHARD, {})
    return path


def test_the_stage_groups_files_and_counts_what_it_cannot_read(tmp_path: Path, originals: list[Image.Image]) -> None:
    for number, image in enumerate(originals[:5]):
        image.save(tmp_path / f"{number}.png")
    resave(originals[1]).save(tmp_path / "b.jpg", quality=60)
    compressed(originals[1].transpose(Image.Transpose.ROTATE_90), 60).save(tmp_path / "c.jpg")
    Image.new("RGB", (50, 50)).save(tmp_path / "flat.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    names = sorted(path.name for path in tmp_path.iterdir())
    out = tmp_path / "near.parquet"
    find_near_duplicates(
        NearDuplicatesJob([shard(tmp_path, tmp_path / "s0.parquet", names)], out, tmp_path / "n.in_work", threads=2)
    )
    table, footer = store.read_table(out, NEAR_DUPLICATES), store.read_provenance(out)
    assert table["image_id"].to_pylist() == ["1.png", "b.jpg", "c.jpg"]
    assert len(set(table["group"].to_pylist())) == 1
    assert (footer["images"], footer["rejected"], footer["flat"], footer["capped"]) == (9, 1, 1, False)

    whole = out.read_bytes()
    halves = [shard(tmp_path, tmp_path / f"h{half}.parquet", names[half::2]) for half in (0, 1)]
    find_near_duplicates(NearDuplicatesJob(halves, out, tmp_path / "n.in_work", threads=1))
    assert out.read_bytes() == whole, "how a data set is split decides nothing"
