"""`lookalike pair`: how alike two pictures are, model by model."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from lookalike.cli.catalogue import Catalogue, offline, read_picture
from lookalike.cli.options import THREADS, ConfigFiles, Json, Results, Threads
from lookalike.cli.output import print_json, print_table
from lookalike.embed import embed
from lookalike.embed.encoders import Encoder
from lookalike.io.vectors import unit
from lookalike.job.errors import LookalikeError

DIGITS = 7  # of a cosine: vectors are float32, what follows is noise


def pair(
    first: Annotated[Path, typer.Argument(metavar="A", exists=True, dir_okay=False, help="A picture.")],
    second: Annotated[Path, typer.Argument(metavar="B", exists=True, dir_okay=False, help="Another picture.")],
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", help="A model of the catalogue. May be given several times; else all that are at hand."
        ),
    ] = None,
    configfile: ConfigFiles = None,
    results: Results = Path("results"),
    threads: Threads = THREADS,
    as_json: Json = False,
) -> None:
    """Say how alike two pictures are: the cosine of their vectors, and (cosine + 1) / 2.

    \b
    Example:
      lookalike pair a.jpg b.jpg --model pixels --model efficientnet-lite0
    """
    catalogue = Catalogue.open(configfile, results)
    catalogue.check_models(model or [])
    pictures = {path: read_picture(path) for path in (first, second)}
    rows: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    for name in dict.fromkeys(model or catalogue.model_names):
        try:
            encoder = _named(catalogue, name, threads) if model else _at_hand(catalogue, name, threads)
        except LookalikeError as error:
            if model:
                raise
            left_out[name] = str(error)
            continue
        cosine = _cosine(pictures, (first, second), encoder, catalogue.plan.embedding_key(name))
        rows.append(
            {"model": name, "label": catalogue.plan.label(name), "cosine": cosine, "similarity": (cosine + 1) / 2}
        )
    if not rows:
        raise LookalikeError(f"not one model is at hand. The first: {next(iter(left_out.values()))}")

    if as_json:
        print_json({"a": str(first), "b": str(second), "models": rows, "left_out": left_out})
        return
    print_table(
        f"{first} and {second}",
        ["model", "label", "cosine", "(cosine + 1) / 2"],
        [row.values() for row in rows],
    )
    if left_out:
        typer.echo(f"left out, since not at hand: {', '.join(left_out)}. Name one with --model to see why.", err=True)


def _named(catalogue: Catalogue, model: str, threads: int) -> Encoder:
    return catalogue.encoder(model, catalogue.weights(model), threads)


def _at_hand(catalogue: Catalogue, model: str, threads: int) -> Encoder:
    with offline():  # nobody who names no model expects a download
        return _named(catalogue, model, threads)


def _cosine(pictures: dict[Path, bytes], paths: tuple[Path, Path], encoder: Encoder, key: str) -> float:
    names = {pictures[path]: str(path) for path in paths}  # equal bytes are computed once, as in a run
    vectors = {data: embed.embed_image(data, name, encoder, key) for data, name in names.items()}
    a, b = unit(np.stack([vectors[pictures[path]] for path in paths]).astype(np.float64))
    return round(float(a @ b), DIGITS)
