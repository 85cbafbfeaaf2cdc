"""`lookalike export`: the results of a run in formats of other programs."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from lookalike.cli import runs, trec
from lookalike.cli.options import ConfigFiles, Json, Results
from lookalike.cli.output import check_writable, print_json
from lookalike.io import identity, store
from lookalike.io.formats.tables import IMAGES, NEIGHBORS, TRUTH
from lookalike.job.errors import LookalikeError


def export(
    experiment: Annotated[str, typer.Argument(metavar="NAME", help="A comparison or experiment that has been run.")],
    *,
    trec_format: Annotated[
        bool, typer.Option("--trec", help="TREC run files, one per model and index, and qrels.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", file_okay=False, help="Folder for the files; NAME-trec by default.")
    ] = None,
    configfile: ConfigFiles = None,
    results: Results = Path("results"),
    as_json: Json = False,
) -> None:
    """Export search results and true matches for other evaluation programs.

    \b
    Example:
      lookalike export --trec demo
    """
    if not trec_format:
        raise typer.BadParameter("choose a format: --trec.")
    catalogue = runs.catalogue_of(experiment, configfile, results)
    entry = catalogue.experiment(experiment)
    folder, out = catalogue.results / entry.dataset, out or Path(f"{experiment}-trec")
    check_writable(out, "Choose a folder for the files: --out FOLDER")
    sample, truth = folder / "sample" / "images.parquet", folder / "sample" / "truth.parquet"
    files = {
        out / f"{model}.{index}.run": folder / "neighbors" / model / f"{index}.parquet"
        for model in entry.models
        for index in entry.indexes
    }
    if missing := next((path for path in (sample, truth, *files.values()) if not path.exists()), None):
        raise LookalikeError(f"{missing}: is missing. {catalogue.how_to_run(experiment)}")
    identity.check_sample(sample, truth, *files.values())
    for path, neighbors in files.items():
        k = int(store.read_provenance(neighbors)["k"])
        _write(path, trec.run(store.read_table(neighbors, NEIGHBORS), k, path.stem))
    qrels = out / "qrels"
    _write(qrels, trec.qrels(store.read_table(truth, TRUTH), store.read_table(sample, IMAGES)))
    names = [str(path) for path in (*files, qrels)]
    if as_json:
        print_json({"experiment": experiment, "files": names})
    else:
        typer.echo("\n".join(names))


def _write(path: Path, lines: Iterable[str]) -> None:
    with store.atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(lines)
