"""Which precision torch computes in, on the device that a job has."""

import logging
from typing import TYPE_CHECKING

from lookalike.embed.onnx_session import cpu_flags

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

BFLOAT16 = {"avx512_bf16", "amx_bf16"}  # flags of CPUs that multiply matrices in bfloat16


def choose_dtype(configured: str, device: "torch.device", where: str) -> str:
    """The dtype to compute in: float32 on a CPU, unless that has instructions for bfloat16 and the entry says so."""
    if configured == "float32" or device.type != "cpu" or (configured == "bfloat16" and BFLOAT16 & cpu_flags()):
        return configured
    why = "" if configured != "bfloat16" else ", which has no instructions for that (AVX512-BF16 or AMX)"
    log.warning("%s: computing in float32, not %s, on the CPU%s", where, configured, why)
    return "float32"
