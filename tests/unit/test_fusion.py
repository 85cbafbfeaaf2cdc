"""Fusion of two models' neighbors: the example of docs/export-and-fusion.md, ties, and what each can gain."""

import numpy as np
import pyarrow as pa
import pytest

from lookalike.cli.fusion import WAYS, fuse
from lookalike.metrics.ranking import at_k, rank
from tables import images_table, neighbors_table, truth_table

IMAGES = images_table(["barn", "cat", "dune", "elk"], ["q", "p"])


def order(table: pa.Table, query: str = "q") -> list[tuple[str, float]]:
    return [(row["reference_id"], row["score"]) for row in table.to_pylist() if row["query_id"] == query]


def test_the_example_of_the_docs() -> None:
    first = neighbors_table({"q": [("barn", 0.9), ("cat", 0.7), ("dune", 0.5)]})
    second = neighbors_table({"q": [("cat", 0.6), ("barn", 0.5), ("elk", 0.1)]})
    # first model: mean 0.7, deviation 0.163; second: mean 0.4, deviation 0.216
    # barn 1.22 + 0.46 = 1.69, cat 0 + 0.93 = 0.93, dune -1.22 - 1.39 = -2.61, elk -1.22 - 1.39 = -2.61: a tie
    assert order(fuse([first, second], IMAGES, "sum")) == [("barn", 0), ("cat", -1), ("dune", -2), ("elk", -2)]
    # barn 1/61 + 1/62, cat 1/62 + 1/61: a tie that the sum decides
    assert [name for name, _ in order(fuse([first, second], IMAGES, "reciprocal-rank"))][:2] == ["barn", "cat"]


@pytest.mark.parametrize("way", WAYS)
def test_two_equal_models_rank_as_one(way: str) -> None:
    table = neighbors_table({"q": [("barn", 0.9), ("cat", 0.8), ("dune", 0.8)], "p": [("elk", 0.3), ("cat", 0.2)]})
    fused = fuse([table, table], IMAGES, way)
    assert order(fused) == [("barn", 0), ("cat", -1), ("dune", -1)]
    assert order(fused, "p") == [("elk", 0), ("cat", -1)]
    assert fused["rank"].to_pylist() == [1, 2, 1, 2, 3] or fused["rank"].to_pylist() == [1, 2, 3, 1, 2]


@pytest.mark.parametrize("way", WAYS)
def test_constant_scores_still_earn_nothing(way: str) -> None:
    tables = [neighbors_table({"q": [(name, 0.5) for name in names]}) for names in (("barn", "cat"), ("cat", "barn"))]
    fused = fuse(tables, IMAGES, way)
    outcomes = at_k(rank(fused, truth_table([("q", "barn")]), IMAGES, searched=4, kept=2), 1)
    assert outcomes["accuracy_at_1"] is not None
    assert outcomes["accuracy_at_1"].tolist() == [0]


def test_the_surer_model_of_a_query_decides_the_sum() -> None:
    """Each model knows half of the queries; where it knows nothing, its scores are all low."""
    names = [f"r{number}" for number in range(30)]
    queries = [f"q{number}" for number in range(20)]
    images, truth = images_table(names, queries), truth_table(list(zip(queries, names, strict=False)))
    rng = np.random.default_rng(0)
    tables = []
    for model in (0, 1):
        found = {}
        for number, query in enumerate(queries):
            knows = number % 2 == model
            others = [name for name in rng.permutation(names).tolist() if name != names[number]][:10]
            scores = np.sort(0.3 + 0.1 * rng.random(10))[::-1].tolist()
            right = [(names[number], 0.9)] if knows else []
            found[query] = [*right, *zip(others, scores, strict=True)]
        tables.append(neighbors_table(found))
    accuracy = [
        outcome.mean()
        for table in (*tables, fuse(tables, images, "sum"))
        if (outcome := at_k(rank(table, truth, images, searched=30, kept=11), 10)["accuracy_at_1"]) is not None
    ]
    assert accuracy == [0.5, 0.5, 1.0]
