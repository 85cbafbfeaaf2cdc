"""Without a shared file system: jobs get copies of their inputs, in a folder that later jobs do not have."""

import json
import shutil
from pathlib import Path

import pytest

from faults.conftest import ONE_MODEL, check_same, tally
from workflow.conftest import Tree, write_collection

pytestmark = pytest.mark.faults


def test_a_run_on_remote_storage_survives_the_loss_of_its_local_copies(undisturbed: Tree, tmp_path: Path) -> None:
    pytest.importorskip("snakemake_storage_plugin_fs")
    if not shutil.which("rsync"):
        pytest.skip("Snakemake's storage plugin fs needs rsync")
    tree, storage = Tree.new(tmp_path / "tree", ONE_MODEL), tmp_path / "storage"
    write_collection(tree)
    storage.mkdir()

    def options(copies: str, *more: str) -> tuple[str, ...]:
        remote = ("--default-storage-provider", "fs", "--default-storage-prefix", str(storage))
        return (*remote, "--shared-fs-usage", "none", "--local-storage-prefix", str(tmp_path / copies), *more)

    tree.run("mine", options=options("copies"))
    metrics = json.loads((storage / "results/copies/metrics/pixels/flat.json").read_text())
    assert metrics["timing"]["embed"]["images"] > 0, "timings travel"
    assert metrics["timing"]["search"]["queries"] > 0
    shutil.move(tmp_path / "copies", tmp_path / "gone")
    timings = [*storage.glob("results/logs/**/*.json")]
    assert len(timings) == 4
    for path in timings:
        path.touch()  # newer than the numbers
    assert tree.run("mine", options=options("others")).jobs == []
    decoding = ("make_images_copies", "embed", "find_near_duplicates", "audit", "report")
    ran = tree.run("mine", options=options("others", "--forcerun", *decoding))
    assert ran.rules >= {*decoding}
    check_same(Tree(storage), undisturbed)
    assert "cannot be read:" not in (storage / "results/reports/mine/index.html").read_text(), "thumbnails are shown"
    tally("local copies of a remote storage are lost", "nothing is made again, and later jobs find images and timings")
