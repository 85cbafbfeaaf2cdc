"""Which device a job computes on."""

import ctypes
import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lookalike.job import gpus
from lookalike.job.errors import LookalikeError

if TYPE_CHECKING:
    import torch

# Variables with which a scheduler, or whoever started the job, grants it a GPU, and the values that mean: no GPU. The
# first one that is set decides.
GPU_VARIABLES = {
    "CUDA_VISIBLE_DEVICES": ("", "-1", "NoDevFiles"),
    "SLURM_STEP_GPUS": ("",),
    "SLURM_JOB_GPUS": ("",),
    "SLURM_GPUS_ON_NODE": ("", "0"),
}
DRIVERS = ("dev/nvidia[0-9]*", "proc/driver/nvidia/version", "dev/kfd", "dev/dxg")  # below /: CUDA, ROCm, WSL
NO_MEMORY = (
    *("out of memory", "not enough memory", "can't allocate memory", "annot allocate memory", "ALLOC_FAILED"),
    *("ALLOCATION_FAILED", "nable to find an engine to execute this computation"),  # cuDNN's, of workspaces
    *("bad_alloc", "unable to mmap", "failed to map segment", "can't start new thread"),
    "Failed to launch worker thread",
)

log = logging.getLogger(__name__)


class Resources(Protocol):
    """What a job may use (``encoders.Machine``)."""

    @property
    def threads(self) -> int:
        """CPU threads."""

    @property
    def gpu(self) -> bool:
        """Whether a GPU was requested."""


def torch_device(machine: Resources) -> tuple["torch.device", str]:
    """The device to compute on, and its display name. Sets torch's CPU threads."""
    import torch

    torch.set_num_threads(machine.threads)
    _keep_memory()
    number = _cuda_device() if machine.gpu else None
    if number is None:
        return torch.device("cpu"), cpu(machine)
    return torch.device("cuda", number), torch.cuda.get_device_name(number)


def _cuda_device() -> int | None:
    """Claim a working GPU for this job: torch's number of it. None, with the reason in the log, if no GPU is usable."""
    import torch

    if torch.version.cuda or torch.version.hip:
        claimed = gpus.claim()  # before CUDA starts, which reads the visible devices once
    else:
        go_without_gpu(f"this torch, {torch.__version__}, is built without CUDA")
        return None
    with warnings.catch_warnings(record=True) as caught:  # torch gives the driver's reason as a warning
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        gpus.release()
        go_without_gpu(_first_line(caught[0].message) if caught else "CUDA finds no device")
        return None
    try:
        number = _number(claimed, count) if claimed else gpus.claim_one_of(visible_devices(count))
        torch.cuda.set_device(number)
        torch.ones(1, device="cuda").add_(1).item()  # a device may be listed and still not work
    except (RuntimeError, AssertionError) as error:
        gpus.release()
        go_without_gpu(_first_line(error))
        return None
    return number


def _number(uuid: str, count: int) -> int:
    """Torch's number of a device: 0 where only that is visible, otherwise CUDA had started before it was claimed."""
    import torch

    uuids = [str(getattr(torch.cuda.get_device_properties(number), "uuid", "")) for number in range(count)]
    return next((number for number, one in enumerate(uuids) if one and one in uuid), 0)


def go_without_gpu(reason: str) -> None:
    """Log that a GPU was requested, why none is used, and that the CPU computes.

    It is a warning where the machine has a GPU. Raises LookalikeError where a scheduler gave this job one: other jobs
    wait for it, and this one would run out of time.
    """
    remedy = (
        "Check that `nvidia-smi` lists it and that PyTorch and FAISS are builds for GPUs (docs/cluster.md), "
        "or set runtime.gpu: 0 in the entry in config.yaml."
    )
    if variable := next((name for name in GPU_VARIABLES if name in os.environ), None):
        value = os.environ[variable]
        if value.strip() not in GPU_VARIABLES[variable]:
            raise LookalikeError(
                f"gpu: 1: this job was given a GPU ({variable}={value}), which cannot be used: {reason}. {remedy}"
            )
        log.info("%s=%s says that this job has no GPU: computing on the CPU", variable, value)
    elif any(any(Path("/").glob(driver)) for driver in DRIVERS):
        log.warning("this machine has a GPU, which cannot be used: %s. Computing on the CPU. %s", reason, remedy)
    else:
        log.info("no GPU available: computing on the CPU")


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def cpu(machine: Resources) -> str:
    """The display name of the CPU."""
    return f"CPU ({machine.threads} threads)"


def _keep_memory() -> None:
    """Keep freed memory for the next batch instead of returning it to the system.

    glibc maps large blocks anew for every layer; clearing those pages took half of the time of a forward pass of
    EfficientNet-Lite0 on a CPU (batches of 32: 32 images a second before, 60 after).
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:  # not glibc
        return
    m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
    libc.mallopt(m_mmap_max, 0)
    libc.mallopt(m_trim_threshold, 2**31 - 1)


def out_of_memory(error: BaseException) -> bool:
    """Whether the machine or its GPU is out of memory; libraries and their loader report it in many ways."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY)


def visible_devices(count: int) -> list[str]:
    """Names of the devices visible to this process, one for each of torch's numbers."""
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return names if len(names) == count else [str(number) for number in range(count)]
