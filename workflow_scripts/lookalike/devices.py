"""Which device a job computes on: every GPU job of one machine takes a GPU of its own."""

import ctypes
import fcntl
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
_claimed: list[IO[bytes]] = []  # open for as long as the process lives: its end, however it comes, frees the GPU


class Resources(Protocol):
    """What a job may use (``models.Machine``)."""

    @property
    def threads(self) -> int:
        """CPU threads."""

    @property
    def gpu(self) -> bool:
        """Whether a GPU was asked for."""


def torch_device(machine: Resources) -> tuple["torch.device", str]:
    """The device to compute on, and its name for people. Sets torch's CPU threads."""
    import torch

    torch.set_num_threads(machine.threads)
    _keep_memory()
    count = torch.cuda.device_count() if machine.gpu else 0
    if count:
        number = claim(visible_devices(count))
        torch.cuda.set_device(number)
        return torch.device("cuda", number), torch.cuda.get_device_name(number)
    if machine.gpu:
        log.info("no GPU here: computing on the CPU with %d threads", machine.threads)
    return torch.device("cpu"), cpu(machine)


def cpu(machine: Resources) -> str:
    """The CPU's name for people."""
    return f"CPU ({machine.threads} threads)"


def _keep_memory() -> None:
    """Keep freed memory for the next batch instead of giving it back to the system.

    glibc maps large blocks anew for every layer; clearing those pages took half of the time of a forward pass of
    EfficientNet-Lite0 on a CPU (batches of 32: 32 pictures a second before, 60 after).
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:  # not glibc
        return
    m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
    libc.mallopt(m_mmap_max, 0)
    libc.mallopt(m_trim_threshold, 2**31 - 1)


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the machine or of its GPU; torch has several ways to say so."""
    said = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in said)
    )


def visible_devices(count: int) -> list[str]:
    """Names of the devices that this process sees, one for each of torch's numbers."""
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return names if len(names) == count else [str(number) for number in range(count)]


def claim(devices: list[str], wait: float = 1.0) -> int:
    """Take a device that no other job of this machine has, waiting for one if need be; returns its number.

    Snakemake counts GPUs but hands out none, so each job locks a file per device, for as long as its process lives.
    """
    if len(devices) == 1:
        return 0  # ours alone: a cluster handed it out, or there is no other
    waited = False
    while True:
        for number, name in enumerate(devices):
            path = Path(tempfile.gettempdir()) / f"lookalike-{os.getuid()}-gpu-{name}.lock"
            file = path.open("ab")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                continue
            _claimed.append(file)
            return number
        if not waited:
            log.warning("all %d GPUs are taken by other jobs: waiting for one", len(devices))
            waited = True
        time.sleep(wait)
