"""SHA-256 of files of gigabytes, read once a machine: a file whose size, dates and inode stay has the same contents.

Each file's hash is in a small file of its own in the user's cache folder, so that jobs do not overwrite what others
found. Without it, or where it is damaged, cannot be written or is of another file, the file is read.
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

SETTLED = 0.1  # seconds since the last change: a file may change twice within one tick of the clock of its dates


class FileHash(Record):
    """What a file was when it was read."""

    path: str
    stamp: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


def sha256(path: str | Path) -> str:
    """A file's SHA-256, in hexadecimal; it is read only where it changed since it was last asked for."""
    file = Path(path).resolve()  # in the hub's cache, names of several revisions lead to one file
    before = file.stat()
    with suppress(LookalikeError, RecursionError, RuntimeError):  # damaged, or this user has no home
        known = store.read_json(_remembered(file), FileHash)
        if (known.path, known.stamp) == (str(file), stamp(before)):
            return known.sha256
    found = store.sha256_file(file)
    if stamp(file.stat()) == stamp(before) and time.time() - before.st_ctime > SETTLED:
        with suppress(LookalikeError, OSError, RuntimeError):  # read-only, full, or no home
            store.write_json(FileHash(path=str(file), stamp=stamp(before), sha256=found), _remembered(file))
    return found


def _remembered(file: Path) -> Path:
    """Where a file's hash is kept. A home may be shared by machines, which may have other files under one path."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    folder = cache if cache.is_absolute() else Path.home() / ".cache"
    name = hashlib.sha256(f"{platform.node()}\0{file}".encode(errors="surrogateescape")).hexdigest()
    return folder / "lookalike/sha256" / f"{name}.json"
