import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from chain import Chain
from lookalike.io import identity, store
from lookalike.io.formats.records import EmbedTiming, Metrics, SearchTiming
from lookalike.io.formats.tables import IMAGES, INDEX_IMAGES, NEIGHBORS, TRUTH
from lookalike.job.errors import LookalikeError
from lookalike.measure.measure import MeasureJob, measure
from lookalike.metrics.evaluation import Results
from lookalike.metrics.intervals import proportion, wilson
from tables import MADE, candidates_table, images_table, neighbors_table, seen_table, truth_table

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
    """Write the files of a search with k = 3, measure it, and return the metrics."""

    def run(
        neighbors: Mapping[str, list[tuple[str, float]]],
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
            ("neighbors", NEIGHBORS, neighbors_table(neighbors)),
            ("candidates", NEIGHBORS, candidates_table(neighbors, len(queries or truth))),
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


def test_metrics_record_what_was_measured_and_how_many(run: Measure) -> None:
    record = run({"a": first("r1"), "b": fourth("r2")}, {"a": "r1", "b": "r2"}, queries=["a", "b", "distractor"])
    assert (record.dataset, record.model, record.index) == ("animals", "dinov2", "flat")
    assert (record.references, record.queries) == (12, 3)
    assert (record.rejected_references, record.rejected_queries) == (0, 0)
    assert list(record.metrics) == [
        *("accuracy_at_1", "accuracy_at_3", "recall_at_3", "mrr"),
        *("uap", "uap_k3", "recall_at_p90"),
    ]
    accuracy = record.metrics["accuracy_at_1"]
    assert (accuracy.value, accuracy.low, accuracy.high, accuracy.n) == (0.5, *proportion(1, 2), 2)


def test_accuracy_at_3_needs_three_neighbors(run: Measure) -> None:
    neighbors = {"a": first("r1")[:3]}
    assert list(run(neighbors, {"a": "r1"}, k=2).metrics)[:3] == ["accuracy_at_1", "recall_at_2", "mrr"]


def test_rejected_images_are_counted_and_are_misses(run: Measure) -> None:
    # b was rejected and has no neighbors; the match of c was rejected and is not in the index.
    truth = {"a": "r1", "b": "r2", "c": "r3", "d": "r4"}
    neighbors = {"a": first("r1"), "c": first("r1"), "d": first("r4")}
    record = run(neighbors, truth, rejected=["b", "r3"])
    assert (record.rejected_references, record.rejected_queries) == (1, 1)
    assert (record.references, record.queries) == (12, 4)
    assert record.metrics["accuracy_at_1"].value == 2 / 4
    assert record.metrics["accuracy_at_1"].n == 4


def test_if_all_images_were_rejected_everything_is_a_miss(run: Measure) -> None:
    record = run({}, {"a": "r1", "b": "r2"}, rejected=["a", "b"])
    assert record.metrics["recall_at_3"].value == 0
    assert record.rejected_queries == 2


def test_a_rejected_image_of_another_sample_is_refused(run: Measure, tmp_path: Path) -> None:
    with pytest.raises(LookalikeError, match=r"flat\.images\.parquet: rejected image 'x' is not in the sample"):
        run({"a": first("r1")}, {"a": "r1"}, rejected=["r1", "x"])
    assert not (tmp_path / "metrics.json").exists()


def test_neighbors_of_another_sample_are_refused_by_path(run: Measure) -> None:
    with pytest.raises(LookalikeError, match=r"neighbors\.parquet: 'z' is not a query of the sample"):
        run({"z": first("r1")}, {"a": "r1"})


def test_tiles_of_one_photograph_are_one_observation(run: Measure) -> None:
    # Four correct queries from two photographs.
    truth = {"a": "r1", "b": "r2", "c": "r3", "d": "r4"}
    neighbors = {query: first(reference) for query, reference in truth.items()}
    groups = {"a": "astronaut", "b": "astronaut", "c": "coffee", "d": "coffee"}
    alone, together = run(neighbors, truth), run(neighbors, truth, groups=groups)
    assert alone.metrics["accuracy_at_1"].low == wilson(4, 4)[0]
    assert together.metrics["accuracy_at_1"].low == wilson(2, 2)[0]
    assert together.metrics["accuracy_at_1"].n == 4
    assert (alone.groups, together.groups) == (4, 2)


def test_only_groups_of_queries_with_a_match_are_counted(run: Measure) -> None:
    # x has no match, r7 is not a match; b has no group and so is its own group.
    groups = {"a": "astronaut", "b": None, "c": "astronaut", "x": "coffee", "r7": "dune"}
    truth = {"a": "r1", "b": "r2", "c": "r3"}
    neighbors = {query: first(reference) for query, reference in truth.items()}
    assert run(neighbors, truth, queries=["a", "b", "c", "x"], groups=groups).groups == 2
    assert run(neighbors, {}, queries=["a", "b", "c"]).groups == 0


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
    neighbors = {
        **{query: first(reference) for query, reference in truth.items()},
        "c": fourth("r3"),
        "e": fourth("r5"),
    }
    parts = run(neighbors, truth, operations=operations).breakdowns
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


def test_breakdowns_by_size_labels_and_custom_columns(run: Measure) -> None:
    truth = {"a": "r1", "b": "r2", "c": "r3", "d": "r4"}
    neighbors = {**{query: first(reference) for query, reference in truth.items()}, "c": fourth("r3")}
    neighbors.pop("d")  # rejected: a miss of unknown size
    parts = run(
        neighbors,
        truth,
        rejected=["d"],
        sides={"a": (128, 90), "b": (60, 129), "c": (100, 200), "r1": (5000, 1)},
        brought={"by_camera": {"a": "old", "c": "old", "b": "new"}, "by_place": {}},
        labels={"a": ["dog", "cat"], "b": ["dog"], "c": []},
    ).breakdowns
    rates = {
        column: {
            value: (metrics["accuracy_at_1"].value, metrics["accuracy_at_1"].n) for value, metrics in values.items()
        }
        for column, values in parts.items()
    }
    assert rates == {
        "size": {"up to 128 px": (1.0, 1), "up to 256 px": (0.5, 2), "unknown": (0.0, 1)},
        "by_camera": {"new": (1.0, 1), "old": (0.5, 2)},
        "labels": {"cat": (1.0, 1), "dog": (1.0, 2)},
    }


def test_a_column_with_many_values_is_not_broken_down_but_logged(
    run: Measure, caplog: pytest.LogCaptureFixture
) -> None:
    truth = {f"q{number}": "r1" for number in range(21)}
    neighbors = {query: first("r1") for query in truth}
    with caplog.at_level("INFO"):
        assert run(neighbors, truth, brought={"by_place": {query: query for query in truth}}).breakdowns == {}
    assert "no breakdown by 'by_place': it has 21 values, the limit is 20" in caplog.text
    twenty = {query: query for query in list(truth)[:20]}
    assert len(run(neighbors, truth, brought={"by_place": twenty}).breakdowns["by_place"]) == 20


def test_the_threshold_comes_with_its_held_out_precision_and_recall(run: Measure) -> None:
    queries = {f"q{number}": f"r{number % 12}" for number in range(40)}
    neighbors = {query: [(match, 0.9 - int(query[1:]) / 100)] for query, match in queries.items()}
    neighbors |= {f"x{number}": [("r0", 0.505 - number / 100)] for number in range(10)}  # without a match
    record = run(neighbors, queries, queries=list(neighbors))
    threshold = record.thresholds["recall_at_p90"]
    # all 40 matches score above 0.505, the highest wrong score
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


def test_every_target_precision_has_a_verdict(run: Measure) -> None:
    queries = {f"q{number}": f"r{number % 12}" for number in range(70)}
    neighbors = {query: [(match, 0.9 - int(query[1:]) / 100)] for query, match in queries.items()}
    neighbors |= {f"x{number}": [("r0", 0.15 - number / 100)] for number in range(10)}  # without a match
    record = run(neighbors, queries, queries=list(neighbors))
    assert list(record.thresholds) == ["recall_at_p90", "90", "95", "99"]
    verdicts = {percent: target.verdict for percent, target in record.targets().items()}
    assert verdicts == {"90": "holds", "95": "holds", "99": "too few queries"}
    targets = record.targets()
    assert targets["99"].queries_needed is not None
    assert targets["99"].queries_needed >= 299 * 80 / 70
    assert targets["90"].share_with_match == 70 / 80
    assert record.thresholds_sn == {}
    normalised = run(neighbors, queries, queries=list(neighbors), normalised=_without_training_effect(neighbors))
    assert list(normalised.thresholds_sn) == ["90", "95", "99"]


def _without_training_effect(neighbors: dict[str, list[tuple[str, float]]]) -> tuple[pa.Table, pa.Table]:
    """Training neighbors that are equally far from all queries, and the candidates that follow."""
    shifted = {query: [(name, score - 0.1) for name, score in pairs] for query, pairs in neighbors.items()}
    return neighbors_table({query: [("r11", 0.1)] for query in neighbors}), neighbors_table(shifted)


def test_no_threshold_is_none_and_not_zero(run: Measure) -> None:
    record = run({"a": fourth("r1"), "b": fourth("r2")}, {"a": "r1", "b": "r2"})
    threshold = record.thresholds["recall_at_p90"]
    assert (threshold.score, threshold.precision, threshold.recall) == (None, None, None)
    assert threshold.held_out.precision.value is None
    assert record.metrics["recall_at_p90"].value == 0


def test_training_images_add_a_normalised_version_of_every_pooled_metric(run: Measure) -> None:
    truth = {"a": "r1"}
    neighbors = {"a": [("r1", 0.5)], "b": [("r2", 0.6)]}
    near = neighbors_table({"a": [("r5", 0.1)], "b": [("r5", 0.4)]})
    record = run(neighbors, truth, queries=["a", "b"], normalised=(near, neighbors_table({"a": [("r1", 0.4)]})))
    values = {name: estimate.value for name, estimate in record.metrics.items() if "uap" in name or "p90" in name}
    assert values == {
        **{"uap": 0.5, "uap_k3": 0.5, "recall_at_p90": 0},
        **{"uap_sn": 1, "uap_k3_sn": 1, "recall_at_p90_sn": 1},
    }
    assert list(values) == ["uap", "uap_k3", "recall_at_p90", "uap_sn", "uap_k3_sn", "recall_at_p90_sn"]
    assert record.thresholds["recall_at_p90_sn"].score == pytest.approx(0.4)
    assert set(record.curves) == {"uap", "uap_k3", "uap_sn", "uap_k3_sn"}


@pytest.mark.parametrize("settings", [{}, {"beta": 0.5, "first": 2, "last": 5}])
def test_metrics_of_a_real_search_agree_with_plain_arithmetic(tmp_path: Path, settings: dict[str, float]) -> None:
    """Compare with the scores of all pairs, computed directly."""
    chain = Chain(tmp_path, references=120, queries=30, training=40)
    key = json.dumps({"factory": "Flat", "normalise": settings})
    chain.build()
    chain.search(k=10, key=key, build_key='{"factory": "Flat"}', training=True)
    (queries, q), (references, r), (_, t) = (chain.unit(role) for role in "qrt")
    score = q @ r.T
    near = np.sort(q @ t.T, axis=1)[:, ::-1]
    beta, first_rank, last = settings.get("beta", 1), int(settings.get("first", 1)), int(settings.get("last", 3))
    normalised = score - beta * near[:, first_rank - 1 : last].mean(axis=1, keepdims=True)
    # the match is the nearest reference for three of four queries, a distant one otherwise; the last six have none
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
    metrics = store.read_json(tmp_path / "metrics.json", Metrics).metrics
    right = np.array([[truth.get(query) == reference for reference in references] for query in queries])
    in_ten = np.argsort(np.argsort(-score, axis=1), axis=1) < 10

    def average_precision(scores: np.ndarray, kept: np.ndarray) -> float:
        ordered = right[kept][np.argsort(-scores[kept])]
        places = np.flatnonzero(ordered) + 1
        return float(np.sum(np.arange(1, len(places) + 1) / places)) / 24

    for end, scores in (("", score), ("_sn", normalised)):
        in_pool = np.argsort(np.argsort(-scores.reshape(-1))).reshape(scores.shape) < 300
        assert metrics[f"uap{end}"].value == pytest.approx(average_precision(scores, in_pool))
        assert metrics[f"uap_k10{end}"].value == pytest.approx(average_precision(scores, in_ten))
    assert metrics["accuracy_at_1"].value == 18 / 24


def test_without_true_matches_every_metric_is_unknown(run: Measure) -> None:
    """As in collections that only have captions: all images are queries and references."""
    neighbors = {name: [pair for pair in first(name) if pair[0] != name] for name in REFERENCES}
    record = run(neighbors, {}, queries=REFERENCES)
    assert record.metrics
    assert {estimate.value for estimate in record.metrics.values()} == {None}
    assert (record.thresholds, record.curves, record.breakdowns) == ({}, {}, {})


@pytest.mark.parametrize("operations", [None, {}])
def test_without_operations_there_is_no_breakdown(run: Measure, operations: dict[str, str] | None) -> None:
    assert run({"a": first("r1")}, {"a": "r1"}, operations=operations).breakdowns == {}


def test_without_matches_there_are_no_breakdowns(run: Measure) -> None:
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
            peak_memory_mb=900.0 - number,
            peak_gpu_memory_mb=[3000.0, None][number],
        )
        store.write_json(timing, tmp_path / f"embed-{number}.json")
    search = SearchTiming(
        queries=2, read_seconds=0.1, seconds=0.5, latency_queries=2, latency_median=0.3, latency_p95=0.4
    )
    store.write_json(search, tmp_path / "search.json")
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
            "bottleneck": "forward",  # the bottleneck of most of the time
            "jobs": 2,
            "peak_memory_mb": 900.0,
            "peak_gpu_memory_mb": 3000.0,
        },
        "search": {
            "queries": 2,
            "seconds": 0.5,
            "queries_per_second": 4.0,
            "device": "",
            "latency_queries": 2,
            "latency_median": 0.3,
            "latency_p95": 0.4,
            "peak_memory_mb": None,
            "peak_gpu_memory_mb": None,
        },
    }


def test_costs_come_from_the_neighbors_footer(run: Measure) -> None:
    assert run({"a": first("r1")}, {"a": "r1"}).cost is None
    recorded = {"dimension": 6, "dtypes": {"stored": "float16"}, "references": 5, "index_bytes": 165}
    cost = run({"a": first("r1")}, {"a": "r1"}, footer=recorded).cost
    assert cost is not None
    assert (cost.dimension, cost.vector_bytes, cost.vectors, cost.indexed_bytes) == (6, 12, 5, 33.0)
    # a scan index only lists files; its size is that of their vectors
    cost = run({"a": first("r1")}, {"a": "r1"}, footer=recorded | {"index_key": '{"scan": true}'}).cost
    assert cost is not None
    assert (cost.index_bytes, cost.indexed_bytes) == (60, 12.0)


def test_a_damaged_timing_is_skipped_with_a_warning(
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
    assert "timing skipped" in caplog.text
    assert all(f"{name}.json: is damaged" in caplog.text for name in ("embed-1", "search"))


def test_removed_logs_only_lose_the_timings(run: Measure, tmp_path: Path) -> None:
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
    neighbors = {query: (first if int(query[1:]) % 7 else fourth)(reference) for query, reference in truth.items()}
    groups = {query: f"photograph-{int(query[1:]) // 4}" for query in truth}
    first_run = run(neighbors, truth, groups=groups)
    before = (tmp_path / "metrics.json").read_bytes()
    run(neighbors, truth, groups=groups)
    assert (tmp_path / "metrics.json").read_bytes() == before
    reordered = run(dict(reversed(neighbors.items())), dict(reversed(truth.items())), groups=groups)
    assert reordered.made_from != first_run.made_from  # reordered rows are another file
    assert reordered.model_copy(update={"made_from": first_run.made_from}) == first_run
