import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lookalike.compare import compare as comparison
from lookalike.compare.compare import CompareJob, compare
from lookalike.compare.pairwise import Pair, corrected, rates_tested
from lookalike.embed.embed import weights_sha256
from lookalike.io import store
from lookalike.io.formats.records import (
    LEADERBOARD_COLUMNS,
    Cases,
    Comparison,
    Comparisons,
    Cost,
    EmbedTiming,
    Metrics,
    Weights,
)
from lookalike.io.formats.tables import IMAGES, INDEX_IMAGES, NEIGHBORS, TRUTH
from lookalike.job.errors import LookalikeError
from lookalike.measure.measure import MeasureJob, measure
from lookalike.metrics.evaluation import Results, results_of
from lookalike.metrics.intervals import wilson
from lookalike.metrics.joining import Floats
from lookalike.metrics.rates import holm
from tables import MADE, images_table, neighbors_table, seen_table, truth_table, write_search

REFERENCES = [f"r{number:02d}" for number in range(30)]
QUERIES = [f"q{number:02d}" for number in range(20)]
MATCHES = dict(zip(QUERIES, REFERENCES, strict=False))
NAMES = ["accuracy_at_1", "accuracy_at_3", "recall_at_3", "mrr", "uap", "uap_k3", "recall_at_p90"]
HEADLINE = ("accuracy_at_1", "accuracy_at_3", "recall_at_p90", "uap")  # what the report's first sentence may speak of
Files = dict[str, Any]


def neighbors_of(right: int, first: int = 0) -> dict[str, list[tuple[str, float]]]:
    """Neighbors of a model that finds the match of ``right`` queries, starting with number ``first``, and no others."""
    neighbors = {}
    for number, (query, reference) in enumerate(MATCHES.items()):
        others = [name for name in REFERENCES if name != reference][:4]
        ordered = [reference, *others] if first <= number < first + right else others
        neighbors[query] = [(name, 1 - place / 10) for place, name in enumerate(ordered)][:4]
    return neighbors


@pytest.fixture
def searched(tmp_path: Path) -> Callable[..., Files]:
    """Write neighbors and metrics of models (name -> neighbors); return the arguments of ``CompareJob``."""

    def searched(
        models: Mapping[str, Mapping[str, Sequence[tuple[str, float]]]],
        indexes: Sequence[str] = ("flat",),
        truth: Sequence[tuple[str, str]] = tuple(MATCHES.items()),
        groups: Mapping[str, str] | None = None,
    ) -> Files:
        images, matches = tmp_path / "images.parquet", tmp_path / "truth.parquet"
        store.write_table(images_table(REFERENCES, QUERIES, groups), images, IMAGES, MADE)
        store.write_table(truth_table(truth), matches, TRUTH, MADE)
        seen = tmp_path / "seen.parquet"
        store.write_table(seen_table(), seen, INDEX_IMAGES, MADE)
        metrics, results = [], []
        for model, neighbors in models.items():
            timing = tmp_path / f"{model}.timing.json"
            store.write_json(EmbedTiming(images=50, seconds=2.0, load_seconds=1.0, device="cpu", batch_size=1), timing)
            for index in indexes:
                folder = tmp_path / "neighbors" / model
                metrics.append(tmp_path / "metrics" / model / f"{index}.json")
                footer = {"model": model, "index": index, "k": 3, "key": json.dumps({"family": "pixels"})}
                results.append(write_search(folder / f"{index}.parquet", neighbors, len(QUERIES), footer))
                measure(
                    MeasureJob(
                        results=results[-1],
                        truth=matches,
                        images=images,
                        seen=seen,
                        timings=[timing],
                        search_timing=tmp_path / "none.json",
                        out=metrics[-1],
                        dataset="animals",
                        model=model,
                        index=index,
                        k=3,
                    )
                )
        return {
            "experiment": "mine",
            "metrics": metrics,
            "results": results,
            "truth": matches,
            "images": images,
            "models": list(models),
            "architectures": {},
            "leaderboard_out": tmp_path / "leaderboard.csv",
            "comparisons_out": tmp_path / "comparisons.json",
        }

    return searched


def comparisons(files: Files) -> dict[tuple[str, str, str, str], Comparison]:
    compare(CompareJob(**files))
    record = store.read_json(files["comparisons_out"], Comparisons)
    assert record.experiment == "mine"
    return {(pair.index, pair.metric, pair.a, pair.b): pair for pair in record.comparisons}


def leaderboard(files: Files) -> list[dict[str, str]]:
    with Path(files["leaderboard_out"]).open(newline="") as file:
        return list(csv.DictReader(file))


def test_all_pairs_are_compared_on_every_index_and_metric(searched: Callable[..., Files]) -> None:
    files = searched({"c": neighbors_of(1), "a": neighbors_of(9), "b": neighbors_of(9)}, indexes=["flat", "hnsw"])
    assert list(comparisons(files)) == [
        (index, metric, *pair)
        for index in ["flat", "hnsw"]
        for metric in NAMES
        for pair in [("c", "a"), ("c", "b"), ("a", "b")]
    ]


def test_better_worse_and_cannot_tell(searched: Callable[..., Files]) -> None:
    # Of 20 queries good finds 15, near 13 of these, bad 2 of these.
    # good - near: 2 to 0, p = 2 / 2**2 = 0.5. good - bad: 13 to 0, p = 2 / 2**13. near - bad: 11 to 0, p = 2 / 2**11.
    # Holm's correction is over the three pairs of all four metrics of HEADLINE.
    pairs = comparisons(searched({"good": neighbors_of(15), "bad": neighbors_of(2), "near": neighbors_of(13)}))
    family = [pair for (_, metric, *_), pair in pairs.items() if metric in HEADLINE]
    assert {pair.metric for pair in family} == set(HEADLINE)
    assert [pair.p_holm for pair in family] == pytest.approx(holm([pair.p for pair in family]))
    assert {pair.tests for pair in family} == {12}
    assert {pair.tests for (_, metric, *_), pair in pairs.items() if metric == "mrr"} == {3}
    good_bad = pairs["flat", "accuracy_at_1", "good", "bad"]
    good_near = pairs["flat", "accuracy_at_1", "good", "near"]
    bad_near = pairs["flat", "accuracy_at_1", "bad", "near"]
    assert (good_bad.p, bad_near.p, good_near.p) == pytest.approx((2 / 2**13, 2 / 2**11, 0.5))
    assert good_bad.queries_needed is None
    assert good_near.queries_needed == good_near.groups_needed > 20  # type: ignore[operator]
    assert (good_bad.verdict, bad_near.verdict, good_near.verdict) == ("better", "worse", "cannot tell")
    assert (good_bad.difference.value, good_bad.difference.n) == (0.65, 20)
    assert 0.35 < good_bad.difference.low < 0.65 < good_bad.difference.high < 0.9
    assert bad_near.difference.value == -0.55
    assert good_near.difference.low <= 0


def test_pooled_metrics_are_compared_by_leaving_groups_out(searched: Callable[..., Files]) -> None:
    pairs = comparisons(searched({"good": neighbors_of(20), "bad": neighbors_of(2), "same": neighbors_of(20)}))
    good_bad, good_same = (pairs["flat", "uap", "good", other] for other in ("bad", "same"))
    assert good_bad.verdict == "better"
    assert good_bad.difference.value > 0.4  # type: ignore[operator]
    assert good_bad.difference.n == len(QUERIES)
    assert (good_same.difference.value, good_same.p, good_same.verdict) == (0, 1, "cannot tell")
    groups = {query: f"photograph-{number // 5}" for number, query in enumerate(QUERIES)}
    together = comparisons(searched({"good": neighbors_of(18), "bad": neighbors_of(2)}, groups=groups))
    assert together["flat", "uap", "good", "bad"].p >= 2 / 2**4
    assert together["flat", "uap", "good", "bad"].verdict == "too few groups"


def cases(files: Files) -> dict[tuple[str, str], Cases]:
    compare(CompareJob(**files))
    return {(pair.a, pair.b): pair for pair in store.read_json(files["comparisons_out"], Comparisons).cases}


def test_the_four_cases_are_counted_and_listed(searched: Callable[..., Files]) -> None:
    a = neighbors_of(6)  # q00 to q05
    b = neighbors_of(8, first=4)  # q04 to q11
    for number in (0, 1):  # for these b ranks the match second and third
        query, match = QUERIES[number], REFERENCES[number]
        wrong = [reference for reference, _ in b[query]]
        order = [wrong[0], match, wrong[1]] if number == 0 else [wrong[0], wrong[1], match]
        b[query] = [(reference, 1 - place / 10) for place, reference in enumerate([*order, wrong[2]])]
    case = cases(searched({"a": a, "b": b}))["a", "b"]
    assert case.both.queries == ["q04", "q05"]
    assert case.only_a.queries == ["q00", "q01", "q02", "q03"]
    assert case.only_b.queries == [f"q{number:02d}" for number in range(6, 12)]
    assert (case.neither.count, len(case.neither.queries)) == (8, 8)
    assert case.only_a_b_near is not None
    assert case.only_b_a_near is not None
    assert (case.only_a_b_near.count, case.only_a_b_near.queries) == (2, ["q00", "q01"])
    assert case.only_b_a_near.count == 0
    assert sum(part.count for part in (case.both, case.neither, case.only_a, case.only_b)) == len(QUERIES)


def test_long_lists_of_a_case_are_truncated_by_a_fixed_rule(
    searched: Callable[..., Files], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "MOST_QUERIES", 3)
    case = cases(searched({"a": neighbors_of(9), "b": neighbors_of(0)}))["a", "b"]
    assert (case.only_a.count, len(case.only_a.queries), case.neither.count) == (9, 3, 11)
    fewer = cases(searched({"a": neighbors_of(8), "b": neighbors_of(0)}))["a", "b"]
    assert len(set(fewer.only_a.queries) & set(case.only_a.queries)) >= 2


def test_without_a_match_there_are_no_cases(searched: Callable[..., Files]) -> None:
    assert cases(searched({"a": neighbors_of(9), "b": neighbors_of(0)}, truth=[])) == {}


def test_candidates_of_another_model_are_refused(searched: Callable[..., Files]) -> None:
    files = searched({"a": neighbors_of(3), "b": neighbors_of(1)})
    first, second = files["results"]
    files["results"] = [replace(first, candidates=second.candidates), second]
    with pytest.raises(LookalikeError, match=r"b.flat\.candidates\.parquet: was made for model 'b'.*expected 'a'"):
        compare(CompareJob(**files))


def test_each_search_needs_one_file_of_each_kind() -> None:
    kinds = ("neighbors", "candidates", "training", "candidates_sn", "audit")
    each = {kind: [kind] for kind in (*kinds, "classes")}
    assert results_of(**each, near_duplicates=["near"]) == [Results(*kinds, "near", "classes")]
    assert results_of(**each, near_duplicates=[]) == [Results(*kinds, None, "classes")]
    with pytest.raises(LookalikeError, match=r"expected one file of each kind per search, got \[1, 1, 1, 2, 1, 1\]"):
        results_of(**each | {"candidates_sn": ["s", "s"]}, near_duplicates=[])


def test_holms_correction_is_within_one_index(searched: Callable[..., Files]) -> None:
    models = {"good": neighbors_of(15), "bad": neighbors_of(9)}
    single = comparisons(searched(models))["flat", "recall_at_3", "good", "bad"]
    several = comparisons(searched(models, indexes=["flat", "hnsw"]))["hnsw", "recall_at_3", "good", "bad"]
    assert single.p == single.p_holm == several.p_holm == pytest.approx(2 / 2**6)


def test_a_metric_of_scenes_is_not_tested_twice_where_nothing_is_junk() -> None:
    groups = np.arange(20)
    of_good, of_bad, lenient = (np.repeat([1.0, 0.0], [right, 20 - right]) for right in (18, 8, 20))

    def pair(metric: str, a: Floats) -> Pair:
        return Pair("flat", metric, "good", "bad", rates_tested(a, of_bad, groups))

    headline = ["accuracy_at_1", "accuracy_at_1_scene", "accuracy_at_3"]
    first, third = pair("accuracy_at_1", of_good), pair("accuracy_at_3", of_bad)
    same = corrected([first, pair("accuracy_at_1_scene", of_good), third], headline)
    assert [one.tests for one in same] == [2, 2, 2]
    assert same[0].p_holm == same[1].p_holm == 2 * same[0].p
    other = corrected([first, pair("accuracy_at_1_scene", lenient), third], headline)
    assert [one.tests for one in other] == [3, 3, 3]


def test_queries_of_one_photograph_are_weaker_evidence(searched: Callable[..., Files]) -> None:
    groups = {query: f"photograph-{number // 5}" for number, query in enumerate(QUERIES)}
    models = {"good": neighbors_of(20), "bad": neighbors_of(0)}
    alone = comparisons(searched(models))["flat", "accuracy_at_1", "good", "bad"]
    together = comparisons(searched(models, groups=groups))["flat", "accuracy_at_1", "good", "bad"]
    assert (alone.p, together.p) == pytest.approx((2 / 2**20, 2 / 2**4))
    assert (alone.verdict, together.verdict) == ("better", "too few groups")
    # Wilson's interval of groups won: four of four is at least 0.51, a difference of 0.02
    assert (together.difference.low, together.difference.high) == (2 * wilson(4, 4)[0] - 1, 1)


def test_metrics_without_a_value_have_no_difference(searched: Callable[..., Files]) -> None:
    files = searched({"a": neighbors_of(3), "b": neighbors_of(1)}, truth=[])
    pair = comparisons(files)["flat", "accuracy_at_1", "a", "b"]
    assert (pair.difference.value, pair.difference.n, pair.p, pair.p_holm, pair.verdict) == (
        None,
        0,
        1,
        1,
        "cannot tell",
    )
    row = leaderboard(files)[0]
    assert (row["value"], row["low"], row["high"], row["n"]) == ("", "", "", "0")


def test_a_single_model_has_no_comparisons(searched: Callable[..., Files]) -> None:
    files = searched({"a": neighbors_of(3)})
    assert comparisons(files) == {}
    assert len(leaderboard(files)) == len(NAMES) + 1


def test_the_leaderboard_is_tidy_and_exact(searched: Callable[..., Files]) -> None:
    files = searched({"a": neighbors_of(7), "b": neighbors_of(5)})
    compare(CompareJob(**files))
    rows = leaderboard(files)
    assert tuple(rows[0]) == LEADERBOARD_COLUMNS
    assert [(row["model"], row["index"], row["metric"]) for row in rows] == [
        (model, "flat", metric) for model in ["a", "b"] for metric in [*NAMES, "images_per_second"]
    ]
    low, high = wilson(7, 20)
    assert (float(rows[0]["value"]), float(rows[0]["low"]), float(rows[0]["high"])) == (0.35, low, high)
    assert rows[0]["n"] == "20"
    assert [rows[len(NAMES)][column] for column in ("value", "low", "high", "n")] == ["25.0", "", "", "50"]


def test_without_timings_there_is_no_throughput_row(searched: Callable[..., Files], tmp_path: Path) -> None:
    files = searched({"a": neighbors_of(7)})
    record = store.read_json(files["metrics"][0], Metrics)
    store.write_json(record.model_copy(update={"timing": {}}), files["metrics"][0])
    compare(CompareJob(**files))
    assert [row["metric"] for row in leaderboard(files)] == NAMES


def test_costs_are_rows_without_intervals(searched: Callable[..., Files]) -> None:
    files = searched({"a": neighbors_of(7)})
    record = store.read_json(files["metrics"][0], Metrics)
    cost = Cost(dimension=6, stored_dtype="float16", vector_bytes=12, vectors=30, index_bytes=750)
    search = {"queries": 20, "seconds": 0.5, "queries_per_second": 40.0, "peak_memory_mb": 80.0}
    latency = {"latency_queries": 9, "latency_median": 0.004, "latency_p95": 0.25}
    embed = record.timing["embed"] | {"jobs": 3, "peak_memory_mb": 700.0, "peak_gpu_memory_mb": 5000.0}
    timing = {"embed": embed, "search": search | latency}
    store.write_json(record.model_copy(update={"timing": timing, "cost": cost}), files["metrics"][0])
    compare(CompareJob(**files))
    assert [(row["metric"], float(row["value"]), row["low"], row["n"]) for row in leaderboard(files)[len(NAMES) :]] == [
        ("images_per_second", 25, "", "50"),
        ("peak_memory_mb", 700, "", "3"),
        ("search_peak_memory_mb", 80, "", "1"),
        ("peak_gpu_memory_mb", 5000, "", "3"),
        ("queries_per_second", 40, "", "20"),
        ("query_latency_median_ms", 4, "", "9"),
        ("query_latency_p95_ms", 250, "", "9"),
        ("dimension", 6, "", "30"),
        ("bytes_per_vector", 12, "", "30"),
        ("index_bytes_per_vector", 25, "", "30"),
        ("index_bytes", 750, "", "30"),
    ]


def test_only_a_varied_model_has_effects(searched: Callable[..., Files]) -> None:
    files = searched({"m": neighbors_of(15), "m.size-8": neighbors_of(2)})
    compare(CompareJob(**files))
    assert store.read_json(files["comparisons_out"], Comparisons).effects == []
    compare(CompareJob(**files, design={"m": {"size": "16"}, "m.size-8": {"size": "8"}}))
    record = store.read_json(files["comparisons_out"], Comparisons)
    effect = record.effects[0]
    assert [row.metric for row in record.effects] == ["accuracy_at_1", "accuracy_at_3", "recall_at_3", "mrr"]
    assert (effect.key, effect.value, effect.own, effect.pairs, effect.verdict) == (
        "size",
        "8",
        "16",
        [("m.size-8", "m")],
        "worse",
    )
    # the effect of a single value is the comparison of the two models with the opposite sign
    assert (effect.difference.value, effect.p) == (-record.comparisons[0].difference.value, record.comparisons[0].p)


def test_neighbors_of_another_model_are_refused(searched: Callable[..., Files]) -> None:
    files = searched({"a": neighbors_of(3), "b": neighbors_of(1)})
    files["results"].reverse()
    with pytest.raises(
        LookalikeError, match=r"b.flat\.parquet: was made for model 'b', index 'flat' and k = 3, expect"
    ):
        compare(CompareJob(**files))
    assert not files["leaderboard_out"].exists()


def test_neighbors_with_another_k_are_refused(searched: Callable[..., Files]) -> None:
    files = searched({"a": neighbors_of(3), "b": neighbors_of(1)})
    table = neighbors_table(neighbors_of(1))
    store.write_table(table, files["results"][1].neighbors, NEIGHBORS, {"model": "b", "index": "flat", "k": 5})
    with pytest.raises(LookalikeError, match="k = 5, expected 'b', 'flat' and 3"):
        compare(CompareJob(**files))


def test_a_missing_model_is_refused(searched: Callable[..., Files]) -> None:
    files = searched({"a": neighbors_of(3), "b": neighbors_of(1)})
    with pytest.raises(LookalikeError, match=r"experiments\.mine: .* got 0 for model 'c' with index 'flat'"):
        compare(CompareJob(**{**files, "models": ["a", "b", "c"]}))
    repeated = {**files, "metrics": files["metrics"][:1] * 2, "results": files["results"][:1] * 2, "models": ["a"]}
    with pytest.raises(LookalikeError, match="got 2 for model 'a'"):
        compare(CompareJob(**repeated))
    with pytest.raises(LookalikeError, match="got 1 for 2"):
        compare(CompareJob(**{**files, "results": files["results"][:1]}))


def test_models_that_read_other_files_are_refused(searched: Callable[..., Files]) -> None:
    files = searched({"a": neighbors_of(3), "b": neighbors_of(1)})
    path = files["results"][1].neighbors
    footer = store.read_provenance(path) | {"images_sha256": "other"}
    store.write_table(store.read_table(path, NEIGHBORS), path, NEIGHBORS, footer)
    with pytest.raises(LookalikeError, match=r"b.flat\.parquet: model 'b' read other image files than 'a': "):
        compare(CompareJob(**files))


def embedded_with(files: Files, *footers: tuple[dict[str, Any], Weights]) -> None:
    """Record in the footers with which settings and weights the models were embedded."""
    for result, metrics, (settings, weights) in zip(files["results"], files["metrics"], footers, strict=True):
        recorded = {
            "key": json.dumps(settings),
            "weights": weights.model_dump(),
            "weights_sha256": weights_sha256(weights),
        }
        for path in result.files:
            footer = store.read_provenance(path) | recorded
            store.write_table(store.read_table(path, NEIGHBORS), path, NEIGHBORS, footer)
        record = store.read_json(metrics, Metrics)
        store.write_json(record.model_copy(update={"made_from": result.identities()}), metrics)


def of_commit(commit: str) -> Weights:
    return Weights(source="hub owner/vit", revision=commit, files={"model.safetensors": commit * 64})


def vit(**settings: str) -> dict[str, str]:
    return {"family": "transformers", "checkpoint": "owner/vit", **settings}


def test_variants_of_a_checkpoint_with_different_weights_are_refused(searched: Callable[..., Files]) -> None:
    files = searched({"a": neighbors_of(3), "a.pooling-mean": neighbors_of(1)})
    files |= {"design": {"a": {"pooling": "cls"}, "a.pooling-mean": {"pooling": "mean"}}}
    embedded_with(files, (vit(pooling="cls"), of_commit("1")), (vit(pooling="mean"), of_commit("1")))
    compare(CompareJob(**files))
    files["leaderboard_out"].unlink()
    embedded_with(files, (vit(pooling="cls"), of_commit("1")), (vit(pooling="mean"), of_commit("2")))
    with pytest.raises(LookalikeError) as refused:
        compare(CompareJob(**files))
    first, second = (result.neighbors for result in files["results"])
    assert str(refused.value) == (
        "experiments.mine: models 'a' and 'a.pooling-mean' both use the weights of owner/vit, but different versions: "
        f"{first} used revision 1, {second} used revision 2. Fetch the weights again: --forcerun "
        "results/weights/owner--vit-main/weights.json; to prevent this, pin the model's revision to a commit."
    )
    assert not files["leaderboard_out"].exists()


def test_replaced_weight_files_are_listed_by_name(
    searched: Callable[..., Files],
) -> None:
    files = searched({"a": neighbors_of(3), "b": neighbors_of(1)})
    first, second = (Weights(source="folder vit", revision="", files={"w": 2 * n, "c": "same"}) for n in ("11", "22"))
    embedded_with(files, (vit(), first), (vit(size="8"), second))
    with pytest.raises(LookalikeError, match=r"a.flat\.parquet used w 1111, .*b.flat\.parquet used w 2222\. Fetch"):
        compare(CompareJob(**files))


@pytest.mark.parametrize("other", [{"revision": "2"}, {"checkpoint": "owner/other"}, {"family": "blip2"}])
def test_weights_may_differ_if_their_source_differs(other: dict[str, str], searched: Callable[..., Files]) -> None:
    files = searched({"a": neighbors_of(3), "b": neighbors_of(1)})
    embedded_with(files, (vit(), of_commit("1")), (vit() | other, of_commit("2")))
    compare(CompareJob(**files))
    assert files["leaderboard_out"].exists()


def test_models_on_other_data_sets_are_refused(searched: Callable[..., Files]) -> None:
    files = searched({"a": neighbors_of(3), "b": neighbors_of(1)})
    record = store.read_json(files["metrics"][1], Metrics)
    store.write_json(record.model_copy(update={"dataset": "plants"}), files["metrics"][1])
    with pytest.raises(LookalikeError, match="belongs to data set 'plants'"):
        compare(CompareJob(**files))
