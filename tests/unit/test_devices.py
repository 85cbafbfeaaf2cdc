import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lookalike.embed.encoders import Machine
from lookalike.job import devices, gpus
from lookalike.job.errors import LookalikeError
from lookalike.search import loading


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
    monkeypatch.setattr(gpus, "PLACES", (str(tmp_path),))
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: None)
    on_machine(driver=True)
    assert devices.torch_device(Machine(threads=1, gpu=True))[0].type == "cpu"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "cannot be used: " in record.getMessage()
    assert not gpus.held(), "a broken GPU stays free for other jobs"
    on_machine(driver=True, CUDA_VISIBLE_DEVICES="0,1")
    with pytest.raises(LookalikeError, match=r"given a GPU \(CUDA_VISIBLE_DEVICES=0,1\)"):
        devices.torch_device(Machine(threads=1, gpu=True))


@pytest.mark.parametrize(
    "words",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "GET was unable to find an engine to execute this computation",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
        "CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_a_library_that_lacks_memory_is_understood(words: str) -> None:
    assert devices.out_of_memory(RuntimeError(words))
    assert not devices.out_of_memory(RuntimeError("unable to find an image"))
