"""A killed run resumes: finished files stay unchanged, incomplete ones are made again."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq

from workflow.conftest import MINE, SHARDS, Tree, write_collection

EMBEDS = 2 * len(SHARDS)  # under two models


def test_killed_run_resumes_without_redoing_finished_shards(finished: Tree, tmp_path: Path) -> None:
    tree = Tree.new(tmp_path / "killed", MINE)
    write_collection(tree)
    _kill_in_the_middle_of_embedding(tree)
    embedded = tree.bytes_of("results/copies/embeddings/*/*[0-9].parquet")
    assert 2 <= len(embedded) < EMBEDS
    left_over = [path.name for path in tree.folder.glob("results/copies/embeddings/*/.*.tmp")]

    locked = tree.run(status=1)
    assert "--unlock" in locked.output
    tree.run("mine", options=("--unlock",))
    ran = tree.run()
    again = tree.bytes_of("results/copies/embeddings/*/*[0-9].parquet")
    recorded = {name for name in embedded if again[name] == embedded[name]}
    # the job that was running may have written its file already; Snakemake had not recorded it, so it is redone
    assert len(embedded) - len(recorded) <= 1, left_over
    assert len(ran.of("embed")) == EMBEDS - len(recorded)

    for path in finished.folder.glob("results/copies/**/*.parquet"):
        other = tree.folder / path.relative_to(finished.folder)
        assert pq.read_table(other).equals(pq.read_table(path)), path
    leaderboard = "results/reports/mine/leaderboard.csv"
    assert _numbers(tree.folder / leaderboard) == _numbers(finished.folder / leaderboard)


def _numbers(leaderboard: Path) -> list[str]:
    measured = ("_per_second", "peak_memory_mb", "latency")  # costs differ between runs
    return [line for line in leaderboard.read_text().splitlines() if not any(cost in line for cost in measured)]


def _kill_in_the_middle_of_embedding(tree: Tree) -> None:
    """SIGKILL Snakemake and all its jobs once two shards are there and another is being embedded."""
    with (tree.folder / "killed.log").open("w") as output:
        process = subprocess.Popen(
            tree.command(),
            cwd=tree.folder,
            env=tree.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and process.poll() is None:
            done = list(tree.folder.glob("results/copies/embeddings/*/*[0-9].parquet"))
            started = list(tree.folder.glob("results/logs/embed/copies/*/*.log"))
            if len(done) >= 2 and len(started) > len(done):
                break
            time.sleep(0.02)
        assert process.poll() is None, (tree.folder / "killed.log").read_text()[-3000:]
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
