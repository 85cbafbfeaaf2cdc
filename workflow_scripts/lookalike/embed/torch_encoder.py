"""Base class for torch networks: moves pixels to the network's device and vectors back.

A GPU is kept busy: pixels are copied asynchronously as 8-bit values from pinned memory, and the CPU waits for a batch's
vectors only after it has queued the next batch (``embed/embed.py``).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lookalike.embed.encoders import Computed, Machine
from lookalike.embed.layout import pool
from lookalike.embed.preprocess import Geometry
from lookalike.io.formats.exports import Layout
from lookalike.job.devices import torch_device

if TYPE_CHECKING:
    import torch


class TorchEncoder:
    """A torch network on its device. Each family defines ``feature``, which is all that an export contains."""

    engine = "torch"
    where: str  # begins messages
    network: Any
    pooling = "mean"
    layout: Layout  # of the feature; known once a batch was computed
    geometry: "Geometry | None" = None  # None: only the checkpoint's own processor can prepare images

    def __init__(self, machine: Machine) -> None:
        self.torch_device, self.device = torch_device(machine)
        self.overlaps = self.torch_device.type != "cpu"
        self.instructions = instructions(self.torch_device)

    def feature(self, batch: "torch.Tensor") -> "torch.Tensor":
        """Map (n, ...) prepared images to (n, ...) float32, both on the device."""
        raise NotImplementedError

    def forward(self, batch: "torch.Tensor") -> "torch.Tensor":
        """Map (n, ...) prepared images to (n, dimension) float32, both on the device."""
        vectors: torch.Tensor = pool(self.feature(batch), self.pooling, self.layout, self.where)
        return vectors

    def traceable(self) -> Any:
        """A module that computes ``feature``, to be exported."""
        import torch

        encoder = self

        class Feature(torch.nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.network = encoder.network

            def forward(self, batch: "torch.Tensor") -> "torch.Tensor":
                feature: torch.Tensor = encoder.feature(batch)
                return feature

        return Feature().eval()

    def encode(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Map (n, ...) prepared images to (n, dimension) float32."""
        vectors, _ = self.launch(list(batch))()
        return vectors

    def launch(self, prepared: Sequence[NDArray[Any]]) -> Callable[[], Computed]:
        """Start computing a batch; return a function that waits for the vectors. On a GPU this returns at once."""
        import torch

        return self.compute(pinned(prepared) if self.overlaps else torch.from_numpy(np.stack(prepared)))

    def compute(self, batch: "torch.Tensor") -> Callable[[], Computed]:
        """Like ``launch``, for a batch (n, ...) in pinned memory or on the device."""
        import torch

        with torch.inference_mode():
            if self.overlaps:
                return self._on_gpu(batch)
            started = time.perf_counter()
            vectors: NDArray[np.float32] = self.forward(batch).float().numpy()
            seconds = {"forward": time.perf_counter() - started}
        return lambda: (vectors, seconds)

    def _on_gpu(self, sent: "torch.Tensor") -> "InFlight":
        """Queue the copy to the device, the forward pass and the copy back in one CUDA stream."""
        import torch

        marks = [torch.cuda.Event(enable_timing=True) for _ in range(4)]
        marks[0].record()
        pixels = sent.to(self.torch_device, non_blocking=True)
        marks[1].record()
        vectors = self.forward(pixels).float()
        marks[2].record()
        received = torch.empty(vectors.shape, dtype=vectors.dtype, pin_memory=True)
        received.copy_(vectors, non_blocking=True)
        marks[3].record()
        return InFlight(sent, received, marks)


@dataclass
class InFlight:
    """A batch that a GPU is computing.

    Holds the pinned memory that is copied from (``sent``) and to (``received``): neither may be reused before the last
    mark has passed.
    """

    sent: "torch.Tensor"
    received: "torch.Tensor"
    marks: "list[torch.cuda.Event]"

    def __call__(self) -> Computed:
        """Wait for the batch; return its vectors and the seconds of `transfer` and `forward`."""
        self.marks[-1].synchronize()
        upload, forward, download = (a.elapsed_time(b) / 1000 for a, b in zip(self.marks, self.marks[1:], strict=False))
        return self.received.numpy(), {"transfer": upload + download, "forward": forward}


def instructions(device: "torch.device") -> str:
    """What torch chooses its kernels by, for footers: ``avx2`` or ``avx512`` of a CPU, or ``cuda``."""
    import torch

    kernels: str = torch.backends.cpu.get_cpu_capability().lower()
    return kernels if device.type == "cpu" else device.type


def exact_float32() -> None:
    """Compute float32 at full precision: by default torch's GPU convolutions round to a 10-bit mantissa (TF32)."""
    import torch

    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def pinned(prepared: Sequence[NDArray[Any]]) -> "torch.Tensor":
    """Stack a batch (n, ...) in pinned memory, which a GPU can copy from asynchronously."""
    import torch

    first = prepared[0]
    dtype = torch.from_numpy(np.empty(0, first.dtype)).dtype
    batch = torch.empty((len(prepared), *first.shape), dtype=dtype, pin_memory=True)
    np.stack(prepared, out=batch.numpy())
    return batch
