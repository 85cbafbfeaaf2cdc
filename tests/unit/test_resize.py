"""Resizing by torch gives the pixels of Pillow, to the last bit."""

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import made_image
from lookalike.embed import resize

SIZES = [(224, 224), (298, 224), (31, 7), (500, 375), (640, 20), (1, 1), (499, 376)]


@pytest.mark.parametrize("filter_name", ["BOX", "BILINEAR", "HAMMING", "BICUBIC", "LANCZOS"])
@pytest.mark.parametrize("kind", ["smooth", "noise"])
def test_pixels_are_those_of_pillow(filter_name: str, kind: str) -> None:
    resample = int(Image.Resampling[filter_name])
    image = made_image(1, (500, 375))
    if kind == "noise":  # weights that overshoot are clipped after each of the two steps
        image = Image.fromarray(np.random.default_rng(0).choice([0, 255], (375, 500, 3)).astype(np.uint8))
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
    for size in SIZES:
        expected = np.asarray(image.resize(size, resample)).astype(int)
        found = resize.resize(pixels, size, resample).permute(1, 2, 0).numpy().astype(int)
        assert np.abs(found - expected).max() == 0, size
