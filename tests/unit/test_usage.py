"""What a job says that it needed: peak memory, and the latency of single queries."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from conftest import REPOSITORY
from lookalike.job import usage
from lookalike.search import searcher
from lookalike.search.loading import Stored
from lookalike.search.searcher import Searcher

SCRIPTS = REPOSITORY / "workflow_scripts"
PEAK = "from lookalike.job.usage import peak_memory_mb; print(peak_memory_mb())"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not keep VmHWM")
def test_peak_memory_is_of_this_process_and_not_of_the_one_that_started_it() -> None:
    """Linux passes ``ru_maxrss`` on: every job of a Snakemake process of 400 MB would report 400 MB."""
    used = np.ones(50_000_000)  # 400 MB
    ran = subprocess.run([sys.executable, "-c", PEAK], cwd=SCRIPTS, capture_output=True, text=True, check=True)
    assert used.nbytes / usage.MB > 350
    assert 5 < float(ran.stdout) < 150


def test_peak_memory_includes_what_was_freed() -> None:
    before = usage.peak_memory_mb()
    used = np.ones(int((before + 50) * usage.MB / 8))
    del used
    assert usage.peak_memory_mb() > before + 40


def test_without_procfs_the_peak_is_that_of_getrusage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    expected = usage.peak_memory_mb()
    monkeypatch.setattr(usage, "STATUS", tmp_path / "missing")
    assert usage.peak_memory_mb() > 0.5 * expected


def test_gpu_memory_is_unknown_without_torch_and_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert usage.peak_gpu_memory_mb() is None
    cuda = SimpleNamespace(is_initialized=lambda: False, max_memory_reserved=lambda: 3 << 30)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert usage.peak_gpu_memory_mb() is None
    cuda.is_initialized = lambda: True
    assert usage.peak_gpu_memory_mb() == 3072


class Timed(Searcher):
    """Takes a second for each search, by its own clock."""

    def __init__(self, *, is_scan: bool, seconds: float) -> None:
        self.stored, self.each, self.searched = Stored(None if is_scan else "index"), seconds, []

    def search(self, queries, k, own, candidates=()):  # type: ignore[no-untyped-def]
        assert len(queries) == len(own) == 1
        self.searched.append(int(queries[0, 0]))
        return None, self.each


def latencies(searched: Timed, count: int, all_took: float = 1.0) -> int:
    queries = np.arange(count, dtype=np.float32)[:, None]
    return len(searched.latencies(queries, 11, np.full(count, -1), all_took=all_took))


def test_latency_is_of_evenly_spaced_queries_within_a_bounded_time() -> None:
    fast, slow = Timed(is_scan=False, seconds=0.001), Timed(is_scan=False, seconds=2.0)
    assert latencies(fast, 1000) == searcher.LATENCY_QUERIES == len(set(fast.searched))
    assert (fast.searched[0], fast.searched[-1]) == (0, 999)
    assert latencies(slow, 1000) == 3
    assert latencies(Timed(is_scan=False, seconds=100), 7) == 1
    assert latencies(fast, 0) == 0


def test_latency_of_a_scan_that_reads_for_long_is_not_measured() -> None:
    assert latencies(Timed(is_scan=True, seconds=0.001), 9, all_took=5.5) == 0
    assert latencies(Timed(is_scan=True, seconds=0.001), 9, all_took=4.5) == 9
    assert latencies(Timed(is_scan=False, seconds=0.001), 9, all_took=5.5) == 9
