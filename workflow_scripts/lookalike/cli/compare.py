"""`lookalike compare`: searches for altered copies of a folder's images with locally available models, and ranks them.

A thin layer: it writes a configuration that the user can keep, runs the workflow with it, and prints the leaderboard.
"""

import shlex
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from lookalike.cli import compare_configuration, runs, workflow_run
from lookalike.cli.compare_configuration import Numbers
from lookalike.cli.options import THREADS, Cores, Json, ModelNames, Verbose, split
from lookalike.cli.output import check_writable, print_json, print_table
from lookalike.cli.snapshot import has_changed
from lookalike.cli.workflow_run import Workflow, say
from lookalike.config.files import read
from lookalike.config.mistakes import why_not_a_name
from lookalike.embed import catalogue as catalogues
from lookalike.embed.catalogue import Catalogue
from lookalike.io import store
from lookalike.io.formats.records import Metrics
from lookalike.job.errors import ConfigError, LookalikeError, writing
from lookalike.plan.code import WORKFLOW
from lookalike.plan.plan import Plan
from lookalike.sample import folder as folders
from lookalike.sample.left_out import LeftOut

FEWEST = 6  # images: with fewer, no test can tell two models apart
SAMPLE, QUERIES, NEIGHBORS = 2000, 200, 10
UNMATCHED = 5  # one query in this many has no match, and at most one image in this many is spared for it


@dataclass(frozen=True)
class Trial:
    """The experiment's name, its configuration file, and what that file says, if it exists."""

    name: str
    file: Path
    kept: Any = None

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
        snakefile = WORKFLOW.resolve() / "Snakefile"
        options = [] if snakefile.parent == self.file.parent.resolve() else ["-s", str(snakefile)]
        return shlex.join(["snakemake", *options, "--cores", "2", "--configfile", self.file.name, "--", self.name])


def compare(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", exists=True, file_okay=False, readable=True, help="A folder with your images."
        ),
    ],
    *,
    models: ModelNames = None,
    queries: Annotated[
        int | None,
        typer.Option(
            "--queries", min=1, help=f"Number of copies that have a match; by default {QUERIES}, or one per image."
        ),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            "--sample", min=FEWEST, help=f"Maximum number of images, chosen at random; {SAMPLE:,} by default."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the comparison; my-FOLDER by default.")] = None,
    cores: Cores = THREADS,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", file_okay=False, help="Folder for the configuration and results/, instead of the usual place."
        ),
    ] = None,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Find out which model finds your images: make altered copies, and search for the originals.

    Your images are read and never changed. The results are kept: comparing the
    same folder again adds models, queries and new images. An interrupted
    comparison resumes where it stopped.

    \b
    Example:
      lookalike compare ~/Pictures --models pixels,efficientnet-lite0 --sample 500
    """
    again = shlex.join(
        ["lookalike", "compare", str(folder)]
        + [word for option, value in (("--name", name), ("--out", out)) if value for word in (option, str(value))]
    )
    place = out or runs.home()
    if _would_be_read(place.resolve(), folder.resolve()):
        raise LookalikeError(
            f"{f'--out {out}' if out else place}: is inside the folder of the images, where the next run would read "
            "its results as images. Choose another folder with --out."
        )
    check_writable(place, "Choose another folder with --out." if out else runs.ELSEWHERE)
    known = Catalogue.open(None, place / "results")
    skipped: dict[str, LeftOut] = {}
    total = len(folders.list_images(str(folder), "FOLDER", skipped)[0])
    if total < FEWEST:
        raise LookalikeError(
            f"FOLDER: '{folder}' has only {total} image{'s' * (total > 1)}. Choose one with {FEWEST} or more: with "
            "fewer, no test can tell two models apart."
        )
    trial = _trial(folder, place, name)
    chosen = _models(known, split(models), trial)
    numbers = _numbers(trial, total, sample, queries)
    used = min(total, numbers.sample or total)
    text = (
        compare_configuration.added(trial.file.read_text("utf-8"), trial.kept, trial.name, chosen, numbers)
        if trial.kept
        else compare_configuration.text(trial.command, trial.name, folder, chosen, numbers)
    )
    entry = _check(known, trial, text)
    state = _write(trial, text)
    changed = has_changed(trial.file.parent / trial.sample, entry, trial.name)

    rest = "all are used" if used == total else f"a random sample of {used:,} is used (--sample sets its size)"
    say(f"images: {total:,} in {folder}; {rest}")
    for line in skipped[str(folder)].lines():
        say(f"skipped: {line}")
    if changed:
        say("the folder has changed since the last run: reading it again")
    of_file = yaml.safe_load(text)["experiments"][trial.name]["models"]
    say(f"models: {', '.join(of_file)}{'' if models else ' (--models adds others)'}")
    say(f"configuration: {trial.file}{state}")
    workflow = Workflow(place, [trial.file], [trial.name], trial.name, cores)
    workflow_run.run(workflow, ["--forcerun", str(trial.sample)] if changed else [], verbose=verbose, again=again)
    runs.remember(runs.Run(folder=str(folder.resolve()), experiment=trial.name, configfile=str(trial.file.resolve())))
    facts = {"folder": str(folder), "images": total, "used": used, "skipped": skipped[str(folder)].counts}
    _show(known, trial, facts, as_json)


@wraps(compare)
def try_folder(*arguments: Any, **options: Any) -> None:
    """`lookalike try`: the same, under the name that it had in earlier versions."""
    say("`lookalike try` is now `lookalike compare`.")
    compare(*arguments, **options)


def _would_be_read(place: Path, folder: Path) -> bool:
    """Whether a place is among the images; hidden folders are not."""
    if not place.is_relative_to(folder):
        return False
    return not any(part.startswith(".") for part in place.relative_to(folder).parts)


def _models(known: Catalogue, names: list[str], trial: Trial) -> list[str]:
    """The requested models; else, for a new comparison, those whose weights are available locally."""
    if names or trial.kept:
        known = Catalogue.open([trial.file], known.results) if trial.kept else known
        known.check_models(names)
        return names
    return [name for name in known.model_names if known.why_missing(name) is None]


def _trial(folder: Path, place: Path, name: str | None) -> Trial:
    """The comparison of a folder: one that exists, or a new one under a name that no other folder has."""
    usual = f"my-{runs.words(folder)}"  # valid in paths, and never the name of a rule
    another = f"{usual}-{runs.digest(folder)}"
    for candidate in (name,) if name else (usual, another):
        file = place / f"{candidate}.yaml"
        if not file.exists():
            return Trial(candidate, file)
        if name or candidate == another or _is_of(file, candidate, folder):
            raw = read(file)
            if not _is_of(file, candidate, folder):
                raise LookalikeError(
                    f"{file}: is not a comparison of {folder}. Choose another --name, or move that file away."
                )
            return Trial(candidate, file, raw)
    raise AssertionError("the last candidate was returned or refused")


def _is_of(file: Path, name: str, folder: Path) -> bool:
    """Whether a configuration is the comparison of a folder."""
    try:
        raw = read(file)
    except LookalikeError:
        return False
    if compare_configuration.numbers_of(raw, name) is None:
        return False
    return Path(raw["datasets"][name].get("root", "")) == folder.resolve()


def _numbers(trial: Trial, total: int, sample: int | None, queries: int | None) -> Numbers:
    """The sizes of a comparison. What an earlier run chose for fewer images grows with the folder; the rest is kept."""
    kept = compare_configuration.numbers_of(trial.kept, trial.name) if trial.kept else None
    if kept is None:
        return _usual(min(total, sample or SAMPLE), sample or SAMPLE, queries)
    limit = sample or kept.sample
    numbers = replace(kept, sample=limit)
    snapshot = trial.file.parent / trial.sample
    if snapshot.exists():
        before = int(store.read_provenance(snapshot)["rows"])
        if kept == _usual(before, kept.sample, None):
            numbers = _usual(max(before, min(total, limit or total)), limit, None)
    return replace(numbers, queries=queries) if queries else numbers


def _usual(used: int, sample: int | None, queries: int | None) -> Numbers:
    """The sizes for a number of images that are used."""
    spared = min((queries or QUERIES) // (UNMATCHED - 1), used // UNMATCHED, used - FEWEST)
    return Numbers(sample, queries or min(QUERIES, used - spared), spared, min(NEIGHBORS, used // 2))


def _check(known: Catalogue, trial: Trial, text: str) -> Any:
    """The folder's entry. Raises LookalikeError for an invalid configuration, before it is written."""
    for section in ("experiments", "datasets"):
        for name in (trial.name, f"{trial.name}-copies"):
            if name in getattr(known.plan.config, section):
                raise LookalikeError(
                    f"--name {trial.name}: '{name}' is already in the catalogue's {section}. Choose another."
                )
    if reason := why_not_a_name(trial.name):
        raise LookalikeError(f"--name {trial.name}: {reason}")
    try:
        plan = Plan.of(catalogues.merge(read(catalogues.find()), yaml.safe_load(text)))
    except ConfigError as error:
        raise LookalikeError(f"--name {trial.name}: {error}") from None
    return plan.config.datasets[trial.name]


def _write(trial: Trial, text: str) -> str:
    """Write the configuration, and return what happened to it, for people."""
    if trial.kept and trial.file.read_text("utf-8") == text:
        return " (unchanged)"
    with writing(trial.file), store.atomic(trial.file) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return " (added to)" if trial.kept else ""


def _show(known: Catalogue, trial: Trial, facts: dict[str, Any], as_json: bool) -> None:
    rows = _leaderboard(known, trial)
    unreadable = max(row.pop("unreadable") for row in rows)
    report = trial.report / "index.html"
    if as_json:
        print_json(
            {
                **facts,
                "unreadable": unreadable,
                "configuration": str(trial.file),
                "report": str(report),
                "leaderboard": rows,
                "next": _next(trial),
            }
        )
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
    if unreadable:
        typer.echo(f"unreadable: {unreadable:,} of the images, so no number counts them; the report says why")
    typer.echo(f"report: {typer.format_filename(report)}")
    for number, command in enumerate(_next(trial)):
        typer.echo(f"{'     ' if number else 'next:'} {command}")


def _next(trial: Trial) -> list[str]:
    """What to type next."""
    return ["lookalike find IMAGE", f"lookalike use {trial.name} --precision 95", f"lookalike serve {trial.name}"]


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
                "unreadable": measured.rejected_references,
                "images_per_second": measured.timing.get("embed", {}).get("images_per_second"),
            }
        )
    return sorted(rows, key=lambda row: row["accuracy_at_1"] or 0.0, reverse=True)
