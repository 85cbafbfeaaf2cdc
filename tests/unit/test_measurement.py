import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lookalike import formats, store
from lookalike.errors import LookalikeError
from lookalike.formats import EmbedTiming, Metrics, SearchTiming
from lookalike.measurement import measure
from lookalike.statistics import wilson
from tables import images_table, neighbors_table, rejected_table, truth_table

REFERENCES = [f"r{number}" for number in range(12)]
Measure = Callable[..., Metrics]


def first(reference: str) -> list[tuple[str, float]]:
    """Neighbors with ``reference`` first."""
    others = [name for name in REFERENCES if name != reference]
    return [(name, 1 - place / 100) for place, name in enumerate([reference, *others])][:4]


def fourth(reference: str) -> list[tuple[str, float]]:
    """Neighbors with ``reference`` fourth: a miss at 1 and at 3."""
    others = [name for name in REFERENCES if name != reference][:3]
    return [(name, 1 - place / 100) for place, name in enumerate([*others, reference])]


@pytest.fixture
def run(tmp_path: Path) -> Measure:
    """Write the files of a search with k = 3, measure it, and read what was written."""

    def run(
        found: Mapping[str, list[tuple[str, float]]],
        truth: Mapping[str, str],
        rejected: list[str] | None = None,
        queries: list[str] | None = None,
        k: int = 3,
        *,
        footer: dict[str, Any] | None = None,
        **images: Any,
    ) -> Metrics:
        tables = [
            ("neighbors", formats.NEIGHBORS, neighbors_table(found)),
            ("truth", formats.TRUTH, truth_table(list(truth.items()))),
            ("images", formats.IMAGES, images_table(REFERENCES, queries or list(truth), **images)),
            ("rejected", formats.REJECTED, rejected_table(rejected or [])),
        ]
        for name, format, table in tables:
            store.write_table(table, tmp_path / f"{name}.parquet", format, footer or {})
        measure(
            neighbors=tmp_path / "neighbors.parquet",
            truth=tmp_path / "truth.parquet",
            images=tmp_path / "images.parquet",
            rejected=[tmp_path / "rejected.parquet"],
            timings=[tmp_path / "embed-0.json", tmp_path / "embed-1.json"],
            search_timing=tmp_path / "search.json",
            out=tmp_path / "metrics.json",
            dataset="animals",
            model="dinov2",
            index="flat",
            k=k,
        )
        return store.read_json(tmp_path / "metrics.json", Metrics)

    return run


def test_what_was_measured_is_named_and_counted(run: Measure) -> None:
    record = run({"a": first("r1"), "b": fourth("r2")}, {"a": "r1", "b": "r2"}, queries=["a", "b", "distractor"])
    assert (record.dataset, record.model, record.index) == ("animals", "dinov2", "flat")
    assert (record.references, record.queries) == (12, 3)
    assert (record.rejected_references, record.rejected_queries) == (0, 0)
    assert list(record.metrics) == ["accuracy_at_1", "accuracy_at_3", "recall_at_3"]
    one = record.metrics["accuracy_at_1"]
    assert (one.value, one.low, one.high, one.n) == (0.5, *wilson(1, 2), 2)


def test_top_three_needs_three_neighbors(run: Measure) -> None:
    found = {"a": first("r1")[:3]}
    assert list(run(found, {"a": "r1"}, k=2).metrics) == ["accuracy_at_1", "recall_at_2"]


def test_rejected_pictures_are_counted_and_are_misses(run: Measure) -> None:
    # b was rejected and has no neighbors; the match of c was rejected and cannot be found.
    truth = {"a": "r1", "b": "r2", "c": "r3", "d": "r4"}
    found = {"a": first("r1"), "c": first("r1"), "d": first("r4")}
    record = run(found, truth, rejected=["b", "r3"])
    assert (record.rejected_references, record.rejected_queries) == (1, 1)
    assert (record.references, record.queries) == (12, 4)
    assert record.metrics["accuracy_at_1"].value == 2 / 4
    assert record.metrics["accuracy_at_1"].n == 4


def test_where_all_pictures_were_rejected_everything_is_a_miss(run: Measure) -> None:
    record = run({}, {"a": "r1", "b": "r2"}, rejected=["a", "b"])
    assert record.metrics["recall_at_3"].value == 0
    assert record.rejected_queries == 2


def test_a_rejected_picture_of_another_sample_is_refused(run: Measure, tmp_path: Path) -> None:
    with pytest.raises(LookalikeError, match=r"rejected\.parquet: rejected picture 'x' is not in the sample"):
        run({"a": first("r1")}, {"a": "r1"}, rejected=["r1", "x"])
    assert not (tmp_path / "metrics.json").exists()


def test_neighbors_of_another_sample_are_refused_by_path(run: Measure) -> None:
    with pytest.raises(LookalikeError, match=r"neighbors\.parquet: 'z' is not a query of the sample"):
        run({"z": first("r1")}, {"a": "r1"})


def test_tiles_of_one_photograph_are_one_observation(run: Measure) -> None:
    # Four queries of two photographs, all right.
    truth = {"a": "r1", "b": "r2", "c": "r3", "d": "r4"}
    found = {query: first(reference) for query, reference in truth.items()}
    groups = {"a": "astronaut", "b": "astronaut", "c": "coffee", "d": "coffee"}
    alone, together = run(found, truth), run(found, truth, groups=groups)
    assert alone.metrics["accuracy_at_1"].low == wilson(4, 4)[0]
    assert together.metrics["accuracy_at_1"].low == wilson(2, 2)[0]
    assert together.metrics["accuracy_at_1"].n == 4
    assert (alone.groups, together.groups) == (4, 2)


def test_only_groups_of_queries_that_count_are_counted(run: Measure) -> None:
    # x has no match, and nobody asks for r7; b is of no group and so is one by itself.
    groups = {"a": "astronaut", "b": None, "c": "astronaut", "x": "coffee", "r7": "dune"}
    truth = {"a": "r1", "b": "r2", "c": "r3"}
    found = {query: first(reference) for query, reference in truth.items()}
    assert run(found, truth, queries=["a", "b", "c", "x"], groups=groups).groups == 2
    assert run(found, {}, queries=["a", "b", "c"]).groups == 0


def test_copies_are_broken_down_by_operation_and_strength(run: Measure) -> None:
    truth = {"a": "r1", "b": "r2", "c": "r3", "d": "r4", "e": "r5", "f": "r6"}
    operations = {
        "f": "flip",
        "a": "jpeg:heavy",
        "b": "crop:light",
        "c": "crop:heavy",
        "d": "crop:light + jpeg:heavy",
        "e": "flip + crop:light + text:light",
    }
    found = {**{query: first(reference) for query, reference in truth.items()}, "c": fourth("r3"), "e": fourth("r5")}
    parts = run(found, truth, operations=operations).breakdowns
    rates = {
        column: {
            value: (metrics["accuracy_at_1"].value, metrics["accuracy_at_1"].n) for value, metrics in values.items()
        }
        for column, values in parts.items()
    }
    assert rates == {
        "operations": {"crop": (0.5, 2), "flip": (1.0, 1), "jpeg": (1.0, 1), "chain": (0.5, 2)},
        "strength": {"light": (1.0, 1), "heavy": (0.5, 2)},
    }
    assert list(rates["operations"]) == ["crop", "flip", "jpeg", "chain"]
    assert list(rates["strength"]) == ["light", "heavy"]
    assert list(parts["operations"]["crop"]) == ["accuracy_at_1", "accuracy_at_3", "recall_at_3"]


@pytest.mark.parametrize("operations", [None, {}])
def test_without_operations_there_is_no_breakdown(run: Measure, operations: dict[str, str] | None) -> None:
    assert run({"a": first("r1")}, {"a": "r1"}, operations=operations).breakdowns == {}


def test_an_empty_sample_of_matches_has_no_numbers(run: Measure) -> None:
    record = run({"a": first("r1")}, {}, queries=["a"], operations={"a": "crop:light"})
    assert record.metrics["accuracy_at_1"].value is None
    assert record.breakdowns == {}


def test_timings_are_summed_over_shards(run: Measure, tmp_path: Path) -> None:
    for number, device in enumerate(["NVIDIA H100", "Intel Xeon"]):
        timing = EmbedTiming(images=30, seconds=2.0 + number, load_seconds=0.5, device=device, batch_size=8)
        timing = timing.model_copy(update={"stages": {"forward": 1.5, "write": 0.25}})
        store.write_json(timing, tmp_path / f"embed-{number}.json")
    store.write_json(SearchTiming(queries=2, seconds=0.5, index_bytes=4096), tmp_path / "search.json")
    assert run({"a": first("r1")}, {"a": "r1"}).timing == {
        "embed": {
            "images": 60,
            "seconds": 5.0,
            "images_per_second": 12.0,
            "load_seconds": 1.0,
            "device": "Intel Xeon + NVIDIA H100",
            "stages": {"forward": 3.0, "write": 0.5},
        },
        "search": {"queries": 2, "seconds": 0.5, "queries_per_second": 4.0, "index_bytes": 4096},
    }


def test_what_vectors_cost_comes_from_the_neighbors_footer(run: Measure) -> None:
    assert run({"a": first("r1")}, {"a": "r1"}).cost is None
    made = {"dimension": 6, "dtypes": {"stored": "float16"}, "references": 5, "index_bytes": 165}
    cost = run({"a": first("r1")}, {"a": "r1"}, footer=made).cost
    assert cost is not None
    assert (cost.dimension, cost.vector_bytes, cost.vectors, cost.indexed_bytes) == (6, 12, 5, 33.0)


def test_removed_logs_only_take_the_timings_along(run: Measure, tmp_path: Path) -> None:
    assert run({"a": first("r1")}, {"a": "r1"}).timing == {}
    timing = EmbedTiming(images=0, seconds=0.0, load_seconds=0.5, device="cpu", batch_size=8)
    store.write_json(timing, tmp_path / "embed-1.json")
    assert run({"a": first("r1")}, {"a": "r1"}).timing["embed"]["images_per_second"] is None


def test_the_file_is_plain_json(run: Measure, tmp_path: Path) -> None:
    run({"a": first("r1")}, {"a": "r1"})
    value = json.loads((tmp_path / "metrics.json").read_text())["metrics"]["accuracy_at_1"]
    assert set(value) == {"value", "low", "high", "n"}


def test_the_same_input_gives_the_same_bytes(run: Measure, tmp_path: Path) -> None:
    truth = {f"q{number}": REFERENCES[number % 12] for number in range(60)}
    found = {query: (first if int(query[1:]) % 7 else fourth)(reference) for query, reference in truth.items()}
    groups = {query: f"photograph-{int(query[1:]) // 4}" for query in truth}
    run(found, truth, groups=groups)
    before = (tmp_path / "metrics.json").read_bytes()
    run(dict(reversed(found.items())), dict(reversed(truth.items())), groups=groups)
    assert (tmp_path / "metrics.json").read_bytes() == before
