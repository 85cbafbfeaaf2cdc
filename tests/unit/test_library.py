"""``import lookalike as la``: what is there, and what importing it costs; search, duplicates, and vectors of a run."""

import doctest
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import lookalike as la
from conftest import REPOSITORY, made_image
from lookalike.embed import batches
from lookalike.embed.batches import ShardImage
from lookalike.io import phone_formats, store
from lookalike.io.formats.tables import EMBEDDINGS, SHARD
from phone_folder import compressed, scene_canvas, take_shot
from typed import library_types

LIBRARY = REPOSITORY / "workflow_scripts"
MODULES = sorted(path for path in (LIBRARY / "lookalike").rglob("library.py"))


def module_of(path: Path) -> ModuleType:
    return importlib.import_module(".".join(path.relative_to(LIBRARY).with_suffix("").parts))


# --- the names ---


def test_importing_the_library_imports_nothing_else() -> None:
    """So it takes a millisecond: NumPy alone takes 80."""
    code = "import sys, types; before = set(sys.modules); import lookalike; print(sorted(set(sys.modules) - before))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=LIBRARY, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "['lookalike']"


def test_a_folder_of_the_same_name_hides_no_function() -> None:
    """Importing ``lookalike.search.exact`` sets an attribute ``search`` of the package, as it does in any."""
    code = "import lookalike.search.exact, lookalike as la; from lookalike.search.exact import search; print(la.search)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=LIBRARY, capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("<function search")


def test_each_name_is_loaded_when_it_is_used() -> None:
    assert dir(la) == la.__all__ == sorted(la.__all__)
    for name in la.__all__:
        assert getattr(la, name).__doc__, name
    with pytest.raises(AttributeError, match="module 'lookalike' has no attribute 'embed_all'"):
        la.embed_all  # type: ignore[attr-defined]  # noqa: B018


def test_the_page_lists_every_stable_name() -> None:
    page = (REPOSITORY / "docs" / "library.md").read_text()
    rows = re.findall(r"^\| `([\w.]+)[^`]*` \|", page, re.MULTILINE)
    assert sorted({name.partition(".")[0] for name in rows}) == la.__all__


def test_types_that_mypy_is_promised_are_those_at_run_time(tmp_path: Path) -> None:
    for number, name in enumerate(("a.png", "b.png")):
        made_image(number).save(tmp_path / name)
    library_types.search(library_types.embed(tmp_path))
    library_types.tables(tmp_path)
    library_types.read(tmp_path)
    assert (LIBRARY / "lookalike" / "py.typed").is_file()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.parent.name)
def test_examples_in_docstrings_are_true(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    cat = made_image(5, (120, 96))
    cat.save("photos/cat.png")
    cat.resize((60, 48)).save("photos/small.jpg", quality=95)
    made_image(6, (120, 96)).save("photos/other.png")
    result = doctest.testmod(module_of(path), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert not result.failed
    # io reads what a run wrote (docs/library.md); near_duplicates is documented in cli
    assert result.attempted or path.parent.name in ("io", "near_duplicates")


# --- search ---


def test_search_is_exact_with_ties_in_the_order_of_rows() -> None:
    draw = np.random.default_rng(0)
    references = draw.standard_normal((5000, 12)).astype(np.float32)
    references[4321] = references[17] * 1  # equal to the last bit
    references[99] = 0
    queries = np.concatenate([references[17:18] * 3, draw.standard_normal((40, 12))])
    indices, scores = la.search(queries, references, k=7)
    unit = references.astype(np.float64) / np.maximum(np.linalg.norm(references, axis=1, keepdims=True), 1e-9)
    expected = (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ unit.T
    np.testing.assert_array_equal(indices[0, :2], [17, 4321])
    assert scores[0, 0] == scores[0, 1]
    np.testing.assert_allclose(scores, -np.sort(-expected)[:, :7], atol=1e-6)
    np.testing.assert_array_equal(indices[1:], np.argsort(-expected[1:], kind="stable")[:, :7])


def test_search_changes_no_argument_and_leaves_out_the_query_itself() -> None:
    vectors = np.array([[3, 4], [6, 8], [0, 1]], np.float32)
    before = vectors.copy()
    indices, scores = la.search(vectors, vectors, k=10, own=np.arange(3))
    np.testing.assert_array_equal(vectors, before)
    np.testing.assert_array_equal(indices, [[1, 2, -1], [0, 2, -1], [0, 1, -1]])
    assert scores[0, 0] == pytest.approx(1)
    assert scores[0, 2] == -np.inf


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.uint64])
def test_row_numbers_of_any_integer_type_leave_out_the_query_itself(dtype: type) -> None:
    vectors = np.random.default_rng(0).standard_normal((300, 4))
    indices, _ = la.search(vectors[:100], vectors, k=1, own=np.arange(100).astype(dtype))
    np.testing.assert_array_equal(indices, la.search(vectors[:100], vectors, k=1, own=np.arange(100)).indices)


@pytest.mark.parametrize(
    ("queries", "references", "more", "message"),
    [
        ([1, 0], [[1, 0]], {}, r"queries: have the shape \(2,\)"),
        ([[1, 0]], [[1, 0, 0]], {}, "queries: have 2 dimensions, and references 3. Embed both with one model"),
        ([[1, 0]], [[1, np.nan]], {}, "references: row 0 has NaN or infinite numbers. Leave out rows"),
        ([["a"]], [[1]], {}, "queries: are not an array of numbers"),
        ([[1, 0]], [[1, 0]], {"k": 0}, "k: is 0. Set it to 1 or more"),
        ([[1, 0]], [[1, 0]], {"own": np.array([0.0])}, "own: has the shape .* one row number per query"),
        ([[1, 0]], [[1, 0]], {"own": np.array([0, 1])}, "own: has the shape"),
        ([[1, 0]], [[1, 0]], {"own": np.array([1])}, "own: has 1, which is not a row of the 1 references"),
        ([[1, 0]], [[1, 0]], {"own": np.array([-2])}, "own: has -2, which is not a row"),
        ([[1e-60, 0]], [[1, 0]], {}, "queries: have rows whose numbers are all too small for float32"),
        ([[1j, 0]], [[1, 0]], {}, "queries: are not an array of numbers"),
    ],
)
def test_search_refuses_what_has_no_answer(queries: Any, references: Any, more: Any, message: str) -> None:
    with pytest.raises(la.LookalikeError, match=message):
        la.search(queries, references, **more)


def test_search_without_queries_or_references_is_empty() -> None:
    assert la.search(np.empty((0, 3)), np.ones((2, 3))).indices.shape == (0, 2)
    assert la.search(np.ones((2, 3)), np.empty((0, 3))).indices.shape == (2, 0)


# --- vectors of a run ---


def test_shards_computed_in_different_precision_are_refused(tmp_path: Path) -> None:
    """As the index refuses them."""
    for number, compute in enumerate(("float32", "float16")):
        name = f"references-{number:05}.parquet"
        row = {"image_id": [f"{number}"], "root": [""], "path": [""], "bytes": [1], "content_hash": [""]}
        store.write_table(pa.table(row, SHARD.schema()), tmp_path / "sample/shards" / name, SHARD, {})
        footer = {"shard_sha256": store.identity(tmp_path / "sample/shards" / name), "dtypes": {"compute": compute}}
        vectors = batches.table([ShardImage(f"{number}", "", f"{number:064x}", (1, 1))], np.ones((1, 4), np.float32))
        store.write_table(vectors, tmp_path / "embeddings/some" / name, EMBEDDINGS, footer)
    with pytest.raises(la.LookalikeError, match=r"references-00001.parquet: was embedded with other .* \(dtypes\)"):
        la.read_embeddings(tmp_path / "embeddings/some")


# --- duplicates ---


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Two scenes, one of them saved four times, and an image without a duplicate."""
    draw = np.random.default_rng(1)
    first, second = (take_shot(scene_canvas(draw), draw) for _ in range(2))
    folder = tmp_path / "photos"
    (folder / "old").mkdir(parents=True)
    first.save(folder / "b.png")
    (folder / "old" / "a.png").write_bytes((folder / "b.png").read_bytes())
    compressed(first, 60).save(folder / "c.png")
    first.resize((first.width // 2, first.height // 2)).transpose(Image.Transpose.ROTATE_90).save(folder / "d.png")
    second.save(folder / "e.png")
    for name in ("white", "white-again"):
        Image.new("RGB", (64, 64), "white").save(folder / f"{name}.png")
    (folder / "broken.jpg").write_bytes(b"no image")
    return folder


def test_duplicates_are_grouped_with_the_one_to_keep_first(shots: Path) -> None:
    table = la.find_duplicates(shots)
    by_group = [list(rows["image"]) for _, rows in table.groupby("group")]
    first, flat = by_group
    assert [Path(path).name for path in flat] == ["white-again.png", "white.png"]
    assert sorted(Path(path).name for path in first) == ["a.png", "b.png", "c.png", "d.png"]
    assert Path(first[-1]).name == "d.png"  # the smaller one last
    rows = table.set_index("image")
    assert rows["keep"].sum() == 2
    assert rows.loc[str(shots / "d.png"), "kind"] == "near"
    exact = {str(shots / "b.png"), str(shots / "old" / "a.png")}
    assert {rows.loc[path, "kind"] for path in exact} == ({"kept", "exact"} if first[0] in exact else {"near"})
    assert (rows["score"] >= 0.96).all()
    assert (rows.loc[rows["kind"] != "near", "score"] == 1).all()
    assert table.attrs["images"] == 7
    assert list(table.attrs["rejected"]) == [str(shots / "broken.jpg")]
    assert rows.loc[first[0], "bytes"] == Path(first[0]).stat().st_size
    with Image.open(first[0]) as kept:
        assert rows.loc[first[0], "pixels"] == kept.width * kept.height


def test_a_phones_image_counts_with_all_its_pixels(shots: Path) -> None:
    assert all(map(phone_formats.is_installed, phone_formats.KINDS))  # which lets Pillow write them, too
    with Image.open(shots / "b.png") as image:
        pixels = image.width * image.height
        for name in ("heic", "jxl"):
            image.save(shots / f"phone.{name}")
    found = la.find_duplicates([shots / "d.png", *shots.glob("phone.*")]).set_index("image")
    assert found["pixels"].to_dict() == {
        **{str(shots / f"phone.{name}"): pixels for name in ("heic", "jxl")},
        str(shots / "d.png"): pixels // 4,
    }


def test_a_list_of_paths_is_enough_and_their_order_does_not_matter(shots: Path) -> None:
    paths = [*sorted(shots.glob("*.png")), shots / "b.png", str(shots / "missing.png")]
    table = la.find_duplicates(paths, threads=1)
    assert table.equals(la.find_duplicates(reversed(paths), threads=2))
    assert len(table) == 5
    assert table.attrs["rejected"] == {str(shots / "missing.png"): "no such file"}


def test_a_file_given_by_two_paths_is_no_duplicate_of_itself(shots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever deletes what is not to be kept would delete the only copy."""
    monkeypatch.chdir(shots)
    (shots / "link.png").symlink_to("d.png")
    assert la.find_duplicates(["d.png", shots / "d.png", "old/../d.png", "link.png"]).empty


def test_a_name_that_is_not_utf_8_is_an_error_or_embedded(tmp_path: Path) -> None:
    path = Path(os.fsdecode(bytes(tmp_path) + b"/\xff.png"))
    made_image(0).save(path)
    assert la.load_model("pixels").embed([path]).shape == (1, 256)
    with pytest.raises(la.LookalikeError, match=r"name '.*\\xff\.png' is not valid UTF-8. Rename the file"):
        la.find_duplicates([path])


def test_without_duplicates_the_table_is_empty_and_has_its_columns(shots: Path) -> None:
    full, empty = la.find_duplicates(shots), la.find_duplicates([shots / "e.png"])
    assert len(empty) == 0
    assert (empty.dtypes == full.dtypes).all()
    assert len(la.find_duplicates([])) == 0


def test_a_missing_or_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(la.LookalikeError, match="is not a folder"):
        la.find_duplicates(tmp_path / "none")
    with pytest.raises(la.LookalikeError, match="contains no images"):
        la.find_duplicates(tmp_path)
