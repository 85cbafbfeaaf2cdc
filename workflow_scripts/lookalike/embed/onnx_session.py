"""A network in an ONNX file, run by ONNX Runtime: on the CPU, or on a GPU where onnxruntime-gpu is installed.

Never imports torch: a process that only runs ONNX files starts in a third of a second. The settings were measured on
2 cores with half a ViT-B, ResNet-50 and an int8 ResNet-50, in batches of 1 to 32 (peak memory, images a second):

- memory arena on, memory patterns off: 951 MB, 9.7; 453 MB, 26; 281 MB, 42. With patterns, which keep a plan for
  each batch size: 1,184 MB, 9.9; 640 MB, 26; 473 MB, 41. Without the arena: 1,129 MB, 9.8; 485 MB, 25; 308 MB, 42.
- threads that do not spin: as fast (within 2 %), and the cores are free while images are decoded between two batches.
- as many threads as the job has: ONNX Runtime's own choice counts the machine's cores, whatever a scheduler granted.
"""

import ctypes
import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from lookalike.job import devices, gpus
from lookalike.job.errors import LookalikeError

log = logging.getLogger(__name__)

NO_MEMORY = ("Failed to allocate memory", "bad_alloc", "CUDA failure 2:", "cudaErrorMemoryAllocation")
DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
SILENT = 4  # only what ends the process: errors are raised, and said once
# the widest first: kernels differ with it, and so does an int8 network's rounding
INSTRUCTIONS = ("amx_int8", "avx512_vnni", "avx512f", "avx_vnni", "avx2", "avx", "sse4_1", "sve", "asimd")


@dataclass(frozen=True)
class Tensor:
    """An input or output of a network. ``None`` in ``shape`` is a side that the file leaves open."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str  # of NumPy; of other types, as ONNX Runtime writes it: "tensor(int64)"

    def __str__(self) -> str:
        sides = " x ".join("?" if side is None else str(side) for side in self.shape)
        return f"'{self.name}' ({sides}, {self.dtype})"


class Session:
    """A loaded network.

    ``device`` is its name for people, ``overlaps`` says whether it computes beside the CPU, and ``versions`` belong in
    the footer of what is computed.
    """

    def __init__(self, session: Any, where: str, device: str, overlaps: bool) -> None:
        self._session, self.where, self.device, self.overlaps = session, where, device, overlaps
        self.inputs = tuple(map(_tensor, session.get_inputs()))
        self.outputs = tuple(map(_tensor, session.get_outputs()))
        self.versions = {"onnxruntime": _runtime().__version__, "instructions": "cuda" if overlaps else instructions()}
        self._options = _runtime().RunOptions()
        self._options.log_severity_level = SILENT

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[Any]]:
        """The named outputs for named inputs.

        Raises MemoryError where memory runs out, and LookalikeError for whatever else ONNX Runtime has to say.
        """
        try:
            found: list[NDArray[Any]] = self._session.run([*outputs], dict(inputs), self._options)
        except Exception as error:  # its errors share no class but this
            if _out_of_memory(error):
                raise MemoryError(_reason(error)) from None
            raise LookalikeError(f"{self.where}: fails: {_reason(error)}") from None
        return found


def open_session(path: str | Path, where: str, *, threads: int = 1, gpu: bool = False) -> Session:
    """Load a network from its file, for CPU threads or, with ``gpu``, for a GPU where one can be used.

    ``where`` begins every message. Where ``gpu`` cannot be had, the log says why and the CPU computes, unless a
    scheduler gave this job a GPU: that is a LookalikeError, as is a file that ONNX Runtime cannot load.
    """
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = SILENT
    claimed = _claim_gpu() if gpu else None
    providers: list[Any] = [CPU]
    if claimed:
        # float32 means float32 (no TF32), memory grows by what is needed, and no algorithm is chosen by timing it
        exact = {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC"}
        providers = [(CUDA, {"device_id": str(claimed[0]), **exact}), CPU]
    try:
        session = runtime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # its errors share no class but this
        if _out_of_memory(error):
            raise MemoryError(_reason(error)) from None
        raise LookalikeError(
            f"{where}: ONNX Runtime {runtime.__version__} cannot load {path}: {_reason(error)}. If it is damaged or "
            "its external data is missing, fetch it again; if it is newer than ONNX Runtime, update that "
            "(pip install -U onnxruntime)."
        ) from None
    if claimed and session.get_providers()[0] != CUDA:
        devices.go_without_gpu(f"ONNX Runtime {runtime.__version__} cannot start on it (CUDA or cuDNN do not fit)")
        claimed = None
    return Session(session, where, claimed[1] if claimed else f"CPU ({threads} threads)", bool(claimed))


@cache
def instructions() -> str:
    """The widest vector instructions of this CPU that ONNX Runtime's kernels are chosen by, such as ``avx512_vnni``."""
    flags = cpu_flags()
    return next((name for name in INSTRUCTIONS if name in flags), platform.machine())


def cpu_flags() -> set[str]:
    """What this CPU can do, in Linux's words, such as ``avx512_bf16``; nothing on other systems."""
    flags: set[str] = set()
    for line in _cpuinfo().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            flags |= set(value.split())
    return flags


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:  # no Linux
        return ""


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise LookalikeError(
            f"onnxruntime: cannot be imported ({error}). Install it: pip install onnxruntime, or onnxruntime-gpu where "
            "there is an NVIDIA GPU (the extras 'cpu' and 'gpu' include them)."
        ) from None
    return onnxruntime


def _claim_gpu() -> tuple[int, str] | None:
    """The number and name of a GPU taken for this job; None, with the reason in the log, if no GPU is usable."""
    runtime = _runtime()
    if CUDA not in runtime.get_available_providers():
        devices.go_without_gpu(f"ONNX Runtime {runtime.__version__} is built without CUDA (onnxruntime-gpu has it)")
        return None
    claimed = gpus.claim()  # before the driver starts, which reads the visible devices once
    names = cuda_devices()
    if not names:
        gpus.release()
        devices.go_without_gpu("CUDA finds no device")
        return None
    runtime.preload_dlls()  # CUDA and cuDNN of torch's packages, where the system lacks them
    number = 0 if claimed and len(names) == 1 else gpus.claim_one_of(devices.visible_devices(len(names)))
    return number, names[number]


def cuda_devices() -> list[str]:
    """Names of the GPUs that the driver shows this process."""
    count, name = ctypes.c_int(0), ctypes.create_string_buffer(100)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
            return []
        found = []
        for number in range(count.value):
            driver.cuDeviceGetName(name, len(name), number)
            found.append(name.value.decode(errors="replace"))
    except (OSError, AttributeError):
        return []
    return found


def _tensor(given: Any) -> Tensor:
    # a side without a number has a name, such as "batch", or nothing at all
    shape = tuple(side if isinstance(side, int) else None for side in given.shape)
    return Tensor(given.name, shape, DTYPES.get(given.type, given.type))


def _out_of_memory(error: Exception) -> bool:
    return devices.out_of_memory(error) or any(words in str(error) for words in NO_MEMORY)


def _reason(error: Exception) -> str:
    """ONNX Runtime's words on one line, less its prefix and the place in its source."""
    text = " ".join(str(error).split()).rpartition("] : ")[2] if "[ONNXRuntimeError]" in str(error) else str(error)
    return text.strip().rstrip(".") or type(error).__name__
