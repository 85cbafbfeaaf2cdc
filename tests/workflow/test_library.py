"""The library beside a finished run: its vectors and neighbors, and the pages' code."""

import ast
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest

import lookalike as la
from conftest import REPOSITORY
from workflow.conftest import Tree

DOCS = REPOSITORY / "docs"
DEMO = "photo-tiles-copies"  # the data set that the pages read


@pytest.fixture
def run(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a finished run as the working directory, its data set also by the name that the pages use."""
    monkeypatch.chdir(tree.folder)
    (tree.folder / "results" / DEMO).symlink_to("copies")
    return tree.folder / "results" / "copies"


def notebooks() -> ModuleType:
    specification = importlib.util.spec_from_file_location("notebook", DOCS / "notebook.py")
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def execute(code: str, names: dict[str, Any]) -> Any:
    """Run a cell; its value is that of its last expression, as in a notebook."""
    body = ast.parse(code).body
    last = ast.Expression(body.pop().value) if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    return eval(compile(last, "cell", "eval"), names) if last else None


# --- parity with the run ---


@pytest.mark.parametrize("model", ["pixels", "color-histogram"])
def test_the_library_embeds_as_the_run_did(run: Path, model: str) -> None:
    ids, vectors, _ = la.read_embeddings(run / "embeddings" / model)
    sample = pd.read_parquet(run / "sample" / "images.parquet").set_index("image_id").loc[ids]
    paths = [f"{root}/{path}" for root, path in zip(sample["root"], sample["path"], strict=True)]
    np.testing.assert_array_equal(la.load_model(model).embed(paths), vectors)


@pytest.mark.parametrize("model", ["pixels", "color-histogram"])
def test_the_library_finds_what_the_run_found(run: Path, model: str) -> None:
    neighbors = pd.read_parquet(run / "neighbors" / model / "flat.parquet")
    queries = la.read_embeddings(run / "embeddings" / model, role="query")
    references = la.read_embeddings(run / "embeddings" / model, role="reference")
    found = la.search(queries.vectors, references.vectors, k=4)
    rows = {query: (indices, scores) for query, indices, scores in zip(queries.ids, *found, strict=True)}
    assert set(rows) == set(neighbors["query_id"])
    for query, expected in neighbors.sort_values("rank").groupby("query_id"):
        indices, scores = rows[query]
        assert references.ids[indices].tolist() == expected["reference_id"].to_list()
        np.testing.assert_array_equal(scores, expected["score"])


# --- read_embeddings ---


def test_each_vector_has_its_id_and_roles(run: Path) -> None:
    ids, vectors, roles = la.read_embeddings(run / "embeddings" / "pixels")
    assert vectors.shape == (17, 256)
    assert roles.index.to_list() == ids.tolist()
    assert roles.sum().to_dict() == {"reference": 11, "query": 6, "training": 0, "showcase": 0}
    stored = pd.read_parquet(run / "embeddings" / "pixels").set_index("image_id")["embedding"]
    np.testing.assert_array_equal(vectors, np.stack(stored.loc[ids].to_list()))
    queries = la.read_embeddings(run / "embeddings" / "pixels", role="query")
    np.testing.assert_array_equal(queries.vectors, vectors[roles["query"]])
    assert queries.ids.tolist() == ids[roles["query"]].tolist()
    assert la.read_embeddings(run / "embeddings" / "pixels", role="training").vectors.shape == (0, 256)


def remove_a_shard(run: Path) -> None:
    (run / "embeddings/pixels/queries-00001.parquet").unlink()


def take_one_of_another_model(run: Path) -> None:
    source = run / "embeddings/color-histogram/queries-00001.parquet"
    (run / "embeddings/pixels/queries-00001.parquet").write_bytes(source.read_bytes())


def take_another_shards(run: Path) -> None:
    source = run / "embeddings/pixels/queries-00000.parquet"
    (run / "embeddings/pixels/queries-00001.parquet").write_bytes(source.read_bytes())


def flip_a_bit(run: Path) -> None:
    path = run / "embeddings/pixels/queries-00001.parquet"
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove_a_shard, r"\d+ embedded and 1 rejected images are not the 18 of .*: the run is not finished"),
        (take_one_of_another_model, r"queries-00001.parquet: was embedded with other settings or code \(key"),
        (take_another_shards, "queries-00001.parquet: was embedded from another sample"),
        (flip_a_bit, "queries-00001.parquet: is damaged"),
    ],
)
def test_vectors_of_different_origin_are_refused(run: Path, change: Callable[[Path], None], message: str) -> None:
    change(run)
    with pytest.raises(la.LookalikeError, match=message):
        la.read_embeddings(run / "embeddings" / "pixels")


def test_a_wrong_folder_or_role_is_an_error(run: Path) -> None:
    with pytest.raises(la.LookalikeError, match="has no embeddings"):
        la.read_embeddings(run / "embeddings")
    with pytest.raises(la.LookalikeError, match=r"role: is 'querys'. Did you mean 'query'\? Use reference, query"):
        la.read_embeddings(run / "embeddings" / "pixels", role="querys")  # type: ignore[arg-type]


# --- the pages ---


def test_the_notebook_is_the_page_and_its_cells_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = notebooks()
    file = DOCS / "library.ipynb"
    assert file.read_text(encoding="utf-8") == made.text_of("library"), "run: python docs/notebook.py"
    cells = nbformat.read(file, as_version=4).cells
    nbformat.validate(nbformat.read(file, as_version=4))
    names: dict[str, Any] = {}
    values = [execute(cell.source, names) for cell in cells if cell.cell_type == "code"]
    assert ((4, 256), np.dtype("float32")) in [value for value in values if isinstance(value, tuple)]
    assert (12, 13) in [value for value in values if isinstance(value, tuple)]
    assert (names["vectors"] == names["vectors"]).all()
    assert "Did you mean 'dinov2-base'?" in capsys.readouterr().out
    truth = pd.read_parquet(run / "sample" / "truth.parquet")
    assert set(truth["query_id"]) <= set(names["queries"].ids)
