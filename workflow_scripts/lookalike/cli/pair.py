"""`lookalike pair`: how similar two images are, by model."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from lookalike.cli import runs
from lookalike.cli.options import THREADS, ConfigFiles, Json, ModelNames, Precision, Results, Threads, split
from lookalike.cli.output import print_json, print_table
from lookalike.cli.runs import ACTS, RESULTS, Finished
from lookalike.cli.watched import read_image
from lookalike.embed import embed
from lookalike.embed.catalogue import Catalogue, offline
from lookalike.embed.encoders import Encoder
from lookalike.io.vectors import unit
from lookalike.job.errors import LookalikeError

DIGITS = 7  # of a cosine: vectors are float32, further digits are noise


def pair(
    first: Annotated[Path, typer.Argument(metavar="A", exists=True, dir_okay=False, help="An image.")],
    second: Annotated[Path, typer.Argument(metavar="B", exists=True, dir_okay=False, help="Another image.")],
    *,
    models: ModelNames = None,
    precision: Precision = 95,
    configfile: ConfigFiles = None,
    results: Results = Path("results"),
    threads: Threads = THREADS,
    as_json: Json = False,
) -> None:
    """Compare two images: the cosine of their vectors, and (cosine + 1) / 2.

    If models were compared on a folder, the verdict of the last comparison:
    whether the cosine reaches the model's threshold for a precision.

    \b
    Example:
      lookalike pair a.jpg b.jpg --models pixels,efficientnet-lite0
    """
    precision = runs.measured(precision)
    compared = None if configfile or results != RESULTS else runs.last()
    catalogue = compared.catalogue if compared else Catalogue.open(configfile, results)
    thresholds = _thresholds(compared, precision)
    requested = split(models)
    catalogue.check_models(requested)
    files = {path: read_image(path) for path in (first, second)}
    rows: list[dict[str, Any]] = []
    unavailable: dict[str, str] = {}
    for name in dict.fromkeys(requested or catalogue.model_names):
        try:
            # without --models nobody expects a download
            with nullcontext() if requested else offline():
                encoder = catalogue.encoder(name, catalogue.weights(name), threads)
        except LookalikeError as error:
            if requested:
                raise
            unavailable[name] = str(error)
            continue
        cosine = _cosine(files, (first, second), encoder, catalogue.plan.embedding_key(name))
        row = {"model": name, "label": catalogue.plan.label(name), "cosine": cosine, "similarity": (cosine + 1) / 2}
        rows.append({**row, **({"verdict": _verdict(cosine, thresholds.get(name))} if compared else {})})
    if not rows:
        raise LookalikeError(f"no model is available locally. For example, {next(iter(unavailable.values()))}")

    if as_json:
        judged = {"experiment": compared.experiment, "precision": precision} if compared else {}
        print_json({"a": str(first), "b": str(second), **judged, "models": rows, "unavailable": unavailable})
        return
    print_table(
        f"{first} and {second}",
        ["model", "label", "cosine", "(cosine + 1) / 2", *([f"at {precision} % precision"] if compared else [])],
        [row.values() for row in rows],
    )
    if unavailable:
        typer.echo(f"not available locally: {', '.join(unavailable)}. To see why, choose one with --models.", err=True)


def _thresholds(compared: Finished | None, precision: int) -> dict[str, float]:
    """Model -> threshold, of those that hold."""
    found = {}
    for model, index in compared.order(ACTS) if compared else ():
        target = compared.target(model, index, precision) if compared else None
        if target and target.safe and target.verdict == "holds":
            found[model] = target.safe.score
    return found


def _verdict(cosine: float, threshold: float | None) -> str:
    return "no threshold" if threshold is None else "same" if cosine >= threshold else "not the same"


def _cosine(files: dict[Path, bytes], paths: tuple[Path, Path], encoder: Encoder, key: str) -> float:
    names = {files[path]: str(path) for path in paths}  # duplicates are computed once, as in a run
    vectors = {data: embed.embed_image(data, name, encoder, key) for data, name in names.items()}
    a, b = unit(np.stack([vectors[files[path]] for path in paths]).astype(np.float64))
    return round(float(a @ b), DIGITS)
