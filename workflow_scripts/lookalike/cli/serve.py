"""`lookalike serve`: a page on this machine, to search a run with images that are dropped into it."""

import socket
from pathlib import Path
from typing import Annotated

import typer

from lookalike.cli import indexed, runs
from lookalike.cli.find import of_folder
from lookalike.cli.options import THREADS, ConfigFiles, Cores, ModelName, Results, Threads, Verbose
from lookalike.cli.runs import LOOKS, RESULTS
from lookalike.job import packages
from lookalike.job.errors import LookalikeError

PACKAGES = ("starlette", "uvicorn")


def serve(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A comparison, or an experiment that has been run; the last by default."),
    ] = None,
    *,
    model: ModelName = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Number of images to show.")] = 24,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; at any other, people elsewhere can see the images.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 for a free one.")] = 8765,
    cores: Cores = THREADS,
    configfile: ConfigFiles = None,
    results: Results = RESULTS,
    threads: Threads = THREADS,
    verbose: Verbose = False,
) -> None:
    """Serve a page to search by dropping an image in, with a link to the report.

    Of a comparison, the whole folder is searched; what is new is embedded first.
    Only this machine can open it. The model stays loaded; Ctrl-C ends it.

    \b
    Example:
      lookalike serve my-pictures
    """
    if lacking := packages.missing(PACKAGES):
        raise LookalikeError(packages.why_missing(lacking))
    import uvicorn

    from lookalike.cli.server import Served, application

    finished = runs.finished(name, configfile, results)
    if model:
        finished.check_model(model)
    model, index = next(pair for pair in finished.order(LOOKS) if model in (None, pair[0]))
    if finished.folder:  # all of its images, not only those that were compared
        again = ["lookalike", "serve", finished.experiment]
        catalogue, stored = of_folder(Path(finished.folder), model, again, cores, verbose=verbose)
    else:
        catalogue = finished.catalogue
        stored = indexed.of_experiment(catalogue, finished.experiment, model, index)
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise LookalikeError(
            f"--host {host} --port {port}: cannot be listened on ({error.strerror or error}). Choose another --port."
        ) from None
    with listening:
        loaded = indexed.Loaded(catalogue, stored, threads)
        title = f"{finished.experiment}, searched with {catalogue.plan.label(model)}"
        app = application(Served(loaded, title, finished.report, host, k))
        shown = f"[{host}]" if ":" in host else host
        typer.echo(f"http://{shown}:{listening.getsockname()[1]}/ (Ctrl-C ends it)")
        uvicorn.Server(uvicorn.Config(app, log_level="warning", server_header=False)).run(sockets=[listening])
