"""What runs again, and what does not: counted in executed jobs. The recipes are those of docs/reruns.md."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import REPOSITORY, made_image
from lookalike.io import store
from lookalike.io.formats.records import EmbedTiming
from lookalike.io.formats.tables import NEAR_DUPLICATES
from workflow.conftest import MINE, SHARDS, Tree, built_once

RECIPES = (REPOSITORY / "docs/reruns.md").read_text()
BELOW_METRICS = {"compare", "report"}
BELOW_EMBED = {"index", "search", "audit", "project", "measure", *BELOW_METRICS}
BELOW_FIRST = {*BELOW_EMBED, "find_duplicates"}  # of an experiment's first model, by what it saw


def test_a_finished_run_has_every_file_of_every_stage(finished: Tree) -> None:
    results = finished.folder / "results"
    for path in (
        "copies/images/manifest.parquet",
        "copies/images/queries-00001.zip",
        "copies/sample/images.parquet",
        "copies/sample/truth.parquet",
        "copies/sample/shards/references-00000.parquet",
        "weights/pixels/weights.json",
        "copies/embeddings/pixels/queries-00000.parquet",
        "copies/rejected/pixels/queries-00000.parquet",
        "copies/indexes/pixels/flat.faiss",
        "copies/indexes/pixels/flat.ids.parquet",
        "copies/indexes/pixels/flat.images.parquet",
        "copies/neighbors/pixels/flat.parquet",
        "copies/neighbors/pixels/flat.candidates.parquet",
        "copies/sample/near_duplicates.parquet",
        "copies/audit/pixels/flat.parquet",
        "copies/map/pixels/flat.parquet",
        "copies/metrics/pixels/flat.json",
        "reports/mine/leaderboard.csv",
        "reports/mine/comparisons.json",
        "reports/mine/index.html",
        "logs/embed/copies/pixels/queries-00000.log",
        "logs/embed/copies/pixels/queries-00000.json",
    ):
        assert (results / path).stat().st_size, path


def test_a_second_run_has_nothing_to_do(tree: Tree) -> None:
    shutil.rmtree(tree.folder / "results/vector_store")  # no job's input or output
    assert tree.would_run().jobs == []


def test_touching_every_file_runs_nothing(tree: Tree) -> None:
    for path in sorted(tree.folder.rglob("*"), reverse=True):
        os.utime(path)
    assert tree.would_run().jobs == []


def test_other_options_of_running_a_model_or_another_label_embed_nothing(tree: Tree) -> None:
    config = tree.config
    config["models"] = {"pixels": {"runtime": {"batch_size": 3, "mem_mb": 999, "threads": 3}}}
    tree.configure(config)
    assert tree.would_run().jobs == []
    config["models"]["pixels"]["label"] = "Tiny images"
    tree.configure(config)
    assert tree.run().jobs == ["report mine"]
    assert "Tiny images" in (tree.folder / "results/reports/mine/index.html").read_text()


def test_editing_a_models_entry_runs_that_model_only(tree: Tree) -> None:
    config = tree.config
    config["models"] = {"pixels": {"embed": {"size": 8}}}
    tree.configure(config)
    ran = tree.would_run()
    assert len(ran.of("embed")) == len(SHARDS)
    assert ran.rules == {"embed", *BELOW_FIRST}  # of the same weights, another size of thumbnail
    assert not [job for job in ran.jobs if "color-histogram" in job]


def test_other_queries_embed_only_new_images(tree: Tree) -> None:
    before = tree.bytes_of("results/copies/embeddings/*/references-*.parquet")
    config = tree.config
    config["datasets"]["copies"]["queries"] = 7
    tree.configure(config)
    ran = tree.run(*(f"results/copies/metrics/{model}/flat.json" for model in ("pixels", "color-histogram")))
    # one more image: one of the two shards of queries, under both models
    assert len(ran.of("embed")) == 2
    assert all("queries-" in job for job in ran.of("embed"))
    for job in ran.of("embed"):  # the other queries of that shard are in the vector store
        dataset, model, shard = job.split()
        timing = store.read_json(tree.folder / f"results/logs/embed/{dataset}/{model}/{shard}.json", EmbedTiming)
        vectors = tree.folder / f"results/{dataset}/embeddings/{model}/{shard}.parquet"
        assert (timing.images, timing.from_store) == (1, pq.read_metadata(vectors).num_rows - 1)
    assert tree.bytes_of("results/copies/embeddings/*/references-*.parquet") == before
    assert pq.read_table(tree.folder / "results/copies/sample/truth.parquet").num_rows == 7


def test_an_archive_of_copies_that_is_gone_is_made_again_and_a_changed_one_stops_the_run(tree: Tree) -> None:
    archive = tree.folder / "results/copies/images/queries-00000.zip"
    whole = archive.read_bytes()
    models = ("pixels", "color-histogram")
    targets = [f"results/copies/embeddings/{model}/{shard}.parquet" for model in models for shard in SHARDS]
    targets += [str(archive.relative_to(tree.folder)), "results/copies/sample/near_duplicates.parquet"]
    archive.unlink()
    ran = tree.run(*targets)
    assert "make_images_copies" in ran.rules
    assert ran.of("embed") == [], "the same bytes as before embed nothing"
    assert archive.read_bytes() == whole

    archive.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    output = tree.run(*targets, status=1).output
    remedy = ("--forcerun", "results/copies/images/manifest.parquet")
    assert f"A run made it; make it again: {' '.join(remedy)}" in output
    assert "Traceback" not in output
    ran = tree.run(*targets, options=remedy)
    assert set(ran.of("embed")) <= {f"copies {model} queries-00000" for model in models}
    assert archive.read_bytes() == whole
    assert tree.run(*targets).jobs == []


def test_keeping_more_neighbors_embeds_nothing(tree: Tree) -> None:
    config = tree.config
    config["datasets"]["copies"]["k"] = 4
    tree.configure(config)
    ran = tree.run("results/copies/metrics/pixels/flat.json")
    assert ran.of("embed") == []
    assert {"search", "measure"} <= ran.rules


def test_editing_the_metrics_measures_again_and_does_not_embed(tree: Tree) -> None:
    tree.edit("workflow_scripts/lookalike/metrics/pooled.py")
    ran = tree.would_run()
    assert ran.rules == {"measure", *BELOW_METRICS}
    assert len(ran.of("measure")) == 2


def test_other_groups_of_near_duplicates_measure_again_and_do_nothing_else(tree: Tree) -> None:
    path = tree.folder / "results/copies/sample/near_duplicates.parquet"
    groups, footer = store.read_table(path, NEAR_DUPLICATES), store.read_provenance(path)
    ids = pq.read_table(tree.folder / "results/copies/sample/images.parquet")["image_id"].to_pylist()
    merged = {"group": [ids[0]] * len(ids), "image_id": ids}
    assert groups.num_rows < len(ids)
    store.write_table(pa.table(merged, NEAR_DUPLICATES.schema()), path, NEAR_DUPLICATES, footer)
    assert tree.would_run().rules == {"measure", *BELOW_METRICS}


def test_without_near_duplicates_only_metrics_are_made_again(tree: Tree) -> None:
    config = tree.config
    config["datasets"]["copies"]["near_duplicates"] = False
    tree.configure(config)
    assert tree.would_run().rules == {"measure", *BELOW_METRICS}


def test_editing_a_family_embeds_that_family_only(tree: Tree) -> None:
    tree.edit("workflow_scripts/lookalike/embed/models/color_histogram.py")
    ran = tree.would_run()
    assert len(ran.of("embed")) == len(SHARDS)
    assert all("color-histogram" in job for job in ran.jobs if job.split()[0] not in BELOW_METRICS)
    assert ran.rules == {"embed", *BELOW_EMBED}


def test_adding_a_model_adds_its_jobs_the_comparison_and_the_report(tree: Tree) -> None:
    config = tree.config
    config["models"] = {"tiny": {"embed": {"family": "pixels", "size": 4}}}
    config["experiments"]["mine"]["models"].append("tiny")
    tree.configure(config)
    ran = tree.would_run()
    assert ran.of("fetch_weights") == []  # those of pixels, which are there
    assert len(ran.of("embed")) == len(SHARDS)
    assert all("tiny" in job for job in ran.jobs if job.split()[0] not in BELOW_METRICS)
    assert ran.rules >= BELOW_METRICS


OWN: dict[str, Any] = {
    "run": ["own"],
    "datasets": {
        "own": {
            "kind": "folder",
            "root": "photos",
            "queries": "queries",
            "truth": "truth.csv",
            "k": 3,
            "shards": {"references": 3},
        }
    },
    "experiments": {"own": {"dataset": "own", "models": ["pixels"]}},
}
TRUTH = "query_id,reference_id\np100.png,p{}.bmp\np101.png,p5.bmp\n"


def write_own(folder: Path) -> None:
    """References and queries in folders of their own, with a truth file."""
    for name, numbers, ending in (("photos", range(9), "bmp"), ("queries", (100, 101), "png")):
        (folder / name).mkdir(parents=True)
        for number in numbers:
            made_image(number).save(folder / name / f"p{number}.{ending}")
    (folder / "truth.csv").write_text(TRUTH.format(3))


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Tree:
    """A copy of a finished run over one's own images, in a folder that a NAS looks after."""

    def build(tree: Tree) -> None:
        write_own(tree.folder)
        tree.write_images("photos/@eaDir", 50)
        assert len(tree.run().of("embed")) == 4

    return built_once(tmp_path_factory, "own", OWN, build).copy(tmp_path / "tree")


def test_one_more_image_in_a_folder_embeds_one_shard(own: Tree) -> None:
    command = "snakemake --cores 2 --forcerun sample -- demo"
    assert command in RECIPES
    own.write_images("photos", 9)
    assert own.would_run().jobs == [], "a sample is a snapshot"
    ran = own.run("results/own/indexes/pixels/flat.faiss", options=("--forcerun", "sample"))
    assert len(ran.of("embed")) == 1
    assert pq.read_table(own.folder / "results/own/indexes/pixels/flat.ids.parquet").num_rows == 10


def test_an_edited_truth_file_is_measured_and_embeds_nothing(own: Tree) -> None:
    (own.folder / "truth.csv").write_text(TRUTH.format(4))
    ran = own.run()
    assert ran.of("embed") == []
    assert {"sample", "measure", "report"} <= ran.rules


def test_an_image_replaced_by_one_of_the_same_size_is_found_and_a_copy_without_dates_is_not(own: Tree) -> None:
    """The fixture has copied the run already: other dates and inodes, the same contents."""
    page = own.folder / "results/reports/own/index.html"
    assert "thumbnails that a Synology NAS keeps (@eaDir)" in page.read_text()
    (own.folder / "photos/more.NEF").write_bytes(b"MM")
    assert own.run("own", options=("--forcerun", "sample")).of("embed") == []
    assert ".nef files, which are camera raw" in page.read_text()

    file = own.folder / "photos/p4.bmp"
    size = file.stat().st_size
    made_image(77).save(file)
    assert file.stat().st_size == size
    ran = own.run("results/own/indexes/pixels/flat.faiss", options=("--forcerun", "sample"))
    assert len(ran.of("embed")) == 1
    rows = pq.read_table(own.folder / f"results/own/embeddings/pixels/{ran.of('embed')[0].split()[-1]}.parquet")
    hashes = dict(zip(rows["image_id"].to_pylist(), rows["sha256"].to_pylist(), strict=True))
    assert hashes["p4.bmp"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_braces_in_paths_are_no_wildcards(tmp_path: Path) -> None:
    """In the workflow's own folder, of its images and of its tables: nothing is filled in, and edits are seen."""
    places = {"root": "{q}/photos", "queries": "{q}/queries", "truth": "{q}/truth.csv", "shards": {"references": 1}}
    config = {**OWN, "datasets": {"own": OWN["datasets"]["own"] | places}}
    tree = Tree.new(tmp_path / "{dataset} of {x}", config)
    write_own(tree.folder / "{q}")
    index = "results/own/indexes/pixels/flat.faiss"
    assert len(tree.run(index).of("embed")) == 2
    assert tree.would_run(index).jobs == []
    (tree.folder / "{q}/truth.csv").write_text(TRUTH.format(4))
    assert tree.would_run(index).of("sample") == ["own"]


def test_models_that_saw_other_images_are_not_compared(tree: Tree) -> None:
    """An image edited in place, of the same size in bytes, before another model is added."""
    path = tree.folder / "photos/p3.png"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # behind the image's end: it still decodes
    path.write_bytes(data)
    config = tree.config
    config["models"] = {"tiny": {"embed": {"family": "pixels", "size": 4}}}
    config["experiments"]["mine"]["models"].append("tiny")
    tree.configure(config)
    output = tree.run(status=1).output
    assert "p3.png: has changed since the data set was sampled" in output
    assert "Traceback" not in output


def test_the_recipe_for_one_model_runs_that_model(tree: Tree) -> None:
    assert "snakemake --cores 2 --forcerun results/weights/pixels/weights.json -- demo" in RECIPES
    ran = tree.would_run("mine", options=("--forcerun", "results/weights/pixels/weights.json"))
    assert len(ran.of("embed")) == len(SHARDS)
    assert ran.rules == {"fetch_weights", "embed", *BELOW_FIRST}
    assert not [job for job in ran.jobs if "color-histogram" in job]


def test_the_recipe_for_one_shard_embeds_that_shard(tree: Tree) -> None:
    shard = "embeddings/pixels/queries-00000.parquet"
    assert f"snakemake --cores 2 --forcerun results/photo-tiles-copies/{shard} -- demo" in RECIPES
    ran = tree.would_run("mine", options=("--forcerun", f"results/copies/{shard}"))
    assert ran.of("embed") == ["copies pixels queries-00000"]
    assert ran.rules == {"embed", *BELOW_FIRST}
    assert not [job for job in ran.jobs if "color-histogram" in job]


def test_one_models_metrics_and_nothing_else(tmp_path: Path) -> None:
    assert "snakemake --cores 2 results/photo-tiles-copies/metrics/pixels/flat.json" in RECIPES
    tree = Tree.new(tmp_path / "tree", MINE)
    ran = tree.would_run("results/copies/metrics/pixels/flat.json")
    assert ran.of("measure") == ["copies pixels flat"]
    assert not [job for job in ran.jobs if "color-histogram" in job]
    assert not ran.rules & BELOW_METRICS


def test_after_touch_an_edited_comment_runs_nothing(tree: Tree) -> None:
    assert "snakemake --cores 2 --touch demo" in RECIPES
    tree.edit("workflow_scripts/lookalike/embed/embed.py")
    assert len(tree.would_run().of("embed")) == 2 * len(SHARDS)
    tree.run("mine", options=("--touch",))
    assert tree.would_run().jobs == []


def test_the_workflow_runs_from_another_folder(finished: Tree, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.yaml").write_text((finished.folder / "mine.yaml").read_text())
    (elsewhere / "photos").symlink_to(finished.folder / "photos")
    ran = Tree(elsewhere).would_run(options=("-s", str(finished.folder / "Snakefile")))
    assert len(ran.of("embed")) == 2 * len(SHARDS)
