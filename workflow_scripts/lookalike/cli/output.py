"""What commands print to standard output: a table for people, or JSON for programs."""

import json
from collections.abc import Iterable
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

NO_WRAP = 100_000  # columns: lines that go into a file or a pipe stay whole


def print_json(data: dict[str, Any]) -> None:
    """Print an object as JSON, all of it ASCII, so that it goes through any pipe."""
    typer.echo(json.dumps(data, indent=2))


def print_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a title and a table; columns that begin with a number stand to the right."""
    console = Console(markup=False, highlight=False, emoji=False)  # names of files are other people's text
    if not console.is_terminal:
        console.width = NO_WRAP
    cells = [list(row) for row in rows]
    table = Table()
    for number, column in enumerate(columns):
        is_number = bool(cells) and isinstance(cells[0][number], int | float)
        table.add_column(column, justify="right" if is_number else "left", overflow="fold")
    for row in cells:
        table.add_row(*(f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row))
    console.print(title.encode(errors="replace").decode(), soft_wrap=True)  # names may hold bytes that are no text
    console.print(table)
