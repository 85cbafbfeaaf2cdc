"""A run over many generated images, end to end: jobs, CPU time, memory and bytes of every stage.

    python benchmarks/scale.py --images 200000

The images are noise of 32 x 32 pixels in zip archives; of some, a noisy copy is a query. They measure the workflow, not
the models: the model is `pixels`, which costs next to nothing. Prints a Markdown table. See docs/scaling.md.
"""

import argparse
import io
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SIDE = 32  # pixels
BLOCKS = 6  # of random color along a side, so that no two images are near-duplicates
IN_ARCHIVE = 20_000
COST = re.compile(r"took ([\d.]+) s of CPU and at most (\d+) MB of memory")
STAGES = (
    *("sample", "shard", "find_near_duplicates", "fetch_weights", "embed", "index", "search", "audit", "measure"),
    *("project", "compare", "find_duplicates", "report"),
)


def main() -> None:
    """Make the images, run the workflow over them, and print what every stage took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=200_000, help="references")
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--in-shard", type=int, default=10_000, help="references of a shard")
    parser.add_argument("--index", default="flat")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--folder", help="an empty folder for images and results, which are kept (default: temporary)")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(chosen.folder or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        write_images(folder, chosen.images, chosen.queries)
        (folder / "scale.yaml").write_text(yaml.safe_dump(configuration(chosen)))
        seconds, peak = run(folder, chosen.cores)
        print("\n".join(table(folder)))
        sizes = f"{size(folder / 'images')} of images, {size(folder / 'results')} of results"
        print(f"\n{chosen.images:,} references and {chosen.queries:,} queries, index {chosen.index}: {sizes}.")
        print(f"{seconds / 60:.1f} minutes with {chosen.cores} cores; Snakemake itself took {peak:,} MB at most.")


def write_images(folder: Path, references: int, queries: int) -> None:
    """Archives of references and of queries, and the truth."""
    rng = np.random.default_rng(0)
    for name in ("images", "queries"):
        (folder / name).mkdir()
    every = max(1, references // queries)
    copied = []
    for start in range(0, references, IN_ARCHIVE):
        with zipfile.ZipFile(folder / f"images/{start // IN_ARCHIVE:05d}.zip", "w") as archive:
            for number in range(start, min(start + IN_ARCHIVE, references)):
                blocks = rng.integers(0, 256, (BLOCKS, BLOCKS, 3), np.uint8)
                image = Image.fromarray(blocks).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
                archive.writestr(f"{number:09d}.png", png(image))
                if number % every == 0 and len(copied) < queries:
                    copied.append((number, archive.filename, np.asarray(image)))
    with zipfile.ZipFile(folder / "queries/queries.zip", "w") as archive:
        for number, _, pixels in copied:
            noisy = pixels + rng.normal(0, 12, pixels.shape)
            archive.writestr(f"{number:09d}.png", png(Image.fromarray(noisy.clip(0, 255).astype(np.uint8))))
    lines = [f"queries.zip/{number:09d}.png,{Path(str(name)).name}/{number:09d}.png" for number, name, _ in copied]
    (folder / "truth.csv").write_text("\n".join(["query_id,reference_id", *lines]) + "\n")


def png(image: Image.Image) -> bytes:
    """The file of an image."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def configuration(chosen: argparse.Namespace) -> dict[str, Any]:
    """One cheap model over all images."""
    shards = {"references": -(-chosen.images // chosen.in_shard)}
    dataset = {"kind": "folder", "root": "images", "queries": "queries", "truth": "truth.csv", "shards": shards}
    experiment = {"dataset": "many", "models": ["pixels"], "indexes": [chosen.index]}
    return {"run": ["scale"], "datasets": {"many": dataset}, "experiments": {"scale": experiment}}


def run(folder: Path, cores: int) -> tuple[float, int]:
    """Run the experiment; seconds and the peak memory of Snakemake in MB."""
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--directory", str(folder), "--quiet"]
    command += ["-s", str(ROOT / "Snakefile"), "--workflow-profile", str(ROOT / "profiles/default")]
    command += ["--configfile", str(folder / "scale.yaml"), "--", "scale"]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=sys.stderr)
    peak = 0
    while process.poll() is None:
        peak = max(peak, memory_of(process.pid))
        time.sleep(0.2)
    if process.returncode:
        sys.exit(process.returncode)
    return time.monotonic() - started, peak


def memory_of(process: int) -> int:
    """The largest memory that a process has had, in MB; 0 where it is not known."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) // 1024 if found else 0


def table(folder: Path) -> Iterator[str]:
    """A row for each stage: jobs, CPU seconds of all, and the memory of the largest."""
    costs: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for log in (folder / "results/logs").rglob("*.log"):
        if found := COST.findall(log.read_text()):
            costs[log.relative_to(folder / "results/logs").parts[0]].append((float(found[-1][0]), int(found[-1][1])))
    yield "| stage | jobs | CPU seconds | MB at most |"
    yield "| --- | --- | --- | --- |"
    for stage in STAGES:
        jobs = costs.get(stage, [])
        if jobs:
            yield f"| {stage} | {len(jobs)} | {sum(cpu for cpu, _ in jobs):,.0f} | {max(mb for _, mb in jobs):,} |"


def size(folder: Path) -> str:
    """The bytes of a folder, for people."""
    return f"{sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()) / 1e6:,.0f} MB"


if __name__ == "__main__":
    main()
