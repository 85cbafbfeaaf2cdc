"""The configuration that `lookalike compare` writes, and later adds to."""

import re
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lookalike.config.datasets import DEFAULT_OPERATIONS, OPERATIONS
from lookalike.job.errors import LookalikeError

CONFIGURATION = """\
# Which model finds these images? Written by `lookalike compare`; you can keep and edit it.
# To run it again, for example after an edit, change to this file's folder:
#   {command}
# Only what changed runs again. The report is results/reports/{name}/index.html.

run: [{name}]

datasets:
  # The images; they are read and never changed. Of a large folder at most `sample` are used, a random sample that stays
  # the same; without that line, all.
  {name}:
    kind: folder
    root: {root}
    sample: {sample}

  # Altered copies of them, whose originals are to be found. For each copy, the k nearest images are kept.
  {name}-copies:
    kind: copies
    of: {name}
    queries: {queries}
    # More copies, of images that are kept out of the references: nothing is right for them, so they show how often a
    # model finds something where there is nothing.
    without_match: {without_match}
    # What people do to images before they pass them on; without this line, only the first twelve of these.
    operations:
      [{first},
      {rest}]
    k: {k}

experiments:
  {name}:
    title: {title}
    dataset: {name}-copies
    # `lookalike models` lists all available models.
    models: [{models}]
"""


@dataclass(frozen=True)
class Numbers:
    """Sizes of a comparison: images at most, queries with and without a match, and neighbors of each."""

    sample: int | None
    queries: int
    without_match: int
    k: int


def text(command: str, name: str, folder: Path, models: list[str], numbers: Numbers) -> str:
    """The file of a new experiment ``name``, which ``command`` runs."""
    root = folder.resolve()
    later = OPERATIONS[len(DEFAULT_OPERATIONS) :]
    return CONFIGURATION.format(
        command=command,
        name=name,
        root=scalar(str(root)),
        title=scalar(f"Which model finds the images of {root.name or root}?"),
        **vars(numbers),
        first=", ".join(DEFAULT_OPERATIONS),
        rest=", ".join(later),
        models=", ".join(models),
    )


def numbers_of(raw: Any, name: str) -> Numbers | None:
    """The sizes in a configuration; None where it is not a comparison of this name."""
    try:
        folder, copies = raw["datasets"][name], raw["datasets"][f"{name}-copies"]
        if not isinstance(raw["experiments"][name]["models"], list):
            return None
        return Numbers(folder.get("sample"), copies["queries"], copies.get("without_match", 0), copies.get("k", 10))
    except (KeyError, TypeError, AttributeError):
        return None


def added(file_text: str, raw: Any, name: str, models: list[str], numbers: Numbers) -> str:
    """The text of an existing configuration with more models and other numbers; comments and all else stay."""
    changed = deepcopy(raw)
    entry, copies = changed["experiments"][name], changed["datasets"][f"{name}-copies"]
    entry["models"] = [*entry["models"], *(model for model in models if model not in entry["models"])]
    edits: dict[str, Any] = {"models": entry["models"]} if changed != raw else {}
    for section, keys in ((changed["datasets"][name], ("sample",)), (copies, ("queries", "without_match", "k"))):
        for key in keys:
            if section.get(key, 0 if key == "without_match" else None) != getattr(numbers, key):
                section[key] = edits[key] = getattr(numbers, key)
    if changed == raw:
        return file_text
    edited = file_text
    for key, value in edits.items():
        written = f"[{', '.join(value)}]" if isinstance(value, list) else str(value)
        edited = re.sub(rf"^( +{key}:) .*$", rf"\g<1> {written}", edited, flags=re.MULTILINE)
    if _parsed(edited) == changed:
        return edited
    return f"# Written by `lookalike compare`.\n{yaml.safe_dump(changed, sort_keys=False, allow_unicode=True)}"


def _parsed(edited: str) -> Any:
    try:
        return yaml.safe_load(edited)
    except yaml.YAMLError:
        return None


def scalar(words: str) -> str:
    """Any text as a YAML scalar on one line."""
    try:
        words.encode()
    except UnicodeEncodeError:
        raise LookalikeError(f"FOLDER: the path {words!r} is not valid UTF-8. Rename the folder.") from None
    written: str = yaml.safe_dump(words, default_style='"', allow_unicode=True, width=float("inf"))
    return written.strip()
