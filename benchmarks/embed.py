"""How fast the embed stage is, next to what it could be and to what others write, on the same images and weights.

For each model, in images a second:
  ours      the embed stage as the workflow runs it, loading the model left out
  bound     what the machine allows. On a CPU 1 / (FLOPs / FLOP/s + 1/prepare): the FLOPs of the network, counted, and
            the FLOP/s of a large matrix product of NumPy, measured in the same run with its native kernel
            (OPENBLAS_CORETYPE is unset). On a GPU the smaller of torch's forward pass and prepare
  torch     torch's forward pass alone, on batches that are ready in memory
  prepare   reading, decoding and resizing alone, on all cores
  loop      the reference implementation: one image at a time, processor, then model
  pipeline  transformers' image-feature-extraction pipeline, in batches
  s-t       sentence-transformers' encode, in batches; CLIP only (make setup EXTRAS=cpu,hub,demo,slurm,dev,bench)

Architectures have their full size and random weights, since speed does not depend on their values. The ways of a model
are measured in turn, round after round, until each had its share of `--seconds`; the best round of each counts, since
other work on the machine can only slow it down. On a GPU, all images are embedded once, after a first round that warms
up; the ways that leave it idle get 64 images. There it is also told how long 151,448 images take (DISC21's
experiment), from a run of at least `--extrapolate` seconds.

    python benchmarks/embed.py --models clip-vit-b32 dinov2-base --seconds 20 --markdown table.md
"""

import argparse
import importlib.util
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow_scripts"))
sys.path.append(str(Path(__file__).parent))  # last: workflow_scripts/ has scripts of the same names
os.environ.pop("OPENBLAS_CORETYPE", None)  # read when NumPy is imported: its kernel for another CPU may be slower

import numpy as np
import pyarrow as pa
import torch
import transformers
import yaml
from full_size import CLIP, build
from photographs import image_folder
from PIL import Image
from rich.console import Console
from rich.table import Table

from lookalike.embed import embed, encoders
from lookalike.embed.export import ExportJob, export
from lookalike.embed.preprocess import Geometry
from lookalike.io import images, store
from lookalike.io.formats.records import bottleneck

CATALOGUE = yaml.safe_load((Path(__file__).parents[1] / "config.yaml").read_text())["models"]
PEERS = ("loop", "pipeline", "s-t")
WAYS = ("bound", "torch", "prepare", *PEERS)
SIDE = 3072  # of the matrices whose product is measured
DISC21 = 151_448  # images: 150,000 references and 1,448 queries
FEWEST = 2  # images and rounds
FEW_BESIDE_A_GPU = 64  # images, for the ways that use one core and leave the GPU idle


# --- the ways to embed ---


def loop(folder: Path, name: str, paths: list[str], device: torch.device) -> Callable[[], None]:
    """One image at a time, processor, then model, as in the published notebooks."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    architecture = transformers.Blip2Model if name.startswith("blip2") else transformers.AutoModel
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


def sentence_transformers(
    folder: Path, name: str, paths: list[str], batch_size: int, device: torch.device
) -> Callable[[], None] | None:
    """sentence-transformers' own way, where it is installed; of the five it reads CLIP alone."""
    if name != CLIP or importlib.util.find_spec("sentence_transformers") is None:
        return None
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Transformer

    model = SentenceTransformer(modules=[Transformer(str(folder))], device=str(device))

    def run() -> None:
        model.encode(paths, batch_size=batch_size, show_progress_bar=False)

    return run


# --- measuring ---


@dataclass(frozen=True)
class Found:
    """What was measured of one model on images of one size: images a second of every way, and how ours ran."""

    model: str
    size: str
    images: int
    speeds: dict[str, float]
    batch_size: int
    precision: str
    engine: str
    bottleneck: str
    gflop: float  # of one image
    gflops: float  # GFLOP/s of the matrix product; 0 on a GPU
    disc21_hours: float | None = None

    def ratio(self, way: str) -> str:
        """Ours divided by another way."""
        return f"{self.speeds['ours'] / self.speeds[way]:.2f}" if way in self.speeds else "-"


def measure(
    name: str, folder: Path, *, size: str, rows: pa.Table, threads: int, seconds: float, extrapolate: float
) -> Found:
    """Measure every way with one model and one size of images; of ``rows`` as many as the time allows."""
    entry = {**CATALOGUE[name]["embed"], "checkpoint": str(folder)}
    entry.pop("revision", None)
    key = json.dumps(entry)
    gpu = torch.cuda.is_available()
    weights = encoders.family(encoders.parse(key)).fetch(encoders.parse(key))
    machine = encoders.Machine(threads, gpu)
    in_torch: Any = encoders.load(key, weights, machine)
    batch_size = CATALOGUE[name]["runtime"]["batch_size"]
    exported = None if gpu else export_of(key, weights, folder.with_name(f"{name}-export"), batch_size, threads)
    encoder = encoders.load(key, weights, machine, exported)
    device = torch.device("cuda" if gpu else "cpu")
    rows = rows if gpu else rows.slice(0, affordable(encoder, rows, seconds))
    batch_size = min(batch_size, rows.num_rows)
    paths = [f"{row['root']}/{row['path']}" for row in rows.to_pylist()]
    few = paths[:FEW_BESIDE_A_GPU] if gpu else paths
    ready = [encoder.prepare(images.decode(Path(path).read_bytes())) for path in paths[:batch_size]]

    def forward() -> None:
        running = [encoders.launch(in_torch, ready[: len(paths) - start]) for start in range(0, len(paths), batch_size)]
        for result in running:
            result()

    def prepare() -> None:
        if gpu and encoder.geometry:  # threads wait for each other there
            with ProcessPoolExecutor(threads) as processes:
                list(processes.map(partial(prepare_file, encoder.geometry), paths, chunksize=16))
            return
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda path: encoder.prepare(images.decode(Path(path).read_bytes())), paths))

    def ours() -> embed.Embedded:
        return embed.embed_rows(rows, encoder, batch_size=batch_size, threads=threads)

    every: dict[str, Callable[[], Any] | None] = {
        "torch": forward,
        "prepare": prepare,
        "ours": ours,
        "loop": loop(folder, name, few, device),
        "pipeline": pipeline(folder, name, few, batch_size, device),
        "s-t": sentence_transformers(folder, name, few, batch_size, device),
    }
    left, right = np.random.default_rng(0).random((2, SIDE, SIDE), np.float32)
    ways = {way: run for way, run in every.items() if run}
    best = in_turn(ways, 0, fewest=1) if gpu else in_turn({**ways, "product": lambda: left @ right}, seconds)
    gflops = 0.0 if gpu else 2 * SIDE**3 / best.pop("product") / 1e9
    gflop = flop_of(in_torch, ready[0]) / 1e9
    found = {way: len(few if way in PEERS else paths) / took for way, took in best.items()}
    if gpu:
        found["bound"] = min(found["torch"], found["prepare"])
    else:
        found["bound"] = 1 / (gflop / gflops + 1 / found["prepare"])
    stages = ours().seconds
    hours = disc21_hours(ours, len(paths), found["ours"], extrapolate) if extrapolate else None
    slowest = bottleneck(stages, threads)
    precision, engine = encoder.compute_dtype, encoders.engine(encoder)["name"]
    return Found(name, size, len(paths), found, batch_size, precision, engine, slowest, gflop, gflops, hours)


def disc21_hours(ours: Callable[[], Any], images: int, speed: float, least: float) -> float:
    """Hours that DISC21's images take, from a run of at least so many seconds. ``ours`` embeds ``images`` of them."""
    times = max(1, int(least * 1.1 * speed / images))
    while True:
        started = time.perf_counter()
        for _ in range(times):  # not one call with all rows many times: equal bytes are computed once
            ours()
        took = time.perf_counter() - started
        if took >= least:
            return DISC21 * took / (times * images) / 3600
        times = int(times * 1.2 * least / took) + 1


def prepare_file(geometry: Geometry, path: str) -> None:
    """Read, decode and resize an image."""
    geometry(images.decode(Path(path).read_bytes()))


def export_of(key: str, weights: Any, folder: Path, batch_size: int, threads: int) -> Path:
    """The network exported as the workflow does it; of images of several sizes, only once."""
    record = folder / "export.json"
    if not record.exists():
        store.write_json(weights, folder / "weights.json")
        exported = encoders.parse(key).export_key()
        export(ExportJob(str(folder / "weights.json"), str(record), exported, "benchmark", batch_size, threads))
    return record


def flop_of(encoder: Any, prepared: np.ndarray) -> float:
    """Floating-point operations of the forward pass for one image; a multiplication and an addition are two."""
    from torch.utils.flop_counter import FlopCounterMode

    encoder.network.requires_grad_(False)  # else the counter follows gradients
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder.feature(torch.from_numpy(np.stack([prepared])).to(encoder.torch_device))
    return float(counter.get_total_flops())


def affordable(encoder: encoders.Encoder, rows: pa.Table, seconds: float) -> int:
    """How many of the rows one way can embed several times within its seconds; a few, where they are too short."""
    for _ in range(2):  # the first one warms up
        started = time.perf_counter()
        embed.embed_rows(rows.slice(0, FEWEST), encoder, batch_size=FEWEST, threads=1)
        took = (time.perf_counter() - started) / FEWEST
    return min(rows.num_rows, max(FEWEST, int(seconds / took / 3)))


def in_turn(ways: dict[str, Callable[[], Any]], seconds: float, fewest: int = FEWEST) -> dict[str, float]:
    """The seconds of the best round of every way, of ``fewest`` at least."""
    best: dict[str, float] = {}
    begun, rounds = time.perf_counter(), -1
    while rounds < fewest or time.perf_counter() - begun < seconds * len(ways):
        rounds += 1
        for way, run in ways.items():
            started = time.perf_counter()
            run()
            if rounds:  # the first round warms up
                best[way] = min(best.get(way, float("inf")), time.perf_counter() - started)
        if not rounds:
            begun = time.perf_counter()
    return best


def describe_machine(loads: tuple[float, float]) -> str:
    """The device, the versions and the company that the numbers belong to."""
    names = ("torch", "onnxruntime", "transformers", "pillow", "numpy", "sentence-transformers")
    versions = ", ".join(f"{name} {version}" for name, version in store.versions(*names).items())
    card = f"{platform.machine()} CPU, no GPU"
    if torch.cuda.is_available():
        command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        card = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    load = f"load average {loads[0]:.1f} before and {loads[1]:.1f} after"
    return f"{time.strftime('%Y-%m-%d')}: {card}, {os.cpu_count()} CPU cores, {load}, {versions}"


# --- telling ---

HEAD = [
    *("model", "photos", "ours, a second", *(f"ours / {way}" for way in WAYS), "GFLOP", "GFLOP/s of the product"),
    *("batch, precision, engine", "bottleneck"),
]


def cells(found: Found) -> list[str]:
    """A row of the table."""
    hours = [] if found.disc21_hours is None else [f"{found.disc21_hours:.2f} h"]
    return [
        found.model,
        f"{found.images} of {found.size}",
        f"{found.speeds['ours']:.2f}",
        *(found.ratio(way) for way in WAYS),
        f"{found.gflop:.1f}",
        f"{found.gflops:.0f}" if found.gflops else "-",
        f"{found.batch_size}, {found.precision}, {found.engine}",
        found.bottleneck,
        *hours,
    ]


def head(every: list[Found]) -> list[str]:
    """Its first row."""
    return [*HEAD, *([f"{DISC21:,} images"] if every[0].disc21_hours is not None else [])]


def markdown(every: list[Found], machine: str) -> str:
    """The table for docs/benchmarks.md."""
    lines = [head(every), ["---"] * len(head(every)), *map(cells, every)]
    command = f"`python benchmarks/embed.py {shlex.join(sys.argv[1:])}`".replace(" `", "`")
    return "\n".join([f"{machine}; {command}:", "", *(f"| {' | '.join(line)} |" for line in lines), ""])


def main() -> None:
    """Measure, print a table, and write it as Markdown if requested."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = ["efficientnet-b7", "vit-large", "dinov2-base", CLIP, "blip2-opt-2.7b"]
    gpu = torch.cuda.is_available()
    parser.add_argument("--models", nargs="+", default=known, choices=known)
    parser.add_argument("--images", type=int, default=1024 if gpu else 32, help="at most, of each size")
    parser.add_argument("--seconds", type=float, default=10, help="for each way, model and size; 2 rounds at least")
    parser.add_argument("--extrapolate", type=float, default=60 if gpu else 0, help="seconds; 0: no extrapolation")
    parser.add_argument("--sizes", nargs="+", default=["500x375", "1024x768"], metavar="WIDTHxHEIGHT")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    options = parser.parse_args()
    threads = os.cpu_count() or 1
    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    before = os.getloadavg()[0]
    every: list[Found] = []
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        os.environ["LOOKALIKE_CACHE"] = str(work / "cache")
        images = {}
        for size in options.sizes:
            width, height = (int(side) for side in size.split("x"))
            images[size] = image_folder(work / size, (width, height), options.images)
        for name in options.models:
            build(name, work / name)
            for size, rows in images.items():
                every.append(
                    measure(
                        name,
                        work / name,
                        size=size,
                        rows=rows,
                        threads=threads,
                        seconds=options.seconds,
                        extrapolate=options.extrapolate,
                    )
                )
                print("  ".join(cells(every[-1])), flush=True)
            for made in (work / name, work / f"{name}-export", work / "cache"):
                shutil.rmtree(made, ignore_errors=True)
    machine = describe_machine((before, os.getloadavg()[0]))
    table = Table(*head(every), title=machine, title_justify="left")
    for found in every:
        table.add_row(*cells(found))
    Console(width=170).print(table)
    if options.markdown:
        options.markdown.write_text(markdown(every, machine))


if __name__ == "__main__":
    main()
