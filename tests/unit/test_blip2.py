"""BLIP-2's vision tower and Q-Former equal those of the whole model, and the language model is never loaded."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
from conftest import made_image
from lookalike.embed import encoders
from lookalike.job.errors import LookalikeError

IMAGES = [made_image(seed, size) for seed, size in enumerate([(131, 64), (41, 97), (32, 32), (9, 13)])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.blip2(tmp_path_factory.mktemp("checkpoints") / "blip2")


def load(folder: Path, **more: Any) -> Any:
    key = json.dumps({"family": "blip2", "checkpoint": str(folder), **more})
    entry = encoders.parse(key)
    return encoders.load(key, encoders.family(entry).fetch(entry), encoders.Machine(threads=1))


def ours(encoder: encoders.Encoder, *numbers: int) -> np.ndarray:
    return encoder.encode(np.stack([encoder.prepare(IMAGES[number]) for number in numbers]))


def whole_model(folder: Path) -> Any:
    from transformers import Blip2Model

    return Blip2Model.from_pretrained(folder).eval()


def test_vectors_equal_the_mean_of_the_whole_models_query_tokens(folder: Path) -> None:
    import torch
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    model = whole_model(folder)
    encoder = load(folder)
    together = ours(encoder, 0, 1, 2, 3)
    for row, image in zip(together, IMAGES, strict=True):
        with torch.no_grad():
            tokens = model.get_qformer_features(**processor(images=image, return_tensors="pt"))
        assert tokens.shape == (1, 5, 32)
        expected = tokens.mean(dim=1)[0].numpy()
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert encoder.dimension == 32


def test_the_two_parts_are_bitwise_equal(folder: Path) -> None:
    """On given pixels, because their preparation may round differently."""
    import torch

    pixels = torch.randn((2, 3, 32, 32), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        actual = load(folder).network(pixels, interpolate_pos_encoding=False)
        expected = whole_model(folder).get_qformer_features(pixel_values=pixels)
    assert torch.equal(actual, expected)


def test_the_network_distinguishes_images(folder: Path) -> None:
    a, b = ours(load(folder), 0, 1)
    assert np.abs(a - b).max() > 1e-3 * np.abs(a).max()


def test_the_language_model_is_never_materialised(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    class Forbidden:
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            raise AssertionError("the language model was created")

    model = whole_model(folder)
    parts = (
        sum(parameter.numel() for part in (model.vision_model, model.qformer) for parameter in part.parameters())
        + model.query_tokens.numel()
    )
    whole = sum(parameter.numel() for parameter in model.parameters())

    monkeypatch.setattr("transformers.models.opt.modeling_opt.OPTForCausalLM.__init__", Forbidden.__init__)
    monkeypatch.setattr("transformers.models.opt.modeling_opt.OPTModel.__init__", Forbidden.__init__)
    loaded = load(folder).network
    assert sum(parameter.numel() for parameter in loaded.parameters()) == parts < whole
    assert all(parameter.device.type == "cpu" for parameter in loaded.parameters())
    assert not any(torch.isnan(parameter).any() for parameter in loaded.parameters())


def test_of_sharded_weights_only_the_files_with_the_two_parts_are_needed(folder: Path, tmp_path: Path) -> None:
    """The published checkpoint has 15 GB; the other files are neither downloaded nor hashed nor read."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    parts = ("vision_model.", "qformer.", "query_tokens")
    first = {name: tensor for name, tensor in tensors.items() if name.startswith(parts)}
    second = {name: tensor for name, tensor in tensors.items() if name not in first}
    assert second
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    save_file(first, tmp_path / "model-00001-of-00002.safetensors", metadata={"format": "pt"})
    names = dict.fromkeys(first, "model-00001-of-00002.safetensors") | dict.fromkeys(
        second, "model-00002-of-00002.safetensors"
    )
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    np.testing.assert_array_equal(ours(load(tmp_path), 0), ours(load(folder), 0))


def test_half_precision_is_replaced_on_the_cpu(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert load(folder).compute_dtype == "float32"
    assert "computing in float32, not float16, on the CPU" in caplog.text


def test_a_checkpoint_of_another_architecture_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(LookalikeError, match=r"/vit: lacks vision_model\., query_tokens, qformer\.\. Use a"):
        load(tiny.vit(tmp_path / "vit"))
