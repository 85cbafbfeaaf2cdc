"""Tests on a cluster run at once, but for those that break more of it than jobs of their own."""

import fcntl
import os
import subprocess
from collections.abc import Iterator

import pytest

from conftest import shared_folder

BREAK = "LOOKALIKE_BREAK_SLURM"


@pytest.fixture(autouse=True)
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The cluster: shared with other tests, or alone for those that break it (`breaks_the_cluster`)."""
    alone = request.node.get_closest_marker("breaks_the_cluster")
    if alone and BREAK not in os.environ:
        pytest.skip(f"it breaks SLURM; for one that is there for tests only, as root: {BREAK}=1")
    with (shared_folder(tmp_path_factory) / "slurm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


def control(*command: str) -> str:
    """What ``scontrol`` says."""
    return subprocess.run(["scontrol", *command], capture_output=True, text=True, check=True).stdout
