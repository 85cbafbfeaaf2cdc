"""Duplicates are counted by hash and role; the counts are compared with plain loops."""

import hashlib
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lookalike.compare import duplicates
from lookalike.io import store
from lookalike.io.formats.records import Duplicates
from lookalike.io.formats.tables import DUPLICATES, IMAGES, INDEX_IMAGES, TRUTH
from tables import MADE, seen_table

Images = dict[str, tuple[str, str]]  # id -> roles (letters of r, q, t), contents


def run(folder: Path, images: Images, truth: list[tuple[str, str]]) -> tuple[Duplicates, pa.Table]:
    """Run the stage on real files; an image with empty contents counts as rejected."""
    ids = list(images)
    columns = {
        "image_id": ids,
        **{
            role: [letter in images[image][0] for image in ids]
            for role, letter in zip(("reference", "query", "training"), "rqt", strict=True)
        },
        "root": ["."] * len(ids),
        "path": ids,
        "bytes": [1] * len(ids),
        "group": [None] * len(ids),
    }
    store.write_table(pa.table(columns, IMAGES.schema()), folder / "images.parquet", IMAGES, MADE)
    rows = {"query_id": [query for query, _ in truth], "reference_id": [match for _, match in truth]}
    store.write_table(pa.table(rows, TRUTH.schema()), folder / "truth.parquet", TRUTH, MADE)
    embedded = [image for image in ids if images[image][1]]
    seen = seen_table(dict.fromkeys(embedded, (1, 1)), [image for image in ids if image not in embedded])
    hashes = [hashlib.sha256(images[image][1].encode()).hexdigest() for image in embedded]
    hashes += [None] * (len(ids) - len(embedded))
    seen = seen.set_column(1, "sha256", pa.array(hashes, pa.string()))
    store.write_table(seen, folder / "flat.images.parquet", INDEX_IMAGES, MADE)
    duplicates.find_duplicates(
        duplicates.DuplicatesJob(
            seen=str(folder / "flat.images.parquet"),
            images=str(folder / "images.parquet"),
            truth=str(folder / "truth.parquet"),
            out=str(folder / "duplicates.json"),
            list_out=str(folder / "duplicates.parquet"),
        )
    )
    listed = store.read_table(folder / "duplicates.parquet", DUPLICATES)
    counted = store.read_json(folder / "duplicates.json", Duplicates)
    return counted.model_copy(update={"sample_sha256": "", "shards_sha256": ""}), listed


def test_duplicates_are_counted_by_kind(tmp_path: Path) -> None:
    images = {
        "a": ("r", "A"),
        "a2": ("r", "A"),
        "a3": ("r", "A"),
        "b": ("r", "B"),
        "b2": ("r", "B"),
        "c": ("r", "C"),
        "d": ("r", "D"),
        "like-match": ("q", "C"),
        "like-other": ("q", "D"),
        "wants-a": ("q", "Q"),
        "wants-both-b": ("q", "R"),
        "alone": ("q", "S"),
        "alone-too": ("q", "S"),
        "learned": ("t", "D"),
        "learned-and-searched": ("rt", "E"),
        "rejected": ("q", ""),
        "showcase:a.jpg": ("", "A"),
    }
    truth = [
        ("like-match", "c"),
        ("like-other", "c"),
        ("wants-a", "a"),
        ("wants-both-b", "b"),
        ("wants-both-b", "b2"),
        ("rejected", "a"),
    ]
    found, listed = run(tmp_path, images, truth)
    assert found == Duplicates(
        references=8,
        queries=6,
        doubled=5,
        groups=2,
        undecidable=1,
        queries_like_match=1,
        queries_like_other=1,
        training_like_reference=1,
        examples={
            "doubled": [("a", "a2"), ("b", "b2")],
            "queries_like_match": [("like-match", "c")],
            "queries_like_other": [("like-other", "d")],
            "training_like_reference": [("learned", "d")],
        },
    )
    assert set(listed["image_id"].to_pylist()) == {
        "a",
        "a2",
        "a3",
        "b",
        "b2",
        "c",
        "d",
        *("like-match", "like-other"),
        "learned",
    }
    (row,) = listed.filter(pa.compute.equal(listed["image_id"], "learned")).to_pylist()
    assert (row["reference"], row["training"]) == (False, True)


def test_a_query_that_is_also_a_reference_does_not_count_as_its_own_duplicate(tmp_path: Path) -> None:
    images = {"a": ("rq", "A"), "b": ("rq", "A"), "c": ("rq", "C"), "d": ("r", "D")}
    found, _ = run(tmp_path, images, [("a", "b"), ("c", "d")])
    assert (found.doubled, found.groups) == (2, 1)
    assert (found.queries_like_match, found.queries_like_other, found.undecidable) == (1, 1, 0)
    assert found.examples["queries_like_other"] == [("b", "a")]


def test_without_duplicates_nothing_is_listed(tmp_path: Path) -> None:
    found, listed = run(tmp_path, {"a": ("r", "A"), "b": ("r", "B"), "q": ("q", "Q")}, [("q", "a")])
    assert (found.doubled, found.undecidable, listed.num_rows) == (0, 0, 0)
    assert not any(found.examples.values())


@pytest.mark.parametrize("seed", range(5))
def test_the_counts_agree_with_plain_loops(tmp_path: Path, seed: int) -> None:
    draw = np.random.default_rng(seed)
    roles = ("r", "r", "q", "rq", "t", "rt", "")
    images = {f"p{number:03}": (str(draw.choice(roles)), str(draw.integers(40))) for number in range(90)}
    references = [image for image, (role, _) in images.items() if "r" in role]
    queries = [image for image, (role, _) in images.items() if "q" in role]
    truth = sorted({(str(draw.choice(queries)), str(draw.choice(references))) for _ in range(60)})
    truth = [(query, match) for query, match in truth if query != match]
    found, _ = run(tmp_path, images, truth)

    def same(a: str, b: str) -> bool:
        return a != b and images[a][1] == images[b][1]

    pairs = [pair for pair in combinations(references, 2) if same(*pair)]
    assert found.doubled == len({reference for pair in pairs for reference in pair})
    assert found.groups == len({images[a][1] for a, _ in pairs})
    assert found.queries_like_match == len({query for query, match in truth if same(query, match)})
    assert found.queries_like_other == len(
        {query for query in queries for image in references if same(query, image) and (query, image) not in truth}
    )
    assert found.undecidable == len(
        {
            query
            for query, match in truth
            for image in references
            if same(match, image) and image != query and (query, image) not in truth
        }
    )
    assert found.training_like_reference == len(
        {
            image
            for image, (role, _) in images.items()
            if "t" in role and "r" not in role and any(same(image, other) for other in references)
        }
    )
