"""Output of commands to standard output: a table for people, or JSON for programs."""

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from lookalike.job.errors import LookalikeError

NO_WRAP = 100_000  # columns: lines to a file or a pipe are not wrapped


def check_writable(folder: Path, remedy: str) -> None:
    """Raise LookalikeError with a remedy if no file can be written into a folder, or the folder not be made.

    For the start of a command: what it computes would otherwise be lost in the end. Leaves no folder behind.
    """
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise LookalikeError(f"{folder.absolute()}: cannot be written ({error.strerror or error}). {remedy}") from None


def print_json(data: dict[str, Any]) -> None:
    """Print an object as JSON in ASCII, which any pipe can carry."""
    typer.echo(json.dumps(data, indent=2))


def print_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a title and a table; columns whose first cell is a number are right-aligned."""
    console = Console(markup=False, highlight=False, emoji=False)  # file names are untrusted text
    if not console.is_terminal:
        console.width = NO_WRAP
    cells = [list(row) for row in rows]
    table = Table()
    for number, column in enumerate(columns):
        is_number = bool(cells) and isinstance(cells[0][number], int | float)
        table.add_column(column, justify="right" if is_number else "left", overflow="fold")
    for row in cells:
        table.add_row(*(f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row))
    console.print(title.encode(errors="replace").decode(), soft_wrap=True)  # file names may hold invalid UTF-8
    console.print(table)
