"""Options that several commands share."""

import os
from pathlib import Path
from typing import Annotated

import typer

THREADS = os.cpu_count() or 1

ConfigFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--configfile",
        exists=True,
        dir_okay=False,
        help="Your own configuration, merged over the catalogue as by Snakemake. Can be repeated.",
    ),
]
Results = Annotated[Path, typer.Option("--results", file_okay=False, help="The results folder of a run.")]
Threads = Annotated[int, typer.Option("--threads", min=1, help="CPU threads.")]
Json = Annotated[bool, typer.Option("--json", help="Print only JSON to standard output.")]
