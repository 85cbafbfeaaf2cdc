"""`lookalike compare` with the real workflow, in a folder that knows nothing of it."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import REPOSITORY, ImageFolder, made_image
from workflow.conftest import SNAKEMAKE, lookalike

COMPARE = [sys.executable, "-c", "from lookalike.cli.main import main; main()", "compare", "../Pictures", "--out", "."]


def environment() -> dict[str, str]:
    """Of commands; conftest.py has set a home for what they remember."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY / "workflow_scripts")}


@pytest.fixture
def here(tmp_path: Path, image_folder: ImageFolder) -> Path:
    image_folder(tmp_path / "Pictures", 9)
    (tmp_path / "Pictures/broken.jpg").write_bytes(b"no image")
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def attempt(here: Path, *options: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    arguments = ("compare", "../Pictures", "--out", ".", "--cores", "1", "--models", "pixels,color-histogram")
    ended = lookalike(*arguments, *options, folder=here, status=status)
    assert "Traceback" not in ended.stderr
    return ended


def test_one_command_from_a_folder_to_a_leaderboard(here: Path) -> None:
    ran = attempt(here, "--json", "--queries", "6", "--sample", "8")
    assert re.search(r"^embed images +4 jobs +done in ", ran.stderr, re.MULTILINE)
    assert "Snakemake" not in ran.stderr + ran.stdout
    assert "steps (100%) done" in (here / "results/logs/snakemake/my-pictures.log").read_text()
    found = json.loads(ran.stdout)
    assert (found["images"], found["used"]) == (10, 8)
    assert {row["model"] for row in found["leaderboard"]} == {"pixels", "color-histogram"}
    first, second = found["leaderboard"]
    assert first["accuracy_at_1"] >= second["accuracy_at_1"]
    for row in found["leaderboard"]:
        assert (row["n"], row["low"] <= row["accuracy_at_1"] <= row["high"]) == (6, True)
        assert row["images_per_second"] > 0
    assert (here / found["report"]).read_text().startswith("<!doctype html>")

    again = attempt(here, "--queries", "6", "--sample", "8")
    assert "configuration: my-pictures.yaml (unchanged)" in again.stderr
    assert "Nothing to be done" not in again.stderr
    assert "Nothing to be done" in (here / "results/logs/snakemake/my-pictures.log").read_text()
    assert "report: results/reports/my-pictures/index.html" in again.stdout
    assert "color-histogram" in again.stdout

    (line,) = (one for one in (here / found["configuration"]).read_text().splitlines() if one.startswith("#   "))
    command = ["-m", *shlex.split(line.removeprefix("#   "))]
    kept = SNAKEMAKE.run(*command, cwd=here, env=environment())
    assert kept.returncode == 0, kept.stderr
    assert "Nothing to be done" in kept.stdout + kept.stderr


def test_what_a_comparison_leaves_is_what_the_next_commands_use(here: Path, image_folder: ImageFolder) -> None:
    compared = attempt(here, "--queries", "6", "--models", "phash-256")
    assert "unreadable: 1 of the images" in compared.stdout
    log = here / "results/logs/snakemake"

    def find(number: int) -> str:
        made_image(number).save(here / "photo.png")
        ended = lookalike("find", "photo.png", "--no-sheet", "--json", "--cores", "1", folder=here)
        return str(json.loads(ended.stdout)["neighbors"][0]["image_id"])

    assert find(3) == "p3.png"
    (run,) = log.glob("pictures-*.log")
    run.unlink()
    assert find(4) == "p4.png"
    assert not run.exists(), "an unchanged folder starts no Snakemake"
    image_folder(here.parent / "Pictures", 1, first=40)
    assert find(40) == "p40.png"
    assert "1 vectors computed + 9 from the vector store = 10" in run.read_text()


def test_a_workflow_that_fails_ends_with_its_reason(here: Path) -> None:
    for image in here.parent.glob("Pictures/*.png"):
        image.write_bytes(b"not an image any more")
    failed = attempt(here, status=1)
    *_, last = failed.stderr.splitlines()
    assert last.startswith("lookalike: datasets.my-pictures-copies.of: ")
    assert "references that were tried can be decoded; the first: " in last
    assert last.endswith("Then resume with: lookalike compare ../Pictures --out .")
    assert failed.stdout == ""


def test_ctrl_c_ends_the_workflow_and_its_jobs(here: Path) -> None:
    said = here / "said.txt"
    with said.open("w") as output:
        process = subprocess.Popen(
            [*COMPARE, "--cores", "2", "--queries", "5000", "--models", "pixels"],
            cwd=here,
            env=environment(),
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + 300
    while not (here / "results/logs/make_images").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    assert running(here)
    process.send_signal(signal.SIGINT)
    assert process.wait(300) == 130, said.read_text()
    assert said.read_text().endswith("Resume with: lookalike compare ../Pictures --out .\n")
    deadline = time.monotonic() + 60
    while running(here) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running(here) == []


def running(folder: Path) -> list[str]:
    """Processes that work in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == folder.resolve():
                found.append((process / "cmdline").read_text())
        except OSError:  # it has ended, or is not ours to see
            continue
    return found
