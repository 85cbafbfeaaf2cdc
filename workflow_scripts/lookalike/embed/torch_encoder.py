"""What encoders of torch networks share: pixels to the network's device, and vectors back from it.

A GPU is kept busy: pixels travel as 8-bit numbers from page-locked memory, which needs no help of the CPU, and nothing
waits for the vectors of a batch until they are asked for; by then the next batch is on its way (``embed/embed.py``).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lookalike.embed.encoders import Computed, Machine
from lookalike.job.devices import torch_device

if TYPE_CHECKING:
    import torch


class TorchEncoder:
    """A torch network on its device. A family gives it ``forward``."""

    forward: "Callable[[torch.Tensor], torch.Tensor]"  # a batch on the device to (n, dimension), there too

    def __init__(self, machine: Machine) -> None:
        self.torch_device, self.device = torch_device(machine)
        self.overlaps = self.torch_device.type != "cpu"

    def encode(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(n, ...) prepared pictures to (n, dimension) float32."""
        vectors, _ = self.launch(list(batch))()
        return vectors

    def launch(self, prepared: Sequence[NDArray[Any]]) -> Callable[[], Computed]:
        """Start on a batch. On a GPU this returns at once, and what it returns waits for the vectors."""
        import torch

        batch = page_locked(prepared) if self.overlaps else torch.from_numpy(np.stack(prepared))
        with torch.inference_mode():
            if self.overlaps:
                return self._on_gpu(batch)
            started = time.perf_counter()
            vectors: NDArray[np.float32] = self.forward(batch).float().numpy()
            seconds = {"forward": time.perf_counter() - started}
        return lambda: (vectors, seconds)

    def _on_gpu(self, sent: "torch.Tensor") -> "InFlight":
        """Queue copying there, computing and copying back, one after the other in the device's one stream."""
        import torch

        marks = [torch.cuda.Event(enable_timing=True) for _ in range(4)]
        marks[0].record()
        pixels = sent.to(self.torch_device, non_blocking=True)
        marks[1].record()
        vectors = self.forward(pixels).float()
        marks[2].record()
        found = torch.empty(vectors.shape, dtype=vectors.dtype, pin_memory=True)
        found.copy_(vectors, non_blocking=True)
        marks[3].record()
        return InFlight(sent, found, marks)


@dataclass
class InFlight:
    """A batch that a GPU works on.

    It holds the page-locked memory that is copied from, ``sent``, and to, ``found``: neither may be used for anything
    else before the last mark is passed.
    """

    sent: "torch.Tensor"
    found: "torch.Tensor"
    marks: "list[torch.cuda.Event]"

    def __call__(self) -> Computed:
        """Wait until all is done."""
        self.marks[-1].synchronize()
        there, computed, back = (a.elapsed_time(b) / 1000 for a, b in zip(self.marks, self.marks[1:], strict=False))
        return self.found.numpy(), {"transfer": there + back, "forward": computed}


def exact_float32() -> None:
    """float32 means float32, also in a GPU's convolutions, where torch would round to 10 bits of mantissa (TF32)."""
    import torch

    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def page_locked(prepared: Sequence[NDArray[Any]]) -> "torch.Tensor":
    """A batch (n, ...) in memory that the system never moves, from which a GPU copies on its own."""
    import torch

    first = prepared[0]
    kind = torch.from_numpy(np.empty(0, first.dtype)).dtype
    batch = torch.empty((len(prepared), *first.shape), dtype=kind, pin_memory=True)
    np.stack(prepared, out=batch.numpy())
    return batch
