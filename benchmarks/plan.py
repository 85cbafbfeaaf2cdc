"""How long Snakemake plans, by the number of shards: a dry run of one experiment in CPU seconds and memory.

    python benchmarks/plan.py --shards 100 500 2000 --models 6

No image is made: the configuration alone says which jobs there are. Prints a Markdown table.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
MEASURED = """
import resource, subprocess, sys
output = subprocess.run(sys.argv[1:], capture_output=True, text=True, check=True).stdout
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(output, used.ru_utime + used.ru_stime, used.ru_maxrss // 1024)
"""


def main() -> None:
    """Measure each number of shards, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shards", type=int, nargs="+", default=[100, 500, 2000], help="of the references")
    parser.add_argument("--models", type=int, default=6)
    chosen = parser.parse_args()
    print("| shards x models | jobs | CPU seconds | MB |\n| --- | --- | --- | --- |")
    for shards in chosen.shards:
        jobs, seconds, megabytes = dry_run(configuration(shards, chosen.models))
        print(f"| {shards:,} x {chosen.models} | {jobs:,} | {seconds:.1f} | {megabytes} |", flush=True)


def configuration(shards: int, models: int) -> dict[str, Any]:
    """An experiment of many shards on a folder that need not exist."""
    names = [f"pixels-{number}" for number in range(models)]
    return {
        "datasets": {
            "many": {"kind": "folder", "root": "images", "queries": "queries", "shards": {"references": shards}}
        },
        "models": {name: {"embed": {"family": "pixels", "size": 8 + at}} for at, name in enumerate(names)},
        "experiments": {"mine": {"dataset": "many", "models": names}},
    }


def dry_run(config: dict[str, Any]) -> tuple[int, float, int]:
    """Jobs, CPU seconds and peak memory in MB of `snakemake -n` in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mine.yaml"
        file.write_text(yaml.safe_dump(config))
        planned = [sys.executable, "-m", "snakemake", "-n", "--cores", "2", "--directory", folder]
        planned += ["-s", str(ROOT / "Snakefile"), "--workflow-profile", str(ROOT / "profiles/default")]
        planned += ["--configfile", str(file), "--", "mine"]
        measured = [sys.executable, "-c", MEASURED, *planned]  # a process of its own, since the peak is of all children
        output = subprocess.run(measured, cwd=folder, capture_output=True, text=True, check=True).stdout
    jobs = re.findall(r"^total +(\d+)$", output, re.MULTILINE)
    *_, seconds, megabytes = output.split()
    return int(jobs[-1]), float(seconds), int(megabytes)


if __name__ == "__main__":
    main()
