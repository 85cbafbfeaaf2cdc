"""What mypy sees of ``import lookalike``, lazy as it is: checked by `make lint`, and run by test_library.py."""

from pathlib import Path
from typing import assert_type

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import lookalike as la


def embed(folder: Path) -> NDArray[np.float32]:
    model = la.load_model("pixels", threads=1)
    assert_type(model, la.Model)
    assert_type(model.name, str)
    assert_type(model.dimension, int)
    vectors = model.embed([folder / "a.png", str(folder / "b.png"), (folder / "a.png").read_bytes()])
    assert_type(vectors, NDArray[np.float32])
    assert_type(model.similarity(folder / "a.png", folder / "b.png"), float)
    return vectors


def search(vectors: NDArray[np.float32]) -> None:
    indices, scores = la.search(vectors, vectors, k=1, own=np.arange(len(vectors)))
    assert_type(indices, NDArray[np.int64])
    assert_type(scores, NDArray[np.float32])


def tables(folder: Path) -> None:
    assert_type(la.models(), pd.DataFrame)
    assert_type(la.find_duplicates(folder), pd.DataFrame)
    assert_type(la.find_duplicates([folder / "a.png"]), pd.DataFrame)


def read(folder: Path) -> None:
    try:
        ids, vectors, roles = la.read_embeddings(folder, role="reference")
    except la.LookalikeError:
        return
    assert_type(ids, NDArray[np.object_])
    assert_type(vectors, NDArray[np.float32])
    assert_type(roles, pd.DataFrame)
