"""Decoders that hang or crash, through real Snakemake: a run continues without those images, and ends when told to."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from conftest import REPOSITORY, made_image
from workflow.conftest import Tree

CONFIG: dict[str, Any] = {
    "run": ["mine"],
    "datasets": {"photos": {"kind": "folder", "root": "photos", "queries": "queries", "k": 3}},
    "models": {"pixels": {"runtime": {"image_seconds": 2}}},
    "experiments": {"mine": {"dataset": "photos", "models": ["pixels"]}},
}
TARGETS = {"embed": [], "find_near_duplicates": ["results/photos/sample/near_duplicates.parquet"]}
HANGS, CRASHES = (60, 41), (60, 43)  # sizes: tests/faulty


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    tree = Tree.new(tmp_path / "tree", CONFIG)
    tree.write_images("photos", *range(6))
    tree.write_images("queries", 50)
    monkeypatch.setattr(Tree, "environment", {**os.environ, "PYTHONPATH": str(REPOSITORY / "tests/faulty")})
    return tree


def test_retries_get_past_images_that_hang_or_kill_and_the_counts_add_up(tree: Tree) -> None:
    made_image(7, HANGS).save(tree.folder / "photos/hangs.png")
    made_image(8, CRASHES).save(tree.folder / "photos/crashes.png")
    output = tree.run(options=("--retries", "2")).output
    for message in ("decoding hangs.png has taken more than 2 s", "the process died while it decoded"):
        assert message in output
    (rejected,) = tree.folder.glob("results/photos/rejected/pixels/references-*.parquet")
    reasons = {row["path"]: row["reason"] for row in pq.read_table(rejected).to_pylist()}
    assert "takes more than 2 s, twice" in reasons.pop("hangs.png")
    assert "SIGSEGV, twice" in reasons.pop("crashes.png")
    assert not reasons
    assert (
        "not decoded: decoding it takes more than 2 s" in (tree.folder / "results/reports/mine/index.html").read_text()
    )


@pytest.mark.parametrize(
    ("stage", "sent", "group"),
    [
        ("embed", signal.SIGINT, True),
        ("embed", signal.SIGINT, False),
        ("embed", signal.SIGTERM, False),
        ("find_near_duplicates", signal.SIGINT, True),
    ],
    ids=["Ctrl-C", "SIGINT to the master", "SIGTERM to the master", "Ctrl-C beside near-duplicates"],
)
def test_a_run_with_a_hanging_decoder_ends_in_seconds_when_told_to(
    tree: Tree, stage: str, sent: int, group: bool
) -> None:
    made_image(7, HANGS).save(tree.folder / "photos/hangs.png")
    photos = {**CONFIG["datasets"]["photos"], "near_duplicates": stage != "embed"}
    models = {"pixels": {"runtime": {"image_seconds": 600}}}  # so that only the signal can end it
    tree.configure({**CONFIG, "datasets": {"photos": photos}, "models": models})
    run = subprocess.Popen(
        tree.command(*TARGETS[stage]),
        cwd=tree.folder,
        env=tree.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 300
        while not any(
            "hangs.png" in path.read_text() for path in tree.folder.glob(f"results/logs/{stage}/**/*.in_work")
        ):
            assert time.monotonic() < deadline
            assert run.poll() is None
            time.sleep(0.1)
        (os.killpg if group else os.kill)(run.pid, sent)
        run.wait(timeout=60)
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
    deadline = time.monotonic() + 60
    while left := [line for line in _commands() if str(tree.folder) in line]:
        assert time.monotonic() < deadline, f"processes were left: {left}"
        time.sleep(0.1)
    assert not list(tree.folder.glob(".snakemake/locks/*"))


def _commands() -> list[str]:
    listed = subprocess.run(["ps", "-eo", "args", "-ww"], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if "snakemake" in line or "watchdog" in line]
