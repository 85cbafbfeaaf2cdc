"""Checkpoints whose architectures have their full size, with random weights: speed does not depend on their values."""

from pathlib import Path
from typing import Any

import torch
import transformers

CLIP = "clip-vit-b32"


def build(name: str, folder: Path) -> None:
    """Save the architecture of a catalogue's model, as its published configuration says, and its image processor."""
    t = transformers
    squash = {"resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    if name == "efficientnet-b7":
        config = t.EfficientNetConfig(
            width_coefficient=2.0, depth_coefficient=3.1, image_size=600, hidden_dim=2560, dropout_rate=0.5
        )
        model = t.EfficientNetModel(config)
        calibrate(model, 600)
        processor = t.EfficientNetImageProcessorPil(size={"height": 600, "width": 600})
    elif name == "vit-large":
        config = t.ViTConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
        model, processor = t.ViTModel(config), t.ViTImageProcessorPil(size={"height": 224, "width": 224}, **squash)
    elif name == "dinov2-base":
        config = t.Dinov2Config(image_size=518)
        model = t.Dinov2Model(config)
        processor = t.BitImageProcessorPil(
            size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}, resample=3
        )
    elif name == CLIP:
        vision = t.CLIPVisionConfig(projection_dim=512)
        model = t.CLIPModel(t.CLIPConfig(text_config=t.CLIPTextConfig().to_dict(), vision_config=vision.to_dict()))
        # sentence-transformers wants to be able to read text too
        tokenizer = t.CLIPTokenizer(vocab={"<|startoftext|>": 0, "<|endoftext|>": 1}, merges=[])
        processor = t.CLIPProcessor(image_processor=t.CLIPImageProcessorPil(), tokenizer=tokenizer)
    elif name == "blip2-opt-2.7b":
        # the language model is never loaded: the file has a small one instead
        text = t.OPTConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=2, ffn_dim=64, vocab_size=128)
        config = t.Blip2Config(
            vision_config=t.Blip2VisionConfig().to_dict(),
            qformer_config=t.Blip2QFormerConfig(encoder_hidden_size=1408).to_dict(),
            text_config=text.to_dict(),
            num_query_tokens=32,
        )
        model = t.Blip2ForConditionalGeneration(config)
        processor = t.BlipImageProcessorPil(size={"height": 224, "width": 224})
    else:
        raise SystemExit(f"no full-size architecture is known for '{name}'")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def calibrate(model: Any, side: int) -> None:
    """Give batch norms the statistics of real activations, as training does.

    With those of a new network, activations shrink from layer to layer to denormal numbers, which are very slow.
    """
    norms = [module for module in model.eval().modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        model(torch.rand(4, 3, side, side, generator=torch.Generator().manual_seed(0)))
    model.eval()
