"""Queries a loaded index: exact search or FAISS, on the CPU or a GPU."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike.job.devices import Resources
from lookalike.search import approximate, exact, exact_gpu
from lookalike.search.candidates import Candidates
from lookalike.search.loading import Stored, on_gpu

LATENCY_QUERIES = 200  # searched one by one, for the latency
LATENCY_SECONDS = 5.0  # no further query is searched after that


class Searcher:
    """A loaded index and where it is searched: exact indexes by ``exact``, others by FAISS."""

    def __init__(self, stored: Stored, machine: Resources | None = None) -> None:
        self.stored = stored
        self.is_exact = stored.blocks() is not None
        self.threads = machine.threads if machine else 1
        gpu = machine is not None and machine.gpu
        self.device = exact_gpu.find(machine) if machine and gpu and self.is_exact else None
        copy = on_gpu(stored.faiss) if gpu and not self.is_exact else None
        self.indexes: list[Any] = [index for index in (copy, stored.faiss) if index is not None]

    @property
    def device_name(self) -> str:
        """The GPU that searches, for people; empty for the CPU."""
        if self.device is None:
            return "GPU (FAISS)" if len(self.indexes) > 1 else ""
        return exact_gpu.name(self.device)

    def search(
        self, queries: NDArray[np.float32], k: int, own: NDArray[np.int64], candidates: Sequence[Candidates] = ()
    ) -> tuple[exact.Nearest, float]:
        """The k nearest references of each query, and the time in seconds; also fills the candidates.

        The time includes the candidates of an exact search, which finds them in the same pass.
        """
        started = time.perf_counter()
        if (blocks := self.stored.blocks()) is not None:
            found = exact.search(
                self.stored.transform(queries), blocks, k, own, candidates, device=self.device, threads=self.threads
            )
            return found, time.perf_counter() - started
        found = approximate.search(self.indexes, queries, k, own)
        seconds = time.perf_counter() - started
        if candidates:
            approximate.fill(candidates, self.indexes, queries, own)
        return found, seconds

    def latencies(
        self, queries: NDArray[np.float32], k: int, own: NDArray[np.int64], *, all_took: float
    ) -> list[float]:
        """Seconds of single-query searches: of up to 200 queries, evenly spaced, as many as start within 5 seconds.

        Every search of a scan index reads all shards, so it gets none if searching all queries took longer than that.
        """
        if self.stored.faiss is None and all_took > LATENCY_SECONDS:
            return []
        chosen = np.unique(np.linspace(0, len(queries) - 1, min(len(queries), LATENCY_QUERIES)).astype(int))
        seconds: list[float] = []
        for query in chosen:
            if sum(seconds) > LATENCY_SECONDS:
                break
            seconds.append(self.search(queries[query : query + 1], k, own[query : query + 1])[1])
        return seconds
