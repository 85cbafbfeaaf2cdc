"""Checkpoints of timm networks, as the Hub and transformers have them: prepared as timm does, without torchvision.

timm itself is not installed by this project; where it is, networks are loaded and compared with it.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import made_image
from lookalike.embed import encoders
from lookalike.embed.preprocess import Values, geometry_of
from lookalike.embed.timm_settings import settings_of
from lookalike.job.errors import LookalikeError

with_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
SIZES = [(331, 200), (200, 331), (97, 97), (640, 427), (64, 301), (257, 256), (123, 456)]
CONFIGS: list[dict[str, Any]] = [
    {"architecture": "any, and the rest are timm's defaults"},
    {"input_size": (3, 288, 288), "crop_pct": 0.95, "interpolation": "bicubic"},
    {"input_size": (3, 384, 384), "crop_pct": 1.0, "crop_mode": "squash", "mean": [0.5] * 3, "std": [0.5] * 3},
    {"input_size": (3, 160, 160), "crop_pct": 0.9, "interpolation": "bilinear"},
    {"input_size": (3, 192, 128), "crop_pct": 0.8, "crop_mode": "squash"},
]


@with_timm
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_images_are_prepared_as_timm_prepares_them(config: dict[str, Any]) -> None:
    from timm.data import create_transform, resolve_data_config

    theirs = create_transform(**resolve_data_config({}, pretrained_cfg=config))
    settings = settings_of(config)
    geometry = geometry_of(settings)
    assert geometry
    for seed, size in enumerate(SIZES):
        image = made_image(seed, size)
        np.testing.assert_allclose(Values.of(settings)(geometry(image)), theirs(image).numpy(), rtol=1e-5, atol=1e-5)


def test_a_square_crop_keeps_half_a_pixel_on_the_even_side_as_torchvision_does() -> None:
    geometry = geometry_of(settings_of({"input_size": (3, 8, 8), "crop_pct": 1.0, "interpolation": "nearest"}))
    assert geometry
    columns = np.tile(np.arange(13, dtype=np.uint8)[None, :, None], (8, 1, 3))
    assert geometry(Image.fromarray(columns))[0, 0, 0] == 2, "2.5 becomes 2"
    assert geometry(Image.fromarray(columns[:, :11]))[0, 0, 0] == 2, "1.5 becomes 2"


@pytest.mark.parametrize("config", [{"crop_mode": "border"}, {"crop_pct": 1.2}, {"input_size": (3, 192, 128)}])
def test_what_cannot_be_followed_has_no_geometry(config: dict[str, Any]) -> None:
    assert geometry_of(settings_of(config)) is None


def saved(folder: Path, architecture: str, wrapped: bool) -> tuple[Path, Any]:
    """A network with random weights: as transformers saves its wrapper, or as timm's own checkpoints are."""
    import timm
    import torch
    from timm.models import save_for_hf
    from transformers import TimmWrapperConfig, TimmWrapperModel

    torch.manual_seed(0)
    model = timm.create_model(architecture, pretrained=False).eval()
    if wrapped:
        names = ("input_size", "mean", "std", "crop_pct", "interpolation", "crop_mode")
        config = {name: value for name, value in model.pretrained_cfg.items() if name in names}
        settings = TimmWrapperConfig(architecture=architecture, pretrained_cfg=config)
        network = TimmWrapperModel(settings).eval()
        network.timm_model.load_state_dict(model.state_dict(), strict=False)
        network.save_pretrained(folder)
    else:
        save_for_hf(model, folder, safe_serialization="both")
    return folder, model


@with_timm
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize(
    ("architecture", "feature", "pooling"),
    [
        ("resnet18", "pooler_output", "none"),
        ("resnet18", "last_hidden_state", "mean"),
        ("vit_tiny_patch16_224", "last_hidden_state", "cls"),
        ("vit_tiny_patch16_224", "last_hidden_state", "mean_patches"),
        ("convnext_atto", "pooler_output", "none"),
        ("vit_small_patch16_dinov3", "last_hidden_state", "cls"),
    ],
)
def test_vectors_are_those_of_timm(
    tmp_path: Path, architecture: str, feature: str, pooling: str, wrapped: bool
) -> None:
    import torch
    from timm.data import create_transform, resolve_data_config

    folder, model = saved(tmp_path / architecture, architecture, wrapped)
    key = json.dumps({"family": "transformers", "checkpoint": str(folder), "feature": feature, "pooling": pooling})
    entry = encoders.parse(key)
    encoder = encoders.load(key, encoders.family(entry).fetch(entry), encoders.Machine(threads=1))
    images = [made_image(seed, size) for seed, size in enumerate(SIZES[:3])]
    found = encoder.encode(np.stack([encoder.prepare(image) for image in images]))
    transform = create_transform(**resolve_data_config({}, model=model))
    with torch.no_grad():
        pixels = torch.stack([transform(image) for image in images])
        features = model.forward_features(pixels)
        expected = {
            "none": lambda: model.forward_head(features, pre_logits=True),
            "mean": lambda: features.mean((2, 3)),
            "cls": lambda: features[:, 0],
            "mean_patches": lambda: features[:, 1:].mean(1),
        }[pooling]().numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="timm is installed")
def test_without_timm_its_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "timm").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    import torch
    from safetensors.torch import save_file
    from transformers import TimmWrapperConfig

    settings = {"input_size": [3, 224, 224], "mean": [0.485] * 3, "std": [0.229] * 3, "interpolation": "bicubic"}
    TimmWrapperConfig(architecture="resnet18", pretrained_cfg=settings, num_classes=0).save_pretrained(tmp_path)
    save_file({"timm_model.weight": torch.zeros(1)}, tmp_path / "model.safetensors", {"format": "pt"})
    key = json.dumps({"family": "transformers", "checkpoint": str(tmp_path), "feature": "pooler_output"})
    entry = encoders.parse(key)
    with pytest.raises(LookalikeError, match=r"is a timm network\. Install that package: pip install timm"):
        encoders.load(key, encoders.family(entry).fetch(entry), encoders.Machine(threads=1))
    on_the_hub = encoders.parse(key.replace(str(tmp_path), "timm/resnet18.a1_in1k"))
    with pytest.raises(LookalikeError, match=r"^timm/resnet18.a1_in1k: is a timm network\. Install"):
        encoders.family(on_the_hub).fetch(on_the_hub)  # before anything is downloaded
