"""Whether a folder is still what a run found in it."""

from pathlib import Path
from typing import Any

from lookalike.io import store
from lookalike.job.errors import LookalikeError
from lookalike.sample import folder as folders
from lookalike.sample import hashing
from lookalike.sample import sample as datasets


def has_changed(snapshot: Path, entry: Any, name: str) -> bool:
    """Whether the images of a folder differ from those of the last run, which would otherwise continue with these.

    ``snapshot`` is the run's table of images, and ``entry`` the data set's. False where no run has made a table yet.
    """
    if not snapshot.exists():
        return False
    columns = ["path", "bytes", hashing.COLUMN]
    now, _ = folders.sample(entry, f"datasets.{name}")
    now = hashing.fill(now, datasets.cache_of(snapshot), keep=False)  # the run itself writes it
    try:
        if hashing.COLUMN not in store.read_schema(snapshot).names:
            return True
        return not now.select(columns).equals(store.read_columns(snapshot, *columns))
    except LookalikeError:  # damaged: sampling again replaces it
        return True
