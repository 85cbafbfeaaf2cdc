"""On a CUDA device: the same vectors and neighbors as on the CPU, up to rounding."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pytest
import torch

import tiny
from conftest import ImageFolder, made_image
from lookalike.embed import embed, encoders
from lookalike.index import factories
from lookalike.io import content_hashes
from lookalike.io.formats.tables import SHARD
from lookalike.search import approximate, exact, exact_gpu, loading
from lookalike.search.candidates import Candidates

pytestmark = pytest.mark.gpu

KEY = '{"family": "efficientnet_lite", "variant": "lite0"}'


def test_efficientnet_lite_gives_the_same_vectors_on_gpu_and_cpu() -> None:
    entry = encoders.parse(KEY)
    weights = encoders.family(entry).fetch(entry)
    vectors = {}
    for gpu in (False, True):
        encoder = encoders.load(KEY, weights, encoders.Machine(threads=2, gpu=gpu))
        assert encoder.device.startswith("CPU") is not gpu
        vectors[gpu] = encoder.encode(np.stack([encoder.prepare(made_image(seed)) for seed in range(5)]))
    np.testing.assert_allclose(vectors[True], vectors[False], rtol=1e-3, atol=1e-3 * np.abs(vectors[False]).max())


@pytest.mark.parametrize(
    ("name", "entry", "tolerance"),
    [
        ("clip", {"family": "transformers", "feature": "image_features"}, 1e-4),
        ("efficientnet", {"family": "transformers", "feature": "hidden_states[-1]", "pooling": "mean"}, 1e-3),
        ("dinov2", {"family": "transformers", "feature": "last_hidden_state", "pooling": "mean"}, 1e-4),
        (
            "dinov2",
            {
                "family": "transformers",
                "feature": "last_hidden_state",
                "pooling": "mean",
                "compute_dtype": "float16",
            },
            1e-2,
        ),
        ("blip2", {"family": "blip2", "compute_dtype": "float32"}, 1e-4),
        ("blip2", {"family": "blip2"}, 1e-2),
    ],
)
def test_checkpoints_give_the_same_vectors_on_gpu_and_cpu(
    name: str, entry: dict[str, str], tolerance: float, tmp_path: Path
) -> None:
    key = json.dumps({**entry, "checkpoint": str(tiny.MAKERS[name](tmp_path / name))})
    weights = encoders.family(encoders.parse(key)).fetch(encoders.parse(key))
    vectors = {}
    for gpu in (False, True):
        encoder = encoders.load(key, weights, encoders.Machine(threads=2, gpu=gpu))
        expected = encoders.parse(key).compute_dtype if gpu else "float32"
        assert encoder.compute_dtype == expected
        vectors[gpu] = encoder.encode(np.stack([encoder.prepare(made_image(seed)) for seed in range(5)]))
    np.testing.assert_allclose(vectors[True], vectors[False], rtol=0, atol=tolerance * np.abs(vectors[False]).max())


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_an_onnx_network_gives_the_same_vectors_on_gpu_and_cpu(layout: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")  # which only writes the test's network
    runtime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        pytest.skip(f"ONNX Runtime {runtime.__version__} is built without CUDA (onnxruntime-gpu has it)")
    import onnx_networks

    file = onnx_networks.save(tmp_path / "net.onnx", layout=layout)
    values = {"size": 32, "mean": [0.5] * 3, "std": [0.25] * 3}
    key = json.dumps({"family": "onnx", "path": str(file), **values})
    weights = encoders.family(encoders.parse(key)).fetch(encoders.parse(key))
    vectors = {}
    for gpu in (False, True):
        encoder = encoders.load(key, weights, encoders.Machine(threads=2, gpu=gpu))
        assert (encoder.versions["instructions"] == "cuda") is encoder.overlaps is gpu
        vectors[gpu] = encoder.encode(np.stack([encoder.prepare(made_image(seed)) for seed in range(5)]))
    np.testing.assert_allclose(vectors[True], vectors[False], rtol=0, atol=1e-4 * np.abs(vectors[False]).max())


@pytest.fixture
def lite0() -> Iterator[dict[bool, encoders.Encoder]]:
    entry = encoders.parse(KEY)
    weights = encoders.family(entry).fetch(entry)
    yield {gpu: encoders.load(KEY, weights, encoders.Machine(threads=2, gpu=gpu)) for gpu in (False, True)}
    torch.cuda.set_per_process_memory_fraction(1.0)


def rows(root: Path) -> pa.Table:
    names = sorted(path.name for path in root.iterdir())
    sizes = [(root / name).stat().st_size for name in names]
    ids = [str(number) for number in range(len(names))]
    columns = {"image_id": ids, "root": [str(root)] * len(names), "path": names, "bytes": sizes}
    columns["content_hash"] = [content_hashes.of_file(root / name) for name in names]
    return pa.table(columns, SHARD.schema())


def assert_same(actual: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_consecutive_batches_do_not_overwrite_each_other(
    lite0: dict[bool, encoders.Encoder], tmp_path: Path, image_folder: ImageFolder
) -> None:
    table = rows(image_folder(tmp_path / "photos", 260))
    expected = embed.embed_rows(table, lite0[False], batch_size=4, threads=2)
    done = embed.embed_rows(table, lite0[True], batch_size=3, threads=4)
    assert_same(done.vectors, expected.vectors)
    assert done.seconds["transfer"] > 0
    assert done.seconds["forward"] > 0


def test_launch_does_not_wait_for_the_device(lite0: dict[bool, encoders.Encoder]) -> None:
    encoder = lite0[True]
    prepared = [encoder.prepare(made_image(seed)) for seed in range(4)]
    expected = encoder.encode(np.stack(prepared))  # one-time initialisation is done by now
    torch.cuda._sleep(2_000_000_000)  # keeps the device busy for about a second
    in_flight = encoders.launch(encoder, prepared)
    assert not in_flight.marks[-1].query(), "launch returns before the device has finished"
    np.testing.assert_array_equal(in_flight()[0], expected)


def test_out_of_memory_on_the_device_halves_the_batch_size_and_changes_no_row(
    lite0: dict[bool, encoders.Encoder], tmp_path: Path, image_folder: ImageFolder, caplog: pytest.LogCaptureFixture
) -> None:
    table = rows(image_folder(tmp_path / "photos", 256))
    expected = embed.embed_rows(table, lite0[True], batch_size=8, threads=2)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 400 * 2**20) / total)
    with caplog.at_level(logging.WARNING, "lookalike"):
        done = embed.embed_rows(table, lite0[True], batch_size=256, threads=2)
    assert done.batch_size < 256
    assert "out of memory at batch size 256" in caplog.text
    assert_same(done.vectors, expected.vectors)


def exact_tables(device: torch.device | None, queries: np.ndarray, references: np.ndarray) -> list[list[object]]:
    pairs = Candidates(10 * len(queries), np.zeros(len(queries), np.float32))
    blocks = (references[start : start + 4096] for start in range(0, len(references), 4096))
    nearest = exact.search(queries, blocks, 11, np.arange(len(queries)), [pairs], device=device)
    return [array.tolist() for array in (nearest.rows, nearest.scores, *pairs.pairs())]


def test_exact_search_gives_the_results_of_the_cpu_to_the_last_bit() -> None:
    rng = np.random.default_rng(0)
    references, queries = (rng.standard_normal((count, 768), np.float32) for count in (50_001, 9_000))
    references[rng.integers(0, len(references), 5_000)] = references[7]  # ties in all blocks
    queries[::500] = references[7]
    device = exact_gpu.find(encoders.Machine(threads=2, gpu=True))
    assert device is not None
    assert device.type == "cuda"
    assert exact_tables(device, queries, references) == exact_tables(None, queries, references)


def test_exact_search_continues_in_smaller_products_when_memory_runs_out(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    references, queries = (rng.standard_normal((count, 64), np.float32) for count in (8_192, 8_192))
    device = exact_gpu.find(encoders.Machine(threads=2, gpu=True))
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 64 * 2**20) / total)
    try:
        with caplog.at_level(logging.WARNING, "lookalike"):
            on_gpu = exact_tables(device, queries, references)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "out of memory with 8192 queries; continuing with 4096" in caplog.text
    assert on_gpu == exact_tables(None, queries, references)


needs_faiss_gpu = pytest.mark.skipif(
    not hasattr(faiss, "StandardGpuResources"), reason="this FAISS is built without GPU support (faiss-gpu)"
)


# of codes of 64 bytes, the distance tables are in half precision: float32 ones need more shared memory than there is
@needs_faiss_gpu
@pytest.mark.parametrize(
    ("factory", "tolerance"),
    [
        ("IVF64,Flat", 1e-4),
        ("IVF64,PQ8", 1e-3),
        ("PCAW16,IVF64,Flat", 1e-3),
        ("IVF64,SQ8", 1e-3),
        ("OPQ64,IVF64,PQ64", 2e-2),
    ],
)
def test_an_index_finds_the_same_on_gpu_and_cpu(factory: str, tolerance: float) -> None:
    rng = np.random.default_rng(0)
    references, queries = (rng.normal(size=(count, 64)).astype(np.float32) for count in (20_000, 200))
    built = factories.make(factory, 64)
    factories.train(built, factory, references, gpu=True)
    built.add(references)
    not_own = np.full(200, -1)
    results, candidates = {}, {}
    for gpu in (False, True):
        candidates[gpu] = Candidates(2_000, np.zeros(200, np.float32))
        index = loading.on_gpu(built) if gpu else built
        assert index is not None
        results[gpu] = approximate.search([index], queries, 11, not_own)
        approximate.fill([candidates[gpu]], [index, built], queries, not_own)
    np.testing.assert_allclose(results[True].scores, results[False].scores, rtol=tolerance, atol=tolerance)
    # except for ties and rounding
    assert (results[True].rows == results[False].rows).mean() > (0.99 if tolerance < 1e-2 else 0.9)
    pairs = [set(zip(*(part.tolist() for part in candidates[gpu].pairs()[:2]), strict=True)) for gpu in (False, True)]
    assert len(pairs[0] ^ pairs[1]) <= (40 if tolerance < 1e-2 else 200)


@needs_faiss_gpu
@pytest.mark.parametrize("factory", ["SQ8", "PQ8", "HNSW16", "IVF16,PQ8x4"])
def test_an_index_without_gpu_support_is_searched_on_the_cpu_with_a_warning(
    factory: str, caplog: pytest.LogCaptureFixture
) -> None:
    built = factories.make(factory, 32)
    vectors = np.random.default_rng(0).normal(size=(2_000, 32)).astype(np.float32)
    if not built.is_trained:
        factories.train(built, factory, vectors, gpu=True)
    built.add(vectors)
    with caplog.at_level(logging.WARNING, "lookalike"):
        assert loading.on_gpu(built) is None
    assert "cannot be searched on a GPU" in caplog.text


def test_files_decoded_on_the_device_give_nearly_the_same_vectors(tmp_path: Path) -> None:
    pytest.importorskip("torchvision", reason="decode: gpu needs torchvision")
    paths = [tmp_path / f"{seed}.jpg" for seed in range(70)]
    for seed, path in enumerate(paths):
        made_image(seed, (500, 375) if seed % 2 else (300, 400)).save(path, quality=90)
    columns = {"image_id": [path.name for path in paths], "root": [str(tmp_path)] * len(paths)}
    columns |= {"path": columns["image_id"], "bytes": [path.stat().st_size for path in paths]}
    columns |= {"content_hash": [content_hashes.of_file(path) for path in paths]}
    rows = pa.table(columns, SHARD.schema())
    found = {}
    for decode in ("full", "gpu"):
        key = json.dumps(json.loads(KEY) | {"decode": decode})
        entry = encoders.parse(key)
        weights = encoders.family(entry).fetch(entry)
        encoder = encoders.load(key, weights, encoders.Machine(threads=4, gpu=True))
        found[decode] = embed.embed_rows(rows, encoder, batch_size=32, threads=4).vectors.astype(float)
    lengths = np.linalg.norm(found["full"], axis=1) * np.linalg.norm(found["gpu"], axis=1)
    assert (np.einsum("nd,nd->n", found["full"], found["gpu"]) / lengths).min() > 0.97
