import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from lookalike import formats, store
from lookalike.comparison import compare
from lookalike.errors import LookalikeError
from lookalike.formats import Comparisons, EmbedTiming, Metrics
from lookalike.measurement import measure
from lookalike.statistics import wilson
from tables import images_table, neighbors_table, truth_table

REFERENCES = [f"r{number:02d}" for number in range(30)]
QUERIES = [f"q{number:02d}" for number in range(20)]
TRUTH = dict(zip(QUERIES, REFERENCES, strict=False))
Files = dict[str, Any]


def neighbors_of(right: int, first: int = 0) -> dict[str, list[tuple[str, float]]]:
    """A model that finds the match of ``right`` queries from number ``first`` on, and of no others."""
    found = {}
    for number, (query, reference) in enumerate(TRUTH.items()):
        others = [name for name in REFERENCES if name != reference][:4]
        ordered = [reference, *others] if first <= number < first + right else others
        found[query] = [(name, 1 - place / 10) for place, name in enumerate(ordered)][:4]
    return found


@pytest.fixture
def searched(tmp_path: Path) -> Callable[..., Files]:
    """Write neighbors and metrics of models (name -> its neighbors); return what ``compare`` is called with."""

    def searched(
        models: Mapping[str, Mapping[str, Sequence[tuple[str, float]]]],
        indexes: Sequence[str] = ("flat",),
        truth: Sequence[tuple[str, str]] = tuple(TRUTH.items()),
        groups: Mapping[str, str] | None = None,
    ) -> Files:
        images, matches = tmp_path / "images.parquet", tmp_path / "truth.parquet"
        store.write_table(images_table(REFERENCES, QUERIES, groups), images, formats.IMAGES, {})
        store.write_table(truth_table(truth), matches, formats.TRUTH, {})
        metrics, neighbors = [], []
        for model, found in models.items():
            timing = tmp_path / f"{model}.timing.json"
            store.write_json(EmbedTiming(images=50, seconds=2.0, load_seconds=1.0, device="cpu", batch_size=1), timing)
            for index in indexes:
                neighbors.append(tmp_path / "neighbors" / model / f"{index}.parquet")
                metrics.append(tmp_path / "metrics" / model / f"{index}.json")
                footer = {"model": model, "index": index, "k": 3}
                store.write_table(neighbors_table(found), neighbors[-1], formats.NEIGHBORS, footer)
                measure(
                    neighbors=neighbors[-1],
                    truth=matches,
                    images=images,
                    rejected=[],
                    timings=[timing],
                    search_timing=tmp_path / "none.json",
                    out=metrics[-1],
                    dataset="animals",
                    model=model,
                    index=index,
                    k=3,
                )
        return {
            "experiment": "mine",
            "metrics": metrics,
            "neighbors": neighbors,
            "truth": matches,
            "images": images,
            "models": list(models),
            "kinds": {},
            "leaderboard_out": tmp_path / "leaderboard.csv",
            "comparisons_out": tmp_path / "comparisons.json",
        }

    return searched


def comparisons(files: Files) -> dict[tuple[str, str, str, str], formats.Comparison]:
    compare(**files)
    record = store.read_json(files["comparisons_out"], Comparisons)
    assert record.experiment == "mine"
    return {(one.index, one.metric, one.a, one.b): one for one in record.comparisons}


def leaderboard(files: Files) -> list[dict[str, str]]:
    with Path(files["leaderboard_out"]).open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_two_models_meet_on_every_index_and_metric(searched: Callable[..., Files]) -> None:
    files = searched({"c": neighbors_of(1), "a": neighbors_of(9), "b": neighbors_of(9)}, indexes=["flat", "hnsw"])
    found = list(comparisons(files))
    assert found == [
        (index, metric, *pair)
        for index in ["flat", "hnsw"]
        for metric in ["accuracy_at_1", "accuracy_at_3", "recall_at_3"]
        for pair in [("c", "a"), ("c", "b"), ("a", "b")]
    ]


def test_better_worse_and_cannot_tell(searched: Callable[..., Files]) -> None:
    # Of 20 queries good finds 15, near 13 of these, bad 2 of these.
    # good - near: 2 to 0, p = 2 / 2**2 = 0.5. good - bad: 13 to 0, p = 2 / 2**13. near - bad: 11 to 0, p = 2 / 2**11.
    # Holm, three pairs: the smallest times 3, the next times 2, the last times 1.
    found = comparisons(searched({"good": neighbors_of(15), "bad": neighbors_of(2), "near": neighbors_of(13)}))
    good_bad = found["flat", "accuracy_at_1", "good", "bad"]
    good_near = found["flat", "accuracy_at_1", "good", "near"]
    bad_near = found["flat", "accuracy_at_1", "bad", "near"]
    assert (good_bad.p, good_bad.p_holm) == pytest.approx((2 / 2**13, 6 / 2**13))
    assert (bad_near.p, bad_near.p_holm) == pytest.approx((2 / 2**11, 4 / 2**11))
    assert (good_near.p, good_near.p_holm) == pytest.approx((0.5, 0.5))
    assert (good_bad.verdict, bad_near.verdict, good_near.verdict) == ("better", "worse", "cannot tell")
    assert (good_bad.difference.value, good_bad.difference.n) == (0.65, 20)
    assert 0.4 < good_bad.difference.low < 0.65 < good_bad.difference.high < 0.9
    assert bad_near.difference.value == -0.55
    assert good_near.difference.low <= 0


def test_a_correction_is_within_one_index(searched: Callable[..., Files]) -> None:
    models = {"good": neighbors_of(15), "bad": neighbors_of(9)}
    one = comparisons(searched(models))["flat", "recall_at_3", "good", "bad"]
    two = comparisons(searched(models, indexes=["flat", "hnsw"]))["hnsw", "recall_at_3", "good", "bad"]
    assert one.p == one.p_holm == two.p_holm == pytest.approx(2 / 2**6)


def test_queries_of_one_photograph_prove_less(searched: Callable[..., Files]) -> None:
    groups = {query: f"photograph-{number // 5}" for number, query in enumerate(QUERIES)}
    models = {"good": neighbors_of(20), "bad": neighbors_of(0)}
    alone = comparisons(searched(models))["flat", "accuracy_at_1", "good", "bad"]
    together = comparisons(searched(models, groups=groups))["flat", "accuracy_at_1", "good", "bad"]
    assert (alone.p, together.p) == pytest.approx((2 / 2**20, 2 / 2**4))
    assert (alone.verdict, together.verdict) == ("better", "cannot tell")
    # below ten groups as if each were won or lost: from a share of 0.51 of four up, which is a difference of 0.02
    assert (together.difference.low, together.difference.high) == (2 * wilson(4, 4)[0] - 1, 1)


def test_metrics_without_a_number_are_compared_with_nothing(searched: Callable[..., Files]) -> None:
    files = searched({"a": neighbors_of(3), "b": neighbors_of(1)}, truth=[])
    one = comparisons(files)["flat", "accuracy_at_1", "a", "b"]
    assert (one.difference.value, one.difference.n, one.p, one.p_holm, one.verdict) == (None, 0, 1, 1, "cannot tell")
    row = leaderboard(files)[0]
    assert (row["value"], row["low"], row["high"], row["n"]) == ("", "", "", "0")


def test_one_model_has_nobody_to_meet(searched: Callable[..., Files]) -> None:
    files = searched({"a": neighbors_of(3)})
    assert comparisons(files) == {}
    assert len(leaderboard(files)) == 4


def test_the_leaderboard_is_tidy_and_exact(searched: Callable[..., Files]) -> None:
    files = searched({"a": neighbors_of(7), "b": neighbors_of(5)})
    compare(**files)
    rows = leaderboard(files)
    assert tuple(rows[0]) == formats.LEADERBOARD_COLUMNS
    assert [(row["model"], row["index"], row["metric"]) for row in rows] == [
        (model, "flat", metric)
        for model in ["a", "b"]
        for metric in ["accuracy_at_1", "accuracy_at_3", "recall_at_3", "images_per_second"]
    ]
    low, high = wilson(7, 20)
    assert (float(rows[0]["value"]), float(rows[0]["low"]), float(rows[0]["high"])) == (0.35, low, high)
    assert rows[0]["n"] == "20"
    assert [rows[3][column] for column in ("value", "low", "high", "n")] == ["25.0", "", "", "50"]


def test_without_timings_there_is_no_throughput_row(searched: Callable[..., Files], tmp_path: Path) -> None:
    files = searched({"a": neighbors_of(7)})
    record = store.read_json(files["metrics"][0], Metrics)
    store.write_json(record.model_copy(update={"timing": {}}), files["metrics"][0])
    compare(**files)
    assert [row["metric"] for row in leaderboard(files)] == ["accuracy_at_1", "accuracy_at_3", "recall_at_3"]


def test_neighbors_of_another_model_are_refused(searched: Callable[..., Files]) -> None:
    files = searched({"a": neighbors_of(3), "b": neighbors_of(1)})
    files["neighbors"].reverse()
    with pytest.raises(
        LookalikeError, match=r"b.flat\.parquet: was made for model 'b', index 'flat' and k = 3, expect"
    ):
        compare(**files)
    assert not files["leaderboard_out"].exists()


def test_neighbors_with_another_k_are_refused(searched: Callable[..., Files]) -> None:
    files = searched({"a": neighbors_of(3), "b": neighbors_of(1)})
    table = neighbors_table(neighbors_of(1))
    store.write_table(table, files["neighbors"][1], formats.NEIGHBORS, {"model": "b", "index": "flat", "k": 5})
    with pytest.raises(LookalikeError, match="k = 5, expected 'b', 'flat' and 3"):
        compare(**files)


def test_a_missing_model_is_refused(searched: Callable[..., Files]) -> None:
    files = searched({"a": neighbors_of(3), "b": neighbors_of(1)})
    with pytest.raises(LookalikeError, match=r"experiments\.mine: .* found 0 of model 'c' with index 'flat'"):
        compare(**{**files, "models": ["a", "b", "c"]})
    twice = {**files, "metrics": files["metrics"][:1] * 2, "neighbors": files["neighbors"][:1] * 2, "models": ["a"]}
    with pytest.raises(LookalikeError, match="found 2 of model 'a'"):
        compare(**twice)
    with pytest.raises(LookalikeError, match="got 1 for 2"):
        compare(**{**files, "neighbors": files["neighbors"][:1]})


def test_models_that_saw_other_bytes_are_refused(searched: Callable[..., Files]) -> None:
    files = searched({"a": neighbors_of(3), "b": neighbors_of(1)})
    path = files["neighbors"][1]
    footer = store.read_provenance(path) | {"pictures_sha256": "other"}
    store.write_table(store.read_table(path, formats.NEIGHBORS), path, formats.NEIGHBORS, footer)
    with pytest.raises(LookalikeError, match=r"b.flat\.parquet: model 'b' saw other pictures than 'a': "):
        compare(**files)


def test_models_on_other_data_sets_are_refused(searched: Callable[..., Files]) -> None:
    files = searched({"a": neighbors_of(3), "b": neighbors_of(1)})
    record = store.read_json(files["metrics"][1], Metrics)
    store.write_json(record.model_copy(update={"dataset": "plants"}), files["metrics"][1])
    with pytest.raises(LookalikeError, match="is of data set 'plants'"):
        compare(**files)
