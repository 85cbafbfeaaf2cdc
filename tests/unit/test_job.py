import logging
import subprocess
import sys
from pathlib import Path

import pytest

from lookalike import job
from lookalike.progress import Progress

BODY = """
from lookalike.job import job, log
from lookalike.errors import LookalikeError
with job("embed pixels", {log!r}):
    log.info("half way")
    {last}
"""


def run(folder: Path, last: str) -> tuple[int, str, str]:
    """Exit status, what the terminal showed, and the log."""
    path = folder / "logs/job.log"
    code = BODY.format(log=str(path), last=last)
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(job.__file__).parents[1], capture_output=True, text=True, check=False
    )
    return ran.returncode, ran.stderr, path.read_text()


def test_a_job_logs_to_its_file_and_to_the_terminal_and_says_what_it_cost(tmp_path: Path) -> None:
    status, terminal, log = run(tmp_path, "pass")
    assert (status, terminal) == (0, "embed pixels: half way\n")
    assert "INFO half way" in log
    assert "s of CPU and at most" in log.splitlines()[-1]


def test_an_error_for_people_has_no_traceback(tmp_path: Path) -> None:
    status, terminal, log = run(tmp_path, "raise LookalikeError('k: too large. Lower it.')")
    assert status == 1
    assert terminal == "embed pixels: half way\nembed pixels: k: too large. Lower it.\n"
    assert "ERROR k: too large. Lower it." in log


def test_an_interrupted_job_says_so_without_a_traceback(tmp_path: Path) -> None:
    status, terminal, log = run(tmp_path, "raise KeyboardInterrupt")
    assert status == 130
    assert terminal == "embed pixels: half way\nembed pixels: interrupted\n"
    assert "WARNING interrupted" in log


def test_a_mistake_of_ours_keeps_its_traceback(tmp_path: Path) -> None:
    status, terminal, log = run(tmp_path, "1 / 0")
    assert status == 1
    for text in (terminal, log):
        assert "please report it" in text
        assert "ZeroDivisionError" in text


def test_progress_is_a_line_now_and_then_and_one_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "lookalike"):
        progress = Progress("embedded", 3, "pictures", every=0)
        progress.advance()
        progress.advance(2)
    first, last = caplog.messages
    assert first.startswith("embedded 1 of 3 pictures, ")
    assert first.endswith(" left")
    assert last.startswith("embedded 3 of 3 pictures, ")


def test_progress_that_is_quick_says_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "lookalike"):
        progress = Progress("made", 100, "copies")
        for _ in range(100):
            progress.advance()
    assert len(caplog.messages) == 1
