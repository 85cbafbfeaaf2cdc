"""On a CUDA device: the same vectors as on the CPU, up to rounding, and one device a job."""

import json
from pathlib import Path

import numpy as np
import pytest

import tiny
from conftest import picture
from lookalike import models
from lookalike.index import approximate, factories
from lookalike.index.pools import Pool

pytestmark = pytest.mark.gpu

KEY = '{"family": "efficientnet_lite", "variant": "lite0"}'


def test_a_gpu_gives_what_the_cpu_gives() -> None:
    entry = models.parse(KEY)
    weights = models.family(entry).fetch(entry)
    vectors = {}
    for gpu in (False, True):
        encoder = models.load(KEY, weights, models.Machine(threads=2, gpu=gpu))
        assert encoder.device.startswith("CPU") is not gpu
        vectors[gpu] = encoder.encode(np.stack([encoder.prepare(picture(seed)) for seed in range(5)]))
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
def test_a_gpu_gives_what_the_cpu_gives_for_checkpoints(
    name: str, entry: dict[str, str], tolerance: float, tmp_path: Path
) -> None:
    key = json.dumps({**entry, "checkpoint": str(tiny.MAKERS[name](tmp_path / name))})
    weights = models.family(models.parse(key)).fetch(models.parse(key))
    vectors = {}
    for gpu in (False, True):
        encoder = models.load(key, weights, models.Machine(threads=2, gpu=gpu))
        wanted = models.parse(key).compute_dtype if gpu else "float32"
        assert encoder.compute_dtype == wanted
        vectors[gpu] = encoder.encode(np.stack([encoder.prepare(picture(seed)) for seed in range(5)]))
    np.testing.assert_allclose(vectors[True], vectors[False], rtol=0, atol=tolerance * np.abs(vectors[False]).max())


@pytest.mark.parametrize("factory", ["Flat", "IVF64,Flat", "IVF64,PQ8", "PCAW16,L2norm,Flat", "SQ8"])
def test_an_index_on_a_gpu_finds_what_it_finds_on_the_cpu(factory: str) -> None:
    draw = np.random.default_rng(0)
    references, queries = (draw.normal(size=(count, 32)).astype(np.float32) for count in (20_000, 200))
    built = factories.make(factory, 32)
    factories.train(built, factory, references, gpu=True)
    built.add(references)
    nobody = np.full(200, -1)
    found, pools = {}, {}
    for gpu in (False, True):
        pools[gpu] = Pool(2_000, np.zeros(200, np.float32))
        index = factories.on_gpu(built) if gpu else built
        assert index is not None
        found[gpu] = approximate.search(index, queries, 11, nobody)
        approximate.fill([pools[gpu]], [index, built], queries, nobody)
    np.testing.assert_allclose(found[True].scores, found[False].scores, rtol=1e-3, atol=1e-3)
    assert (found[True].rows == found[False].rows).mean() > 0.99  # all but ties, and sums rounded otherwise
    pairs = [set(zip(*(part.tolist() for part in pools[gpu].pairs()[:2]), strict=True)) for gpu in (False, True)]
    assert len(pairs[0] ^ pairs[1]) <= 40
