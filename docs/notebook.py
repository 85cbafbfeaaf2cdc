"""Make the notebook of a page: its text, and its Python blocks as cells. Run: python docs/notebook.py."""

import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
PAGES = ("library",)


def notebook(page: str) -> dict[str, Any]:
    """The notebook of a Markdown page, without outputs."""
    parts = re.split(r"^```python\n(.*?)^```\n", page, flags=re.DOTALL | re.MULTILINE)
    cells: list[dict[str, Any]] = []
    for number, part in enumerate(parts):
        if text := part.strip("\n"):
            cell = {"id": f"cell-{number}", "metadata": {}, "source": text.splitlines(keepends=True)}
            code = {"cell_type": "code", "execution_count": None, "outputs": []}
            cells.append(cell | (code if number % 2 else {"cell_type": "markdown"}))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def text_of(name: str) -> str:
    """The text of a page's notebook file."""
    page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    return json.dumps(notebook(page), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name in PAGES:
        (DOCS / f"{name}.ipynb").write_text(text_of(name), encoding="utf-8")
