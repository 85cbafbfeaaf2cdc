"""On a CUDA device: the same vectors as on the CPU, up to rounding, and one device a job."""

import numpy as np
import pytest

from conftest import picture
from lookalike import models

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
