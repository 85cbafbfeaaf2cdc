"""Real Snakemake on copies of the workflow, with images that the tests make."""

import atexit
import compileall
import fcntl
import os
import py_compile
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import REPOSITORY, made_image, shared_folder
from warm import SCRIPTS, Warm

SNAKEMAKE = Warm("snakemake.cli", "snakemake.storage", "snakemake.report.html_reporter", "yte", "warm_scripts")
JOBS = Warm(
    *("snakemake.iocontainers", "snakemake.logging", "numpy", "pyarrow.parquet", "pyarrow.compute", "pydantic"),
    *("PIL.Image", "PIL.ImageOps", "faiss", "cv2", "scipy.special", "scipy.sparse.csgraph", "sklearn.manifold"),
    *("jinja2",),
    **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")},
)
WORKFLOW = ("Snakefile", "rules", "workflow_scripts", "profiles", "envs", "config.yaml")
MINE = {
    "run": ["mine"],
    "datasets": {
        "photos": {"kind": "folder", "root": "photos"},
        "copies": {
            "kind": "copies",
            "of": "photos",
            "queries": 6,
            "k": 3,
            "shards": {"queries": 2},
        },
    },
    "experiments": {"mine": {"dataset": "copies", "models": ["pixels", "color-histogram"]}},
}
SHARDS = ["queries-00000", "queries-00001", "references-00000"]  # of the copies


@cache
def _python() -> Path:
    """A Python that starts Snakemake as a fork."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    forked = shlex.join([sys.executable, "-IS", str(Path(__file__).parents[1] / "warm_client.py"), SNAKEMAKE.address])
    real = shlex.quote(sys.executable)
    program = folder / "python"
    program.write_text(f'#!/bin/sh\n[ "$1 $2" = "-m snakemake" ] && exec {forked} "$@"\nexec {real} "$@"\n')
    program.chmod(0o755)
    return program


def lookalike(
    *arguments: str, folder: Path, copy: Path = REPOSITORY, status: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run `lookalike` of a copy of the workflow to a status: as a fork, as Snakemake and its jobs."""
    program = f"import sys; sys.executable = {str(_python())!r}; from lookalike.cli.main import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(copy / "workflow_scripts"), SCRIPTS: JOBS.address}
    ended = JOBS.run("-c", program, *arguments, cwd=folder, env=environment)
    assert ended.returncode == status, ended.stderr[-5000:]
    return ended


@cache
def compiled() -> Path:
    """A copy of the workflow with bytecode that is valid for the same text, whatever the dates of copies."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    for name in WORKFLOW:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    by_hash = py_compile.PycInvalidationMode.CHECKED_HASH
    assert compileall.compile_dir(folder / "workflow_scripts", quiet=1, invalidation_mode=by_hash)
    return folder


@dataclass(frozen=True)
class Run:
    """What one call of Snakemake did."""

    status: int
    output: str

    @property
    def jobs(self) -> list[str]:
        """The jobs that were started, each as its rule and wildcards: ``embed copies pixels references-00000``."""
        started = []  # a dry run indents the jobs of a group
        for block in re.split(r"\n *(?=\[)", self.output):
            if rule := re.search(r"^ *(?:local)?(?:rule|checkpoint) (\S+):$", block, re.MULTILINE):
                wildcards = re.search(r"^ +wildcards: (.*)$", block, re.MULTILINE)
                values = [part.split("=")[1] for part in wildcards[1].split(", ")] if wildcards else []
                started.append(" ".join([rule[1], *values]))
        return sorted(job for job in started if job not in ("mine", "all", "demo", "own"))

    def of(self, rule: str) -> list[str]:
        """The jobs of one rule, without its name."""
        return [job.removeprefix(f"{rule} ") for job in self.jobs if job.split()[0] == rule]

    @property
    def rules(self) -> set[str]:
        """The rules of which jobs were started."""
        return {job.split()[0] for job in self.jobs}


class Tree:
    """A copy of the workflow in a folder of its own, with a configuration file beside it."""

    forked = True  # Snakemake and its scripts start as forks of processes with their imports, not as users start them

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def new(cls, folder: Path, config: dict[str, Any]) -> "Tree":
        folder.mkdir(parents=True)
        shutil.copytree(compiled(), folder, dirs_exist_ok=True)
        tree = cls(folder)
        tree.configure(config)
        return tree

    def copy(self, folder: Path) -> "Tree":
        """Everything copied, as `cp -r` does: the same contents, new dates."""
        shutil.copytree(self.folder, folder, copy_function=shutil.copyfile, ignore=shutil.ignore_patterns("locks"))
        return Tree(folder)

    def configure(self, config: dict[str, Any]) -> None:
        (self.folder / "mine.yaml").write_text(yaml.safe_dump(config))

    @property
    def config(self) -> dict[str, Any]:
        loaded: dict[str, Any] = yaml.safe_load((self.folder / "mine.yaml").read_text())
        return loaded

    def command(self, *arguments: str) -> list[str]:
        one_core = ("--cores", "1")  # pytest's workers run at once
        options = (*one_core, "--quiet", "host", "--configfile", "mine.yaml")
        return [sys.executable, "-m", "snakemake", *options, "--", *arguments]

    @property
    def environment(self) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(self, *targets: str, options: tuple[str, ...] = (), status: int = 0) -> Run:
        """Run Snakemake to a status; its output names every job that was started."""
        ran = self.call(*targets, options=options)
        assert ran.status == status, ran.output[-5000:]
        return ran

    def call(self, *targets: str, options: tuple[str, ...] = ()) -> Run:
        """Run Snakemake to any status."""
        command = self.command(*targets)
        at = command.index("--configfile")  # after ours: of a repeated option, the last one counts
        command[at:at] = options
        if self.forked:
            environment = self.environment
            if "PYTHONPATH" not in environment:  # what is there can change how Python starts, which a fork does not
                environment = {**environment, SCRIPTS: JOBS.address}
            ended = SNAKEMAKE.run(*command[1:], cwd=self.folder, env=environment)
        else:
            ended = subprocess.run(
                command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
            )
        return Run(ended.returncode, ended.stdout + ended.stderr)

    def would_run(self, *targets: str, options: tuple[str, ...] = ()) -> Run:
        """Which jobs a run would start. With shards to be cut, all of them count as new."""
        return self.run(*targets, options=(*options, "-n"))

    def edit(self, file: str, addition: str = "\n# edited\n") -> None:
        path = self.folder / file
        path.write_text(path.read_text() + addition)

    def write_images(self, folder: str, *numbers: int) -> None:
        (self.folder / folder).mkdir(exist_ok=True)
        for number in numbers:
            made_image(number).save(self.folder / folder / f"p{number}.png")

    def bytes_of(self, pattern: str) -> dict[str, tuple[bytes, int]]:
        """Contents and dates of the files that match a pattern."""
        return {
            str(path.relative_to(self.folder)): (path.read_bytes(), path.stat().st_mtime_ns)
            for path in sorted(self.folder.glob(pattern))
        }


def write_collection(tree: Tree) -> None:
    tree.write_images("photos", *range(12))
    (tree.folder / "photos/broken.jpg").write_bytes(b"no image")


REPORTS = "LOOKALIKE_TEST_REPORTS"  # a folder for finished reports: the browser tests look at them, and run the others


def keep_report(tree: Tree, experiment: str, dataset: str, folder: str | Path | None = None) -> None:
    """Copy a finished report, and the list of its images, to where the browser tests find it."""
    if folder := folder or os.environ.get(REPORTS):
        kept = shutil.copytree(tree.folder / "results/reports" / experiment, Path(folder) / experiment)
        shutil.copy(tree.folder / "results" / dataset / "sample/images.parquet", kept)


def built_once(
    factory: pytest.TempPathFactory, name: str, config: dict[str, Any], build: Callable[[Tree], Any]
) -> Tree:
    """A tree that the first worker of pytest builds and the others wait for. Tests change copies of it only."""
    shared = shared_folder(factory)
    built = shared / f"{name}.built"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            shutil.rmtree(shared / name, ignore_errors=True)  # where another worker has failed
            build(Tree.new(shared / name, config))
            built.touch()
    return Tree(shared / name)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """A finished run over twelve images and a broken one."""

    def build(tree: Tree) -> None:
        write_collection(tree)
        tree.run()

    return built_once(tmp_path_factory, "finished", MINE, build)


@pytest.fixture
def tree(finished: Tree, tmp_path: Path) -> Tree:
    """A copy of the finished run."""
    return finished.copy(tmp_path / "tree")
