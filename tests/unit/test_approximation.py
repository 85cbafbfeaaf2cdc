"""The cost of approximation, calculated by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from lookalike.compare.approximation import approximations, recall_of_exact
from lookalike.io import store
from lookalike.io.formats.records import Cost, Estimate, Metrics
from lookalike.io.formats.tables import NEIGHBORS
from lookalike.metrics.rates import NOTHING
from tables import neighbors_table

EXACT = {
    "a": [("r1", 0.9), ("r2", 0.8), ("r3", 0.7)],
    "b": [("r1", 0.9), ("r2", 0.8), ("r3", 0.8)],  # the third ties with the second
    "c": [("r4", 0.9), ("r5", 0.8), ("r6", 0.1)],
}


def shares(found: dict[str, list[tuple[str, float]]], k: int = 2) -> dict[str, float]:
    queries, values = recall_of_exact(neighbors_table(EXACT), neighbors_table(found), k)
    return dict(zip(queries, values.tolist(), strict=True))


def test_an_exact_search_recalls_itself() -> None:
    assert shares(dict(EXACT)) == {"a": 1.0, "b": 1.0, "c": 1.0}


def test_recall_is_the_share_of_the_exact_top_k_among_the_first_k() -> None:
    found = {"a": [("r2", 0.8), ("r9", 0.6), ("r1", 0.5)], "c": [("r5", 0.8), ("r4", 0.7)]}
    assert shares(found) == {"a": 0.5, "b": 0.0, "c": 1.0}


def test_references_that_tie_with_the_last_of_the_exact_top_k_count_as_correct() -> None:
    assert shares({"b": [("r3", 0.8), ("r1", 0.7)]})["b"] == 1.0
    assert shares({"b": [("r3", 0.8), ("r2", 0.7)]})["b"] == 1.0
    assert shares({"a": [("r3", 0.8), ("r1", 0.7)]})["a"] == 0.5


def test_with_fewer_references_than_k_recall_is_of_all_references() -> None:
    assert shares({"a": [("r1", 0.9), ("r2", 0.8), ("r3", 0.7)]}, k=10)["a"] == 1.0


def metrics(index: str, seconds: float | None, **values: float) -> Metrics:
    search = {"search": {"queries": 3, "seconds": seconds}} if seconds else {}
    cost = Cost(dimension=25, stored_dtype="float32", vector_bytes=100, vectors=6, index_bytes=600)
    return Metrics(
        **{"dataset": "d", "model": "m", "index": index, "references": 6, "queries": 3, "groups": 3},
        **{"rejected_references": 0, "rejected_queries": 0, "breakdowns": {}, "timing": search},
        metrics={name: Estimate(value=value, low=None, high=None, n=3) for name, value in values.items()},
        cost=cost,
    )


@pytest.mark.parametrize("exact_key", ['{"factory": "Flat"}', '{"scan": true}'])
def test_every_approximate_index_is_compared_with_the_exact_one(exact_key: str, tmp_path: Path) -> None:
    keys = {"exact": exact_key, "ivf": '{"factory": "IVF2,Flat"}'}
    found = {"exact": EXACT, "ivf": {**EXACT, "c": [("r4", 0.9)]}}
    for index, pairs in found.items():
        footer = {"index_key": keys[index], "k": 2, "references": 6}
        store.write_table(neighbors_table(pairs), tmp_path / f"{index}.parquet", NEIGHBORS, footer)
    records = [metrics("ivf", 0.5, accuracy_at_1=0.5), metrics("exact", 2.0, accuracy_at_1=1.0, uap=1.0)]
    files = [tmp_path / "ivf.parquet", tmp_path / "exact.parquet"]
    requested = []

    def difference(*searches: object) -> Estimate:
        requested.append(searches)
        return NOTHING

    (approximation,) = approximations(records, files, {"a": "g", "b": "g", "c": "h"}, difference)
    assert (approximation.model, approximation.index, approximation.exact, approximation.k) == ("m", "ivf", "exact", 2)
    assert approximation.recall.value == pytest.approx(np.mean([1, 1, 0.5]))
    assert requested == [("accuracy_at_1", ("ivf", "m"), ("exact", "m"))]
    assert list(approximation.differences) == ["accuracy_at_1"]
    assert (approximation.speed, approximation.index_bytes_per_vector) == (4.0, 100.0)
    assert not list(approximations(records[:1], files[:1], {}, difference))


def test_an_unknown_speed_does_not_hide_the_size(tmp_path: Path) -> None:
    for index, key in (("exact", "Flat"), ("sq", "SQ8")):
        footer = {"index_key": json.dumps({"factory": key}), "k": 2, "references": 6}
        store.write_table(neighbors_table(EXACT), tmp_path / f"{index}.parquet", NEIGHBORS, footer)
    records = [metrics("exact", 1.0), metrics("sq", None)]
    files = [tmp_path / "exact.parquet", tmp_path / "sq.parquet"]
    (approximation,) = approximations(records, files, {}, lambda *_: NOTHING)
    assert (approximation.speed, approximation.index_bytes_per_vector, approximation.differences) == (None, 100.0, {})
