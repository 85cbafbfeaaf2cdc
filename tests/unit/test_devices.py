import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from lookalike import devices

CLAIM = """
import sys, time
from lookalike import devices
print(devices.claim(["test-a", "test-b"], wait=0.05), flush=True)
time.sleep(60)
"""


def start(temporary: Path) -> "subprocess.Popen[str]":
    library = str(Path(devices.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": library, "TMPDIR": str(temporary)}
    return subprocess.Popen([sys.executable, "-c", CLAIM], env=environment, stdout=subprocess.PIPE, text=True)


def first_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def test_jobs_of_one_machine_take_different_gpus_and_a_killed_job_frees_its_own(tmp_path: Path) -> None:
    one, two, three = (start(tmp_path) for _ in range(3))
    try:
        claimed = {}  # all three race for two devices
        for _ in range(600):
            for process in (one, two, three):
                if process not in claimed and _ready(process):
                    claimed[process] = first_line(process)
            if len(claimed) == 2:
                break
            time.sleep(0.05)
        assert sorted(claimed.values()) == ["0", "1"]
        (waiting,) = {one, two, three} - set(claimed)
        assert not _ready(waiting)
        victim = next(iter(claimed))
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        assert first_line(waiting) == claimed[victim]
    finally:
        for process in (one, two, three):
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()


def _ready(process: "subprocess.Popen[str]") -> bool:
    import select

    return bool(select.select([process.stdout], [], [], 0)[0])


def test_a_single_device_needs_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert devices.claim(["0"]) == 0
    assert list(tmp_path.iterdir()) == []


def test_locks_carry_the_names_that_a_cluster_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert devices.visible_devices(2) == ["4", "7"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert devices.visible_devices(2) == ["0", "1"]
