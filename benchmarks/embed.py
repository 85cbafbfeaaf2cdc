"""How fast the embed stage is, next to what it could be and to what others write, on the same pictures and weights.

For each model, in pictures a second:
  forward   the forward pass alone, on batches that are ready in memory
  prepare   reading, decoding and resizing alone, on all cores
  bound     what the two allow: 1 / (1/forward + 1/prepare) where they share the cores, the smaller where they do not
  ours      the embed stage as the workflow runs it, loading the model left out
  loop      the published way: one picture at a time, processor, then model
  pipeline  transformers' image-feature-extraction pipeline, in batches

Architectures have their full size and random weights, since speed does not depend on their values. The rows of a model
are measured in turn, several times, and the medians are printed, so that a noisy machine disturbs all of them alike.

    python benchmarks/embed.py --models clip-vit-b32 dinov2-base --pictures 64 --rounds 3
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow_scripts"))

import numpy as np
import pyarrow as pa
import torch
import transformers
import yaml
from PIL import Image
from rich.console import Console
from rich.table import Table

from lookalike import embedding, images, models, store
from lookalike.formats import SHARD

CATALOGUE = yaml.safe_load((Path(__file__).parents[1] / "config.yaml").read_text())["models"]
CLIP = "clip-vit-b32"
DECIMALS = 2


# --- checkpoints of full size, with random weights ---


def build(name: str, folder: Path) -> None:
    """Save the architecture of a catalogue's model, as its published configuration says, and its image processor."""
    t = transformers
    squash = {"resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    if name == "efficientnet-b7":
        config = t.EfficientNetConfig(
            width_coefficient=2.0, depth_coefficient=3.1, image_size=600, hidden_dim=2560, dropout_rate=0.5
        )
        model, processor = (
            t.EfficientNetModel(config),
            t.EfficientNetImageProcessorPil(size={"height": 600, "width": 600}),
        )
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
        processor = t.CLIPImageProcessorPil()
    elif name == "blip2-opt-2.7b":
        # the language model is never loaded: a small one stands in the file
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


def make_pictures(folder: Path, size: tuple[int, int], count: int) -> pa.Table:
    """JPEG pictures with edges and texture, about as large in bytes as photographs; a SHARD table of them."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(draw.integers(0, 256, (12, 16, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
        texture = draw.normal(0, 9, (size[1] // 2, size[0] // 2)).repeat(2, 0).repeat(2, 1)
        canvas = np.asarray(coarse, np.float32).copy()
        canvas[: texture.shape[0], : texture.shape[1]] += texture[..., None]
        Image.fromarray(canvas.clip(0, 255).astype(np.uint8)).save(folder / f"{number:05d}.jpg", quality=90)
    names = [f"{number:05d}.jpg" for number in range(count)]
    sizes = [(folder / name).stat().st_size for name in names]
    columns = {"image_id": names, "root": [str(folder)] * count, "path": names, "bytes": sizes}
    return pa.table(columns, SHARD.schema())


# --- the ways to embed ---


def loop(folder: Path, name: str, paths: list[str], device: torch.device) -> Callable[[], None]:
    """One picture at a time, processor, then model, as in the published notebooks."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    architecture = transformers.Blip2ForConditionalGeneration if name.startswith("blip2") else transformers.AutoModel
    model = architecture.from_pretrained(folder).eval().to(device)

    def run() -> None:
        for path in paths:
            with Image.open(path) as image, torch.no_grad():
                pixels = processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"].to(device)
                if name == CLIP:
                    model.get_image_features(pixel_values=pixels)
                elif name.startswith("blip2"):
                    model.get_qformer_features(pixel_values=pixels)
                else:
                    model(pixel_values=pixels, output_hidden_states=name.startswith("efficientnet"))

    return run


def pipeline(
    folder: Path, name: str, paths: list[str], batch_size: int, device: torch.device
) -> Callable[[], None] | None:
    """transformers' own pipeline; it has no way to call BLIP-2's Q-Former."""
    if name.startswith("blip2"):
        return None
    architecture = transformers.CLIPVisionModelWithProjection if name == CLIP else transformers.AutoModel
    extract = transformers.pipeline(
        "image-feature-extraction",
        model=architecture.from_pretrained(folder).eval(),
        image_processor=transformers.AutoImageProcessor.from_pretrained(folder, backend="pil"),
        device=device,
    )

    def run() -> None:
        for _ in extract(paths, batch_size=batch_size, return_tensors=True):
            pass

    return run


def speeds(name: str, folder: Path, rows: pa.Table, threads: int, rounds: int) -> dict[str, float]:
    """Pictures a second of every way, the median of several rounds in turn."""
    entry = {**CATALOGUE[name]["embed"], "checkpoint": str(folder)}
    entry.pop("revision", None)
    key = json.dumps(entry)
    gpu = torch.cuda.is_available()
    weights = models.family(models.parse(key)).fetch(models.parse(key))
    encoder = models.load(key, weights, models.Machine(threads, gpu))
    device = torch.device("cuda" if gpu else "cpu")
    batch_size = min(CATALOGUE[name]["runtime"]["batch_size"], rows.num_rows)
    paths = [f"{row['root']}/{row['path']}" for row in rows.to_pylist()]
    ready = np.stack([encoder.prepare(images.decode(Path(path).read_bytes())) for path in paths[:batch_size]])

    def forward() -> None:
        for start in range(0, len(paths), batch_size):
            encoder.encode(ready[: min(batch_size, len(paths) - start)].copy())

    def prepare() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda path: encoder.prepare(images.decode(Path(path).read_bytes())), paths))

    every: dict[str, Callable[[], Any] | None] = {
        "forward": forward,
        "prepare": prepare,
        "ours": lambda: embedding.embed_rows(rows, encoder, batch_size=batch_size, threads=threads),
        "loop": loop(folder, name, paths, device),
        "pipeline": pipeline(folder, name, paths, batch_size, device),
    }
    ways = {way: run for way, run in every.items() if run}
    took: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way, run in ways.items():
            started = time.perf_counter()
            run()
            if number:  # the first round warms up
                took[way].append(time.perf_counter() - started)
    found = {way: len(paths) / statistics.median(seconds) for way, seconds in took.items()}
    both = 1 / (1 / found["forward"] + 1 / found["prepare"])
    found["bound"] = min(found["forward"], found["prepare"]) if gpu else both
    return found


def describe_machine() -> str:
    """The device and the versions that the numbers belong to."""
    versions = ", ".join(
        f"{name} {version}" for name, version in store.versions("torch", "transformers", "pillow").items()
    )
    if torch.cuda.is_available():
        asked = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        card = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
        return f"{card}, {os.cpu_count()} CPU cores, {versions}"
    return f"{platform.machine()} CPU, {os.cpu_count()} cores, no GPU, {versions}"


def main() -> None:
    """Measure and print one table for each size of pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = ["efficientnet-b7", "vit-large", "dinov2-base", CLIP, "blip2-opt-2.7b"]
    parser.add_argument("--models", nargs="+", default=known, choices=known)
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", nargs="+", default=["500x375", "1024x768"], metavar="WIDTHxHEIGHT")
    asked = parser.parse_args()
    threads = os.cpu_count() or 1
    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    console = Console(width=110)
    console.print(f"{time.strftime('%Y-%m-%d')}: {describe_machine()}")
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        pictures = {}
        for size in asked.sizes:
            width, height = (int(side) for side in size.split("x"))
            pictures[size] = make_pictures(work / size, (width, height), asked.pictures)
        for name in asked.models:
            build(name, work / name)
            for size, rows in pictures.items():
                found = speeds(name, work / name, rows, threads, asked.rounds)
                console.print(table(f"{name}, {len(rows)} pictures of {size}", found))


def table(title: str, found: dict[str, float]) -> Table:
    """Pictures a second, and ours as a multiple of each."""
    made = Table("", *found, title=title, title_justify="left")
    made.add_row("pictures a second", *(f"{speed:.{DECIMALS}f}" for speed in found.values()))
    made.add_row("ours / this", *(f"{found['ours'] / speed:.{DECIMALS}f}" for speed in found.values()))
    return made


if __name__ == "__main__":
    main()
