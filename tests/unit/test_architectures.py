"""Every output of every architecture equals that of a plain AutoModel loop, or is rejected with a reason."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from test_transformers import assert_equal, load

import tiny
from conftest import REPOSITORY, made_image
from lookalike.job.errors import LookalikeError

QUICK = ("swin", "sam_vision", "blip_itm", "levit")  # the others take half a minute
NETWORKS: dict[str, list[Any]] = yaml.safe_load((REPOSITORY / "tests/architectures.yaml").read_text())["networks"]
OUTPUTS = {
    "i": ("image_features", "none"),
    "p": ("pooler_output", "none"),
    "c": ("last_hidden_state", "cls"),
    "m": ("last_hidden_state", "mean"),
    "t": ("last_hidden_state", "mean_patches"),
    "h": ("hidden_states[-1]", "mean"),
    "g": ("last_hidden_state", "gem"),
}
IMAGES = [made_image(seed, size) for seed, size in enumerate([(131, 64), (41, 97), (64, 64), (31, 40)])]


def save(name: str, folder: Path) -> Path:
    import torch
    import transformers

    _, model, config, settings, processor, processing = NETWORKS[name]
    torch.manual_seed(0)
    network = getattr(transformers, model)(getattr(transformers, config)(**settings))
    return tiny.save(folder, network, getattr(transformers, processor)(**processing))


class Plain:
    """The reference implementation: a checkpoint's own model and processor, one image at a time."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoImageProcessor, AutoModel

        self.model = AutoModel.from_pretrained(folder).eval()
        self.processor = AutoImageProcessor.from_pretrained(folder, backend="pil")

    def vector(self, image: Image.Image, feature: str, pooling: str) -> np.ndarray:
        import torch

        pixels = {"pixel_values": self.processor(images=image, return_tensors="pt")["pixel_values"]}
        both = hasattr(self.model, "get_image_features")
        with torch.no_grad():
            if feature == "image_features":
                features = self.model.get_image_features(**pixels)
                return (features if hasattr(features, "shape") else features.pooler_output)[0].numpy()
            part = self.model.vision_model if both and hasattr(self.model, "vision_model") else self.model
            output = part(**pixels, output_hidden_states=True)
        if feature == "pooler_output":
            return output.pooler_output.flatten(1)[0].numpy()
        state = output.hidden_states[-1] if feature == "hidden_states[-1]" else output.last_hidden_state
        if pooling == "cls":
            return state[0, 0].numpy()
        if state.ndim == 3:
            return state[0].mean(0).numpy()
        last = feature == "hidden_states[-1]" and self.model.config.model_type == "sam_vision_model"  # channels last
        return state[0].mean((0, 1) if last else (1, 2)).numpy()


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]
)
def test_every_output_equals_a_plain_loop_or_is_rejected(name: str, tmp_path: Path) -> None:
    folder = save(name, tmp_path / name)
    plain = Plain(folder)
    accepted, rejected = "", []
    for letter, (feature, pooling) in OUTPUTS.items():
        try:
            encoder = load(folder, feature, pooling)
        except LookalikeError as error:
            rejected.append(str(error))
            continue
        accepted += letter
        prepared = [encoder.prepare(image) for image in IMAGES]
        rows = [encoder.encode(array[None])[0] for array in prepared]
        for row, again in zip(rows, encoder.encode(np.stack(prepared)), strict=True):
            assert_equal(again, row)
        if letter not in "tg":
            for row, image in zip(rows, IMAGES, strict=True):
                assert_equal(row, plain.vector(image, feature, pooling))
    assert [message for message in rejected if not message.startswith(str(folder))] == []
    assert accepted == "".join(letter for letter in OUTPUTS if letter in NETWORKS[name][0])
