import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lookalike.embed.encoders import Machine
from lookalike.job import devices
from lookalike.job.errors import LookalikeError
from lookalike.search import loading

CLAIM = """
import sys, time
from lookalike.job import devices
print(devices.claim(["test-a", "test-b"], wait=0.05), flush=True)
time.sleep(60)
"""


def start(temporary: Path) -> "subprocess.Popen[str]":
    library = str(Path(devices.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": library, "TMPDIR": str(temporary)}
    return subprocess.Popen([sys.executable, "-c", CLAIM], env=environment, stdout=subprocess.PIPE, text=True)


def first_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def test_jobs_of_one_machine_claim_different_gpus_and_a_killed_job_frees_its_own(tmp_path: Path) -> None:
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


def test_locks_have_the_names_that_a_cluster_assigned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert devices.visible_devices(2) == ["4", "7"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert devices.visible_devices(2) == ["0", "1"]


@pytest.fixture
def on_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Callable[..., None]:
    """A machine with or without a GPU driver, and a job with or without an assigned GPU."""
    (tmp_path / "nvidia0").touch()
    caplog.set_level(logging.INFO, "lookalike")

    def on_machine(driver: bool, **given: str) -> None:
        monkeypatch.setattr(devices, "DRIVERS", (str((tmp_path / "nvidia[0-9]").relative_to("/")),) if driver else ())
        for name in devices.GPU_VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in given.items():
            monkeypatch.setenv(name, value)

    return on_machine


WITHOUT_CUDA = pytest.mark.skipif(bool(torch.version.cuda), reason="tests a torch without CUDA")


def test_a_job_that_requests_no_gpu_logs_nothing(
    on_machine: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    on_machine(driver=True, CUDA_VISIBLE_DEVICES="0")
    assert devices.torch_device(Machine(threads=1, gpu=False))[0].type == "cpu"
    assert not caplog.records


@WITHOUT_CUDA
@pytest.mark.parametrize(
    ("machine", "level", "message"),
    [
        ({"driver": False}, logging.INFO, r"no GPU available: computing on the CPU"),
        (
            {"driver": True},
            logging.WARNING,
            r"has a GPU, which cannot be used: this torch, \S+, is built without CUDA\. Computing on the CPU\.",
        ),
        (
            {"driver": True, "CUDA_VISIBLE_DEVICES": ""},
            logging.INFO,
            r"CUDA_VISIBLE_DEVICES= says that this job has no GPU",
        ),
        (
            {"driver": True, "SLURM_GPUS_ON_NODE": "0"},
            logging.INFO,
            r"SLURM_GPUS_ON_NODE=0 says that this job has no GPU",
        ),
    ],
)
def test_an_unused_gpu_is_a_warning_only_where_the_machine_has_one(
    machine: dict[str, Any],
    level: int,
    message: str,
    on_machine: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    on_machine(**machine)
    assert devices.torch_device(Machine(threads=1, gpu=True))[0].type == "cpu"
    (record,) = caplog.records
    assert record.levelno == level
    assert re.search(message, record.getMessage())


@WITHOUT_CUDA
@pytest.mark.parametrize("driver", [True, False])
@pytest.mark.parametrize("variable", devices.GPU_VARIABLES)
def test_an_unusable_gpu_that_a_scheduler_assigned_is_an_error(
    variable: str, driver: bool, on_machine: Callable[..., None]
) -> None:
    on_machine(driver, **{variable: "1"})
    with pytest.raises(
        LookalikeError,
        match=rf"given a GPU \({variable}=1\), .* built without CUDA\. Check that .* or set runtime.gpu: 0",
    ):
        devices.torch_device(Machine(threads=1, gpu=True))
    on_machine(driver, **{variable: "1"})
    with pytest.raises(LookalikeError, match=rf"given a GPU \({variable}=1\), .* FAISS"):
        loading.on_gpu(None)


@WITHOUT_CUDA
def test_a_gpu_that_is_listed_and_cannot_compute_is_not_used(
    on_machine: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: None)
    on_machine(driver=True)
    assert devices.torch_device(Machine(threads=1, gpu=True))[0].type == "cpu"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "cannot be used: " in record.getMessage()
    assert devices.claim(["0", "1"]) == 0, "a broken GPU stays free for other jobs"
    on_machine(driver=True, CUDA_VISIBLE_DEVICES="0,1")
    with pytest.raises(LookalikeError, match=r"given a GPU \(CUDA_VISIBLE_DEVICES=0,1\)"):
        devices.torch_device(Machine(threads=1, gpu=True))
