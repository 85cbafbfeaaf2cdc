"""Export for TREC's evaluators: they compute the same metrics from the files."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import pytrec_eval
import yaml
from typer.testing import CliRunner

from lookalike.cli import runs, trec
from lookalike.cli.main import app
from lookalike.io import store
from lookalike.io.formats.records import Cost, Metrics
from lookalike.io.formats.tables import IMAGES, NEIGHBORS, TRUTH
from lookalike.metrics.ranking import at_k, rank
from lookalike.metrics.rates import NOTHING
from tables import MADE, images_table, neighbors_table, truth_table

REFERENCES = [f"r {number}.jpg" for number in range(60)]  # with a space, as names of photographs have
QUERIES = [f"q/{number}%20.jpg" for number in range(40)]
K = 10


def searched(seed: int, *, kept: int = K + 1) -> dict[str, list[tuple[str, float]]]:
    """Neighbors at random, without ties; the last query was rejected."""
    rng = np.random.default_rng(seed)
    found = {}
    for query in QUERIES[:-1]:
        scores = np.sort(rng.random(kept).astype(np.float32))[::-1].tolist()
        found[query] = list(zip(rng.choice(REFERENCES, kept, replace=False).tolist(), scores, strict=True))
    return found


def some_truth() -> pa.Table:
    """One to three matches for most queries, none for every fifth."""
    rng = np.random.default_rng(7)
    pairs = [
        (query, reference)
        for number, query in enumerate(QUERIES)
        if number % 5
        for reference in rng.choice(REFERENCES, 1 + number % 3, replace=False).tolist()
    ]
    return truth_table(pairs)


def read_run(lines: list[str]) -> dict[str, dict[str, float]]:
    run: dict[str, dict[str, float]] = {}
    for line in lines:
        query, _, reference, _, score, _ = line.split()
        run.setdefault(query, {})[reference] = float(score)
    return run


def read_qrels(lines: list[str]) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    for line in lines:
        query, zero, reference, relevant = line.split()
        assert zero == "0"
        qrels.setdefault(query, {})[reference] = int(relevant)
    return qrels


@pytest.mark.parametrize("seed", range(3))
def test_trec_eval_agrees(seed: int) -> None:
    found, truth = searched(seed), some_truth()
    images, neighbors = images_table(REFERENCES, QUERIES), neighbors_table(found)
    outcomes = at_k(rank(neighbors, truth, images, searched=60, kept=K + 1), K)
    qrels = read_qrels(list(trec.qrels(truth, images)))
    run = read_run(list(trec.run(neighbors, K, "pixels")))
    names = {"accuracy_at_1": "success_1", "recall_at_10": "recall_10", "mrr": "recip_rank", "map": "map"}
    judged = pytrec_eval.RelevanceEvaluator(qrels, {"success.1", "recall.10", "recip_rank", "map"}).evaluate(run)
    assert len(qrels) == 32
    assert len(judged) == 31  # a rejected query is not in the run: trec_eval -c counts it as a miss, as we do
    for ours, theirs in names.items():
        values = outcomes[ours]
        assert values is not None
        assert values.sum() == pytest.approx(sum(query[theirs] for query in judged.values()), rel=1e-9), ours


def test_ids_are_one_column_whatever_is_in_them() -> None:
    odd = ["a b.jpg", "a%20b.jpg", "tab\there", "ñandú 鳥.png", "new\nline", "no\u00a0break"]
    tokens = [trec.token(image_id) for image_id in odd]
    assert len(set(tokens)) == len(odd)
    assert all(token.split() == [token] and token.isascii() for token in tokens)
    assert trec.token("folder/a-1_(2).jpg") == "folder/a-1_(2).jpg"


def test_scores_keep_every_digit_so_that_no_tie_is_made() -> None:
    scores = [0.5, float(np.nextafter(np.float32(0.5), np.float32(0)))]
    lines = list(trec.run(neighbors_table({"q": [("a", scores[0]), ("b", scores[1])]}), 2, "x"))
    assert [np.float32(line.split()[4]) for line in lines] == [np.float32(score) for score in scores]


def test_qrels_of_a_labelled_collection_are_its_classes() -> None:
    ids = [f"i{number}" for number in range(200)]
    images = images_table(ids, ids).append_column("class", pa.array([str(number % 4) for number in range(200)]))
    qrels = read_qrels(list(trec.qrels(truth_table([]), images)))
    assert len(qrels) == 200
    assert qrels["i5"] == {f"i{number}": 1 for number in range(1, 200, 4) if number != 5}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The results of an experiment with two models, as far as the commands read them."""
    monkeypatch.chdir(tmp_path)
    config = {
        "run": ["mine"],
        "datasets": {"own": {"kind": "folder", "root": "x", "queries": "y", "truth": "t.csv"}},
        "experiments": {"mine": {"dataset": "own", "models": ["pixels", "color-histogram"]}},
    }
    Path("mine.yaml").write_text(yaml.safe_dump(config))
    folder = tmp_path / "results/own"
    store.write_table(images_table(REFERENCES, QUERIES), folder / "sample/images.parquet", IMAGES, MADE)
    store.write_table(some_truth(), folder / "sample/truth.parquet", TRUTH, MADE)
    for number, model in enumerate(("pixels", "color-histogram")):
        path = folder / f"neighbors/{model}/flat.parquet"
        store.write_table(neighbors_table(searched(number)), path, NEIGHBORS, MADE | {"k": K})
        record = Metrics(
            **{"dataset": "own", "model": model, "index": "flat", "references": 60, "queries": 40, "groups": 32},
            rejected_references=0,
            rejected_queries=1,
            metrics={"accuracy_at_1": NOTHING},
            breakdowns={},
            timing={"embed": {"images_per_second": 100.0 * (number + 1)}},
            cost=Cost(dimension=8, stored_dtype="float32", vector_bytes=32, vectors=60, index_bytes=2000),
            sample_sha256=MADE["sample_sha256"],
        )
        store.write_json(record, folder / f"metrics/{model}/flat.json")
    return folder


def call(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, [*arguments, "--configfile", "mine.yaml"])
    assert result.exit_code == status, result.output
    return result.output


def test_the_command_writes_a_run_per_model_and_the_qrels(results: Path) -> None:
    output = call("export", "--trec", "mine")
    assert output.split() == ["mine-trec/pixels.flat.run", "mine-trec/color-histogram.flat.run", "mine-trec/qrels"]
    lines = Path("mine-trec/pixels.flat.run").read_text().splitlines()
    assert len(lines) == 39 * K  # not the one more that search keeps
    assert lines[0].split()[0] == "q/0%2520.jpg"
    assert len(read_qrels(Path("mine-trec/qrels").read_text().splitlines())) == 32


def test_export_needs_a_format_and_a_finished_run(results: Path) -> None:
    assert "choose a format: --trec" in call("export", "mine", status=2)
    (results / "neighbors/pixels/flat.parquet").unlink()
    message = call("export", "--trec", "mine", status=1)
    assert "results/own/neighbors/pixels/flat.parquet: is missing. Run it: snakemake --cores 2" in message
    assert not Path("mine-trec").exists()


def test_a_comparison_is_found_by_its_name_alone(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Path("mine.yaml").resolve().parent
    monkeypatch.setenv("LOOKALIKE_HOME", str(home))
    runs.remember(runs.Run(folder="/x", experiment="mine", configfile=str(home / "mine.yaml")))
    (home / "elsewhere").mkdir()
    monkeypatch.chdir(home / "elsewhere")
    for command in (["export", "--trec", "mine"], ["fuse", "mine", "pixels", "color-histogram"]):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
    assert Path("mine-trec/qrels").exists()


def test_fusion_is_compared_with_each_model_and_costs_what_both_cost(results: Path) -> None:
    told = json.loads(call("fuse", "mine", "pixels", "color-histogram", "--json"))
    rows = {row["name"]: row for row in told["rows"]}
    assert list(rows) == ["pixels", "color-histogram", "fused: sum", "fused: reciprocal-rank"]
    assert {row["n"] for row in rows.values()} == {32}
    assert (rows["fused: sum"]["dimension"], rows["fused: sum"]["bytes_per_vector"]) == (16, 64)
    assert rows["fused: sum"]["images_per_second"] == pytest.approx(1 / (1 / 100 + 1 / 200))
    assert [one["model"] for one in rows["fused: sum"]["against"]] == ["pixels", "color-histogram"]
    assert {one["verdict"] for row in rows.values() for one in row["against"]} == {"cannot tell"}
    ours = rows["pixels"]["metrics"]["accuracy_at_1"]
    exact = at_k(
        rank(neighbors_table(searched(0)), some_truth(), images_table(REFERENCES, QUERIES), searched=60, kept=K + 1), K
    )
    assert exact["accuracy_at_1"] is not None
    assert ours == exact["accuracy_at_1"].mean()
    assert "fused: sum" in call("fuse", "mine", "pixels", "color-histogram")


def test_fusion_refuses_models_that_the_experiment_lacks(results: Path) -> None:
    assert "two or more different models" in call("fuse", "mine", "pixels", "pixels", status=2)
    assert "model of 'mine' 'dinov2-base' is not defined" in call("fuse", "mine", "pixels", "dinov2-base", status=1)
