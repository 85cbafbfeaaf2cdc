"""Each odd image is decoded correctly, or rejected with a readable reason."""

import io

import numpy as np
import pytest

from lookalike.io import images
from lookalike.io.extensions import EXTENSIONS
from odd_containers import odd_containers
from odd_images import Odd, odd_images

ALL = (*odd_images(), *odd_containers())


def test_the_collection_is_large_and_its_names_are_unique() -> None:
    assert len({odd.name for odd in ALL}) == len(ALL) >= 140 + 9 * 11
    assert {odd.name for odd in ALL if not odd.name.lower().endswith(EXTENSIONS)} == set()


@pytest.mark.parametrize("odd", [odd for odd in ALL if odd.pixels is not None], ids=lambda odd: odd.name)
def test_an_odd_image_is_decoded_correctly(odd: Odd) -> None:
    decoded = images.decode(odd.data)
    assert decoded.mode == "RGB"
    assert odd.pixels is not None
    actual = np.asarray(decoded).astype(float)
    assert actual.shape == odd.pixels.shape
    assert np.abs(actual - odd.pixels).mean() <= odd.close
    assert decoded.getexif().get(0x0112, 1) == 1  # so that it is not rotated again
    for form in ("JPEG", "PNG"):  # formats of copies and previews, which fail on metadata that is too long
        decoded.save(io.BytesIO(), form)


@pytest.mark.parametrize("odd", [odd for odd in ALL if odd.pixels is None], ids=lambda odd: odd.name)
def test_an_unusable_image_is_rejected_with_its_reason(odd: Odd) -> None:
    with pytest.raises(images.BadImage) as caught:
        images.decode(odd.data)
    assert odd.reason in str(caught.value)
    assert "\n" not in str(caught.value)
