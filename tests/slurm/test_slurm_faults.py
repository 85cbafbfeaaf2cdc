"""What breaks on a cluster: each job that dies is explained and made again, and no two jobs compute on one GPU."""

import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from slurm.conftest import control
from workflow.conftest import Tree

PATIENCE = 500  # seconds, far more than anything takes
SHARDS = "results/photos/embeddings/own/*.parquet"

pytestmark = pytest.mark.slurm

ENCODER = r'''
import json, os, pathlib, re, signal, subprocess, time
import numpy as np

class Encoder:
    dimension, device, overlaps, compute_dtype, versions = 1, "fake", False, "float32", {}
    def prepare(self, image):
        return np.asarray(image, np.float32).mean(keepdims=True).reshape(1)
    def encode(self, batch):
        return batch

def claims(name):
    """Whether this is the first process that requests a fault."""
    try:
        pathlib.Path(name).unlink()
        return True
    except FileNotFoundError:
        return False

def make(machine):
    started = time.time()
    if claims("fault-kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    if claims("fault-cancel"):
        subprocess.run(["scancel", os.environ["SLURM_JOB_ID"]])
        time.sleep(60)
    if claims("fault-time"):
        time.sleep(600)
    if claims("fault-memory"):
        taken = np.ones(2 * 10**8)  # 1.6 GB
        time.sleep(60)
    time.sleep(4)
    job = os.environ.get("SLURM_JOB_ID")
    told = subprocess.getoutput(f"scontrol -d show job {job}") if job else ""
    number = re.search(r"GRES=gpu\S*[(]IDX:([0-9]+)[)]", told)
    seen = {"gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "slurm": number and number[1]}
    pathlib.Path(f"seen-{os.getpid()}.json").write_text(json.dumps({**seen, "from": started, "to": time.time()}))
    return Encoder()
'''
RUNTIME = {"gpu": 1, "mem_mb": 1000, "minutes": 1, "threads": 1}
CONFIG: dict[str, Any] = {
    "run": ["mine"],
    "datasets": {
        "photos": {"kind": "folder", "root": "photos", "queries": "queries", "k": 3, "shards": {"references": 4}}
    },
    "models": {"own": {"embed": {"family": "python", "factory": "own:make"}, "runtime": RUNTIME}},
    "indexes": {"flat": {"runtime": {"minutes": 5}}},
    "experiments": {"mine": {"dataset": "photos", "models": ["own"]}},
}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree.new(tmp_path / "tree", CONFIG)
    tree.write_images("photos", *range(12))
    tree.write_images("queries", 50)
    (tree.folder / "own.py").write_text(ENCODER)
    return tree


def options(*more: str) -> tuple[str, ...]:
    return ("--profile", "profiles/slurm", *shlex.split(os.environ.get("SNAKEMAKE_SLURM", "")), *more)


def test_the_profile_uses_all_gpus_and_no_two_jobs_share_one(tree: Tree) -> None:
    tree.run(options=options())
    seen = [json.loads(path.read_text()) for path in tree.folder.glob("seen-*.json")]
    assert len(seen) == 5
    both = [(one, two) for one, two in combinations(seen, 2) if one["from"] < two["to"] and two["from"] < one["to"]]
    assert both, "jobs on two GPUs run at once"
    assert all(one["gpu"] != two["gpu"] for one, two in both)
    assert all(one["gpu"] == one["slurm"] for one in seen)


def test_jobs_that_die_are_explained_and_made_again(tree: Tree) -> None:
    local = tree.copy(tree.folder.parent / "local")
    for fault in ("kill", "cancel", "time", "memory"):
        (tree.folder / f"fault-{fault}").touch()
    output = tree.run(options=options("--quiet", "host", "rules")).output
    failed = [block for block in output.split("FAILED: ")[1:] if block.startswith("embed, which writes")]
    assert len(failed) == 4, output
    text = "\n".join(failed)
    assert "it was cancelled (scancel" in text
    assert "it was killed for its memory. A retry gets more (--retries). Raise `mem_mb`" in text
    assert "it ran out of time. A retry gets more (--retries). Raise `minutes`" in text
    named = re.findall(r"^  log: \S+/slurm_logs/\S+\.log$", text, re.MULTILINE)
    assert 3 <= len(named) <= 4  # an empty log is not named: a job may be cancelled before it writes anything

    local.run()
    for path in local.folder.glob("results/photos/**/*.parquet"):
        assert pq.read_table(tree.folder / path.relative_to(local.folder)).equals(pq.read_table(path)), path


def test_a_request_that_slurm_refuses_is_explained(tree: Tree) -> None:
    tree.configure(
        {**CONFIG, "models": {"own": {**CONFIG["models"]["own"], "runtime": {**RUNTIME, "mem_mb": 9_000_000}}}}
    )
    output = tree.run(options=options("--quiet", "host", "rules", "--retries", "0"), status=1).output
    assert "FAILED: embed, which writes results/photos/embeddings/own/" in output
    assert "SLURM" in output.split("FAILED: embed")[1]


@contextmanager
def started(tree: Tree) -> Iterator[subprocess.Popen[bytes]]:
    """A run that has jobs on GPUs; killed in the end, if it is still running."""
    command = tree.command()
    command[command.index("--configfile") : command.index("--configfile")] = options()
    with (tree.folder / "output").open("w") as output:
        master = subprocess.Popen(command, cwd=tree.folder, env=tree.environment, stdout=output, stderr=output)
    try:
        wait_for(lambda: [*tree.folder.glob("results/logs/embed/**/*.log")], tree, master)
        yield master
    finally:
        master.kill()
        master.wait()


def wait_for(event: Callable[[], Any], tree: Tree, master: subprocess.Popen[bytes] | None = None) -> None:
    deadline = time.monotonic() + PATIENCE
    while not event():
        output = (tree.folder / "output").read_text()[-3000:]
        assert time.monotonic() < deadline, output
        assert master is None or master.poll() is None, output
        time.sleep(0.5)


def check_embedded_once(tree: Tree, finished: dict[str, Any]) -> None:
    """All shards are there, and those that were finished before the fault as they were."""
    tables = [pq.read_table(path) for path in tree.folder.glob(SHARDS)]
    assert sum(table.num_rows for table in tables) == 13
    assert {name: tree.bytes_of(SHARDS)[name] for name in finished} == finished
    assert tree.run(options=options()).jobs == []


def test_ctrl_c_cancels_the_jobs(tree: Tree) -> None:
    with started(tree) as master:
        master.send_signal(signal.SIGINT)
        master.wait(PATIENCE)
    jobs = re.findall(r"has been submitted with SLURM jobid (\d+)", (tree.folder / "output").read_text())
    wait_for(lambda: not re.search(r"JobState=(PENDING|RUNNING|COMPLETING)", "".join(map(state, jobs))), tree)
    assert not [*tree.folder.glob(".snakemake/locks/*")]
    finished = tree.bytes_of(SHARDS)
    tree.run(options=options())
    check_embedded_once(tree, finished)


def test_jobs_that_end_after_their_master_was_killed_are_not_lost(tree: Tree) -> None:
    with started(tree) as master:
        master.kill()
    wait_for(lambda: not subprocess.check_output(["squeue", "-h"]).strip(), tree)
    finished = tree.bytes_of(SHARDS)
    tree.run("mine", options=("--unlock",))
    tree.run(options=options())
    check_embedded_once(tree, finished)


@pytest.mark.breaks_the_cluster
def test_jobs_on_a_node_that_fails_are_made_again(tree: Tree) -> None:
    with started(tree) as master:
        listed = subprocess.check_output(["squeue", "-h", "-t", "running", "-o", "%i %N %k"], text=True)
        jobs, nodes = zip(*re.findall(r"^(\d+) (\S+) .*embed", listed, re.MULTILINE), strict=True)
        finished = tree.bytes_of(SHARDS)
        control("update", f"nodename={nodes[0]}", "state=down", "reason=test")
        try:
            wait_for(lambda: "JobState=RUNNING" not in "".join(map(state, jobs)), tree, master)
        finally:
            with suppress(subprocess.CalledProcessError):  # it may return to service on its own
                control("update", f"nodename={nodes[0]}", "state=resume")
        # SLURM starts it again in two minutes; sooner, the node may still have it, and is drained ("Duplicate jobid")
        assert master.wait(PATIENCE) == 0, (tree.folder / "output").read_text()[-5000:]
    check_embedded_once(tree, finished)


def state(job: str) -> str:
    return control("-o", "show", "job", job)


@pytest.mark.breaks_the_cluster
def test_a_run_waits_for_a_controller_that_does_not_answer(tree: Tree) -> None:
    output, accounts = tree.folder / "output", control("show", "config")
    # no GPUs: for those that are not real, a SLURM of tests may forget at its start that they are free
    tree.configure({**CONFIG, "models": {"own": {**CONFIG["models"]["own"], "runtime": {**RUNTIME, "gpu": 0}}}})
    with started(tree) as master:
        finished = tree.bytes_of(SHARDS)
        control("shutdown", "slurmctld")
        try:
            if "accounting_storage/none" in accounts:
                wait_for(lambda: output.read_text().count("SLURM does not answer. Waiting for it") >= 2, tree, master)
            else:  # `sacct` needs no controller, but does not learn of ended jobs
                time.sleep(30)
        finally:
            subprocess.run("slurmctld", check=True)
        assert master.wait(PATIENCE) == 0, output.read_text()[-5000:]
    check_embedded_once(tree, finished)


PARTITIONS = """
partitions:
  cpu: {max_runtime: 60, max_mem_mb: 6000, max_threads: 4}
  gpu: {max_runtime: 60, max_mem_mb: 6000, max_threads: 4, max_gpu: 2}
"""


def test_models_that_compute_on_the_cpu_stay_off_the_gpu_partition(tree: Tree) -> None:
    (tree.folder / "partitions.yaml").write_text(PARTITIONS)
    tree.configure({**CONFIG, "experiments": {"mine": {"dataset": "photos", "models": ["own", "pixels"]}}})
    alone = ("--profile", "profiles/slurm", "--slurm-partition-config", "partitions.yaml")
    limits = ("--set-resources", "audit:runtime=10", "find_near_duplicates:runtime=20")
    polls = ("--slurm-init-seconds-before-status-checks", "8", "--latency-wait", "10")
    output = tree.run(options=(*alone, *limits, *polls)).output
    partitions: dict[str, set[str]] = {"own": set(), "pixels": set()}
    for number in re.findall(r"has been submitted with SLURM jobid (\d+)", output):
        comment, partition = (re.search(rf"{name}=(\S+)", state(number)) for name in ("Comment", "Partition"))
        for model in ("own", "pixels"):
            if comment and partition and "embed" in comment[1] and f"_{model}_" in comment[1]:
                partitions[model].add(partition[1])
    assert partitions == {"own": {"gpu"}, "pixels": {"cpu"}}
