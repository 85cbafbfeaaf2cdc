"""The most memory that a job has used so far, of the host and of a GPU, in MB (2**20 bytes)."""

import re
import resource
import sys
from pathlib import Path

MB = 2**20
STATUS = Path("/proc/self/status")
_helpers: list[float] = []  # MB of each process that helped this one and is about to end


def peak_memory_mb() -> float:
    """The most resident memory of this process, and of those that helped it (``note_helper``).

    Linux's VmHWM, because its ``ru_maxrss`` starts with that of the process that started this one.
    """
    if (own := _peak(STATUS)) is None:
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        own = used / MB if sys.platform == "darwin" else used * 1024 / MB
    return own + sum(_helpers)


def note_helper(pid: int) -> None:
    """Count the memory of a child process that runs beside this one; called when it is no longer needed."""
    _helpers.append(_peak(STATUS.parents[1] / str(pid) / "status") or 0.0)


def _peak(status: Path) -> float | None:
    try:
        high = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE)
    except OSError:  # not Linux, or it has ended
        return None
    return int(high[1]) * 1024 / MB if high else None


def peak_gpu_memory_mb() -> float | None:
    """The most memory that torch has reserved on this process's GPU; None without torch or a GPU in use.

    Neither the CUDA context (some hundred MB) nor FAISS is included.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return float(torch.cuda.max_memory_reserved()) / MB
