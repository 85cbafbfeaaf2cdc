"""What a GPU gives, in under five minutes: `make bench-gpu`. Without one, everything runs on the CPU, as a rehearsal.

Prints, and with --markdown writes, four tables:

- exact search on the GPU, next to its matrix product alone and to the same search on the CPU, which is timed on a part
  of the queries and must give the same results;
- the embed stage as `benchmarks/embed.py` measures it, five models and two sizes, with the batches of a GPU;
- one embed job of each model in a process of its own: what it takes before its first image, and its peak memory;
- the published comparisons of config.yaml (`run:`), extrapolated from these.

What no longer fits into --budget is listed as not measured.

    python benchmarks/gpu.py --compute-dtype float16 --markdown table.md
"""

import argparse
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow_scripts"))

import numpy as np
import pyarrow as pa
import torch
import transformers
import yaml

from lookalike.embed import embed, encoders
from lookalike.io import vectors
from lookalike.io.formats.tables import SHARD
from lookalike.job.usage import peak_gpu_memory_mb, peak_memory_mb
from lookalike.search import exact, exact_gpu
from lookalike.search.candidates import PAIRS_PER_QUERY, Candidates

spec = importlib.util.spec_from_file_location("embed_stage", Path(__file__).with_name("embed.py"))
assert spec
assert spec.loader
stage = sys.modules["embed_stage"] = importlib.util.module_from_spec(spec)  # workflow_scripts/ has an embed.py too
spec.loader.exec_module(stage)

MODELS = ["clip-vit-b32", "dinov2-base", "vit-large", "efficientnet-b7", "blip2-opt-2.7b"]  # what ends first, first
# A model of the comparisons that is not measured -> its substitute, and how much more it computes.
STAND_INS = {"dinov2-base-mean": ("dinov2-base", 1.0), "clip-vit-l14": ("vit-large", 257 / 197)}  # tokens
JOB_HEAD = ["model", "s before its first image", "of these, loading", "images", "peak MB, host", "peak MB, GPU"]
K = 11
CHECKED = 64  # queries searched on the CPU too
CONFIG = yaml.safe_load((Path(__file__).parents[1] / "config.yaml").read_text())
GPU = torch.cuda.is_available()


@dataclass
class Report:
    """Tables as they are measured, and what was left out."""

    deadline: float
    tables: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add(self, title: str, rows: list[list[str]]) -> None:
        """Print a table and keep it; the first row is its head."""
        lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
        self.tables.append("\n".join([f"{title}:", "", *(f"| {' | '.join(line)} |" for line in lines), ""]))
        print(self.tables[-1], flush=True)

    def fits(self, what: str, seconds: float) -> bool:
        """Whether what is expected to take so many seconds still fits; if not, it is listed as left out."""
        fits = time.monotonic() + seconds < self.deadline
        if not fits:
            self.left_out.append(what)
        return fits


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Wall time of a call, and its result."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


# --- exact search ---


def search_rows(references: int, count: int, dimensions: int) -> list[list[str]]:
    """The table of exact search."""
    draw = np.random.default_rng(0)
    stored, queries = (
        vectors.unit(draw.standard_normal((rows, dimensions), np.float32)) for rows in (references, count)
    )
    device = exact_gpu.find(encoders.Machine(os.cpu_count() or 1, gpu=True)) or torch.device("cpu")

    def run(part: np.ndarray, where: torch.device | None) -> exact.Nearest:
        pairs = [Candidates(PAIRS_PER_QUERY * len(part), np.zeros(len(part), np.float32))]
        return exact.search(
            part, vectors.split(stored), K, np.full(len(part), -1), pairs, device=where, threads=os.cpu_count() or 1
        )

    def product() -> None:
        products = exact_gpu.GpuProducts(queries, device)
        for block in vectors.split(stored):
            products.load(block)
            for start in range(0, len(queries), products.rows):
                scores = products.scores(slice(start, start + products.rows))
        scores[-1, -1].item()  # waits for the device

    run(queries[:CHECKED], device)  # the first one warms up
    seconds, found = timed(lambda: run(queries, device))
    multiply, _ = timed(product)
    few = queries[:CHECKED]
    on_cpu, expected = timed(lambda: run(few, None))
    same = all(
        np.array_equal(part[: len(few)], whole)
        for part, whole in ((found.rows, expected.rows), (found.scores, expected.scores))
    )
    flop = 2 * references * dimensions
    rows = [
        ("search", count, seconds, "the same as on the CPU" if same else "NOT THE SAME AS ON THE CPU"),
        ("product alone", count, multiply, ""),
        ("search on the CPU", len(few), on_cpu, ""),
    ]
    head = [f"{references:,} x {dimensions}", "queries", "seconds", "queries per second", "GFLOP/s", "result"]
    return [head] + [
        [way, f"{count:,}", f"{took:.2f}", f"{count / took:.4g}", f"{flop * count / took / 1e9:,.0f}", result]
        for way, count, took, result in rows
    ]


# --- one embed job ---


def one_job(key: str, shard: str, batch_size: int) -> None:
    """What an embed job does, from import to vectors; prints what it took as JSON. Runs in a process of its own."""
    entry = encoders.parse(key)
    weights = encoders.family(entry).fetch(entry)
    threads = os.cpu_count() or 1
    loading, encoder = timed(lambda: encoders.load(key, weights, encoders.Machine(threads, gpu=True)))
    rows = pa.Table.from_pylist(json.loads(Path(shard).read_text()), SHARD.schema())
    took, _ = timed(lambda: embed.embed_rows(rows, encoder, batch_size=batch_size, threads=threads))
    peaks = peak_memory_mb(), peak_gpu_memory_mb()
    print(json.dumps({"load": loading, "embed": took, "images": rows.num_rows, "peaks": peaks}))


def job_row(name: str, folder: Path, rows: Any, batch_size: int) -> tuple[float, list[str]]:
    """Seconds before the first image, and the row of the table of jobs."""
    shard = folder.with_suffix(".json")
    shard.write_text(json.dumps(rows.to_pylist()))
    command = [sys.executable, __file__, "--one-job", key_of(name, folder), str(shard), str(batch_size)]
    wall, ran = timed(lambda: subprocess.run(command, capture_output=True, text=True, check=False))
    if ran.returncode:
        raise SystemExit(f"the job of {name} failed:\n{ran.stderr}")
    told = json.loads(ran.stdout.splitlines()[-1])
    host, card = told["peaks"]
    start = wall - told["embed"]
    cells = [name, f"{start:.1f}", f"{told['load']:.1f}", f"{told['images']} in {told['embed']:.1f} s", f"{host:,.0f}"]
    return start, [*cells, "-" if card is None else f"{card:,.0f}"]


def key_of(name: str, folder: Path) -> str:
    """A model's `embed:` entry, read from a folder."""
    entry = {**stage.CATALOGUE[name]["embed"], "checkpoint": str(folder)}
    entry.pop("revision", None)
    return json.dumps(entry)


# --- the published comparisons ---


def reproduction(speeds: dict[tuple[str, str], float], starts: dict[str, float]) -> Iterator[list[str]]:
    """The table of the experiments in `run:`: images, jobs and minutes of embedding, one job after the other."""
    yield ["experiment", "images x models", "jobs", "minutes", "not measured"]
    for name in CONFIG["run"]:
        entry = CONFIG["experiments"][name]
        dataset = CONFIG["datasets"][entry["dataset"]]
        images = sum(count for role, count in dataset["expect"].items() if role != "pairs")
        shards = sum(dataset.get("shards", {"images": 1}).values())
        seconds, missing, counted = 0.0, [], 0
        for model in entry["models"]:
            if CONFIG["models"][model]["embed"]["family"] == "color_histogram":
                continue  # on the CPU, meanwhile
            measured, factor = STAND_INS.get(model, (model, 1.0))
            # DISC21's images are about 1024 x 768, those of the others about 500 x 375
            of_model = [speed for (one, _), speed in speeds.items() if one == measured]
            if not of_model or measured not in starts:
                missing.append(model)
                continue
            speed = min(of_model) if dataset["kind"] == "disc21" else max(of_model)
            seconds += images * factor / speed + shards * starts[measured]
            counted += 1
        cells = [name, f"{images:,} x {counted}", str(shards * counted), f"{seconds / 60:.1f}" if counted else "-"]
        yield [*cells, ", ".join(missing) or "-"]


def measure_models(report: Report, options: argparse.Namespace) -> None:
    """Add the tables of the embed stage, of the jobs, and of the published comparisons."""
    found, jobs, starts = [], [], {}
    longest = 0.0  # seconds, of what was measured so far
    threads = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        rows = {}
        for size in options.sizes:
            width, height = map(int, size.split("x"))
            rows[size] = stage.image_folder(work / size, (width, height), options.images)
        for name in options.models:
            if not report.fits(name, 2 * longest):
                continue
            stage.build(name, work / name)
            for size in options.sizes:
                if report.fits(f"{name} at {size}", longest):
                    sizes = {"size": size, "rows": rows[size], "threads": threads}
                    took, one = timed(
                        partial(stage.measure, name, work / name, seconds=options.seconds, extrapolate=0, **sizes)
                    )
                    found.append(one)
                    print("  ".join(stage.cells(one)), flush=True)  # in case the rest takes too long
                    longest = max(longest, took)
            if report.fits(f"a job of {name}", longest / 2):
                starts[name], cells = job_row(name, work / name, rows[options.sizes[0]], options.batch_size)
                jobs.append(cells)
            shutil.rmtree(work / name)
    if found:
        report.add("The embed stage", [stage.head(found), *map(stage.cells, found)])
    if jobs:
        report.add("One embed job, in a process of its own", [JOB_HEAD, *jobs])
    speeds = {(one.model, one.size): one.speeds["ours"] for one in found}
    report.add("The published comparisons, extrapolated", list(reproduction(speeds, starts)))


def main() -> None:
    """Measure, print the tables, and write them as Markdown if requested."""
    if "--one-job" in sys.argv:
        key, shard, batch_size = sys.argv[2:]
        one_job(key, shard, int(batch_size))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=280, help="seconds for everything")
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--sizes", nargs="+", default=["500x375", "1024x768"], metavar="WIDTHxHEIGHT")
    parser.add_argument("--images", type=int, default=2048 if GPU else 16, help="of each size")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each way of embedding; 2 rounds at least")
    parser.add_argument("--batch-size", type=int, default=256 if GPU else 4)
    parser.add_argument("--compute-dtype", default="float32", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--references", type=int, default=1_000_000 if GPU else 20_000)
    parser.add_argument("--queries", type=int, default=50_000 if GPU else 500)
    parser.add_argument("--dimensions", type=int, default=768)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there too")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    before, started = os.getloadavg()[0], time.monotonic()
    report = Report(started + options.budget)
    for name in options.models:
        stage.CATALOGUE[name]["embed"]["compute_dtype"] = options.compute_dtype
        stage.CATALOGUE[name]["runtime"]["batch_size"] = options.batch_size
    report.add("Exact search", search_rows(options.references, options.queries, options.dimensions))
    measure_models(report, options)
    ending = [f"Not measured, for lack of time: {', '.join(report.left_out)}.\n"] if report.left_out else []
    command = f"`python benchmarks/gpu.py {shlex.join(sys.argv[1:])}`".replace(" `", "`")
    took = f"{time.monotonic() - started:.0f} s{'' if GPU else ', a rehearsal without a GPU'}"
    ending.append(f"{stage.describe_machine((before, os.getloadavg()[0]))}; {command}, {took}\n")
    print("\n".join(ending))
    if options.markdown:
        options.markdown.write_text("\n".join([*report.tables, *ending]))


if __name__ == "__main__":
    main()
