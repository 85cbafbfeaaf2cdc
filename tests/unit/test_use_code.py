"""The report's code without Lookalike gives the vectors of the workflow, and the nearest references first."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

import tiny
from conftest import made_image
from lookalike.report import useit
from unit.test_transformers import load


@pytest.mark.parametrize(
    ("name", "feature", "pooling"),
    [
        ("vit", "last_hidden_state", "cls"),
        ("vit", "pooler_output", "none"),
        ("dinov2", "last_hidden_state", "cls"),
        ("clip", "last_hidden_state", "cls"),
        ("clip", "image_features", "none"),
        ("siglip", "image_features", "none"),
    ],
)
def test_plain_code_makes_the_vectors_of_the_workflow(
    name: str, feature: str, pooling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tiny.MAKERS[name](tmp_path / name)
    entry = {"family": "transformers", "checkpoint": str(checkpoint), "feature": feature}
    entry |= {"pooling": pooling} if pooling != "none" else {}
    encoder = load(checkpoint, feature, pooling)
    turned = Image.Exif()
    turned[0x0112] = 6
    made_image(1, (90, 40)).save(tmp_path / "a.jpg", exif=turned)
    made_image(2, (48, 60)).save(tmp_path / "b.jpg")
    made_image(2, (48, 60)).save(tmp_path / "query.jpg")
    monkeypatch.chdir(tmp_path)

    run: Any = SimpleNamespace(
        metrics=SimpleNamespace(cost=SimpleNamespace(dimension=encoder.dimension)), provenance={}
    )
    code = useit._plain(run, entry)
    names: dict[str, Any] = {}
    exec(code, names)

    upright = [ImageOps.exif_transpose(Image.open(path)).convert("RGB") for path in ("a.jpg", "b.jpg")]
    expected = encoder.encode(np.stack([encoder.prepare(image) for image in upright]))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(names["embed"](["a.jpg", "b.jpg"]), expected, rtol=0, atol=1e-5)
    assert names["nearest"][0].tolist() == [1, 0]
    assert names["scores"][0, 0] == pytest.approx(1, abs=1e-5)


def test_the_code_with_lookalike_finds_the_nearest_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, number in (("a.jpg", 1), ("b.jpg", 2), ("query.jpg", 2)):
        made_image(number, (48, 60)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(useit.OURS.format(model='"pixels"'), names)
    assert names["nearest"][0].tolist() == [1, 0]
    assert names["scores"][0, 1] == pytest.approx(1, abs=1e-6)
