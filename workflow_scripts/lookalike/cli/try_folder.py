"""`lookalike try`: searches for altered copies of a folder's images with locally available models, and ranks them.

A thin layer: it writes a configuration that the user can keep, runs the workflow with it, and prints the leaderboard.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from lookalike.cli import try_configuration
from lookalike.cli.options import THREADS, Json
from lookalike.cli.output import print_json, print_table
from lookalike.config.files import read
from lookalike.embed import catalogue as catalogues
from lookalike.embed.catalogue import Catalogue
from lookalike.io import store
from lookalike.io.formats.records import Metrics
from lookalike.job.errors import ConfigError, LookalikeError, writing
from lookalike.plan.code import WORKFLOW
from lookalike.plan.plan import Plan
from lookalike.sample import folder as folders
from lookalike.sample import hashing
from lookalike.sample import sample as datasets
from lookalike.sample.left_out import LeftOut

FEWEST = 6  # images: with fewer, no test can tell two models apart
SAMPLE, QUERIES, NEIGHBORS = 2000, 200, 10
UNMATCHED = 5  # one query in this many has no match, and at most one image in this many is spared for it


@dataclass(frozen=True)
class Trial:
    """The experiment's name, its configuration file, and the workflow to run it with."""

    name: str
    file: Path
    snakefile: Path

    @property
    def report(self) -> Path:
        """The folder of the report."""
        return self.file.parent / "results" / "reports" / self.name

    @property
    def sample(self) -> Path:
        """The table of the images that the last run found, relative to the configuration's folder."""
        return Path("results") / self.name / "sample" / "images.parquet"

    @property
    def command(self) -> str:
        """The command to run in the configuration's folder."""
        options = [] if self.snakefile.parent == self.file.parent.resolve() else ["-s", str(self.snakefile)]
        return shlex.join(["snakemake", *options, "--cores", "2", "--configfile", self.file.name, "--", self.name])


def try_folder(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", exists=True, file_okay=False, readable=True, help="A folder with your images."
        ),
    ],
    *,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--models", metavar="A,B", help="Models, separated by commas; all locally available ones by default."
        ),
    ] = None,
    model: Annotated[list[str] | None, typer.Option("--model", help="One more model. Can be repeated.")] = None,
    queries: Annotated[
        int | None,
        typer.Option(
            "--queries", min=1, help=f"Number of copies that have a match; by default {QUERIES}, or one per image."
        ),
    ] = None,
    sample: Annotated[
        int, typer.Option("--sample", min=FEWEST, help="Maximum number of images, chosen at random.")
    ] = SAMPLE,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the configuration and experiment; my-FOLDER by default.")
    ] = None,
    cores: Annotated[int, typer.Option("--cores", min=1, help="CPU cores.")] = THREADS,
    out: Annotated[
        Path, typer.Option("--out", file_okay=False, help="Folder for the configuration and results/.")
    ] = Path(),
    as_json: Json = False,
) -> None:
    """Find out which model finds your images: make altered copies, and search for the originals.

    Writes a configuration (NAME.yaml) that you can keep and edit, runs the workflow and prints the leaderboard.
    Your images are read and never changed. An interrupted run resumes where it stopped, and the next run notices
    images that you have added or removed.

    \b
    Example:
      lookalike try ~/Pictures --models pixels,efficientnet-lite0 --sample 500
    """
    if out.resolve().is_relative_to(folder.resolve()):
        raise LookalikeError(
            f"--out {out}: is inside the folder of the images, where the next run would read its results as images. "
            "Run this in another folder, or choose one with --out."
        )
    known = Catalogue.open(None, out / "results")
    chosen = _models(known, [*(name for names in models or () for name in names.split(",")), *(model or ())])
    skipped: dict[str, LeftOut] = {}
    total = len(folders.list_images(str(folder), "FOLDER", skipped)[0])
    used = min(total, sample)
    if used < FEWEST:
        raise LookalikeError(
            f"FOLDER: '{folder}' has only {total} images. Choose one with {FEWEST} or more: with fewer, no test can "
            "tell two models apart."
        )
    name = name or _name(folder)
    trial = Trial(name, out / f"{name}.yaml", WORKFLOW.resolve() / "Snakefile")
    # settings that depend on the number of images are kept when the folder grows: the user did not change them
    kept = read(trial.file) if trial.file.exists() else {}
    spared = min((queries or QUERIES) // (UNMATCHED - 1), used // UNMATCHED, used - FEWEST)
    without_match = _of(kept, "datasets", f"{name}-copies", "without_match") or 0 if kept else spared
    queries = queries or _of(kept, "datasets", f"{name}-copies", "queries") or min(QUERIES, used - spared)
    old = bool(kept) and _of(kept, "datasets", f"{name}-copies", "operations") is None
    k = _of(kept, "datasets", f"{name}-copies", "k") or min(NEIGHBORS, used // 2)
    text = try_configuration.text(
        trial.command, name, folder, chosen, sample=sample, k=k, queries=queries, without_match=without_match, old=old
    )
    entry = _check(known, trial, text)
    is_new = _keep(trial, text)
    again = _has_changed(trial, entry)

    rest = "all are used" if used == total else f"a random sample of {used:,} is used (--sample sets its size)"
    _say(f"images: {total:,} in {folder}; {rest}")
    for line in skipped[str(folder)].lines():
        _say(f"skipped: {line}")
    if again:
        _say("the folder has changed since the last run: reading it again")
    _say(f"models: {', '.join(chosen)}{'' if models or model else ' (available locally; choose others with --models)'}")
    _say(f"configuration: {trial.file}{'' if is_new else ' (unchanged)'}")
    if status := _run(trial, cores, ["--forcerun", str(trial.sample)] if again else []):
        raise LookalikeError(
            f"the workflow ended with status {status}. See the reason above and in {out / 'results' / 'logs'}; once it "
            "is fixed, run the same command again: finished steps are kept."
        )
    facts = {"folder": str(folder), "images": total, "used": used, "skipped": skipped[str(folder)].counts}
    _show(known, trial, facts, as_json)


def _say(line: str) -> None:
    typer.echo(line, err=True)  # standard output is for results


def _models(known: Catalogue, requested: list[str]) -> list[str]:
    """The requested models, or else those whose weights are available locally."""
    names = list(dict.fromkeys(name.strip() for name in requested if name.strip()))
    known.check_models(names)
    return names or [name for name in known.model_names if known.why_missing(name) is None]


def _name(folder: Path) -> str:
    """``my-2024`` for ``My Pictures/2024``: valid in paths, and never the name of a rule."""
    words = re.findall(r"[a-z0-9]+", folder.resolve().name.lower())
    return "-".join(["my", *(words or ["images"])])


def _of(value: Any, *keys: str) -> Any:
    """The value under nested keys of a configuration, or None."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _has_changed(trial: Trial, entry: Any) -> bool:
    """Whether the images differ from those of the last run, which would otherwise continue with its snapshot."""
    snapshot = trial.file.parent / trial.sample
    if not snapshot.exists():
        return False
    columns = ["path", "bytes", hashing.COLUMN]
    now, _ = folders.sample(entry, f"datasets.{trial.name}")
    now = hashing.fill(now, datasets.cache_of(snapshot), keep=False)  # the run itself writes it
    try:
        if hashing.COLUMN not in store.read_schema(snapshot).names:
            return True
        return not now.select(columns).equals(store.read_columns(snapshot, *columns))
    except LookalikeError:  # damaged: sampling again replaces it
        return True


def _check(known: Catalogue, trial: Trial, text: str) -> Any:
    """The folder's entry. Raises LookalikeError for an invalid configuration, before it is written."""
    for section in ("experiments", "datasets"):
        for name in (trial.name, f"{trial.name}-copies"):
            if name in getattr(known.plan.config, section):
                raise LookalikeError(
                    f"--name {trial.name}: '{name}' is already in the catalogue's {section}. Choose another."
                )
    try:
        plan = Plan.of(catalogues.merge(read(catalogues.find()), yaml.safe_load(text)))
    except ConfigError as error:
        raise LookalikeError(f"--name {trial.name}: {error}") from None
    return plan.config.datasets[trial.name]


def _keep(trial: Trial, text: str) -> bool:
    """Write the configuration and return True if it is new. A different one is never overwritten, but an error."""
    if not trial.file.exists():
        with writing(trial.file):
            trial.file.parent.mkdir(parents=True, exist_ok=True)
            trial.file.write_text(text, encoding="utf-8")
        return True
    if (existing := read(trial.file)) != (requested := yaml.safe_load(text)):
        raise LookalikeError(
            f"{trial.file}: already exists and differs from this request: {_difference(existing, requested)}. Run it "
            f"unchanged ({trial.command}), choose another --name, or move it away."
        )
    return False


def _difference(existing: Any, requested: Any, place: str = "") -> str:
    """The first place at which two configurations differ, with both values."""
    if isinstance(existing, dict) and isinstance(requested, dict):
        for key in [*requested, *existing]:
            if existing.get(key) != requested.get(key):
                return _difference(existing.get(key), requested.get(key), f"{place}.{key}".lstrip("."))
    return f"{place or 'it'} is {existing}, not {requested}"


def _run(trial: Trial, cores: int, options: list[str]) -> int:
    """Run the workflow and return its exit status. Ctrl-C terminates it with all its jobs, and then this program."""
    place = ["-s", str(trial.snakefile), "--workflow-profile", str(trial.snakefile.parent / "profiles" / "default")]
    place += ["--directory", str(trial.file.parent), "--configfile", str(trial.file)]
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    # a separate process group, so that Ctrl-C reaches each of its processes exactly once, sent from here
    process = subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--cores", str(cores), *place, *options, "--", trial.name],
        stdin=subprocess.DEVNULL,
        stdout=2,
        process_group=0,
    )
    try:
        return process.wait()
    except KeyboardInterrupt:
        _say("interrupted: stopping the workflow's jobs")
        _end(process)
        _say("Run the same command again to resume.")
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Terminate a process and its group: politely at first, forcibly in the end or at another Ctrl-C."""
    for number, patience in ((signal.SIGINT, 20), (signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            process.wait(patience)
            break
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # a job that outlived it


def _show(known: Catalogue, trial: Trial, facts: dict[str, Any], as_json: bool) -> None:
    rows = _leaderboard(known, trial)
    report = trial.report / "index.html"
    if as_json:
        print_json({**facts, "configuration": str(trial.file), "report": str(report), "leaderboard": rows})
        return
    cells = [
        [
            row["model"],
            _percent(row["accuracy_at_1"]),
            f"{_percent(row['low'])} to {_percent(row['high'])}",
            "?" if row["images_per_second"] is None else f"{row['images_per_second']:.3g}",
        ]
        for row in rows
    ]
    print_table(
        f"{trial.name}: fraction of {rows[0]['n']} copies for which the original is ranked first",
        ["model", "accuracy@1", "95 % interval", "images/s"],
        cells,
    )
    typer.echo(f"report: {typer.format_filename(report)}")


def _percent(value: float | None) -> str:
    return "?" if value is None else f"{value:.1%}"


def _leaderboard(known: Catalogue, trial: Trial) -> list[dict[str, Any]]:
    """One row per model, the highest accuracy at 1 first; unknown numbers are None."""
    rows = []
    pattern = f"{trial.file.parent}/results/{{dataset}}/metrics/{{model}}/{{index}}.json"
    for path in Catalogue.open([trial.file], known.results).plan.per_model(trial.name, pattern):
        measured = store.read_json(path, Metrics)
        accuracy = measured.metrics["accuracy_at_1"]
        rows.append(
            {
                "model": measured.model,
                "label": known.plan.label(measured.model),
                "accuracy_at_1": accuracy.value,
                "low": accuracy.low,
                "high": accuracy.high,
                "n": accuracy.n,
                "images_per_second": measured.timing.get("embed", {}).get("images_per_second"),
            }
        )
    return sorted(rows, key=lambda row: row["accuracy_at_1"] or 0.0, reverse=True)
