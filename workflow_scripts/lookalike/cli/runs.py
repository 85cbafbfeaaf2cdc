"""Where comparisons of folders are, and which was the last: what `find`, `use`, `serve` and `pair` refer to."""

import hashlib
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import typer

from lookalike.config.records import Experiment
from lookalike.embed.catalogue import Catalogue
from lookalike.io import store
from lookalike.io.formats.base import Record
from lookalike.io.formats.records import Comparisons, Metrics
from lookalike.io.formats.thresholds import Target
from lookalike.job.errors import LookalikeError, did_you_mean

RESULTS = Path("results")  # as the option --results by default
ELSEWHERE = "Set LOOKALIKE_HOME to a folder that you can write to."  # where results cannot be written
PRECISIONS = (90, 95, 99)  # in percent, that thresholds are measured for
LOOKS, ACTS = "someone_looks", "acts_alone"  # needs, as in ``compare.answers``


class Run(Record):
    """``runs/*.json`` in the home folder: a comparison that ended well. ``finished`` is a date in UTC."""

    folder: str
    experiment: str
    configfile: str
    finished: str = ""

    @property
    def results(self) -> Path:
        """The run's results folder."""
        return Path(self.configfile).parent / "results"


def home() -> Path:
    """Where comparisons are kept: LOOKALIKE_HOME, or else ``lookalike`` in XDG_DATA_HOME or ~/.local/share."""
    if own := os.environ.get("LOOKALIKE_HOME"):
        return Path(own).absolute()
    data = Path(os.environ.get("XDG_DATA_HOME", ""))
    try:
        return (data if data.is_absolute() else Path.home() / ".local/share") / "lookalike"
    except RuntimeError:
        raise LookalikeError("there is no home directory. Set LOOKALIKE_HOME to a folder for results.") from None


def words(folder: Path) -> str:
    """``holidays-2024`` for a folder ``Holidays (2024)``: what names of data sets may consist of."""
    return "-".join(re.findall(r"[a-z0-9]+", folder.resolve().name.lower()) or ["images"])


def digest(folder: Path) -> str:
    """What tells folders of the same name apart."""
    return hashlib.sha256(str(folder.resolve()).encode(errors="surrogateescape")).hexdigest()[:6]


def remember(run: Run) -> None:
    """Make a run the last one. Each has a file of its own, so commands that end together lose nothing."""
    name = hashlib.sha256(f"{run.configfile}\0{run.experiment}".encode()).hexdigest()[:16]
    store.write_json(
        run.model_copy(update={"finished": datetime.now(UTC).isoformat()}), home() / "runs" / f"{name}.json"
    )


def remembered() -> list[Run]:
    """All runs whose configuration still exists, the last one first."""
    found = [store.read_json(path, Run) for path in (home() / "runs").glob("*.json")]
    return sorted((run for run in found if Path(run.configfile).exists()), key=lambda run: run.finished, reverse=True)


def of_folder(folder: Path) -> Run | None:
    """The last run on a folder."""
    return next((run for run in remembered() if Path(run.folder) == folder.resolve()), None)


@dataclass(frozen=True)
class Finished:
    """An experiment with results. ``folder`` is the one that was compared, if `compare` made it."""

    catalogue: Catalogue
    experiment: str
    comparisons: Comparisons
    folder: str | None = None

    @property
    def entry(self) -> Experiment:
        """The experiment's entry."""
        return self.catalogue.experiment(self.experiment)

    @property
    def report(self) -> Path:
        """The report's page."""
        return self.catalogue.results / "reports" / self.experiment / "index.html"

    def order(self, need: str) -> list[tuple[str, str]]:
        """Models with their index for a need: the best first, then those that may be as good, then the worse ones."""
        return order(self.comparisons, need)

    def metrics(self, model: str, index: str) -> Metrics:
        """What was measured for a model with an index."""
        path = self.catalogue.results / self.entry.dataset / "metrics" / model / f"{index}.json"
        return store.read_json(path, Metrics)

    def target(self, model: str, index: str, precision: int) -> Target | None:
        """A model's threshold for one of PRECISIONS, in percent; None where it was not measured."""
        return self.metrics(model, index).targets().get(str(precision))

    def check_model(self, model: str) -> None:
        """Raise LookalikeError for a model that the experiment does not have."""
        if model not in self.entry.models:
            raise LookalikeError(
                f"experiment '{self.experiment}' has no model '{model}'.{did_you_mean(model, self.entry.models)}"
            )


def measured(precision: int) -> int:
    """The lowest of PRECISIONS that is at least a precision, which its thresholds reach, too; says so where it differs.

    Raises LookalikeError for a precision that no threshold is measured for.
    """
    enough = [one for one in PRECISIONS if one >= precision]
    if not enough or precision < 1:
        raise LookalikeError(f"--precision {precision}: is in percent. Choose a whole number from 1 to 99.")
    if min(enough) != precision:
        typer.echo(f"thresholds are measured for 90, 95 and 99 % precision: that for {min(enough)} % is used", err=True)
    return min(enough)


def finished(name: str | None, configfile: Sequence[Path] | None = None, results: Path = RESULTS) -> Finished:
    """The experiment of a name, by default the last comparison. Raises LookalikeError where there are no results.

    A comparison goes before an experiment of the configuration with the same name, unless a ``configfile`` is given.
    """
    runs = [] if configfile or results != RESULTS else remembered()
    run = next((run for run in runs if name in (None, run.experiment)), None)
    if run:
        return of_run(run)
    if name is None:
        raise LookalikeError("there is no comparison yet. Compare models on your images: lookalike compare FOLDER")
    catalogue = Catalogue.open(configfile, results)
    if name not in catalogue.plan.config.experiments:
        known = [*dict.fromkeys(run.experiment for run in runs), *catalogue.plan.config.experiments]
        raise LookalikeError(f"there is no comparison or experiment '{name}'.{did_you_mean(name, known)}")
    return _finished(catalogue, name, None)


def catalogue_of(name: str, configfile: Sequence[Path] | None, results: Path) -> Catalogue:
    """The catalogue that has an experiment: that of the comparison of this name, if there is one."""
    runs = [] if configfile or results != RESULTS else remembered()
    run = next((run for run in runs if run.experiment == name), None)
    return Catalogue.open([Path(run.configfile)], run.results) if run else Catalogue.open(configfile, results)


def last() -> Finished | None:
    """The last comparison; None where there is no such, or no longer its results."""
    run = next(iter(remembered()), None)
    return of_run(run) if run and comparisons_of(run) else None


def comparisons_of(run: Run) -> Comparisons | None:
    """The answers of a comparison; None where its results were deleted."""
    path = _comparisons(run.results, run.experiment)
    return store.read_json(path, Comparisons) if path.exists() else None


def order(comparisons: Comparisons, need: str) -> list[tuple[str, str]]:
    """As ``Finished.order``."""
    answer = comparisons.answers.get(need) or comparisons.answers[LOOKS]
    return [(model, answer.index) for model in (*answer.best, *answer.worse)]


def _comparisons(results: Path, experiment: str) -> Path:
    return results / "reports" / experiment / "comparisons.json"


def of_run(run: Run) -> Finished:
    """The results of a comparison."""
    return _finished(Catalogue.open([Path(run.configfile)], run.results), run.experiment, run.folder)


def _finished(catalogue: Catalogue, experiment: str, folder: str | None) -> Finished:
    path = _comparisons(catalogue.results, experiment)
    if not path.exists():
        command = shlex.join(["lookalike", "compare", folder or ""])
        how = f"Run: {command}" if folder else catalogue.how_to_run(experiment)
        raise LookalikeError(f"experiment '{experiment}' has no results: {path} is missing. {how}")
    return Finished(catalogue, experiment, store.read_json(path, Comparisons), folder)
