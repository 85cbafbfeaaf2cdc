"""`lookalike find` up to the workflow: where it searches, with which model, and when it needs a run."""

import json
import shutil
import socket
from pathlib import Path

import pytest
import uvicorn
import yaml
from starlette.testclient import TestClient
from typer.testing import CliRunner, Result

from conftest import ImageFolder, made_image
from lookalike.cli import runs, workflow_run
from lookalike.cli.main import app
from lookalike.cli.workflow_run import Workflow
from lookalike.embed import catalogue, embed
from lookalike.embed.fetch_weights import fetch_weights
from lookalike.index.build import IndexJob, build
from lookalike.io import store
from lookalike.io.formats.answers import Answer
from lookalike.io.formats.base import Estimate
from lookalike.io.formats.records import Comparisons
from lookalike.job.errors import LookalikeError
from lookalike.plan.plan import Plan
from lookalike.sample import sample as datasets
from lookalike.sample.shard import ShardJob, write_shards

NONE = {"estimate": Estimate(value=None, low=None, high=None, n=0)}


@pytest.fixture
def calls(tmp_path: Path, image_folder: ImageFolder, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The options of each run that `find` started; a run calls the stages' functions in this process."""
    image_folder(tmp_path / "Pictures", 8)
    made_image(3).save(tmp_path / "photo.png")
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("LOOKALIKE_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    started: list[list[str]] = []

    def run(workflow: Workflow, options: list[str], *, verbose: bool, again: str) -> None:
        started.append([*options, *workflow.targets])
        monkeypatch.chdir(workflow.folder)
        index_folder(Plan.of(merged(workflow)), workflow.targets[0])
        monkeypatch.chdir(tmp_path)

    monkeypatch.setattr(workflow_run, "run", run)
    return started


def merged(workflow: Workflow) -> dict[str, object]:
    raw = catalogue.read(catalogue.find())
    for file in workflow.configfiles:
        raw = catalogue.merge(raw, catalogue.read(file))
    return dict(raw)


def index_folder(plan: Plan, target: str) -> None:
    """What Snakemake would run to make an index."""
    _, name, _, model, _ = Path(target).parts
    sample, truth = (f"results/{name}/sample/{table}.parquet" for table in ("images", "truth"))
    shutil.rmtree(f"results/{name}", ignore_errors=True)
    datasets.sample(datasets.SampleJob(name, plan.dataset_key(name), None, sample, truth))
    write_shards(ShardJob(sample, truth, plan.shard_key(name), plan.shard_files(name)))
    weights, key, code = plan.weights(model), plan.embedding_key(model), plan.code("embed", model=model)
    fetch_weights(key, weights)
    embeddings, rejected = plan.embeddings(name, model), plan.rejected(name, model)
    for shard, out, bad in zip(plan.shard_files(name), embeddings, rejected, strict=True):
        files = {"shard": shard, "weights": weights, "out": out, "rejected_out": bad, "timing_out": "embed.json"}
        job = embed.EmbedJob(**files, model=model, key=key, code=code, batch_size=4, threads=1, gpu=False)
        embed.embed_shard(job)
    outs = {"ids_out": target.replace(".faiss", ".ids.parquet"), "images_out": target.replace(".faiss", ".im.parquet")}
    keys = {"key": plan.index_key("flat"), "embedding_key": key, "embedding_code": code, "on_bad_image": "reject"}
    build(IndexJob(embeddings=embeddings, rejected=rejected, images=sample, out=target, **outs, **keys))


def find(*arguments: str, status: int = 0) -> Result:
    result = CliRunner().invoke(app, ["find", *arguments])
    assert result.exit_code == status, result.output
    return result


def test_a_folder_is_embedded_once_and_again_only_where_it_changed(
    calls: list[list[str]], image_folder: ImageFolder
) -> None:
    options = ("Pictures", "--model", "pixels", "--json", "--no-sheet")
    found = json.loads(find("photo.png", *options).stdout)
    assert [(row["rank"], row["path"]) for row in found["neighbors"][:1]] == [
        (1, str(Path("Pictures/p3.png").resolve()))
    ]
    assert len(found["neighbors"]) == 5
    assert (len(calls), calls[0][0]) == (1, f"results/{found['dataset']}/indexes/pixels/flat.faiss")
    assert json.loads(find("photo.png", *options).stdout) == found
    assert len(calls) == 1, "nothing had changed"
    image_folder(Path("Pictures/more"), 2, first=20)
    made_image(21).save("photo.png")
    again = json.loads(find("photo.png", *options).stdout)
    assert again["neighbors"][0]["image_id"] == "more/p21.png"
    assert calls[1] == ["--forcerun", f"results/{found['dataset']}/sample/images.parquet", calls[0][0]]
    find("photo.png", "Pictures", "--model", "color-histogram", "--no-sheet")
    assert calls[2] == [calls[0][0].replace("pixels", "color-histogram")]


def test_an_index_of_other_settings_is_made_again(calls: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    find("photo.png", "Pictures", "--model", "pixels", "--no-sheet")
    monkeypatch.setattr(Plan, "code", lambda self, stage, **of: "edited")
    find("photo.png", "Pictures", "--model", "pixels", "--no-sheet")
    assert len(calls) == 2


def test_a_folder_without_images_is_refused_before_a_run(calls: list[list[str]], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert find("photo.png", "empty", status=1).stderr.startswith("lookalike: FOLDER: 'empty' contains no images (")
    assert calls == []
    assert not [*(tmp_path / "home").glob("empty*")]


def test_without_a_comparison_the_largest_local_model_searches(calls: list[list[str]]) -> None:
    result = find("photo.png", "Pictures", "--no-sheet")
    sizes = {row["model"]: row["about"].get("parameters", 0) for row in listed() if row["local"]}
    best = max(sizes, key=lambda name: sizes[name])
    assert f"model: {best}, the largest that is available locally" in result.stderr
    Path("my photo.png").write_bytes(Path("photo.png").read_bytes())
    assert find("my photo.png", status=1).stderr.endswith("lookalike find 'my photo.png' FOLDER\n")
    assert find("photo.png", status=1).stderr == (
        "lookalike: there is no comparison yet. Add the folder to search: lookalike find photo.png FOLDER\n"
    )


def listed() -> list[dict[str, dict[str, int]]]:
    return list(json.loads(CliRunner().invoke(app, ["models", "--json"]).stdout)["models"])


def test_a_broken_image_is_refused_before_anything_is_embedded(calls: list[list[str]]) -> None:
    Path("broken.jpg").write_bytes(b"no image")
    assert find("broken.jpg", "Pictures", status=1).stderr.startswith("lookalike: broken.jpg: is text, not an image.")
    assert not calls


def test_what_contradicts_is_a_usage_error(calls: list[list[str]]) -> None:
    for options in (["Pictures", "--experiment", "demo"], ["--index", "flat"], ["--sheet", "a.png", "--no-sheet"]):
        find("photo.png", *options, status=2)


def test_a_comparison_of_a_folder_serves_all_of_its_images(
    calls: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    configfile = Path("home/mine.yaml").resolve()
    configfile.write_text(yaml.safe_dump({"experiments": {"mine": {"dataset": "coco", "models": ["pixels"]}}}))
    answer = Answer(need="someone_looks", metric="accuracy_at_1", index="flat", verdict="only", best=["pixels"], **NONE)
    made = Comparisons(experiment="mine", comparisons=[], answers={"someone_looks": answer})
    store.write_json(made, "home/results/reports/mine/comparisons.json")
    runs.remember(runs.Run(folder=str(Path("Pictures").resolve()), experiment="mine", configfile=str(configfile)))
    images: list[int] = []

    def run(started: uvicorn.Server, sockets: list[socket.socket]) -> None:
        with TestClient(started.config.app, base_url="http://localhost") as client:
            images.append(client.get("/facts").json()["images"])

    monkeypatch.setattr(uvicorn.Server, "run", run)
    result = CliRunner().invoke(app, ["serve", "--port", "0"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("http://127.0.0.1:")
    assert (images, len(calls)) == ([8], 1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        busy = CliRunner().invoke(app, ["serve", "mine", "--port", port])
    assert busy.stderr.startswith(f"lookalike: --host 127.0.0.1 --port {port}: cannot be listened on (")
    found = CliRunner().invoke(app, ["find", "photo.png", "--no-sheet"])
    why = "which ranks the right image first most often in mine"
    assert found.stderr == f"model: pixels, {why}\n", "in the folder of the last comparison"
    shutil.rmtree("home/results/reports")
    assert "the largest that is available locally" in CliRunner().invoke(app, ["find", "photo.png"]).stderr


def test_runs_are_remembered_each_in_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_HOME", str(tmp_path))
    for name in ("a", "b", "a"):
        (tmp_path / f"{name}.yaml").write_text("{}")
        runs.remember(runs.Run(folder=f"/{name}", experiment=name, configfile=str(tmp_path / f"{name}.yaml")))
    assert [run.experiment for run in runs.remembered()] == ["a", "b"]
    (tmp_path / "a.yaml").unlink()
    assert [run.experiment for run in runs.remembered()] == ["b"], "what was deleted is not the last run"
    with pytest.raises(LookalikeError, match=r"comparisons.json is missing. Run: lookalike compare /b"):
        runs.finished(None)
    with pytest.raises(LookalikeError, match=r"there is no comparison or experiment 'deno'. Did you mean 'demo'"):
        runs.finished("deno")
