"""What a run costs that has almost nothing to compute: 20 images, their copies, two baselines, through Snakemake.

    python benchmarks/start.py --rounds 3

Prints CPU seconds of the whole call of Snakemake, with all its processes: the median and the least of the rounds. Other
work on the machine changes them less than wall time. PYTHONDONTWRITEBYTECODE is unset: with it, each job may compile
the library again.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
MEASURED = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], capture_output=True, check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime)
"""


def main() -> None:
    """Measure, and print one line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--root", type=Path, default=ROOT, help="another copy of the repository, to compare with")
    chosen = parser.parse_args()
    seconds = [run(chosen.root.resolve()) for _ in range(chosen.rounds)]
    print(f"{statistics.median(seconds):.1f} s of CPU, median of {chosen.rounds} (least: {min(seconds):.1f} s)")


def run(root: Path) -> float:
    """CPU seconds of one run in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "images").mkdir()
        draw = np.random.default_rng(0)
        for number in range(20):
            cells = draw.integers(0, 256, (12, 16, 3)).astype(np.uint8)
            Image.fromarray(cells).resize((320, 240)).save(f"{folder}/images/{number:02d}.jpg")
        file = Path(folder) / "mine.yaml"
        file.write_text(yaml.safe_dump(CONFIGURATION))
        planned = [sys.executable, "-m", "snakemake", "--cores", "2", "--directory", folder]
        planned += ["-s", str(root / "Snakefile"), "--workflow-profile", str(root / "profiles/default")]
        planned += ["--configfile", str(file), "--", "mine"]
        command = [sys.executable, "-c", MEASURED, *planned]
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        ran = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
        return float(ran.stdout)


CONFIGURATION = {
    "datasets": {
        "mine": {"kind": "folder", "root": "images"},
        "mine-copies": {"kind": "copies", "of": "mine", "queries": 20, "k": 5},
    },
    "experiments": {"mine": {"dataset": "mine-copies", "models": ["pixels", "color-histogram"]}},
}

if __name__ == "__main__":
    main()
