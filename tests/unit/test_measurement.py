import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from test_index import Chain

from lookalike.io import identity, store
from lookalike.io.formats.records import EmbedTiming, Metrics, SearchTiming
from lookalike.io.formats.tables import IMAGES, INDEX_IMAGES, NEIGHBORS, TRUTH
from lookalike.job.errors import LookalikeError
from lookalike.measure.measure import MeasureJob, measure
from lookalike.metrics.evaluation import Results
from lookalike.metrics.rates import wilson
from tables import MADE, images_table, neighbors_table, pool_table, seen_table, truth_table

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
        sides: Mapping[str, tuple[int, int]] | None = None,
        normalised: tuple[pa.Table, pa.Table] | None = None,
        footer: dict[str, Any] | None = None,
        **images: Any,
    ) -> Metrics:
        training, candidates_sn = normalised or (neighbors_table({}), neighbors_table({}))
        tables = [
            ("neighbors", NEIGHBORS, neighbors_table(found)),
            ("candidates", NEIGHBORS, pool_table(found, len(queries or truth))),
            ("training", NEIGHBORS, training),
            ("candidates_sn", NEIGHBORS, candidates_sn),
            ("flat.images", INDEX_IMAGES, seen_table(sides, rejected or [])),
            ("truth", TRUTH, truth_table(list(truth.items()))),
            ("images", IMAGES, images_table(REFERENCES, queries or list(truth), **images)),
        ]
        absent = set() if normalised else {"training", "candidates_sn"}
        for name, format, table in tables:
            role = {identity.ROLE: identity.ABSENT} if name in absent else {}
            store.write_table(
                table,
                tmp_path / f"{name}.parquet",
                format,
                MADE | {"model": "dinov2", "index": "flat"} | (footer or {}) | role,
            )
        measure(
            MeasureJob(
                results=Results(
                    *(tmp_path / f"{name}.parquet" for name in ("neighbors", "candidates", "training", "candidates_sn"))
                ),
                truth=tmp_path / "truth.parquet",
                images=tmp_path / "images.parquet",
                seen=tmp_path / "flat.images.parquet",
                timings=[tmp_path / "embed-0.json", tmp_path / "embed-1.json"],
                search_timing=tmp_path / "search.json",
                out=tmp_path / "metrics.json",
                dataset="animals",
                model="dinov2",
                index="flat",
                k=k,
            )
        )
        return store.read_json(tmp_path / "metrics.json", Metrics)

    return run


def test_what_was_measured_is_named_and_counted(run: Measure) -> None:
    record = run({"a": first("r1"), "b": fourth("r2")}, {"a": "r1", "b": "r2"}, queries=["a", "b", "distractor"])
    assert (record.dataset, record.model, record.index) == ("animals", "dinov2", "flat")
    assert (record.references, record.queries) == (12, 3)
    assert (record.rejected_references, record.rejected_queries) == (0, 0)
    assert list(record.metrics) == [
        *("accuracy_at_1", "accuracy_at_3", "recall_at_3", "mrr"),
        *("uap", "uap_k3", "recall_at_p90"),
    ]
    one = record.metrics["accuracy_at_1"]
    assert (one.value, one.low, one.high, one.n) == (0.5, *wilson(1, 2), 2)


def test_top_three_needs_three_neighbors(run: Measure) -> None:
    found = {"a": first("r1")[:3]}
    assert list(run(found, {"a": "r1"}, k=2).metrics)[:3] == ["accuracy_at_1", "recall_at_2", "mrr"]


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
    with pytest.raises(LookalikeError, match=r"flat\.images\.parquet: rejected picture 'x' is not in the sample"):
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
    assert list(parts["operations"]["crop"]) == ["accuracy_at_1", "accuracy_at_3", "recall_at_3", "mrr"]


def test_breakdowns_by_size_and_by_what_the_data_set_brings(run: Measure) -> None:
    truth = {"a": "r1", "b": "r2", "c": "r3", "d": "r4"}
    found = {**{query: first(reference) for query, reference in truth.items()}, "c": fourth("r3")}
    found.pop("d")  # rejected: a miss, and nobody knows its size
    parts = run(
        found,
        truth,
        rejected=["d"],
        sides={"a": (128, 90), "b": (60, 129), "c": (100, 200), "r1": (5000, 1)},
        brought={"by_camera": {"a": "old", "c": "old", "b": "new"}, "by_place": {}},
        labels={"a": ["dog", "cat"], "b": ["dog"], "c": []},
    ).breakdowns
    rates = {
        column: {value: (one["accuracy_at_1"].value, one["accuracy_at_1"].n) for value, one in values.items()}
        for column, values in parts.items()
    }
    assert rates == {
        "size": {"up to 128 px": (1.0, 1), "up to 256 px": (0.5, 2), "unknown": (0.0, 1)},
        "by_camera": {"new": (1.0, 1), "old": (0.5, 2)},
        "labels": {"cat": (1.0, 1), "dog": (1.0, 2)},
    }


def test_a_column_of_many_values_is_not_broken_down_and_the_log_says_so(
    run: Measure, caplog: pytest.LogCaptureFixture
) -> None:
    truth = {f"q{number}": "r1" for number in range(21)}
    found = {query: first("r1") for query in truth}
    with caplog.at_level("INFO"):
        assert run(found, truth, brought={"by_place": {query: query for query in truth}}).breakdowns == {}
    assert "no breakdown by 'by_place': 21 values" in caplog.text
    twenty = {query: query for query in list(truth)[:20]}
    assert len(run(found, truth, brought={"by_place": twenty}).breakdowns["by_place"]) == 20


def test_the_threshold_is_written_with_how_it_holds_on_the_other_half(run: Measure) -> None:
    queries = {f"q{number}": f"r{number % 12}" for number in range(40)}
    found = {query: [(match, 0.9 - int(query[1:]) / 100)] for query, match in queries.items()}
    found |= {f"x{number}": [("r0", 0.505 - number / 100)] for number in range(10)}  # have no match
    record = run(found, queries, queries=list(found))
    threshold = record.thresholds["recall_at_p90"]
    # all 40 right ones stand above 0.505, where the wrong ones begin
    assert (threshold.recall, threshold.precision) == (1, 1)
    assert threshold.score == pytest.approx(0.51)
    assert record.metrics["recall_at_p90"].value == 1
    assert record.metrics["uap"].n == 50
    held = threshold.held_out
    assert held.chosen_on + held.queries == 50
    assert held.threshold is not None
    assert 0.509 < held.threshold <= 0.6
    assert held.precision.value is not None
    assert held.precision.value >= 0.8
    assert (
        held.recall.n
        == held.precision.n
        == sum(1 for query in queries if hashlib.sha256(f"query {query}".encode()).digest()[0] & 1)
    )
    curve = record.curves["uap"]
    assert (curve.score[-1], curve.precision[-1], curve.recall[-1]) == (threshold.score, 1, 1)


def test_no_threshold_is_none_and_not_zero(run: Measure) -> None:
    record = run({"a": fourth("r1"), "b": fourth("r2")}, {"a": "r1", "b": "r2"})
    threshold = record.thresholds["recall_at_p90"]
    assert (threshold.score, threshold.precision, threshold.recall) == (None, None, None)
    assert threshold.held_out.precision.value is None
    assert record.metrics["recall_at_p90"].value == 0


def test_with_training_images_every_pooled_metric_is_there_twice(run: Measure) -> None:
    truth = {"a": "r1"}
    found = {"a": [("r1", 0.5)], "b": [("r2", 0.6)]}
    near = neighbors_table({"a": [("r5", 0.1)], "b": [("r5", 0.4)]})
    record = run(found, truth, queries=["a", "b"], normalised=(near, neighbors_table({"a": [("r1", 0.4)]})))
    values = {name: one.value for name, one in record.metrics.items() if "uap" in name or "p90" in name}
    assert values == {
        **{"uap": 0.5, "uap_k3": 0.5, "recall_at_p90": 0},
        **{"uap_sn": 1, "uap_k3_sn": 1, "recall_at_p90_sn": 1},
    }
    assert list(values) == ["uap", "uap_k3", "recall_at_p90", "uap_sn", "uap_k3_sn", "recall_at_p90_sn"]
    assert record.thresholds["recall_at_p90_sn"].score == pytest.approx(0.4)
    assert set(record.curves) == {"uap", "uap_k3", "uap_sn", "uap_k3_sn"}


@pytest.mark.parametrize("settings", [{}, {"beta": 0.5, "first": 2, "last": 5}])
def test_what_a_search_writes_is_what_is_measured(tmp_path: Path, settings: dict[str, float]) -> None:
    """All files of a real search, against every pair's score by plain arithmetic."""
    chain = Chain(tmp_path, references=120, queries=30, training=40)
    key = json.dumps({"factory": "Flat", "normalise": settings})
    chain.build()
    chain.search(k=10, key=key, build_key='{"factory": "Flat"}', training=True)
    (queries, q), (references, r), (_, t) = (chain.unit(role) for role in "qrt")
    score = q @ r.T
    near = np.sort(q @ t.T, axis=1)[:, ::-1]
    beta, first_one, last = settings.get("beta", 1), int(settings.get("first", 1)), int(settings.get("last", 3))
    normalised = score - beta * near[:, first_one - 1 : last].mean(axis=1, keepdims=True)
    # a true match is the nearest of three queries in four, another one of the rest; the last six have none
    best = np.argsort(-score, axis=1)
    truth = {queries[row]: references[best[row, 0 if row % 4 else 40]] for row in range(24)}
    store.write_table(truth_table(list(truth.items())), tmp_path / "truth.parquet", TRUTH, MADE)
    measure(
        MeasureJob(
            results=Results(
                *(
                    tmp_path / f"{name}.parquet"
                    for name in ("neighbors", "candidates", "training_found", "candidates_sn")
                )
            ),
            truth=tmp_path / "truth.parquet",
            images=tmp_path / "images.parquet",
            seen=tmp_path / "flat.images.parquet",
            timings=[],
            search_timing=tmp_path / "none.json",
            out=tmp_path / "metrics.json",
            dataset="numbers",
            model="pixels",
            index="flat",
            k=10,
        )
    )
    found = store.read_json(tmp_path / "metrics.json", Metrics).metrics
    right = np.array([[truth.get(query) == reference for reference in references] for query in queries])
    in_ten = np.argsort(np.argsort(-score, axis=1), axis=1) < 10

    def average_precision(scores: np.ndarray, kept: np.ndarray) -> float:
        ordered = right[kept][np.argsort(-scores[kept])]
        places = np.flatnonzero(ordered) + 1
        return float(np.sum(np.arange(1, len(places) + 1) / places)) / 24

    for end, scores in (("", score), ("_sn", normalised)):
        in_pool = np.argsort(np.argsort(-scores.reshape(-1))).reshape(scores.shape) < 300
        assert found[f"uap{end}"].value == pytest.approx(average_precision(scores, in_pool))
        assert found[f"uap_k10{end}"].value == pytest.approx(average_precision(scores, in_ten))
    assert found["accuracy_at_1"].value == 18 / 24


def test_without_any_true_match_every_metric_is_unknown_and_nothing_fails(run: Measure) -> None:
    """As of collections that only have captions: all pictures are queries and references."""
    found = {name: [pair for pair in first(name) if pair[0] != name] for name in REFERENCES}
    record = run(found, {}, queries=REFERENCES)
    assert record.metrics
    assert {one.value for one in record.metrics.values()} == {None}
    assert (record.thresholds, record.curves, record.breakdowns) == ({}, {}, {})


@pytest.mark.parametrize("operations", [None, {}])
def test_without_operations_there_is_no_breakdown(run: Measure, operations: dict[str, str] | None) -> None:
    assert run({"a": first("r1")}, {"a": "r1"}, operations=operations).breakdowns == {}


def test_an_empty_sample_of_matches_has_no_numbers(run: Measure) -> None:
    record = run({"a": first("r1")}, {}, queries=["a"], operations={"a": "crop:light"})
    assert record.metrics["accuracy_at_1"].value is None
    assert record.breakdowns == {}


def test_timings_are_summed_over_shards(run: Measure, tmp_path: Path) -> None:
    for number, device in enumerate(["NVIDIA H100", "Intel Xeon"]):
        timing = EmbedTiming(
            images=30,
            seconds=2.0 + number,
            load_seconds=0.5,
            device=device,
            batch_size=8,
            threads=4,
            precision="float32",
            stages={"decode": 3.0, "forward": 1.5, "wait": 0.5},
            bottleneck=["decode", "forward"][number],
        )
        store.write_json(timing, tmp_path / f"embed-{number}.json")
    store.write_json(SearchTiming(queries=2, read_seconds=0.1, seconds=0.5), tmp_path / "search.json")
    assert run({"a": first("r1")}, {"a": "r1"}).timing == {
        "embed": {
            "images": 60,
            "seconds": 5.0,
            "images_per_second": 12.0,
            "load_seconds": 1.0,
            "device": "Intel Xeon + NVIDIA H100",
            "precision": "float32",
            "batch_size": "8",
            "threads": "4",
            "stages": {"read": 0.0, "decode": 6.0, "preprocess": 0.0, "transfer": 0.0, "forward": 3.0, "write": 0.0},
            "bottleneck": "forward",  # of most of the time
        },
        "search": {"queries": 2, "seconds": 0.5, "queries_per_second": 4.0},
    }


def test_what_vectors_cost_comes_from_the_neighbors_footer(run: Measure) -> None:
    assert run({"a": first("r1")}, {"a": "r1"}).cost is None
    made = {"dimension": 6, "dtypes": {"stored": "float16"}, "references": 5, "index_bytes": 165}
    cost = run({"a": first("r1")}, {"a": "r1"}, footer=made).cost
    assert cost is not None
    assert (cost.dimension, cost.vector_bytes, cost.vectors, cost.indexed_bytes) == (6, 12, 5, 33.0)
    # a scan index is a list of files; what it would cost to keep are their vectors
    cost = run({"a": first("r1")}, {"a": "r1"}, footer=made | {"index_key": '{"scan": true}'}).cost
    assert cost is not None
    assert (cost.index_bytes, cost.indexed_bytes) == (60, 12.0)


def test_a_damaged_timing_is_left_out_with_a_warning(
    run: Measure, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.write_json(
        EmbedTiming(images=9, seconds=3, load_seconds=1, device="cpu", batch_size=1), tmp_path / "embed-0.json"
    )
    store.write_json(SearchTiming(queries=1, read_seconds=1, seconds=1), tmp_path / "search.json")
    damaged = (tmp_path / "search.json").read_bytes().replace(b'"queries": 1', b'"queries": 3')
    (tmp_path / "search.json").write_bytes(damaged)
    (tmp_path / "embed-1.json").write_bytes(b"\xff\xfe{")
    timing = run({"a": first("r1")}, {"a": "r1"}).timing
    assert timing["embed"]["images"] == 9
    assert "search" not in timing
    assert "a timing is left out" in caplog.text
    assert all(f"{name}.json: is damaged" in caplog.text for name in ("embed-1", "search"))


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
    one = run(found, truth, groups=groups)
    before = (tmp_path / "metrics.json").read_bytes()
    run(found, truth, groups=groups)
    assert (tmp_path / "metrics.json").read_bytes() == before
    other = run(dict(reversed(found.items())), dict(reversed(truth.items())), groups=groups)
    assert other.made_from != one.made_from  # the same rows in another order are another file
    assert other.model_copy(update={"made_from": one.made_from}) == one
