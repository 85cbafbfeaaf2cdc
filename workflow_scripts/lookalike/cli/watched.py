"""Decoding for commands under a watchdog: an image that hangs or kills its decoder is rejected by the next attempt."""

import fcntl
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lookalike.cli import runs
from lookalike.embed import catalogue
from lookalike.io import in_work
from lookalike.job.errors import LookalikeError

SECONDS = 120.0  # longest time to decode one image


@contextmanager
def guarding(folder: Path, paths: Sequence[str]) -> Iterator[in_work.Guard]:
    """Note which of some images are being decoded, in a file in ``folder``, for the next command with the same ones."""
    sha256 = hashlib.sha256("\0".join(paths).encode(errors="surrogateescape")).hexdigest()
    notes = folder / "in_work" / f"{sha256[:32]}.in_work"
    notes.parent.mkdir(parents=True, exist_ok=True)
    with notes.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another command has the same images in work: its notes tell nothing of a crash
            yield in_work.Guard()
            return
        with in_work.guarding(notes, sha256, SECONDS) as guard:
            yield guard
        notes.with_suffix(".lock").unlink(missing_ok=True)


def read_image(path: Path) -> bytes:
    """The bytes of an image file that can be decoded. Raises LookalikeError with the reason if it cannot."""
    try:
        folder = runs.home()
        folder.mkdir(parents=True, exist_ok=True)
    except (LookalikeError, OSError):  # no place for notes: the user watches
        return catalogue.read_image(path, in_work.Guard())
    with guarding(folder, [str(path.resolve())]) as guard:
        return catalogue.read_image(path, guard)
