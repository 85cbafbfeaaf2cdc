"""Fusion of two models' neighbors: the example of docs/export-and-fusion.md, ties, and what each can gain."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from typer.testing import CliRunner

import lookalike as la
import tiny
from conftest import REPOSITORY, made_image
from lookalike.cli.fusion import WAYS, fuse
from lookalike.cli.main import app
from lookalike.io import store
from lookalike.io.formats.records import Metrics
from lookalike.io.formats.tables import IMAGES, NEIGHBORS, TRUTH
from lookalike.metrics.ranking import at_k, rank
from lookalike.metrics.rates import NOTHING
from tables import MADE, images_table, neighbors_table, truth_table

SAMPLE = images_table(["barn", "cat", "dune", "elk"], ["q", "p"])


def order(table: pa.Table, query: str = "q") -> list[tuple[str, float]]:
    return [(row["reference_id"], row["score"]) for row in table.to_pylist() if row["query_id"] == query]


def test_the_example_of_the_docs() -> None:
    first = neighbors_table({"q": [("barn", 0.9), ("cat", 0.7), ("dune", 0.5)]})
    second = neighbors_table({"q": [("cat", 0.6), ("barn", 0.5), ("elk", 0.1)]})
    # first model: mean 0.7, deviation 0.163; second: mean 0.4, deviation 0.216
    # barn 1.22 + 0.46 = 1.69, cat 0 + 0.93 = 0.93, dune -1.22 - 1.39 = -2.61, elk -1.22 - 1.39 = -2.61: a tie
    assert order(fuse([first, second], SAMPLE, "sum")) == [("barn", 0), ("cat", -1), ("dune", -2), ("elk", -2)]
    # barn 1/61 + 1/62, cat 1/62 + 1/61: a tie that the sum decides
    assert [name for name, _ in order(fuse([first, second], SAMPLE, "reciprocal-rank"))][:2] == ["barn", "cat"]


@pytest.mark.parametrize("way", WAYS)
def test_two_equal_models_rank_as_one(way: str) -> None:
    table = neighbors_table({"q": [("barn", 0.9), ("cat", 0.8), ("dune", 0.8)], "p": [("elk", 0.3), ("cat", 0.2)]})
    fused = fuse([table, table], SAMPLE, way)
    assert order(fused) == [("barn", 0), ("cat", -1), ("dune", -1)]
    assert order(fused, "p") == [("elk", 0), ("cat", -1)]
    assert fused["rank"].to_pylist() == [1, 2, 1, 2, 3] or fused["rank"].to_pylist() == [1, 2, 3, 1, 2]


@pytest.mark.parametrize("way", WAYS)
def test_constant_scores_still_earn_nothing(way: str) -> None:
    tables = [neighbors_table({"q": [(name, 0.5) for name in names]}) for names in (("barn", "cat"), ("cat", "barn"))]
    fused = fuse(tables, SAMPLE, way)
    outcomes = at_k(rank(fused, truth_table([("q", "barn")]), SAMPLE, searched=4, kept=2), 1)
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


def test_whether_clip_and_dinov2_together_beat_both_is_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tiny networks of both architectures with random weights; the command of docs/export-and-fusion.md."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    names, k = [f"r{number}" for number in range(24)], 5
    queries = {f"q{number}": names[number] for number in range(20)}
    originals = [made_image(number) for number in range(24)]
    altered = [one.crop((3, 2, one.width, one.height)).convert("L").convert("RGB") for one in originals[:20]]
    images, truth = images_table(names, list(queries)), truth_table(list(queries.items()))
    made = {"clip-vit-b32": tiny.clip(tmp_path / "clip"), "dinov2-base-mean": tiny.dinov2(tmp_path / "dinov2")}
    experiments = {"disc21": {"dataset": "own", "models": list(made)}}
    datasets = {"own": {"kind": "folder", "root": "x", "queries": "y", "truth": "t.csv", "k": k}}
    Path("mine.yaml").write_text(yaml.safe_dump({"datasets": datasets, "experiments": experiments}))
    results = tmp_path / "results/own"
    store.write_table(images, results / "sample/images.parquet", IMAGES, MADE)
    store.write_table(truth, results / "sample/truth.parquet", TRUTH, MADE)
    accuracy = {}
    for model, checkpoint in made.items():
        feature = (
            {"feature": "last_hidden_state", "pooling": "mean"} if "mean" in model else {"feature": "image_features"}
        )
        loaded = la.load_model({"family": "transformers", "checkpoint": str(checkpoint), **feature}, threads=1)
        vectors = loaded.embed([*originals, *altered])
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        scores = vectors[24:] @ vectors[:24].T
        best = np.argsort(-scores, axis=1)[:, : k + 1]
        found = {
            query: [(names[column], float(scores[row, column])) for column in best[row]]
            for row, query in enumerate(queries)
        }
        neighbors = neighbors_table(found)
        store.write_table(neighbors, results / f"neighbors/{model}/flat.parquet", NEIGHBORS, MADE | {"k": k})
        outcomes = at_k(rank(neighbors, truth, images, searched=24, kept=k + 1), k)["accuracy_at_1"]
        assert outcomes is not None
        accuracy[model] = outcomes.mean()
        record = Metrics(
            **{"dataset": "own", "model": model, "index": "flat", "references": 24, "queries": 20, "groups": 20},
            **{"rejected_references": 0, "rejected_queries": 0, "breakdowns": {}, "timing": {}},
            metrics={"accuracy_at_1": NOTHING},
            sample_sha256=MADE["sample_sha256"],
        )
        store.write_json(record, results / f"metrics/{model}/flat.json")
    command = "fuse disc21 clip-vit-b32 dinov2-base-mean"
    assert f"lookalike {command}" in (REPOSITORY / "docs/export-and-fusion.md").read_text()
    result = CliRunner().invoke(app, [*command.split(), "--configfile", "mine.yaml", "--json"])
    assert result.exit_code == 0, result.output
    rows = {row["name"]: row for row in json.loads(result.output)["rows"]}
    assert {name: rows[name]["metrics"]["accuracy_at_1"] for name in made} == accuracy
    for way in WAYS:
        answer = rows[f"fused: {way}"]
        assert 0 <= answer["metrics"]["accuracy_at_1"] <= 1
        assert [one["model"] for one in answer["against"]] == list(made), "is it better than each of them?"
        assert {one["verdict"] for one in answer["against"]} <= {"better", "worse", "cannot tell"}
