"""What a run writes is read by other programs as it is."""

from collections.abc import Callable
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest

from lookalike.io import store
from lookalike.io.formats.tables import EMBEDDINGS
from workflow.conftest import Tree

READERS: dict[str, Callable[[str], dict[str, Any]]] = {
    "pandas": lambda folder: dict(pd.read_parquet(folder)[["image_id", "embedding"]].to_numpy()),
    "polars": lambda folder: dict(pl.read_parquet(f"{folder}/*.parquet").select("image_id", "embedding").iter_rows()),
    "duckdb": lambda folder: dict(duckdb.sql(f"select image_id, embedding from '{folder}/*.parquet'").fetchall()),
    "datasets": lambda folder: {
        row["image_id"]: row["embedding"]
        for row in pytest.importorskip("datasets").load_dataset(
            "parquet", data_files=f"{folder}/*.parquet", split="train", cache_dir=f"{folder}/../../../../cache"
        )
    },
}


@pytest.mark.parametrize("reader", READERS)
def test_all_vectors_of_a_model_are_one_table_to_other_programs(finished: Tree, reader: str) -> None:
    """12 references of which one is rejected, and 6 queries in two shards."""
    folder = finished.folder / "results/copies/embeddings/pixels"
    found = READERS[reader](str(folder))
    shards = [store.read_table(path, EMBEDDINGS) for path in sorted(folder.iterdir())]
    assert (len(shards), len(found)) == (3, 17)
    for shard in shards:
        for image_id, vector in zip(shard["image_id"].to_pylist(), shard["embedding"].to_pylist(), strict=True):
            np.testing.assert_array_equal(found[image_id], np.array(vector, np.float32))
