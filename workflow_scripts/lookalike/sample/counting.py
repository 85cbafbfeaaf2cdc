"""How many images a data set will have, before it is sampled: a quick count for estimates of what a run costs."""

import os
import time

from lookalike.config.datasets import Dataset, Folder, PhotoTiles
from lookalike.io import archives
from lookalike.job.errors import LookalikeError
from lookalike.sample import folder as folders
from lookalike.sample import photo_tiles

SECONDS = 0.5  # for the folders of one data set: some 30,000 files on a local disk


def count(entry: Dataset) -> dict[str, int]:
    """Images by role, such as ``{"references": 12034}``; roles that cannot be counted quickly are missing.

    That is: in a huge or slow folder, in one with archives, and in one that the run will report as unusable. Tiles
    include the flat ones, which only their pixels tell. Of published data sets the configuration knows the numbers.
    """
    if isinstance(entry, PhotoTiles):
        try:
            return {"references": photo_tiles.count(entry)}
        except (LookalikeError, OSError):
            return {}
    if not isinstance(entry, Folder):
        return {}
    deadline = time.monotonic() + SECONDS
    by_role = {"references": entry.root, "queries": entry.queries, "training": entry.training}
    roots = {role: os.path.realpath(root) for role, root in by_role.items() if root}
    counts = {role: _count(root, frozenset(roots.values()) - {root}, deadline) for role, root in roots.items()}
    found = {role: number for role, number in counts.items() if number is not None}
    if entry.sample and "references" in found:
        found["references"] = min(entry.sample, found["references"])
    return found


def _count(root: str, others: frozenset[str], deadline: float) -> int | None:
    number = 0
    try:
        for file in folders.files(folders.existing(root, ""), "", others):
            if file.id.lower().endswith(archives.EXTENSIONS) or time.monotonic() > deadline:
                return None
            number += 1
    except LookalikeError:
        return None
    return number
