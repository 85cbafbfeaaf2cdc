"""Mistakes that people make: each stops with a message that says where, what, and what to do, and no traceback."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from lookalike.io.extensions import EXTENSIONS
from workflow.conftest import MINE, Tree


def with_change(**sections: dict[Any, Any]) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(json.dumps(MINE))
    for section, entries in sections.items():
        for name, entry in entries.items():
            known = config.setdefault(section, {})
            known[name] = {**known.get(name, {}), **entry}
    return config


def failure(tree: Tree, *targets: str) -> str:
    """The output of a run that fails."""
    output = tree.run(*targets, status=1).output
    assert "Traceback" not in output
    return output


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            with_change(models={"pixels": {"embed": {"siz": 3}}}),
            "models.pixels.embed.siz: unknown key. Did you mean 'size'?",
        ),
        (
            with_change(experiments={"mine": {"models": ["pixel"]}}),
            "experiments.mine.models: model 'pixel' is not defined. Did you mean 'pixels'?",
        ),
        (
            with_change(experiments={"search": {"dataset": "copies", "models": ["pixels"]}}),
            "experiments.search: is already the name of a rule of the workflow. Choose another name, "
            "for example 'my-search'.",
        ),
        (
            with_change(models={"pixels": {"embed": {"family": "color_histogram"}}}),
            "models.pixels.embed.family: is 'color_histogram' in TREE/mine.yaml but 'pixels' in TREE/config.yaml, and "
            "entries of the same name are merged key by key. Give yours another name.",
        ),
        (
            with_change(experiments={2024: {"dataset": "copies", "models": ["pixels"]}}),
            'experiments: a name should be text, but YAML reads this one as the number 2024. Put it in quotes: "2024".',
        ),
    ],
)
def test_a_wrong_configuration_stops_before_any_job(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    tree = Tree.new(tmp_path / "tree", config)
    output = failure(tree)
    assert f"The configuration is wrong; nothing was run.\n{message.replace('TREE', str(tree.folder))}\n" in output
    assert not (tree.folder / "results").exists()


def test_a_block_that_yaml_would_drop_stops_before_any_job(tmp_path: Path) -> None:
    """Snakemake has merged the files by then, and would run what the last block says."""
    tree = Tree.new(tmp_path / "tree", MINE)
    lines = (tree.folder / "mine.yaml").read_text().splitlines()
    run, end = lines.index("run:") + 1, len(lines)
    with (tree.folder / "mine.yaml").open("a") as file:
        file.write("models:\n  m: {embed: {family: pixels}, runtime: {minutes: 1:30}}\nrun: [demo]\n")
    output = failure(tree)
    assert f"{tree.folder}/mine.yaml, line {end + 2}: models.m.runtime.minutes: YAML reads 1:30 as" in output
    assert f"{tree.folder}/mine.yaml, line {end + 3}: run: duplicates line {run}, and YAML keeps" in output
    assert not (tree.folder / "results").exists()


def test_a_missing_folder_an_empty_one_and_one_that_is_too_small(tmp_path: Path) -> None:
    tree = Tree.new(tmp_path / "tree", MINE)
    assert (
        "datasets.photos.root: the folder 'photos' does not exist. "
        "Check the path: relative paths start at the folder where snakemake is run.\n"
    ) in failure(tree)
    (tree.folder / "photos").mkdir()
    assert (
        f"sample photos: datasets.photos.root: 'photos' contains no images (looked for {', '.join(EXTENSIONS)}).\n"
    ) in failure(tree)
    tree.write_images("photos", 0, 1)
    output = failure(tree)
    assert (
        "shard_copies: datasets.copies.k: 3 neighbors are requested, but the data set has only 2 references. "
        "Set k to 2 or less, or add images.\n"
    ) in output
    assert "rule embed" not in output


def test_a_duplicate_image_id_is_named_with_both_places(tmp_path: Path) -> None:
    config = with_change(
        datasets={"own": {"kind": "folder", "root": "photos", "queries": "queries"}},
        experiments={"mine": {"dataset": "own"}},
    )
    tree = Tree.new(tmp_path / "tree", config)
    tree.write_images("photos", 0, 1)
    tree.write_images("queries", 1)
    assert (
        "sample own: datasets.own.queries: 'p1.png' is both in root ('photos') and in queries ('queries'), "
        "and every id, the path inside its folder, must be unique. Rename one of the two, or move all queries "
        "into a sub-folder of 'queries'.\n"
    ) in failure(tree)


def test_a_broken_image_is_listed_counted_and_never_fatal(finished: Tree) -> None:
    rejected = {
        row["image_id"]: row["reason"]
        for path in finished.folder.glob("results/copies/rejected/pixels/*.parquet")
        for row in pq.read_table(path).to_pylist()
    }
    assert rejected == {"broken.jpg": "is text, not an image"}
    page = (finished.folder / "results/reports/mine/index.html").read_text()
    assert "broken.jpg" in page
    assert "is text, not an image" in page
    metrics = json.loads((finished.folder / "results/copies/metrics/pixels/flat.json").read_text())
    assert (metrics["references"], metrics["rejected_references"], metrics["rejected_queries"]) == (12, 1, 0)


def test_a_broken_image_is_fatal_where_the_configuration_says_so(tree: Tree) -> None:
    tree.configure(with_change(datasets={"copies": {"on_bad_image": "fail"}}))
    assert (
        "broken.jpg: is text, not an image (rejected images: 1). Fix or remove them, or set on_bad_image: reject.\n"
    ) in failure(tree)
    shutil.rmtree(tree.folder / "results/copies/embeddings")
    refused = re.search(r"index copies (\S+) flat: broken\.jpg: is text", failure(tree))  # whichever model is first
    assert refused
    rejected = (tree.folder / "results/copies/rejected" / refused[1]).glob("*.parquet")
    assert sum(pq.read_metadata(path).num_rows for path in rejected) == 1


def test_results_of_another_configuration_are_refused_by_name(tree: Tree) -> None:
    embeddings = tree.folder / "results/copies/embeddings"
    shard = "queries-00000.parquet"
    shutil.copy(embeddings / "color-histogram" / shard, embeddings / "pixels" / shard)
    assert (
        "index copies pixels flat: results/copies/embeddings/pixels/queries-00000.parquet: was made by another "
        'configuration: its key is {"family": "color_histogram"}, expected {"family": "pixels"} '
        "(1 of 3 shards). Embed again: --forcerun results/copies/embeddings/pixels/queries-00000.parquet\n"
    ) in failure(tree)


def test_a_failed_job_is_not_forgotten(tree: Tree) -> None:
    """Snakemake removes a failed job's output and would find the older report: nothing to be done."""
    (tree.folder / "photos").rename(tree.folder / "elsewhere")
    tree.configure(with_change(models={"pixels": {"embed": {"size": 4}}}))
    for targets in ((), ("results/copies/metrics/pixels/flat.json",)):
        missing = "its images are in photos, and that folder is missing. Restore it, or mount its disk."
        assert missing in failure(tree, *targets)
    (tree.folder / "elsewhere").rename(tree.folder / "photos")
    ran = tree.would_run()
    assert "copies pixels references-00000" in ran.of("embed")
    assert {"index", "search", "measure", "compare", "report"} <= ran.rules
