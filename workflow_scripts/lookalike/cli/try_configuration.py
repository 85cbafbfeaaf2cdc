"""The configuration that `lookalike try` writes."""

from pathlib import Path

import yaml

from lookalike.config.datasets import DEFAULT_OPERATIONS, OPERATIONS
from lookalike.job.errors import LookalikeError

# Parts that a configuration of an earlier version lacks; it is run as it is.
ALTERED = """
    # What people do to images before they pass them on; without this line, only the first twelve of these.
    operations:
      [{first},
      {rest}]"""
WITHOUT_MATCH = """
    # More copies, of images that are kept out of the references: nothing is right for them, so they show how often a
    # model finds something where there is nothing.
    without_match: {without_match}"""

CONFIGURATION = """\
# Which model finds these images? Written by `lookalike try`; you can keep and edit it.
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
    queries: {queries}{without_match}{operations}
    k: {k}

experiments:
  {name}:
    title: {title}
    dataset: {name}-copies
    # `lookalike models` lists all available models.
    models: [{models}]
"""


def text(
    command: str,
    name: str,
    folder: Path,
    models: list[str],
    *,
    sample: int,
    k: int,
    queries: int,
    without_match: int,
    old: bool,
) -> str:
    """The file of the experiment ``name``, which ``command`` runs; ``old`` keeps it as earlier versions wrote it."""
    root = folder.resolve()
    later = OPERATIONS[len(DEFAULT_OPERATIONS) :]
    operations = "" if old else ALTERED.format(first=", ".join(DEFAULT_OPERATIONS), rest=", ".join(later))
    return CONFIGURATION.format(
        command=command,
        name=name,
        root=_scalar(str(root)),
        title=_scalar(f"Which model finds the images of {root.name or root}?"),
        sample=sample,
        queries=queries,
        without_match=WITHOUT_MATCH.format(without_match=without_match) if without_match else "",
        operations=operations,
        k=k,
        models=", ".join(models),
    )


def _scalar(words: str) -> str:
    """Any text as a YAML scalar on one line."""
    try:
        words.encode()
    except UnicodeEncodeError:
        raise LookalikeError(f"FOLDER: the path {words!r} is not valid UTF-8. Rename the folder.") from None
    written: str = yaml.safe_dump(words, default_style='"', allow_unicode=True, width=float("inf"))
    return written.strip()
