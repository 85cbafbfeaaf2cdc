"""`lookalike doctor`: what this machine has for a run, and what to fix first."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from lookalike.cli import runs
from lookalike.config.models import Runtime
from lookalike.embed.file_hashes import cache_folder
from lookalike.io import vector_store
from lookalike.job import gpus, packages
from lookalike.job.errors import LookalikeError
from lookalike.plan import cluster
from lookalike.plan.cost import file_size
from lookalike.plan.start import why_not_writable

PACKAGES = ("snakemake", "snakemake-executor-plugin-slurm", "torch", "transformers", "pillow", "pyarrow")
FIRST_POLL = 10  # seconds, as in profiles/slurm
Line = tuple[str, str, bool]  # topic, fact, whether it is fine


PruneStore = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="DAYS",
        help="Delete from the vector store what no current shard shares and is older than this; 0: all such.",
    ),
]


def doctor(prune_store: PruneStore = None) -> None:
    """Check this machine: packages, GPUs and which processes claim them, SLURM, caches, and folders to write to.

    Run it where you would type `snakemake`. Starts nothing and sends nothing.
    Exits with status 1 if a run would fail.

    \b
    Examples:
      lookalike doctor
      lookalike doctor --prune-store 30
    """
    problems = 0
    if prune_store is not None:
        freed = sum(vector_store.prune(folder, prune_store) for folder in _stores())
        typer.echo(f"vector store: {file_size(freed)} freed")
    for topic, fact, fine in (*_installation(), *_gpus(), *_slurm(), *_folders()):
        typer.echo(f"{'' if fine else 'PROBLEM '}{topic}: {fact}")
        problems += not fine
    if problems:
        raise typer.Exit(1)
    typer.echo("No problem found.")


def _installation() -> Iterator[Line]:
    yield "python", f"{sys.version.split()[0]} at {sys.executable}", sys.version_info >= (3, 11)
    for name in PACKAGES:
        try:
            yield name, metadata.version(name), True
        except metadata.PackageNotFoundError:
            yield name, "not installed", name.startswith("snakemake-") or name in ("torch", "transformers")
    faiss = [name for name in ("faiss-cpu", "faiss-gpu") if _installed(name)]
    fact = " and ".join(faiss) or packages.why_missing(["faiss"])
    yield "faiss", fact if len(faiss) < 2 else f"{fact}, which exclude each other: uninstall one", len(faiss) == 1


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _gpus() -> Iterator[Line]:
    devices = gpus.installed()
    visible = gpus.visible(devices, os.environ.get(gpus.VISIBLE))
    if not devices:
        yield "GPUs", "none that `nvidia-smi` lists: models compute on the CPU", True
    for unit in visible:
        yield "GPU", unit, True
    try:
        folder = gpus.lock_folder()
    except LookalikeError as error:
        yield "locks", str(error), False
        return
    yield "locks", f"{folder}: {', '.join(gpus.holders(folder)) or 'no GPU is in use by Lookalike'}", True


def _slurm() -> Iterator[Line]:
    if not shutil.which("sbatch"):
        yield "SLURM", "not on this machine", True
        return
    try:
        yield "SLURM", f"answers; jobs are polled with {cluster.status_command('sacct', FIRST_POLL)}", True
    except LookalikeError as error:
        yield "SLURM", str(error), False


def _folders() -> Iterator[Line]:
    is_new = not Path("results").exists()
    reason = why_not_writable("results")
    if is_new and reason is None:
        with suppress(OSError):  # a run has started meanwhile
            Path("results").rmdir()
    free = shutil.disk_usage(".").free / 1e9
    yield "results", reason or f"{Path('results').absolute()}, {free:.0f} GB free", reason is None
    for folder in _stores():
        stored = vector_store.usage(folder)
        yield (
            "vector store",
            f"{stored.vectors:,} vectors in {folder}, which take {file_size(stored.own_bytes)} besides the shards "
            "(--prune-store DAYS)",
            True,
        )
    home = os.environ.get("HF_HOME") or Path("~/.cache/huggingface").expanduser()
    yield _writable("weights", Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub"), "HF_HOME")
    yield _writable("cache", cache_folder(), "LOOKALIKE_CACHE")
    yield _writable("temporary files", Path(tempfile.gettempdir()), "TMPDIR")
    yield _writable("comparisons", runs.home(), "LOOKALIKE_HOME")
    try:
        remembered = runs.remembered()
        last = f"{remembered[0].experiment}, of {remembered[0].folder}" if remembered else "none yet"
        yield "last comparison", last, True
    except LookalikeError as error:
        yield "last comparison", f"{error} Or delete the file: only the memory of this run is lost", False
    yield "time limits", f"{Runtime().image_seconds} s to decode an image (image_seconds in `runtime:`)", True


def _stores() -> list[Path]:
    """The vector stores of a run here and of comparisons."""
    here, comparisons = Path(vector_store.FOLDER), runs.home() / vector_store.FOLDER
    return [here, comparisons] if comparisons.exists() and comparisons.resolve() != here.resolve() else [here]


def _writable(topic: str, folder: Path, variable: str) -> Line:
    """A folder that exists or can be made."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if existing.is_dir() and os.access(existing, os.W_OK):
        return topic, f"{folder}, {shutil.disk_usage(existing).free / 1e9:.0f} GB free", True
    return topic, f"{folder}: cannot be written; set {variable} to another folder", False
