"""The matrix products of exact search on a GPU, by torch. Results are those of the CPU, ties included (``exact``)."""

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lookalike.job import devices
from lookalike.job.errors import LookalikeError
from lookalike.search.exact import SLACK

if TYPE_CHECKING:
    import torch

QUERIES = 8192  # per product, if they fit: with a block of 4,096 references, their scores take 128 MB
SCORE_BYTES = 24  # of a score, its comparison and, if all exceed the limit, their positions
HITS = 1 << 22  # copied back at a time, so that the host's memory is bounded too
WITHOUT_GPU = 1 << 30  # bytes to use on a device that does not tell how much memory is free

log = logging.getLogger(__name__)


def find(machine: devices.Resources) -> "torch.device | None":
    """A GPU for exact search; None, with the reason logged, if no GPU is usable or it rounds float32 products.

    Rounding to fewer bits (TF32) would lose neighbors without a trace: the error would exceed ``exact.SLACK``.
    """
    try:
        import torch
    except ImportError:
        devices.go_without_gpu("PyTorch is not installed")
        return None
    device, device_name = devices.torch_device(machine)
    if device.type == "cpu":
        return None
    torch.backends.cuda.matmul.allow_tf32 = False
    if (error := product_error(device)) > SLACK / 2:
        log.warning(
            "%s computes float32 products with errors of up to %.1g, too large for exact search; searching on the CPU. "
            "Unset NVIDIA_TF32_OVERRIDE and TORCH_ALLOW_TF32_CUBLAS_OVERRIDE.",
            *(device_name, error),
        )
        return None
    log.info("exact search on %s", device_name)
    return device


def name(device: "torch.device") -> str:
    """A device's name, for people."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def product_error(device: "torch.device") -> float:
    """The largest error of a product of random vectors on a device, relative to the product of their norms."""
    queries, references = np.random.default_rng(0).standard_normal((2, 256, 768), np.float32)
    products = GpuProducts(queries, device)
    products.load(references)
    exact = queries.astype(np.float64) @ references.T.astype(np.float64)
    norms = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(references, axis=1)
    return float(np.abs((products.scores(slice(0, 256)).cpu().numpy() - exact) / norms).max())


class GpuProducts:
    """``exact.Products`` by torch. Queries stay on the device if they take less than half of its free memory."""

    def __init__(self, queries: NDArray[np.float32], device: "torch.device") -> None:
        self.device = device
        self.rows = self.most = QUERIES
        free = _free_memory(device)
        self.queries = queries
        self.resident = self._send(queries) if queries.nbytes < free // 2 else None
        self.free = free - (queries.nbytes if self.resident is not None else 0)

    def load(self, references: NDArray[np.float32]) -> None:
        """See ``exact.Products``."""
        self.references = self._send(references)
        a_query = SCORE_BYTES * len(references) + self.queries[:1].nbytes
        self.rows = max(1, min(self.most, (self.free - references.nbytes) // (2 * a_query)))

    def hits(self, part: slice, own: NDArray[np.int64], limit: NDArray[np.float32]) -> Iterator[NDArray[np.int64]]:
        """See ``exact.Products``. If memory runs out, which other processes may use too, the part is halved."""
        try:
            found = self._found(part, own, limit)
        except (MemoryError, RuntimeError) as error:
            if not devices.out_of_memory(error):
                raise
            reason = str(error).strip().splitlines()[0]
        else:
            for piece in found.split(HITS):
                yield piece.cpu().numpy()
            return
        self.most = len(own) // 2  # outside the except block: what the exception references is freed
        if not self.most:
            raise LookalikeError(
                f"exact search: out of memory on the GPU for a single query: {reason}. End what else uses the GPU, or "
                "set runtime.gpu: 0 in the index's entry."
            )
        log.warning("out of memory with %d queries; continuing with %d: %s", len(own), self.most, reason)
        for first, last in ((0, self.most), (self.most, len(own))):
            half = slice(part.start + first, part.start + last)
            for positions in self.hits(half, own[first:last], limit[first:last]):
                yield positions + first * len(self.references)

    def scores(self, part: slice) -> "torch.Tensor":
        """Products of a part of the queries with the references, (p, b) float32."""
        queries = self._send(self.queries[part]) if self.resident is None else self.resident[part]
        return queries @ self.references.T

    def _found(self, part: slice, own: NDArray[np.int64], limit: NDArray[np.float32]) -> "torch.Tensor":
        scores = self.scores(part)
        mine = np.flatnonzero((own >= 0) & (own < len(self.references)))
        scores[self._send(mine), self._send(own[mine])] = -np.inf
        return (scores > self._send(limit)[:, None]).flatten().nonzero().squeeze(1)

    def _send(self, values: NDArray[np.generic]) -> "torch.Tensor":
        import torch

        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)


def _free_memory(device: "torch.device") -> int:
    import torch

    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else WITHOUT_GPU
