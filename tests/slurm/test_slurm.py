"""The same targets on a real SLURM. Options for your cluster come from SNAKEMAKE_SLURM (docs/cluster.md)."""

import os
import re
import shlex
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from slurm.conftest import control
from workflow.conftest import Run, Tree

pytestmark = pytest.mark.slurm

CONFIG = {
    "run": ["mine"],
    "datasets": {
        "photos": {"kind": "folder", "root": "photos"},
        "copies": {"kind": "copies", "of": "photos", "queries": 6, "k": 3},
    },
    # a GPU for a model that needs none, as a cluster for tests may have GPUs that are not real
    "models": {
        "pixels": {"runtime": {"gpu": 1, "mem_mb": 2000, "minutes": 30}},
        "efficientnet-lite0": {"runtime": {"gpu": 0}},
    },
    "indexes": {"flat": {"runtime": {"minutes": 10}}},
    "experiments": {"mine": {"dataset": "copies", "models": ["pixels", "efficientnet-lite0"]}},
}


def on_slurm(tree: Tree, status: int = 0) -> Run:
    options = ("--profile", "profiles/slurm", *shlex.split(os.environ.get("SNAKEMAKE_SLURM", "")))
    return tree.run("mine", options=options, status=status)


def requests(ran: Run) -> dict[str, str]:
    """What each submitted job requested, as SLURM tells it, by the name of the job."""
    found = {}
    for number in re.findall(r"has been submitted with SLURM jobid (\d+)", ran.output):
        told = control("-o", "show", "job", number)
        name = re.search(r"Comment=(\S+)", told)
        found[name[1] if name else number] = told
    return found


def test_a_cluster_gives_what_one_machine_gives(tmp_path: Path) -> None:
    here = Tree.new(tmp_path / "here", CONFIG)
    here.write_images("photos", *range(12))
    tree = here.copy(tmp_path / "there")
    here.run()
    ran = on_slurm(tree)

    requested = requests(ran)
    assert not [name for name in requested if "fetch_weights" in name], "network steps run where the network is"
    on_gpu = [told for name, told in requested.items() if "embed" in name and "pixels" in name]
    assert len(on_gpu) == 2
    for told in on_gpu:
        assert "gres:gpu:1" in told or "gres/gpu=1" in told
        assert "MinMemoryNode=2000M" in told
        assert "TimeLimit=00:30:00" in told
    assert not [told for name, told in requested.items() if "pixels" not in name and "gpu:1" in told]

    for path in here.folder.glob("results/copies/**/*.parquet"):
        ours, theirs = pq.read_table(path), pq.read_table(tree.folder / path.relative_to(here.folder))
        for name in ours.column_names:
            if name in ("embedding", "score"):  # another CPU may round otherwise
                ours_values, theirs_values = (np.array(one[name].to_pylist()) for one in (ours, theirs))
                np.testing.assert_allclose(theirs_values, ours_values, rtol=1e-4, atol=1e-4)
            else:
                assert theirs[name].equals(ours[name]), (path, name)
    assert on_slurm(tree).jobs == []


def test_a_failed_job_shows_its_reason_here(tmp_path: Path) -> None:
    tree = Tree.new(tmp_path / "tree", CONFIG)
    (tree.folder / "photos").mkdir()
    output = on_slurm(tree, status=1).output
    assert "datasets.photos.root: 'photos' contains no images" in output
