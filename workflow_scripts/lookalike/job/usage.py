"""The most memory that a job has used so far, of the host and of a GPU, in MB (2**20 bytes)."""

import re
import resource
import sys
from pathlib import Path

MB = 2**20
STATUS = Path("/proc/self/status")


def peak_memory_mb() -> float:
    """The most resident memory of this process.

    Linux's VmHWM, because its ``ru_maxrss`` starts with that of the process that started this one.
    """
    try:
        if high := re.search(r"^VmHWM:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE):
            return int(high[1]) * 1024 / MB
    except OSError:  # not Linux
        pass
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / MB if sys.platform == "darwin" else used * 1024 / MB


def peak_gpu_memory_mb() -> float | None:
    """The most memory that torch has reserved on this process's GPU; None without torch or a GPU in use.

    Neither the CUDA context (some hundred MB) nor FAISS is included.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return float(torch.cuda.max_memory_reserved()) / MB
