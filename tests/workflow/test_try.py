"""`lookalike try` with the real workflow, in a folder that knows nothing of it."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import REPOSITORY, ImageFolder

MAIN = [sys.executable, "-c", "from lookalike.cli.main import main; main()"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY / "workflow_scripts")}


@pytest.fixture
def here(tmp_path: Path, image_folder: ImageFolder) -> Path:
    image_folder(tmp_path / "Pictures", 9)
    (tmp_path / "Pictures/broken.jpg").write_bytes(b"no image")
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def attempt(here: Path, *options: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    command = [*MAIN, "try", "../Pictures", "--cores", "2", "--models", "pixels,color-histogram", *options]
    ended = subprocess.run(command, cwd=here, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert ended.returncode == status, ended.stderr[-5000:]
    assert "Traceback" not in ended.stderr
    return ended


def test_one_command_from_a_folder_to_a_leaderboard(here: Path) -> None:
    ran = attempt(here, "--json", "--queries", "6", "--sample", "8")
    assert "steps (100%) done" in ran.stderr
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
    assert "Nothing to be done" in again.stderr
    assert "report: results/reports/my-pictures/index.html" in again.stdout
    assert "color-histogram" in again.stdout

    (line,) = (one for one in (here / found["configuration"]).read_text().splitlines() if one.startswith("#   "))
    command = [sys.executable, "-m", *shlex.split(line.removeprefix("#   "))]
    kept = subprocess.run(command, cwd=here, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert kept.returncode == 0, kept.stderr
    assert "Nothing to be done" in kept.stdout + kept.stderr


def test_a_workflow_that_fails_ends_with_its_reason(here: Path) -> None:
    for image in here.parent.glob("Pictures/*.png"):
        image.write_bytes(b"not an image any more")
    failed = attempt(here, status=1)
    assert "references that were tried can be decoded; the first: " in failed.stderr
    assert "lookalike: the workflow ended with status 1." in failed.stderr
    assert failed.stdout == ""


def test_ctrl_c_ends_the_workflow_and_its_jobs(here: Path) -> None:
    said = here / "said.txt"
    with said.open("w") as output:
        process = subprocess.Popen(
            [*MAIN, "try", "../Pictures", "--queries", "5000", "--models", "pixels", "--cores", "2"],
            cwd=here,
            env=ENVIRONMENT,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + 300
    while not (here / "results/logs/make_images").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    assert running(here)
    process.send_signal(signal.SIGINT)
    assert process.wait(300) == 130, said.read_text()
    assert said.read_text().endswith("Run the same command again to resume.\n")
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
