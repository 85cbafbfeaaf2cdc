"""Faults on purpose, each compared with an undisturbed run. Part of them in every test run, all with `make faults`.

All of them write what was tried into docs/reliability.md.
"""

import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from conftest import REPOSITORY
from workflow.conftest import MINE, Tree, built_once, write_collection

ALL = os.environ.get("LOOKALIKE_FAULTS") == "all"
FIGURES = "LOOKALIKE_FAULTS_FIGURES"  # a folder, in which each worker of pytest counts in a file
PAGE = REPOSITORY / "docs" / "reliability.md"
ONE_MODEL: dict[str, Any] = {**MINE, "experiments": {"mine": {"dataset": "copies", "models": ["pixels"]}}}
MEASURED = ("_per_second", "peak_memory_mb", "latency")  # costs differ between runs


@dataclass(frozen=True)
class Job:
    """A job as a run's output lists it."""

    rule: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def jobs_of(output: str) -> dict[str, Job]:
    """The jobs that a run has started, by their number, in order."""
    started = {}
    for block in re.split(r"\n *(?=\[)", output):
        fields = dict(re.findall(r"^ +(input|output|jobid): (.*)$", block, re.MULTILINE))
        if (rule := re.search(r"^ *(?:local)?(?:rule|checkpoint) (\S+):$", block, re.MULTILINE)) and "output" in fields:
            files = (tuple(fields.get(name, "").split(", ")) for name in ("input", "output"))
            started[fields["jobid"]] = Job(re.sub(r"^(make_images|shard)_.*", r"\1", rule[1]), *files)
    return started


def finished_of(output: str) -> list[Job]:
    """The jobs that a run reported as finished."""
    started = jobs_of(output)
    return [
        started[number] for number in re.findall(r"^Finished jobid: (\d+)", output, re.MULTILINE) if number in started
    ]


def build(tree: Tree) -> None:
    write_collection(tree)
    (tree.folder / "output").write_text(tree.run().output)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """A finished run of one model, with its output in a file."""
    return built_once(tmp_path_factory, "undisturbed", ONE_MODEL, build)


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """The same over another data set: its files are intact, and wrong."""

    def build_other(tree: Tree) -> None:
        tree.write_images("photos", *range(40, 52))
        (tree.folder / "photos/broken.jpg").write_bytes(b"no image")
        tree.run()

    return built_once(tmp_path_factory, "foreign", ONE_MODEL, build_other)


def jobs(tree: Tree) -> list[Job]:
    """All jobs of a tree's first run, in order."""
    return list(jobs_of((tree.folder / "output").read_text()).values())


def files_of(tree: Tree) -> list[str]:
    """The files that jobs write."""
    return sorted({name for job in jobs(tree) for name in job.outputs if (tree.folder / name).is_file()})


def check_same(tree: Tree, undisturbed: Tree) -> None:
    """Every file holds what an undisturbed run writes."""
    assert not differences(tree, undisturbed, files_of(undisturbed))


def differences(tree: Tree, undisturbed: Tree, names: Iterable[str]) -> list[str]:
    """The files that differ from those of an undisturbed run in a row, a metric, an answer, or an archive's byte."""
    return [name for name in names if not _same(tree.folder / name, undisturbed.folder / name)]


def _same(path: Path, expected: Path) -> bool:
    if not expected.is_file():
        return True
    if not path.is_file():
        return False
    match path.suffix:
        case ".parquet":
            return bool(pq.read_table(path).equals(pq.read_table(expected)))
        case ".csv":
            return _numbers(path) == _numbers(expected)
        case ".json":
            return bool(_content(path) == _content(expected))
        case ".html" | ".faiss":  # with costs, and with hashes of files that have them
            return True
        case _:
            return path.read_bytes() == expected.read_bytes()


def _numbers(leaderboard: Path) -> list[str]:
    return [line for line in leaderboard.read_text().splitlines() if not any(cost in line for cost in MEASURED)]


def _content(path: Path) -> Any:
    content = json.loads(path.read_text())
    costs = ("timing", "checksum", "metrics", "made_from") if "comparisons" in path.name else ("timing", "checksum")
    content.get("answers", {}).pop("fast", None)  # a clock decides it
    return {name: value for name, value in content.items() if name not in costs}


def tally(what: str, result: str, times: int = 1) -> None:
    """Count a fault and what came of it, for the page."""
    if folder := os.environ.get(FIGURES):
        with (Path(folder) / f"{os.getpid()}").open("a") as file:
            file.write(f"{json.dumps([what, result, times])}\n")


def pytest_configure(config: pytest.Config) -> None:
    if ALL and not hasattr(config, "workerinput"):
        os.environ.setdefault(FIGURES, tempfile.mkdtemp())  # one that is there adds up several calls


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if ALL and not hasattr(session.config, "workerinput") and exitstatus == 0:
        counts: Counter[tuple[str, str]] = Counter()
        for what, result, times in _tallied():
            counts[what, result] += times
        rows = [f"| {what} | {times} | {result} |" for (what, result), times in sorted(counts.items())]
        table = "\n".join(["| fault | times | what came of it |", "| --- | --- | --- |", *rows])
        marked = r"(?<=<!-- make faults -->\n).*(?=\n<!-- end -->)"
        PAGE.write_text(re.sub(marked, lambda _: table, PAGE.read_text(), flags=re.DOTALL))


def _tallied() -> Iterator[tuple[str, str, int]]:
    for file in Path(os.environ[FIGURES]).iterdir():
        for line in file.read_text().splitlines():
            what, result, times = json.loads(line)
            yield what, result, times
