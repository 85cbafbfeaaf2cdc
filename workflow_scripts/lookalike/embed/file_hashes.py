"""SHA-256 of large files, cached per machine: a file with unchanged size, dates and inode is not read again.

The hashes are cached in the user's cache folder, one small file each, so that parallel jobs do not overwrite each
other's. If the cached hash is missing, damaged or cannot be written, the file is read.
"""

import hashlib
import os
import platform
import time
from contextlib import suppress
from pathlib import Path

from pydantic import Field

from lookalike.io import store
from lookalike.io.content_hashes import stamp
from lookalike.io.formats.records import Record
from lookalike.job.errors import LookalikeError

SETTLED = 0.1  # seconds since the last change: a file may change twice within one tick of the timestamps


class FileHash(Record):
    """A file's state when it was hashed."""

    path: str
    stamp: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


def sha256(path: str | Path) -> str:
    """A file's SHA-256 in hexadecimal; the file is read only if it has changed since it was last hashed."""
    file = Path(path).resolve()  # in the Hub's cache, several revisions link to one file
    before = file.stat()
    with suppress(LookalikeError, RecursionError, RuntimeError):  # damaged, or no home directory
        known = store.read_json(_cache_file(file), FileHash)
        if (known.path, known.stamp) == (str(file), stamp(before)):
            return known.sha256
    computed = store.sha256_file(file)
    if stamp(file.stat()) == stamp(before) and time.time() - before.st_ctime > SETTLED:
        with suppress(LookalikeError, OSError, RuntimeError):  # read-only, full, or no home directory
            store.write_json(FileHash(path=str(file), stamp=stamp(before), sha256=computed), _cache_file(file))
    return computed


def _cache_file(file: Path) -> Path:
    """Where a file's hash is cached. Machines may share a home directory but differ in what a path holds."""
    name = hashlib.sha256(f"{platform.node()}\0{file}".encode(errors="surrogateescape")).hexdigest()
    return cache_folder() / "sha256" / f"{name}.json"


def cache_folder() -> Path:
    """Where Lookalike caches: LOOKALIKE_CACHE, or else ``lookalike`` in XDG_CACHE_HOME or ~/.cache.

    Raises RuntimeError without a home directory.
    """
    if own := os.environ.get("LOOKALIKE_CACHE"):
        return Path(own).absolute()
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "lookalike"
