"""Checkpoints of timm networks, as transformers wraps them, are refused when loaded; timm need not be installed."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import TimmWrapperConfig

from lookalike.embed import encoders
from lookalike.job.errors import LookalikeError


@pytest.mark.parametrize("architecture", ["resnet18", "vit_tiny_patch16_224", "convnext_atto"])
@pytest.mark.parametrize(
    ("feature", "pooling"), [("pooler_output", "none"), ("last_hidden_state", "mean"), ("last_hidden_state", "cls")]
)
def test_a_wrapped_timm_network_is_refused_with_the_families_to_use_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, feature: str, pooling: str
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    settings = {"input_size": [3, 224, 224], "mean": [0.485] * 3, "std": [0.229] * 3, "interpolation": "bicubic"}
    TimmWrapperConfig(architecture=architecture, pretrained_cfg=settings, num_classes=0).save_pretrained(tmp_path)
    save_file({"timm_model.weight": torch.zeros(1)}, tmp_path / "model.safetensors", {"format": "pt"})
    entry = {"family": "transformers", "checkpoint": str(tmp_path), "feature": feature, "pooling": pooling}
    key = json.dumps(entry)
    family = encoders.family(encoders.parse(key))
    with pytest.raises(LookalikeError, match=rf"^{tmp_path}: is .*\btimm\b.* torchscript, or .* family python"):
        encoders.load(key, family.fetch(encoders.parse(key)), encoders.Machine(threads=1))
