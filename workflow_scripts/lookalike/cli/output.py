"""Output of commands to standard output: a table for people, or JSON for programs."""

import json
from collections.abc import Iterable
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

NO_WRAP = 100_000  # columns: lines to a file or a pipe are not wrapped


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
