"""`lookalike try`: a folder of pictures, copies of them, the models that are at hand, and which of them finds most.

A thin layer: it writes a configuration that the user can keep, runs the workflow with it, and shows the leaderboard.
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

from lookalike.cli import catalogue as catalogues
from lookalike.cli.catalogue import Catalogue
from lookalike.cli.options import THREADS, Json
from lookalike.cli.output import print_json, print_table
from lookalike.config.files import read
from lookalike.io import store
from lookalike.io.formats.records import Metrics
from lookalike.job.errors import ConfigError, LookalikeError, writing
from lookalike.plan.plan import Plan
from lookalike.sample import folder as folders
from lookalike.sample import hashing
from lookalike.sample import sample as datasets
from lookalike.sample.left_out import LeftOut

FEWEST = 6  # pictures: with fewer, no test can tell two models apart
SAMPLE, QUERIES, NEIGHBORS = 2000, 200, 10

CONFIGURATION = """\
# Which model finds these pictures? Written by `lookalike try`, and yours to keep and to edit.
# To run it again, after an edit too, go to this file's folder:
#   {command}
# Only what changed is done again. The report is results/reports/{name}/index.html.

run: [{name}]

datasets:
  # The pictures; they are read and never changed. Of a large folder at most `sample` are taken, at random and always
  # the same ones; without that line, all.
  {name}:
    kind: folder
    root: {root}
    sample: {sample}

  # So many altered copies of them, to be found again: their right answers are known. Of each copy, the k nearest
  # pictures are kept.
  {name}-copies:
    kind: copies
    of: {name}
    queries: {queries}
    k: {k}

experiments:
  {name}:
    title: {title}
    dataset: {name}-copies
    # `lookalike models` lists all that can be named here.
    models: [{models}]
"""


@dataclass(frozen=True)
class Trial:
    """What is tried: the configuration's file, the workflow that it is run with, and the experiment's name."""

    name: str
    file: Path
    snakefile: Path

    @property
    def report(self) -> Path:
        """The folder of the report."""
        return self.file.parent / "results" / "reports" / self.name

    @property
    def sample(self) -> Path:
        """The table of the pictures that the last run found, in the configuration's folder."""
        return Path("results") / self.name / "sample" / "images.parquet"

    @property
    def command(self) -> str:
        """The command that runs it in the configuration's folder."""
        where = [] if self.snakefile.parent == self.file.parent.resolve() else ["-s", str(self.snakefile)]
        return shlex.join(["snakemake", *where, "--cores", "2", "--configfile", self.file.name, "--", self.name])


def try_folder(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", exists=True, file_okay=False, readable=True, help="A folder with your pictures."
        ),
    ],
    *,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--models", metavar="A,B", help="Models of the catalogue, with commas; else all that are at hand."
        ),
    ] = None,
    model: Annotated[list[str] | None, typer.Option("--model", help="One more. May be given several times.")] = None,
    queries: Annotated[
        int | None, typer.Option("--queries", min=1, help=f"Copies to make; else {QUERIES}, or one for each picture.")
    ] = None,
    sample: Annotated[
        int, typer.Option("--sample", min=FEWEST, help="Pictures to take at most, chosen at random.")
    ] = SAMPLE,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the configuration and the experiment; else my-FOLDER.")
    ] = None,
    cores: Annotated[int, typer.Option("--cores", min=1, help="CPU cores.")] = THREADS,
    out: Annotated[
        Path, typer.Option("--out", file_okay=False, help="Where the configuration and results/ are written.")
    ] = Path(),
    as_json: Json = False,
) -> None:
    """Find out which model finds your pictures: copies of them are made, altered, and searched for among them.

    Writes a configuration (NAME.yaml) that you can keep and edit, runs the workflow with it, and shows the leaderboard.
    Your pictures are read and never changed. Run it again, and it goes on where it was;
    pictures that came or went since are seen.

    \b
    Example:
      lookalike try ~/Pictures --models pixels,efficientnet-lite0 --sample 500
    """
    if out.resolve().is_relative_to(folder.resolve()):
        raise LookalikeError(
            f"--out {out}: lies in the folder of the pictures, where the next run would take its results for pictures. "
            "Run this in another folder, or name one with --out."
        )
    known = Catalogue.open(None, out / "results")
    chosen = _models(known, [*(one for listed in models or () for one in listed.split(",")), *(model or ())])
    skipped: dict[str, LeftOut] = {}
    there = len(folders.list_images(str(folder), "FOLDER", skipped)[0])
    taken = min(there, sample)
    if taken < FEWEST:
        raise LookalikeError(
            f"FOLDER: '{folder}' holds only {there} pictures. Name one with {FEWEST} or more: with fewer, no test can "
            "tell two models apart."
        )
    name = name or _name(folder)
    trial = Trial(name, out / f"{name}.yaml", _snakefile())
    # what follows from the number of pictures stays as it was when the folder grows: nobody asked for something else
    kept = read(trial.file) if trial.file.exists() else {}
    queries = queries or _of(kept, "datasets", f"{name}-copies", "queries") or min(QUERIES, taken)
    k = _of(kept, "datasets", f"{name}-copies", "k") or min(NEIGHBORS, taken // 2)
    text = _configuration(trial, folder, chosen, sample=sample, queries=queries, k=k)
    entry = _check(known, trial, text)
    is_new = _keep(trial, text)
    again = _has_changed(trial, entry)

    rest = "all are taken" if taken == there else f"{taken:,} are taken, at random (--sample takes more)"
    _say(f"pictures: {there:,} in {folder}; {rest}")
    for line in skipped[str(folder)].lines():
        _say(f"left out: {line}")
    if again:
        _say("the folder has changed since the last run: it is looked at again")
    _say(f"models: {', '.join(chosen)}{'' if models or model else ' (those that are at hand; --models names others)'}")
    _say(f"configuration: {trial.file}{'' if is_new else ' (as it was)'}")
    if status := _run(trial, cores, ["--forcerun", str(trial.sample)] if again else []):
        raise LookalikeError(
            f"the workflow ended with status {status}. Why stands above, and in {out / 'results' / 'logs'}; when it is "
            "mended, run the same command again: what is done is kept."
        )
    facts = {"folder": str(folder), "pictures": there, "taken": taken, "left_out": skipped[str(folder)].counts}
    _show(known, trial, facts, as_json)


def _say(line: str) -> None:
    typer.echo(line, err=True)  # standard output is for the answer


def _models(known: Catalogue, named: list[str]) -> list[str]:
    """The models that were named, or else those whose weights are on this machine."""
    names = list(dict.fromkeys(one.strip() for one in named if one.strip()))
    known.check_models(names)
    return names or [one for one in known.model_names if known.why_missing(one) is None]


def _name(folder: Path) -> str:
    """``My Pictures/2024`` as ``my-2024``: a part of paths, and never the name of a rule."""
    words = re.findall(r"[a-z0-9]+", folder.resolve().name.lower())
    return "-".join(["my", *(words or ["pictures"])])


def _snakefile() -> Path:
    snakefile = catalogues.find().resolve().parent / "Snakefile"
    if not snakefile.is_file():
        raise LookalikeError(f"{snakefile}: is missing beside config.yaml. Install from the folder of the workflow.")
    return snakefile


def _configuration(trial: Trial, folder: Path, models: list[str], *, sample: int, queries: int, k: int) -> str:
    root = folder.resolve()
    return CONFIGURATION.format(
        command=trial.command,
        name=trial.name,
        root=_scalar(str(root)),
        title=_scalar(f"Which model finds the pictures of {root.name or root}?"),
        sample=sample,
        queries=queries,
        k=k,
        models=", ".join(models),
    )


def _scalar(text: str) -> str:
    """A text as YAML on one line, whatever it holds."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise LookalikeError(f"FOLDER: the path {text!r} is not valid UTF-8. Rename the folder.") from None
    written: str = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=float("inf"))
    return written.strip()


def _of(there: Any, *keys: str) -> Any:
    """What stands in a configuration under these keys; None where nothing does."""
    for key in keys:
        there = there.get(key) if isinstance(there, dict) else None
    return there


def _has_changed(trial: Trial, entry: Any) -> bool:
    """Whether the pictures are others than the last run found: it took a snapshot, and would go on with that."""
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
    except LookalikeError:  # damaged: looking again writes it anew
        return True


def _check(known: Catalogue, trial: Trial, text: str) -> Any:
    """The entry of the folder. Raises LookalikeError where the configuration would not do, before it is written."""
    for section in ("experiments", "datasets"):
        for mine in (trial.name, f"{trial.name}-copies"):
            if mine in getattr(known.plan.config, section):
                raise LookalikeError(f"--name {trial.name}: the catalogue's {section} have a '{mine}'. Choose another.")
    try:
        plan = Plan.of(catalogues.merge(read(catalogues.find()), yaml.safe_load(text)))
    except ConfigError as error:
        raise LookalikeError(f"--name {trial.name}: {error}") from None
    return plan.config.datasets[trial.name]


def _keep(trial: Trial, text: str) -> bool:
    """Write the configuration; True where there was none. One that says something else is left as it is and refused."""
    if not trial.file.exists():
        with writing(trial.file):
            trial.file.parent.mkdir(parents=True, exist_ok=True)
            trial.file.write_text(text, encoding="utf-8")
        return True
    if (there := read(trial.file)) != (wanted := yaml.safe_load(text)):
        raise LookalikeError(
            f"{trial.file}: is there already, and is not what you ask for now: {_difference(there, wanted)}. Run it as "
            f"it is ({trial.command}), choose another --name, or move it away."
        )
    return False


def _difference(there: Any, wanted: Any, place: str = "") -> str:
    """The first place at which two configurations differ, and what stands there."""
    if isinstance(there, dict) and isinstance(wanted, dict):
        for key in [*wanted, *there]:
            if there.get(key) != wanted.get(key):
                return _difference(there.get(key), wanted.get(key), f"{place}.{key}".lstrip("."))
    return f"{place or 'it'} is {there}, not {wanted}"


def _run(trial: Trial, cores: int, options: list[str]) -> int:
    """Run the workflow to its end and return its status. Ctrl-C ends it with all its jobs, and then this program."""
    where = ["-s", str(trial.snakefile), "--workflow-profile", str(trial.snakefile.parent / "profiles" / "default")]
    where += ["--directory", str(trial.file.parent), "--configfile", str(trial.file)]
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    # a process group of its own, so that one Ctrl-C is one signal for each of its processes, sent from here
    process = subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--cores", str(cores), *where, *options, "--", trial.name],
        stdin=subprocess.DEVNULL,
        stdout=2,
        process_group=0,
    )
    try:
        return process.wait()
    except KeyboardInterrupt:
        _say("interrupted: ending the workflow's jobs")
        _end(process)
        _say("Run the same command again to go on.")
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process and all of its group: asked first, and made to in the end, or by another Ctrl-C."""
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
            row["label"],
            _percent(row["accuracy_at_1"]),
            f"{_percent(row['low'])} to {_percent(row['high'])}",
            "?" if row["images_per_second"] is None else f"{row['images_per_second']:.3g}",
        ]
        for row in rows
    ]
    print_table(
        f"{trial.name}: the right picture came first for so many of {rows[0]['n']} copies",
        ["model", "label", "accuracy@1", "95 % interval", "images/s"],
        cells,
    )
    typer.echo(f"report: {typer.format_filename(report)}")


def _percent(value: float | None) -> str:
    return "?" if value is None else f"{value:.1%}"


def _leaderboard(known: Catalogue, trial: Trial) -> list[dict[str, Any]]:
    """One row a model, the highest accuracy at 1 first; a number that is not known is None."""
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
