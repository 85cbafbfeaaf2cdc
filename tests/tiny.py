"""Tiny checkpoints of real architectures with random weights, written by ``save_pretrained``."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIDE = 32  # input size of the tiny networks

VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": SIDE,
    "patch_size": 8,
}
TEXT = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 60}
TEXT |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 1}


def save(folder: Path, model: Any, processor: Any) -> Path:
    """Randomise a model's weights, and write it and its image processor to a folder."""
    import torch

    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():  # as after training: no weight keeps its initial value, such as the class token's zeros,
        for weight in model.parameters():  # and convolutions do not attenuate their input
            spread = (2 / weight[0].numel()) ** 0.5 if weight.ndim == 4 else 0.05
            weight.add_(torch.randn(weight.shape, generator=rng) * spread)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.add_(1.1)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def vit(folder: Path) -> Path:
    from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

    return save(folder, ViTModel(ViTConfig(**VISION)), ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}))


def _cropping(resize: int, **settings: Any) -> Any:
    from transformers import BitImageProcessorPil

    return BitImageProcessorPil(
        size={"shortest_edge": resize}, crop_size={"height": SIDE, "width": SIDE}, resample=3, **settings
    )


def dinov2(folder: Path) -> Path:
    from transformers import Dinov2Config, Dinov2Model

    sides = {key: value for key, value in VISION.items() if key != "intermediate_size"}
    return save(folder, Dinov2Model(Dinov2Config(**sides)), _cropping(36, image_std=[0.229, 0.224, 0.225]))


def dinov2_with_registers(folder: Path) -> Path:
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    sides = {key: value for key, value in VISION.items() if key != "intermediate_size"}
    config = Dinov2WithRegistersConfig(**sides, num_register_tokens=3)
    return save(folder, Dinov2WithRegistersModel(config), _cropping(36))


def dinov3(folder: Path) -> Path:
    """With the settings of the published checkpoints, whose processor class has no PIL backend."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel, ViTImageProcessorPil

    processor = ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}, image_std=[0.229, 0.224, 0.225])
    save(folder, DINOv3ViTModel(DINOv3ViTConfig(**VISION, num_register_tokens=4)), processor)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    settings["image_processor_type"] = "DINOv3ViTImageProcessorFast"
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def clip(folder: Path) -> Path:
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    config = CLIPConfig(text_config=TEXT, vision_config={**VISION, "projection_dim": 24}, projection_dim=24)
    crop = {"height": SIDE, "width": SIDE}
    return save(folder, CLIPModel(config), CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=crop))


def siglip(folder: Path) -> Path:
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel

    text = {**TEXT, "max_position_embeddings": 16, "projection_size": 32}
    config = SiglipConfig(text_config=text, vision_config=VISION)
    return save(folder, SiglipModel(config), SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}, resample=2))


def efficientnet(folder: Path) -> Path:
    from transformers import EfficientNetConfig, EfficientNetImageProcessorPil, EfficientNetModel

    config = EfficientNetConfig(width_coefficient=0.25, depth_coefficient=0.3, image_size=64, hidden_dim=320)
    processor = EfficientNetImageProcessorPil(
        size={"height": 64, "width": 64}, rescale_offset=False, include_top=True, resample=0
    )
    return save(folder, EfficientNetModel(config), processor)


def convnext(folder: Path) -> Path:
    from transformers import ConvNextConfig, ConvNextImageProcessorPil, ConvNextModel

    config = ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], image_size=64)
    return save(folder, ConvNextModel(config), ConvNextImageProcessorPil(size={"shortest_edge": 64}, crop_pct=0.875))


def blip2(folder: Path) -> Path:
    import torch
    from transformers import (
        Blip2Config,
        Blip2Model,
        Blip2QFormerConfig,
        Blip2VisionConfig,
        BlipImageProcessorPil,
        OPTConfig,
    )

    torch.manual_seed(0)
    qformer = {key: value for key, value in VISION.items() if key not in ("image_size", "patch_size")}
    text = OPTConfig(
        vocab_size=500, hidden_size=64, word_embed_proj_dim=64, ffn_dim=128, num_hidden_layers=2, num_attention_heads=2
    )
    config = Blip2Config(
        vision_config=Blip2VisionConfig(**{**VISION, "hidden_size": 40}).to_dict(),
        qformer_config=Blip2QFormerConfig(**qformer, encoder_hidden_size=40, vocab_size=60).to_dict(),
        text_config=text.to_dict(),
        num_query_tokens=5,
    )
    return save(folder, Blip2Model(config), BlipImageProcessorPil(size={"height": SIDE, "width": SIDE}))


MAKERS: dict[str, Callable[[Path], Path]] = {
    maker.__name__: maker
    for maker in (vit, dinov2, dinov2_with_registers, dinov3, clip, siglip, efficientnet, convnext, blip2)
}
