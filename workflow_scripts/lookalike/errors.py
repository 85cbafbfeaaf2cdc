"""Errors that people read: each says where, what, and what to do, and is shown without a traceback."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path


class LookalikeError(Exception):
    """Something a user can mend. The message names the place, the fact and the remedy."""


class ConfigError(LookalikeError):
    """The configuration is wrong; the message has one line a mistake."""


class WriteError(LookalikeError):
    """A file cannot be written: no space, no rights. The message names it, so nobody needs to add where it was."""


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Say of what fails while ``path`` is written, or a folder made, what it was and what to do."""
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"{path}: cannot be written ({error.strerror or error}). Check the rights of the folder, and free space."
        ) from None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"``, or the list of what is known where nothing is near."""
    names = sorted(known)
    if close := nearest(word, names):
        return f" Did you mean '{close}'?"
    return f" Known: {', '.join(names)}." if names else ""


def nearest(word: str, names: Sequence[str]) -> str | None:
    """The name that a word is likely a slip of, if any; it may be written in another case."""
    same = [name for name in names if name.lower() == word.lower()]
    return next(iter(same or get_close_matches(word, names, n=1, cutoff=0.6)), None)
