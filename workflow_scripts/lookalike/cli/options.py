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
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="Your own configuration, merged over the catalogue as by Snakemake. Can be repeated.",
    ),
]
Results = Annotated[Path, typer.Option("--results", file_okay=False, help="The results folder of a run.")]
Threads = Annotated[int, typer.Option("--threads", min=1, help="CPU threads.")]
ModelNames = Annotated[
    list[str] | None,
    typer.Option(
        "--models",
        "--model",
        metavar="A,B",
        help="Models of the catalogue, separated by commas; all locally available ones by default. Can be repeated.",
    ),
]
ModelName = Annotated[str | None, typer.Option("--model", help="One of the experiment's models; by default the best.")]
Precision = Annotated[
    int,
    typer.Option(
        "--precision",
        help="Share of the accepted pairs that must be correct, in percent. Of 90, 95 and 99, the next one that is at "
        "least as high counts.",
    ),
]
Cores = Annotated[int, typer.Option("--cores", min=1, help="CPU cores.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show the output of Snakemake.")]
Json = Annotated[bool, typer.Option("--json", help="Print only JSON to standard output.")]


def split(names: list[str] | None) -> list[str]:
    """Names that are separated by commas, each once."""
    return list(dict.fromkeys(name.strip() for text in names or () for name in text.split(",") if name.strip()))
