"""The files open without this project, and the page that describes them is true."""

import re
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from conftest import REPOSITORY
from lookalike.io import store
from lookalike.io.formats.records import LEADERBOARD_COLUMNS
from lookalike.io.formats.tables import EMBEDDINGS, FORMATS, VECTOR, Format

PAGE = (REPOSITORY / "docs/tables.md").read_text()
VECTORS = np.array([[1.5, -2.0, 0.25], [0.0, 3.0, 1e-3]])


@pytest.fixture(params=["float32", "float16"])
def embeddings(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    values = pa.array(VECTORS.astype(request.param).reshape(-1))
    table = pa.table(
        {"image_id": ["a", "b"], "sha256": ["x", "y"], "embedding": pa.FixedSizeListArray.from_arrays(values, 3)}
    )
    path = tmp_path / "embeddings.parquet"
    store.write_table(table, path, EMBEDDINGS, {})
    return path


def test_pandas_polars_and_duckdb_read_vectors_as_they_are(embeddings: Path) -> None:
    with_pandas = np.stack(list(pd.read_parquet(embeddings)["embedding"]))
    np.testing.assert_allclose(with_pandas, VECTORS, rtol=1e-3)
    with_polars = pl.read_parquet(embeddings)["embedding"].to_list()
    np.testing.assert_allclose(np.array(with_polars, float), VECTORS, rtol=1e-3)
    rows = duckdb.sql(f"select embedding from '{embeddings}' order by image_id").fetchall()
    np.testing.assert_allclose(np.array([row[0] for row in rows], float), VECTORS, rtol=1e-3)


def test_vectors_are_stored_without_loss(embeddings: Path) -> None:
    column = store.read_table(embeddings, EMBEDDINGS)["embedding"].combine_chunks()
    kind = column.type.value_type.to_pandas_dtype()
    np.testing.assert_array_equal(column.flatten().to_numpy(zero_copy_only=False), VECTORS.astype(kind).reshape(-1))


@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)
def test_the_page_describes_every_column(format: Format) -> None:
    described: dict[str, str] = {}
    lines: list[str] = []
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))
    for section in ("images", "manifest") if format.name == "manifest" else (format.name,):
        lines += sections[section].splitlines()
        described |= dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", sections[section], re.MULTILINE))
    known = {**format.columns, **format.optional}
    words = {VECTOR: "fixed_size_list of float32 or float16", pa.list_(pa.string()): "list of strings"}
    wanted = {name: words.get(kind, str(kind)) for name, kind in known.items()}
    assert described == wanted
    for column in format.nullable:
        assert "empty" in next(line for line in lines if line.startswith(f"| `{column}`"))


def test_the_page_of_csv_files_names_the_leaderboards_columns() -> None:
    assert f"`{','.join(LEADERBOARD_COLUMNS)}`" in (REPOSITORY / "docs/file-formats-json.md").read_text()
