"""What kinds of FAISS indexes need: ranges, training, checks of scores, a GPU."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from chain import Chain, Floats
from lookalike.index import factories
from lookalike.io import faiss_index, store
from lookalike.io.formats.tables import IMAGES
from lookalike.io.vectors import unit
from lookalike.job.errors import LookalikeError
from lookalike.search import exact_gpu, loading
from tables import MADE


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


def test_the_faiss_gpu_path_gives_the_results_of_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: only FAISS' GPU calls are replaced, by the CPU."""
    import faiss

    chain = Chain(tmp_path, references=3000, training=600)
    key, moved = '{"factory": "IVF4,Flat"}', []

    class Resources:
        def setTempMemory(self, size: int) -> None:  # noqa: N802
            assert size > 0

    class Options:
        useFloat16 = True  # noqa: N815

    def to_gpu(resources: Resources, device: int, index: Any, options: Options | None = None) -> Any:
        assert (device, options is None or not options.useFloat16) == (0, True)
        moved.append(index)
        return index

    chain.build(key=key)
    built, on_cpu = (chain.folder / "flat.faiss").read_bytes(), all_tables(chain, key, gpu=True)
    monkeypatch.setattr(faiss, "StandardGpuResources", Resources, raising=False)
    monkeypatch.setattr(faiss, "GpuClonerOptions", Options, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", to_gpu, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    chain.build(key=key, gpu=True)
    assert (chain.folder / "flat.faiss").read_bytes() == built
    moved.clear()
    on_gpu = all_tables(chain, key, gpu=True)
    assert moved
    for name, rows in on_cpu.items():
        pairs = [[(row["query_id"], row["reference_id"]) for row in result] for result in (rows, on_gpu[name])]
        assert pairs[0] == pairs[1], name
        scores = [[row["score"] for row in result] for result in (rows, on_gpu[name])]
        np.testing.assert_allclose(scores[0], scores[1], atol=1e-6)


def all_tables(chain: Chain, key: str, *, gpu: bool) -> dict[str, list[dict[str, Any]]]:
    chain.search(key=key, training=True, gpu=gpu)
    tables = ("neighbors", "candidates", "showcase", "training_found", "candidates_sn")
    return {name: chain.rows(name) for name in tables}


@pytest.mark.parametrize("key", ['{"factory": "Flat"}', '{"factory": "PCAW4,L2norm,Flat"}', '{"scan": true}'])
def test_exact_search_on_a_gpu_writes_the_tables_of_the_cpu(
    tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU: torch computes on the CPU. Scores are equal to the last bit, and ties keep the index's order."""
    import torch

    chain = Chain(tmp_path, references=5000, training=600)  # in two blocks
    for number in (*range(1, 20), 4500, 4999):
        chain.vectors[f"r{number}"] = chain.vectors["r0"]
    chain.shard("references", [name for name in chain.vectors if name[0] == "r"])
    chain.vectors["q0"] = chain.vectors["r0"]
    chain.shard("queries", [name for name in chain.vectors if name[0] == "q"])
    chain.sample({name: "g" if name == "q3" else name[0] for name in chain.vectors})
    sample = store.read_table(tmp_path / "images.parquet", IMAGES)
    showcase_role = pa.array([name == "q3" for name in sample["image_id"].to_pylist()])
    store.write_table(sample.append_column("showcase", showcase_role), tmp_path / "images.parquet", IMAGES, MADE)
    chain.build(key=key)
    on_cpu = all_tables(chain, key, gpu=False)
    used = []
    monkeypatch.setattr(exact_gpu, "find", lambda machine: torch.device("cpu"))
    monkeypatch.setattr(exact_gpu.GpuProducts, "load", counting(exact_gpu.GpuProducts.load, used))
    on_gpu = all_tables(chain, key, gpu=True)
    assert on_gpu == on_cpu
    assert used
    assert all(on_cpu.values())
    own = [row for row in on_gpu["neighbors"] if row["query_id"] == "q0"]
    assert [row["reference_id"] for row in own] == [f"r{number}" for number in range(6)]
    assert len({row["score"] for row in own}) == 1


def counting(method: Any, calls: list[Any]) -> Any:
    def call(*args: Any) -> Any:
        calls.append(args)
        return method(*args)

    return call


def clustered(count: int, seed: int, spread: float = 0.4) -> Floats:
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(30, 64))
    rng = np.random.default_rng(seed)
    drawn = centers[rng.integers(0, 30, count)] + spread * rng.normal(size=(count, 64))
    return unit(drawn.astype(np.float32))


@pytest.mark.parametrize("factory", ["SQ8", "SQ4", "HNSW16_SQ8", "IVF8,SQ8", "PCA32,SQ8", "IVF8,PQ8x4,Refine(SQ8)"])
def test_scalar_quantizers_do_not_clip_references_outside_the_training_range(factory: str) -> None:
    """With training images that are all alike: the ranges come from the references."""
    import faiss

    references, narrow = clustered(2000, 1), clustered(30_000, 2, spread=0.1)[:1000]
    narrow = unit(narrow + 8 * narrow.mean(axis=0, keepdims=True))

    def recall(training_vectors: Floats) -> float:
        built = factories.make(factory, 64)
        factories.train(built, factory, training_vectors, gpu=False)
        assert factories.fit_ranges(built, references)
        built.add(references)
        settings = {"nprobe": 8.0} if "IVF" in factory else {}
        loading.configure(built, factory, settings | ({"k_factor_rf": 20.0} if "Refine" in factory else {}))
        seen = faiss_index.transform(built, references)
        best = np.argsort(-(seen[:200] @ seen.T), axis=1)[:, :10]
        result = built.search(references[:200], 10)[1]
        return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(result.tolist(), best.tolist(), strict=True)]))

    faiss.omp_set_num_threads(1)
    assert recall(narrow) > (0.6 if factory == "SQ4" else 0.9)


def test_fit_ranges_returns_false_for_factories_without_ranges() -> None:
    for factory in ("Flat", "SQfp16", "PCA32,Flat", "IVF8,Flat"):
        assert not factories.fit_ranges(factories.make(factory, 64), clustered(10, 1))


@pytest.mark.parametrize(
    "factory",
    [
        *("PQ16x4", "PQ16x4fs", "IVF8,PQ16x4fsr", "RaBitQ", "IVF8,RaBitQ", "RQ2x4", "PRQ2x2x4", "HNSW16"),
        *("NSG16", "IVF8_HNSW16,PQ16x4", "PCAW16,Flat", "PQ16x4,RFlat", "SQ4", "PQ2x4", "ITQ64,SQ8"),
    ],
)
@pytest.mark.parametrize("spread", [0.4, 100.0])
def test_coarse_codes_pass_the_check_of_scores(factory: str, spread: float) -> None:
    """Also for vectors without any structure, which codes approximate badly."""
    import faiss

    faiss.omp_set_num_threads(1)
    references = clustered(1000, 1, spread)
    built = factories.make(factory, 64)
    if not built.is_trained:
        factories.train(built, factory, references, gpu=False)
    built.add(references)
    factories.check_scores(built, factory, references)


@pytest.mark.parametrize(
    ("factory", "message"),
    [("HNSW16_PQ16x4", "the best is the smallest"), ("SQ8_direct", r"all are 0\.000"), ("Flat", "RMS error")],
)
def test_a_filled_index_whose_scores_are_not_inner_products_is_rejected(factory: str, message: str) -> None:
    """Today's FAISS reveals this by the index's metric type; a later version may not."""
    import faiss

    references = clustered(1500, 1)
    built = faiss.index_factory(64, factory, faiss.METRIC_INNER_PRODUCT)
    built.train(references)
    built.add(references * 2 if factory == "Flat" else references)
    with pytest.raises(LookalikeError, match=rf"'{factory}' does not score by inner product: .*{message}.* Choose"):
        factories.check_scores(built, factory, references)


@pytest.mark.parametrize(
    ("factory", "half"),
    [("IVF4,PQ48", False), ("IVF4,PQ64", True), ("OPQ64,IVF4,PQ64", True), ("IVF4,Flat", False), ("PQ64", False)],
)
def test_long_codes_use_half_precision_tables_on_a_gpu_and_nothing_else_does(
    factory: str, half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAISS refuses float32 tables of more than 48 KiB; with other indexes, float16 would round the vectors."""
    import faiss

    class Options:
        useFloat16 = True  # noqa: N815

    monkeypatch.setattr(faiss_index, "gpu", lambda: 0)
    monkeypatch.setattr(faiss_index, "gpu_memory", lambda: None)
    monkeypatch.setattr(faiss, "GpuClonerOptions", Options, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", lambda *args: args[3].useFloat16, raising=False)
    assert loading.on_gpu(factories.make(factory, 192)) is half


def test_more_clusters_than_a_gpu_can_visit_are_searched_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import faiss

    class Options:
        useFloat16 = True  # noqa: N815

    monkeypatch.setattr(faiss_index, "gpu", lambda: 0)
    monkeypatch.setattr(faiss_index, "gpu_memory", lambda: None)
    monkeypatch.setattr(faiss, "GpuClonerOptions", Options, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", lambda *args: "copy", raising=False)
    index = factories.make("IVF4096,Flat", 8)
    loading.configure(index, "IVF4096,Flat", {"nprobe": 2048})
    assert loading.on_gpu(index) == "copy"
    loading.configure(index, "IVF4096,Flat", {"nprobe": 2049})
    assert loading.on_gpu(index) is None
    assert "(nprobe is 2049, and FAISS visits at most 2048 clusters there); searching on the CPU" in caplog.text


def test_training_continues_on_the_cpu_if_a_gpu_cannot_hold_the_clusters(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import faiss

    def full(resources: Any, device: int, index: Any) -> Any:
        raise RuntimeError("Error: 'err == cudaSuccess' failed: out of memory")

    vectors = clustered(400, 1)
    monkeypatch.setattr(faiss_index, "gpu", lambda: 0)
    monkeypatch.setattr(faiss_index, "gpu_memory", lambda: None)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", full, raising=False)
    built = [factories.make("IVF4,Flat", 64) for _ in range(2)]
    for index, gpu in zip(built, (False, True), strict=True):
        factories.train(index, "IVF4,Flat", vectors, gpu=gpu)
    centroids = [index.quantizer.reconstruct_n(0, 4) for index in built]
    np.testing.assert_array_equal(centroids[0], centroids[1])
    assert "clusters cannot be trained on a GPU (out of memory); training on the CPU" in caplog.text
    assert faiss.extract_index_ivf(built[1]).clustering_index is None


def test_a_failed_training_leaves_no_dangling_pointer(monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    monkeypatch.setattr(faiss_index, "gpu", lambda: 0)
    monkeypatch.setattr(faiss_index, "gpu_memory", lambda: None)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", lambda resources, device, index: index, raising=False)
    built = factories.make("IVF8_NSG16,Flat", 64)  # its graph needs 100 clusters or more
    with pytest.raises(LookalikeError, match="cannot train factory 'IVF8_NSG16,Flat'"):
        factories.train(built, "IVF8_NSG16,Flat", clustered(400, 1), gpu=True)
    assert faiss.extract_index_ivf(built).clustering_index is None
