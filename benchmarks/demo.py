"""How long the demo takes after set-up, how long a run with nothing to do, and what each job costs.

Run with `make bench`. Works on a copy of the checkout in a temporary folder; prints a table.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).parents[1]
WORKFLOW = ("Snakefile", "rules", "workflow_scripts", "profiles", "envs", "config.yaml")
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--cores", "2", "--quiet", "all", "--", "demo"]
CPU = re.compile(r"took ([\d.]+) s of CPU and at most (\d+) MB")


def timed(folder: Path) -> float:
    """Wall time of one run of the demo, in seconds."""
    started = time.perf_counter()
    subprocess.run(SNAKEMAKE, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - started


def costs(folder: Path) -> dict[str, list[tuple[float, int]]]:
    """Rule -> (CPU seconds, peak memory in MB) of each of its jobs, as their logs tell."""
    found = defaultdict(list)
    logs = folder / "results/logs"
    for path in sorted(logs.rglob("*.log")):
        for cpu, peak in CPU.findall(path.read_text()):
            found[path.relative_to(logs).parts[0]].append((float(cpu), int(peak)))
    return found


def main() -> None:
    """Run the demo twice and print the tables."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in WORKFLOW:
            source = REPOSITORY / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
        whole, nothing = timed(folder), timed(folder)
        table = Table("rule", "jobs", "CPU seconds, median", "CPU seconds, most", "memory, most (MB)")
        for rule, jobs in costs(folder).items():
            seconds = sorted(cpu for cpu, _ in jobs)
            middle, most = seconds[len(seconds) // 2], seconds[-1]
            table.add_row(rule, str(len(jobs)), f"{middle:.2f}", f"{most:.2f}", str(max(peak for _, peak in jobs)))
    console = Console()
    console.print(f"demo, after set-up: {whole:.1f} s (wanted: under 120 s on 2 cores)")
    console.print(f"nothing to do: {nothing:.1f} s (wanted: under 10 s)")
    console.print("CPU of each job, Python's own start included (wanted: under 2 s for all but embed)")
    console.print(table)


if __name__ == "__main__":
    main()
