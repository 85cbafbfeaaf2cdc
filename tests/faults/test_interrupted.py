"""A run that is killed or interrupted at any moment resumes: finished files stay, and the numbers are the same."""

import os
import random
import signal
import subprocess
import time
from itertools import cycle
from pathlib import Path

import psutil
import pytest

from faults.conftest import ALL, ONE_MODEL, check_same, finished_of, jobs, tally
from workflow.conftest import Tree, write_collection

KILL, KILL_MASTER, CTRL_C, TERM = "SIGKILL", "SIGKILL of Snakemake alone", "Ctrl-C", "SIGTERM"
AT_ONCE = 0.5  # seconds, at most, between the start of a job and the fault
PATIENCE = 300  # seconds, far more than anything takes

# The faults of runs that are started again and again, one in each stage, in turn; in every test run, some.
CHAINS = {f"killed {number}": [KILL, KILL, KILL, KILL_MASTER] for number in range(4)} | {"signals": [CTRL_C, TERM]}
PART = {"make_images": KILL, "embed": TERM, "measure": CTRL_C, "report": KILL}


class Interrupted:
    """A run that is started, and interrupted once a stage has started."""

    def __init__(self, tree: Tree, stages: list[str]) -> None:
        self.tree, self.stages = tree, stages
        self.output = ""

    def interrupt(self, stage: str, fault: str, delay: float) -> bool:
        """Start the run and interrupt it; False if it ended before."""
        later = self.stages[self.stages.index(stage) :]
        started = time.time()
        with (self.tree.folder / "interrupted.log").open("w") as file:
            run = subprocess.Popen(
                self.tree.command(),
                cwd=self.tree.folder,
                env=self.tree.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        group = psutil.Process(run.pid)
        try:
            deadline = time.monotonic() + PATIENCE
            while not self._has_started(later, started) and run.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            time.sleep(delay)
            if run.poll() is not None:
                return False
            jobs = group.children(recursive=True)
            _send(run.pid, fault)
            run.wait(PATIENCE)
            if fault != KILL_MASTER:
                _, left = psutil.wait_procs(jobs, timeout=PATIENCE)
                assert not left, left
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
                run.wait()
            self.output = (self.tree.folder / "interrupted.log").read_text()
        return True

    def _has_started(self, stages: list[str], since: float) -> bool:
        logs = (log for stage in stages for log in (self.tree.folder / "results/logs" / stage).rglob("*.log"))
        return any(log.stat().st_mtime > since for log in logs)


def _send(process: int, fault: str) -> None:
    match fault:
        case "SIGKILL":
            os.killpg(process, signal.SIGKILL)
        case "Ctrl-C":
            os.killpg(process, signal.SIGINT)
        case _:
            os.kill(process, signal.SIGTERM if fault == TERM else signal.SIGKILL)


@pytest.mark.parametrize("chain", CHAINS if ALL else ["some stages"])
def test_an_interrupted_run_resumes_and_redoes_nothing_that_was_finished(
    undisturbed: Tree, tmp_path: Path, chain: str
) -> None:
    rng = random.Random(chain)
    stages = list(dict.fromkeys(job.rule for job in jobs(undisturbed)))
    faults = PART if not ALL else dict(zip(stages, cycle(CHAINS[chain]), strict=False))
    tree = Tree.new(tmp_path / "tree", ONE_MODEL)
    write_collection(tree)
    kept: dict[str, int] = {}  # date of each file that a finished job has written
    for stage, fault in faults.items():
        run = Interrupted(tree, stages)
        if not run.interrupt(stage, fault, rng.uniform(0, AT_ONCE)):
            break
        for job in finished_of(run.output):
            kept |= {name: (tree.folder / name).stat().st_mtime_ns for name in job.outputs}
        locked = bool(list(tree.folder.glob(".snakemake/locks/*")))
        if fault in (KILL, KILL_MASTER):
            if locked:
                tree.run(options=("--unlock",))
            tally(f"{fault}, in any stage", "the next run resumes; files as undisturbed, nothing finished done twice")
        else:
            assert not locked, run.output
            tally(f"{fault}, in any stage", "the run ends and releases its lock; the next one resumes")
    tree.run()
    rewritten = [name for name, date in kept.items() if (tree.folder / name).stat().st_mtime_ns != date]
    assert not rewritten
    assert len(kept) > 5
    check_same(tree, undisturbed)
    assert tree.run().jobs == []


@pytest.mark.faults
def test_a_second_run_in_the_same_folder_does_nothing(undisturbed: Tree, tmp_path: Path) -> None:
    tree = Tree.new(tmp_path / "tree", ONE_MODEL)
    write_collection(tree)
    with (tree.folder / "first.log").open("w") as file:
        first = subprocess.Popen(
            tree.command(), cwd=tree.folder, env=tree.environment, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while not list(tree.folder.glob("results/logs/make_images/*.log")):
            assert time.monotonic() < deadline
            assert first.poll() is None, (tree.folder / "first.log").read_text()
            time.sleep(0.02)
        second = tree.run(status=1)
    finally:
        status = first.wait(PATIENCE)
    assert "--unlock" in second.output
    assert not second.jobs
    assert status == 0, (tree.folder / "first.log").read_text()[-3000:]
    check_same(tree, undisturbed)
    tally("a second run in the same folder", "it is refused, and the first one is undisturbed")
