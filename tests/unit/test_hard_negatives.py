"""Queries without a match that score as high as a threshold: the example of docs/metrics-pooled.md, and its edges."""

from pathlib import Path

import pyarrow as pa

from lookalike.io import store
from lookalike.io.formats.tables import NEIGHBORS
from lookalike.metrics.evaluation import Results
from lookalike.metrics.hard_negatives import MOST, above, hard_negatives
from tables import images_table, neighbors_table, truth_table

REFERENCES = ["barn", "bridge", "cat"]
FOUND = {
    "q1": [("barn", 0.9), ("cat", 0.8)],
    "none1": [("cat", 0.75), ("barn", 0.74)],
    "none2": [("bridge", 0.5)],
    "none3": [("cat", 0.7)],
}
IMAGES = images_table(REFERENCES, [*FOUND, "rejected"])
TRUTH = truth_table([("q1", "barn")])


def test_queries_without_a_match_are_counted_once_from_the_threshold_on() -> None:
    found = above(neighbors_table(FOUND), TRUTH, IMAGES, float(pa.scalar(0.7, pa.float32()).as_py()))
    assert (found.queries, found.above) == (4, 2)  # a rejected query has no match either, and is never accepted
    assert [(pair.query, pair.reference) for pair in found.closest] == [
        ("none1", "cat"),
        ("none3", "cat"),
        ("none2", "bridge"),
    ]


def test_where_every_query_has_a_match_there_are_none() -> None:
    images = images_table(REFERENCES, ["q1"])
    found = above(neighbors_table({"q1": FOUND["q1"]}), TRUTH, images, 0.1)
    assert (found.queries, found.above, found.closest) == (0, 0, [])


def test_the_list_is_short_and_the_count_is_not() -> None:
    many = {f"n{number}": [("cat", 0.9)] for number in range(50)}
    found = above(neighbors_table(many), truth_table([]), images_table(REFERENCES, list(many)), 0.9 - 1e-6)
    assert (found.above, len(found.closest)) == (50, MOST)


def test_normalised_thresholds_look_at_normalised_scores_and_absent_ones_at_none(tmp_path: Path) -> None:
    files = Results(*(tmp_path / f"{name}.parquet" for name in ("neighbors", "candidates", "training", "sn")))
    store.write_table(neighbors_table(FOUND), files.neighbors, NEIGHBORS, {})
    store.write_table(neighbors_table({"none2": [("cat", 0.3)]}), files.candidates_sn, NEIGHBORS, {})
    thresholds = {"recall_at_p90": None, "recall_at_p90_sn": 0.25}
    found = hard_negatives(files, TRUTH, IMAGES, thresholds)
    assert list(found) == ["recall_at_p90_sn"]
    assert [pair.query for pair in found["recall_at_p90_sn"].closest] == ["none2"]
    assert found["recall_at_p90_sn"].above == 1
