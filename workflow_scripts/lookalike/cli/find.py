"""`lookalike find`: the images of a folder that are most similar to one image, and `lookalike search`, its old name."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lookalike.cli import compare_configuration, indexed, runs, workflow_run
from lookalike.cli import sheet as contact_sheet
from lookalike.cli.indexed import Stored
from lookalike.cli.options import THREADS, ConfigFiles, Cores, Json, Results, Threads, Verbose
from lookalike.cli.output import check_writable, print_json, print_table
from lookalike.cli.runs import LOOKS, RESULTS, Run
from lookalike.cli.snapshot import has_changed
from lookalike.cli.watched import read_image
from lookalike.cli.workflow_run import Workflow, say
from lookalike.embed.catalogue import Catalogue
from lookalike.io import store
from lookalike.job.errors import LookalikeError, writing
from lookalike.sample import folder as folders

CONFIGURATION = """\
# All images of a folder, to search in. Written by `lookalike find`.
datasets:
  {name}: {{kind: folder, root: {root}, k: 1}}  # k is for queries, which it does not have
"""
INDEX = "flat"

Photo = Annotated[Path, typer.Argument(metavar="IMAGE", exists=True, dir_okay=False, help="The image to search for.")]
IndexName = Annotated[
    str | None, typer.Option("--index", help="One of the experiment's indexes; the first by default.")
]
K = Annotated[int, typer.Option("-k", min=1, help="Number of images to find; fewer if there are fewer.")]
Sheet = Annotated[
    Path | None,
    typer.Option("--sheet", dir_okay=False, help="File for the contact sheet; IMAGE-MODEL.png by default."),
]
NoSheet = Annotated[bool, typer.Option("--no-sheet", help="Draw no contact sheet.")]


def find(
    image: Photo,
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER",
            exists=True,
            file_okay=False,
            help="Where to search; by default what was compared last.",
        ),
    ] = None,
    *,
    model: Annotated[
        str | None, typer.Option("--model", help="A model of the catalogue; by default the best of the comparison.")
    ] = None,
    experiment: Annotated[
        str | None, typer.Option("--experiment", help="Search the references of this experiment instead of a folder.")
    ] = None,
    index_name: IndexName = None,
    k: K = 5,
    sheet: Sheet = None,
    no_sheet: NoSheet = False,
    cores: Cores = THREADS,
    configfile: ConfigFiles = None,
    results: Results = RESULTS,
    threads: Threads = THREADS,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Find the images of a folder that are most similar to an image.

    Embeds what is new in the folder, with the best model of its comparison. The
    score is cosine similarity: higher is nearer.

    \b
    Examples:
      lookalike find photo.jpg ~/Pictures
      lookalike find photo.jpg --experiment demo --model efficientnet-lite0 -k 5
    """
    if sheet and no_sheet:
        raise typer.BadParameter("--sheet and --no-sheet contradict each other.")
    _check_sheet(image, sheet)
    if experiment and folder:
        raise typer.BadParameter("FOLDER and --experiment contradict each other.")
    data = read_image(image)  # a broken one is reported before anything is embedded
    if not no_sheet:
        check_writable(sheet.parent if sheet else Path(), "Choose --sheet FILE in another folder, or --no-sheet.")
    if experiment:
        if model is None:
            run = runs.finished(experiment, configfile, results)
            catalogue, (model, best_index) = run.catalogue, run.order(LOOKS)[0]
            index_name = index_name or best_index
        else:
            catalogue = Catalogue.open(configfile, results)
        stored = indexed.of_experiment(catalogue, experiment, model, index_name)
    else:
        if index_name or configfile or results != RESULTS:
            raise typer.BadParameter("--index, --configfile and --results require --experiment.")
        folder = folder or _last_folder(image)
        again = ["lookalike", "find", str(image), str(folder)]
        catalogue, stored = of_folder(folder, model, again, cores, verbose=verbose)
    out = None if no_sheet else sheet or Path(f"{image.stem}-{stored.model}.png")
    _check_sheet(image, out)
    neighbors = indexed.Loaded(catalogue, stored, threads).find(data, str(image), k)
    title = f"{image}: {len(neighbors)} nearest in {folder or stored.dataset} by {catalogue.plan.label(stored.model)}"
    title = f"{title} ({stored.index})" if experiment else title
    if out:
        contact_sheet.draw(title, image, [(hit.rank, hit.score, hit.image_id, hit.path) for hit in neighbors], out)
    if as_json:
        facts = {"dataset": stored.dataset, "model": stored.model, "index": stored.index}
        found = [asdict(neighbor) for neighbor in neighbors]
        print_json({"image": str(image), **facts, "neighbors": found, "sheet": str(out) if out else None})
        return
    print_table(title, ["rank", "id", "score", "path"], [asdict(neighbor).values() for neighbor in neighbors])
    if out:
        typer.echo(f"contact sheet: {typer.format_filename(out)}")


def search(
    image: Photo,
    *,
    experiment: Annotated[str, typer.Option("--experiment", help="The experiment whose references are searched.")],
    model: Annotated[str, typer.Option("--model", help="One of the experiment's models.")],
    index_name: IndexName = None,
    k: K = 5,
    sheet: Sheet = None,
    no_sheet: NoSheet = False,
    configfile: ConfigFiles = None,
    results: Results = RESULTS,
    threads: Threads = THREADS,
    as_json: Json = False,
) -> None:
    """Find an image's nearest references in the index of a run: `lookalike find` with --experiment."""
    find(
        image,
        model=model,
        experiment=experiment,
        index_name=index_name,
        k=k,
        sheet=sheet,
        no_sheet=no_sheet,
        configfile=configfile,
        results=results,
        threads=threads,
        as_json=as_json,
    )


def _last_folder(image: Path) -> Path:
    run = next(iter(runs.remembered()), None)
    if run is None:
        command = shlex.join(["lookalike", "find", str(image), "FOLDER"])
        raise LookalikeError(f"there is no comparison yet. Add the folder to search: {command}")
    return Path(run.folder)


def of_folder(
    folder: Path, model: str | None, again: list[str], cores: int, *, verbose: bool
) -> tuple[Catalogue, Stored]:
    """The index of all images of a folder, after what is new was embedded; ``again`` is the command to repeat."""
    run = runs.of_folder(folder)
    place = Path(run.configfile).parent if run else runs.home()
    check_writable(place, runs.ELSEWHERE)
    name = f"{runs.words(folder)}-{runs.digest(folder)}"
    file = place / f"{name}.yaml"
    if not file.exists():  # one without images is reported before anything is written or started
        folders.list_images(str(folder), "FOLDER", {})
    text = CONFIGURATION.format(name=name, root=compare_configuration.scalar(str(folder.resolve())))
    if not file.exists() or file.read_text("utf-8") != text:
        with writing(file), store.atomic(file) as temporary:
            temporary.write_text(text, encoding="utf-8")
    files = [*([Path(run.configfile)] if run else []), file]
    catalogue = Catalogue.open(files, place / "results")
    if model is None:
        model, why = _best(catalogue, run)
        say(f"model: {model}, {why}")
    catalogue.check_models([model])
    stored = Stored(name, model, INDEX, catalogue.results / name)
    options = _pending(catalogue, stored)
    if options is not None:
        target = str(stored.faiss.relative_to(place))
        say(f"{folder}: embedding what is new")
        repeat = shlex.join([*again, "--model", model])
        workflow_run.run(Workflow(place, files, [target], name, cores), options, verbose=verbose, again=repeat)
    return catalogue, stored


def _pending(catalogue: Catalogue, stored: Stored) -> list[str] | None:
    """The options of the run that brings an index up to date; None if it is."""
    if has_changed(stored.images, catalogue.dataset(stored.dataset), stored.dataset):
        return ["--forcerun", str(stored.images.relative_to(catalogue.results.parent))]
    if not all(path.exists() for path in (stored.images, stored.faiss, stored.ids)):
        return []
    try:
        indexed.check(catalogue, stored)
    except LookalikeError:  # of another version, for example: the run makes it again
        return []
    return None


def _best(catalogue: Catalogue, run: Run | None) -> tuple[str, str]:
    """The model to search with, and why: the best of the folder's comparison, of the last one, or the largest."""
    for candidate in (run, next(iter(runs.remembered()), None)):
        compared = runs.comparisons_of(candidate) if candidate else None
        best = runs.order(compared, LOOKS)[0][0] if compared else ""
        if candidate and best in catalogue.plan.config.models:
            return best, f"which ranks the right image first most often in {candidate.experiment}"
    sizes = {
        name: catalogue.plan.config.models[name].about.parameters or 0
        for name in catalogue.model_names
        if catalogue.why_missing(name) is None
    }
    return max(sizes, key=lambda name: sizes[name]), "the largest that is available locally; `compare` finds the best"


def _check_sheet(photo: Path, sheet: Path | None) -> None:
    if sheet and sheet.suffix.lower() not in contact_sheet.FORMATS:
        raise typer.BadParameter(f"--sheet {sheet}: should end with one of {', '.join(contact_sheet.FORMATS)}.")
    if sheet and sheet.resolve() == photo.resolve():
        raise typer.BadParameter(f"--sheet {sheet}: is the image to search for. Choose another file.")
