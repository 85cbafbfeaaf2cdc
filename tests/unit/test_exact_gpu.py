"""Exact search with torch gives the arrays of the CPU, to the last bit; here torch's device is the CPU."""

import logging
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lookalike.embed.encoders import Machine
from lookalike.job import devices
from lookalike.job.errors import LookalikeError
from lookalike.search import exact, exact_gpu
from lookalike.search.candidates import Candidates

Floats = NDArray[np.float32]
CPU = torch.device("cpu")


def drawn(rng: np.random.Generator, count: int, dimension: int) -> Floats:
    return rng.standard_normal((count, dimension), np.float32)


def found(
    queries: Floats, references: Floats, *, block: int, own: NDArray[np.int64], device: torch.device | None, k: int = 5
) -> list[list[Any]]:
    """Neighbors and two sets of candidates, as lists."""
    shifts = np.zeros(len(queries), np.float32), np.linspace(0, 0.5, len(queries), dtype=np.float32)
    candidates = [Candidates(3 * len(queries), shift) for shift in shifts]
    blocks = (references[start : start + block] for start in range(0, len(references), block))
    nearest = exact.search(queries, blocks, k, own, candidates, device=device)
    arrays = [nearest.rows, nearest.scores, *(array for pairs in candidates for array in pairs.pairs())]
    return [array.tolist() for array in arrays]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    counts=st.tuples(st.integers(1, 40), st.integers(1, 400)),
    k=st.integers(1, 12),
    block=st.integers(1, 400),
    rows=st.integers(1, 50),
    hits=st.integers(1, 500),
    free=st.sampled_from([0, 20_000, 1 << 30]),
    integers=st.booleans(),
)
def test_the_results_are_those_of_the_cpu_whatever_the_sizes_of_blocks_and_products(
    *, seed: int, counts: tuple[int, int], k: int, block: int, rows: int, hits: int, free: int, integers: bool
) -> None:
    rng = np.random.default_rng(seed)
    queries, references = (drawn(rng, count, 24) for count in counts)
    if integers:  # full of ties
        queries, references = np.round(queries), np.round(references)
    references[rng.integers(0, len(references), len(references) // 2)] = references[0]  # duplicates in several blocks
    queries[rng.integers(0, len(queries))] = references[0]
    own = rng.integers(-1, len(references), len(queries))
    arguments: dict[str, Any] = {"block": block, "own": own, "k": min(k, len(references))}
    with mock.patch.multiple(exact_gpu, QUERIES=rows, HITS=hits, WITHOUT_GPU=free):
        on_gpu = found(queries, references, device=CPU, **arguments)
    assert on_gpu == found(queries, references, device=None, **arguments)


@pytest.mark.parametrize("free", [1 << 16, 1 << 20])
def test_a_product_takes_no_more_than_the_free_memory_even_if_all_scores_tie(
    free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact_gpu, "WITHOUT_GPU", free)
    sizes = []
    scores = exact_gpu.GpuProducts.scores

    def noted(products: exact_gpu.GpuProducts, part: slice) -> torch.Tensor:
        result = scores(products, part)
        sizes.append(result.numel() * exact_gpu.SCORE_BYTES)
        return result

    monkeypatch.setattr(exact_gpu.GpuProducts, "scores", noted)
    ones = np.ones((600, 8), np.float32)
    result = found(ones, ones[:256], block=256, own=np.full(600, -1), device=CPU)
    assert result[0] == [[0, 1, 2, 3, 4]] * 600
    assert max(sizes) <= free
    assert max(sizes) > free // 8, "small products waste the device"


def test_out_of_memory_halves_the_products_and_changes_no_result(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    queries, references, own = drawn(rng, 100, 16), drawn(rng, 900, 16), np.arange(100)
    expected = found(queries, references, block=256, own=own, device=None)
    scores = exact_gpu.GpuProducts.scores
    fits = 30

    def short(products: exact_gpu.GpuProducts, part: slice) -> torch.Tensor:
        if part.stop - part.start > fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return scores(products, part)

    monkeypatch.setattr(exact_gpu.GpuProducts, "scores", short)
    with caplog.at_level(logging.WARNING, "lookalike"):
        assert found(queries, references, block=256, own=own, device=CPU) == expected
    lines = [record.message for record in caplog.records]
    assert lines == [
        "out of memory with 100 queries; continuing with 50: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "out of memory with 50 queries; continuing with 25: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "out of memory with 50 queries; continuing with 25: CUDA out of memory. Tried to allocate 2.00 GiB.",
    ]
    fits = 0
    with pytest.raises(LookalikeError, match=r"out of memory on the GPU for a single query: CUDA .* runtime\.gpu: 0"):
        found(queries, references, block=256, own=own, device=CPU)


def test_another_error_of_the_device_is_not_taken_for_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(products: exact_gpu.GpuProducts, part: slice) -> torch.Tensor:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(exact_gpu.GpuProducts, "scores", failing)
    ones = np.ones((3, 8), np.float32)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        found(ones, ones, block=8, own=np.full(3, -1), device=CPU)


def test_a_device_that_rounds_products_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """TF32 has an environment variable of its own; neighbors would be lost without a trace."""
    assert exact_gpu.product_error(CPU) < exact.SLACK / 5
    scores = exact_gpu.GpuProducts.scores
    monkeypatch.setattr(exact_gpu, "_free_memory", lambda device: 1 << 30)
    monkeypatch.setattr(exact_gpu.GpuProducts, "_send", lambda products, values: torch.from_numpy(values))
    monkeypatch.setattr(devices, "torch_device", lambda machine: (torch.device("cuda", 1), "Test GPU"))
    machine = Machine(threads=1, gpu=True)
    assert exact_gpu.find(machine) == torch.device("cuda", 1)
    monkeypatch.setattr(exact_gpu.GpuProducts, "scores", lambda *args: scores(*args).to(torch.bfloat16).float())
    with caplog.at_level(logging.WARNING, "lookalike"):
        assert exact_gpu.find(machine) is None
    assert "too large for exact search; searching on the CPU. Unset NVIDIA_TF32_OVERRIDE" in caplog.text


def test_without_a_gpu_there_is_no_device() -> None:
    assert exact_gpu.find(Machine(threads=1, gpu=False)) is None


def test_a_vector_that_is_not_finite_is_an_error_there_too() -> None:
    references = np.ones((50, 8), np.float32)
    references[42, 1] = np.nan
    with pytest.raises(LookalikeError, match="the vector of reference 42"):
        found(references[:3], references, block=50, own=np.full(3, -1), device=CPU)
