"""Each odd picture is decoded as it should look, or refused with a reason that a person understands."""

import io

import numpy as np
import pytest

from lookalike.io import images
from lookalike.io.extensions import EXTENSIONS
from odd_containers import odd_containers
from odd_pictures import Odd, odd_pictures

ALL = (*odd_pictures(), *odd_containers())


def test_the_collection_is_large_and_its_names_are_unique() -> None:
    assert len({odd.name for odd in ALL}) == len(ALL) >= 140 + 9 * 11
    assert {odd.name for odd in ALL if not odd.name.lower().endswith(EXTENSIONS)} == set()


@pytest.mark.parametrize("odd", [odd for odd in ALL if odd.pixels is not None], ids=lambda odd: odd.name)
def test_decoded(odd: Odd) -> None:
    decoded = images.decode(odd.data)
    assert decoded.mode == "RGB"
    assert odd.pixels is not None
    found = np.asarray(decoded).astype(float)
    assert found.shape == odd.pixels.shape
    assert np.abs(found - odd.pixels).mean() <= odd.close
    assert decoded.getexif().get(0x0112, 1) == 1  # nobody turns it a second time
    for form in ("JPEG", "PNG"):  # as copies and previews are written: metadata that is too long would be in the way
        decoded.save(io.BytesIO(), form)


@pytest.mark.parametrize("odd", [odd for odd in ALL if odd.pixels is None], ids=lambda odd: odd.name)
def test_refused(odd: Odd) -> None:
    with pytest.raises(images.BadImage) as caught:
        images.decode(odd.data)
    assert odd.reason in str(caught.value)
    assert "\n" not in str(caught.value)
