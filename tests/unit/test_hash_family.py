"""Perceptual hashes: the bits of the packages that define them, as vectors whose cosine is their Hamming distance."""

import json
import sys
from typing import Any

import imagehash
import numpy as np
import pdqhash
import pytest
from PIL import Image

from conftest import made_image
from lookalike.config.loading import parse
from lookalike.config.models import from_key
from lookalike.embed import encoders
from lookalike.job.errors import LookalikeError

IMAGES = [made_image(1, (131, 64)), made_image(2, (41, 97)), made_image(3, (300, 200)), made_image(3, (150, 100))]


def load(**entry: Any) -> encoders.Encoder:
    key = json.dumps({"family": "hash", **entry})
    parsed = encoders.parse(key)
    weights = encoders.family(parsed).fetch(from_key(parsed.weights_key()))
    return encoders.load(key, weights, encoders.Machine(threads=1))


def vectors(encoder: encoders.Encoder, images: list[Image.Image]) -> Any:
    return encoder.encode(np.stack([encoder.prepare(image) for image in images]))


@pytest.mark.parametrize("bits", [64, 256, 1024])
@pytest.mark.parametrize("method", ["phash", "dhash", "whash"])
def test_cosine_is_one_minus_two_hamming_distances_over_bits(method: str, bits: int) -> None:
    found = vectors(load(method=method, bits=bits), IMAGES)
    assert found.shape == (len(IMAGES), bits)
    assert set(np.unique(found)) == {-1.0, 1.0}
    theirs = [getattr(imagehash, method)(image, hash_size=round(bits**0.5)) for image in IMAGES]
    hamming = np.array([[one - other for other in theirs] for one in theirs])
    np.testing.assert_array_equal(found @ found.T / bits, 1 - 2 * hamming / bits)
    assert hamming[0, 1] > bits / 8, "the images differ, so that the distances say something"


def test_a_hash_has_256_bits_by_default() -> None:
    assert load(method="phash").dimension == 256


def test_an_image_of_one_color_has_a_vector_too() -> None:
    for method in ("phash", "dhash", "whash"):
        found = vectors(load(method=method), [Image.new("RGB", (40, 30), "navy"), Image.new("RGB", (9, 5))])
        np.testing.assert_array_equal(np.abs(found), 1)


def test_pdq_without_its_package_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pdqhash", None)
    with pytest.raises(LookalikeError, match=r"hash pdq: needs the Python package pdqhash.* pip install pdqhash"):
        load(method="pdq")


def test_pdq_is_that_of_its_package() -> None:

    found = vectors(load(method="pdq"), IMAGES)
    theirs = np.stack([pdqhash.compute(np.asarray(image))[0] for image in IMAGES])
    hamming = (theirs[:, None] != theirs[None]).sum(2)
    np.testing.assert_array_equal(found @ found.T / 256, 1 - 2 * hamming / 256)
    assert hamming[2, 3] < hamming[2, 1], "a smaller copy is nearer than another image"


def test_pdq_has_256_bits_and_no_others() -> None:
    entry = {"family": "hash", "method": "pdq", "bits": 64}
    raw = {
        "run": ["x"],
        "datasets": {"d": {"kind": "photo_tiles"}},
        "models": {"m": {"embed": entry}},
        "indexes": {"flat": {"factory": "Flat"}},
        "experiments": {"x": {"dataset": "d", "models": ["m"]}},
    }
    with pytest.raises(Exception, match=r"models\.m\.embed: method 'pdq' always has 256 bits, and bits is 64"):
        parse(raw)
