"""`lookalike duplicates`: which files of a folder show the same image, and which of them to keep."""

import logging
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lookalike.cli.options import THREADS, ConfigFiles, Json, Results, Threads
from lookalike.cli.output import check_writable, print_json, print_table
from lookalike.job.errors import LookalikeError

if TYPE_CHECKING:
    from lookalike.cli.duplicate_search.search import Result

SHOWN = 20  # groups, pairs or unreadable images in the terminal; the files have all


def duplicates(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", exists=True, file_okay=False, readable=True, help="A folder with images.")
    ],
    *,
    precision: Annotated[
        int,
        typer.Option(
            "--precision", min=50, max=99, help="Target precision in percent: how many of the pairs should be right."
        ),
    ] = 99,
    model: Annotated[
        str | None, typer.Option("--model", help="Model that finds candidates; the best available one by default.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold", metavar="T", help="Cosine that decides where pixels cannot; calibrated by default."
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            "--against",
            metavar="OTHER_DIR",
            exists=True,
            file_okay=False,
            readable=True,
            help="List which images of DIR are also in OTHER_DIR, such as test images in a training set.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", file_okay=False, help="Folder for the results; duplicates-DIR by default."),
    ] = None,
    configfile: ConfigFiles = None,
    results: Results = Path("results"),
    threads: Threads = THREADS,
    as_json: Json = False,
) -> None:
    """Find exact and near-duplicates: groups of files that show the same image, and which of each to keep.

    Finds copies that were saved again, resized, cropped, captioned, mirrored or
    turned by 90 degrees. Other shots of the same scene are not duplicates.
    Writes an HTML page and keep.csv; with --json, only if --out is given.
    Deletes and moves nothing.

    The exit status is 0 whether or not there are duplicates, and 1 if you have
    to fix something.

    \b
    Examples:
      lookalike duplicates ~/Pictures
      lookalike duplicates test --against training --json
    """
    from lookalike.cli.duplicate_search import outputs
    from lookalike.cli.duplicate_search.search import Request, search

    place = out or (None if as_json else Path(f"duplicates-{folder.resolve().name or 'root'}"))
    _check_out(place, [one for one in (folder, against) if one])
    if place:
        check_writable(place, "Choose a folder for the results: --out FOLDER")
    request = Request(
        folder,
        against,
        precision=precision,
        model=model,
        threshold=threshold,
        configfiles=tuple(configfile or ()),
        results=results,
        threads=threads,
    )
    with _progress():
        result = search(request)
    written = outputs.write(result, request, place) if place else []
    if as_json:
        print_json(outputs.as_json(result, request))
        return
    _show_not_compared(outputs.not_compared(result), written)
    for line in outputs.summary(result, request):
        typer.echo(line)
    if against:
        _show_matches(result)
    else:
        _show_groups(result)
    for path in written:
        typer.echo(f"written: {typer.format_filename(path)}")
    typer.echo(f"nothing was deleted or moved. Next: {_next(result, folder, written, against)}")


def _check_out(out: Path | None, folders: list[Path]) -> None:
    for folder in folders:
        if out and out.resolve().is_relative_to(folder.resolve()):
            raise LookalikeError(
                f"--out {out}: is inside {folder}, whose images are compared. Run this in another folder, or "
                "choose one with --out."
            )
    if len(folders) > 1:
        one, other = (folder.resolve() for folder in folders)
        if one.is_relative_to(other) or other.is_relative_to(one):
            raise LookalikeError(
                f"--against {folders[1]}: contains {folders[0]}, or is inside it, so images would match themselves. "
                "Choose two separate folders."
            )


@contextmanager
def _progress() -> Iterator[None]:
    """Show progress and warnings on standard error while a search runs."""
    handler = logging.StreamHandler()  # writes to standard error
    handler.setFormatter(logging.Formatter("%(message)s"))
    # rejected images are listed in the summary
    handler.addFilter(lambda record: record.levelno > logging.INFO or record.name in SHOWN_LOGS)
    handler.addFilter(lambda record: record.name != "lookalike.embed.embed")
    logger = logging.getLogger("lookalike")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


SHOWN_LOGS = ("lookalike.job.progress", "lookalike.cli.duplicate_search.calibration")


def _show_not_compared(lines: list[str], written: list[Path]) -> None:
    for line in lines[:SHOWN]:
        typer.echo(line)
    if len(lines) > SHOWN:
        place = next((str(path) for path in written if path.suffix == ".html"), "--json")
        typer.echo(f"unreadable or left out: {len(lines) - SHOWN:,} more lines, all in {place}")


def _show_groups(result: "Result") -> None:
    rows = [
        (number, group.keep.path, group.why, len(group.members) - 1, group.kind)
        for number, group in enumerate(result.groups[:SHOWN], start=1)
    ]
    if rows:
        more = f", the first {SHOWN}" if len(result.groups) > SHOWN else ""
        print_table(f"groups{more}:", ("group", "keep", "why", "duplicates", "kind"), rows)


def _show_matches(result: "Result") -> None:
    rows = [(match.image.path, match.match.path, match.by, match.score) for match in result.matches[:SHOWN]]
    if rows:
        more = f", the first {SHOWN}" if len(result.matches) > SHOWN else ""
        print_table(f"pairs{more}:", ("image", "match", "by", "score"), rows)


def _next(result: "Result", folder: Path, written: list[Path], against: Path | None) -> str:
    if against:
        return f"remove what you do not want to be in both; the list is in {written[0]}"
    if result.groups:
        return f"open {written[0]} in a browser, choose what to keep, and download keep.csv from there"
    if result.calibration is None:  # a lower precision would not change the threshold, which is not calibrated
        return "to accept less certain pairs, too, choose a lower --threshold"
    return f"to accept less certain pairs, too: lookalike duplicates {shlex.quote(str(folder))} --precision 90"
