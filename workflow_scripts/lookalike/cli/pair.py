"""`lookalike pair`: how similar two images are, by model."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from lookalike.cli.options import THREADS, ConfigFiles, Json, Results, Threads
from lookalike.cli.output import print_json, print_table
from lookalike.embed import embed
from lookalike.embed.catalogue import Catalogue, offline, read_image
from lookalike.embed.encoders import Encoder
from lookalike.io.vectors import unit
from lookalike.job.errors import LookalikeError

DIGITS = 7  # of a cosine: vectors are float32, further digits are noise


def pair(
    first: Annotated[Path, typer.Argument(metavar="A", exists=True, dir_okay=False, help="An image.")],
    second: Annotated[Path, typer.Argument(metavar="B", exists=True, dir_okay=False, help="Another image.")],
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", help="A model of the catalogue. Can be repeated; all locally available models by default."
        ),
    ] = None,
    configfile: ConfigFiles = None,
    results: Results = Path("results"),
    threads: Threads = THREADS,
    as_json: Json = False,
) -> None:
    """Compare two images: the cosine of their vectors, and (cosine + 1) / 2.

    \b
    Example:
      lookalike pair a.jpg b.jpg --model pixels --model efficientnet-lite0
    """
    catalogue = Catalogue.open(configfile, results)
    catalogue.check_models(model or [])
    files = {path: read_image(path) for path in (first, second)}
    rows: list[dict[str, Any]] = []
    unavailable: dict[str, str] = {}
    for name in dict.fromkeys(model or catalogue.model_names):
        try:
            # without --model nobody expects a download
            with nullcontext() if model else offline():
                encoder = catalogue.encoder(name, catalogue.weights(name), threads)
        except LookalikeError as error:
            if model:
                raise
            unavailable[name] = str(error)
            continue
        cosine = _cosine(files, (first, second), encoder, catalogue.plan.embedding_key(name))
        rows.append(
            {"model": name, "label": catalogue.plan.label(name), "cosine": cosine, "similarity": (cosine + 1) / 2}
        )
    if not rows:
        raise LookalikeError(f"no model is available locally. For example, {next(iter(unavailable.values()))}")

    if as_json:
        print_json({"a": str(first), "b": str(second), "models": rows, "unavailable": unavailable})
        return
    print_table(
        f"{first} and {second}",
        ["model", "label", "cosine", "(cosine + 1) / 2"],
        [row.values() for row in rows],
    )
    if unavailable:
        typer.echo(f"not available locally: {', '.join(unavailable)}. To see why, choose one with --model.", err=True)


def _cosine(files: dict[Path, bytes], paths: tuple[Path, Path], encoder: Encoder, key: str) -> float:
    names = {files[path]: str(path) for path in paths}  # duplicates are computed once, as in a run
    vectors = {data: embed.embed_image(data, name, encoder, key) for data, name in names.items()}
    a, b = unit(np.stack([vectors[files[path]] for path in paths]).astype(np.float64))
    return round(float(a @ b), DIGITS)
