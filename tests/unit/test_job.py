import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPOSITORY
from lookalike.job.progress import Progress

BODY = """
from lookalike.job.log import job, log
from lookalike.job.errors import LookalikeError
with job("embed pixels", {log!r}):
    log.info("half way")
    {last}
"""


def run(folder: Path, last: str) -> tuple[int, str, str]:
    """Exit status, what the terminal showed, and the log."""
    path = folder / "logs/job.log"
    ran = script(path, last)
    return ran.returncode, ran.stderr, path.read_text()


def script(log: Path, last: str) -> "subprocess.CompletedProcess[str]":
    code = BODY.format(log=str(log), last=last)
    return subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY / "workflow_scripts", capture_output=True, text=True, check=False
    )


def test_a_job_logs_to_its_file_and_to_the_terminal_and_says_what_it_cost(tmp_path: Path) -> None:
    status, terminal, log = run(tmp_path, "pass")
    assert (status, terminal) == (0, "embed pixels: half way\n")
    assert "INFO half way" in log
    assert "s of CPU and at most" in log.splitlines()[-1]


def test_a_user_facing_error_has_no_traceback(tmp_path: Path) -> None:
    status, terminal, log = run(tmp_path, "raise LookalikeError('k: too large. Lower it.')")
    assert status == 1
    assert terminal == "embed pixels: half way\nembed pixels: k: too large. Lower it.\n"
    assert "ERROR k: too large. Lower it." in log


def test_a_package_of_an_extra_that_is_not_installed_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    status, terminal, log = run(tmp_path, "import sys; sys.modules['faiss'] = None; import faiss.contrib")
    assert status == 1
    message = "faiss is not installed. Run: pip install 'lookalike[cpu]' ('gpu' instead of 'cpu' for an NVIDIA GPU)"
    assert terminal == f"embed pixels: half way\nembed pixels: {message}\n"
    assert f"ERROR {message}" in log


def test_an_interrupted_job_says_so_without_a_traceback(tmp_path: Path) -> None:
    status, terminal, log = run(tmp_path, "raise KeyboardInterrupt")
    assert status == 130
    assert terminal == "embed pixels: half way\nembed pixels: interrupted\n"
    assert "WARNING interrupted" in log


def test_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    status, terminal, log = run(tmp_path, "1 / 0")
    assert status == 1
    for text in (terminal, log):
        assert "please report it" in text
        assert "ZeroDivisionError" in text


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (
            "raise MemoryError",
            "out of memory. Raise the limit of this job (runtime.mem_mb on a cluster, ulimit -v), run",
        ),
        (
            "open('/dev/full', 'w').write('x' * 100_000)",
            "a file: No space left on device. Free some space, or raise the quota or limit (ulimit -f).",
        ),
        (
            "import os; raise OSError(30, os.strerror(30), 'results/x')",
            "results/x: Read-only file system. Give yourself permission, or mount that disk writable.",
        ),
        (
            "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3)); open('/etc/passwd')",
            "/etc/passwd: Too many open files. Raise the limit on open files (ulimit -n).",
        ),
    ],
)
def test_a_lack_of_memory_space_or_permission_is_a_sentence_and_the_log_has_its_traceback(
    last: str, message: str, tmp_path: Path
) -> None:
    status, terminal, log = run(tmp_path, last)
    assert status == 1
    assert terminal.startswith(f"embed pixels: half way\nembed pixels: {message}")
    assert len(terminal.splitlines()) == 2
    assert f"ERROR {message}" in log
    assert "Traceback" in log


@pytest.mark.parametrize("megabytes", [600, 1000, 1600])
def test_too_little_memory_to_import_a_library_is_a_sentence(megabytes: int, tmp_path: Path) -> None:
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({megabytes << 20}, {megabytes << 20}))"
    status, terminal, _ = run(tmp_path, f"{limit}; import torch; torch.ones(1 << 30)")
    assert status == 1
    assert re.fullmatch(
        r"embed pixels: half way\nembed pixels: out of memory( \(.+\))?\. Raise the limit .*\n", terminal
    )


def test_a_log_that_cannot_be_created_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where a folder should be")
    with pytest.raises(NotADirectoryError):
        run(tmp_path, "pass")
    ran = script(tmp_path / "logs/job.log", "pass")
    assert ran.returncode == 1
    assert re.fullmatch(
        r"embed pixels: \S+/logs/job\.log: cannot be written \(.+\)\. Check the folder's permissions.*\n", ran.stderr
    )


def test_a_log_that_does_not_fit_on_the_disk_is_reported_once_and_the_job_continues(tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (60, 60))"
    status, terminal, log = run(tmp_path, f"{limit}; log.info('more'); log.info('and more'); log.info('the end')")
    assert status == 0
    assert len(log) == 60
    assert terminal.count("job.log: cannot be written (File too large)") == 1
    assert "Traceback" not in terminal
    assert terminal.endswith("embed pixels: the end\n")


def test_progress_is_a_line_from_time_to_time_and_one_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "lookalike"):
        progress = Progress("embedded", 3, "images", every=0)
        progress.advance()
        progress.advance(2)
    first, last = caplog.messages
    assert first.startswith("embedded 1 of 3 images, ")
    assert first.endswith(" left")
    assert last.startswith("embedded 3 of 3 images, ")


def test_quick_progress_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "lookalike"):
        progress = Progress("made", 100, "copies")
        for _ in range(100):
            progress.advance()
    assert len(caplog.messages) == 1
