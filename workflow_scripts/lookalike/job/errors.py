"""User-facing errors: each says where, what, and what to do, and is shown without a traceback."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path


class LookalikeError(Exception):
    """A problem that a user can fix. The message gives the place, the fact and the remedy."""


class ConfigError(LookalikeError):
    """The configuration is wrong; the message has one line a mistake."""


class WriteError(LookalikeError):
    """A file cannot be written: no space, no permission. The message contains its path, so callers need not add it."""


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn an OSError while ``path`` is written, or a folder created, into a WriteError with the path and a remedy."""
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"{path}: cannot be written ({error.strerror or error}). Check the folder's permissions and the free space."
        ) from None


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"``, or the list of all candidates where none is similar."""
    names = sorted(candidates)
    if close := nearest(word, names):
        return f" Did you mean '{close}'?"
    return f" Known: {', '.join(names)}." if names else ""


def nearest(word: str, names: Sequence[str]) -> str | None:
    """The name that a word is likely a misspelling of, if any; case is ignored."""
    same = [name for name in names if name.lower() == word.lower()]
    return next(iter(same or get_close_matches(word, names, n=1, cutoff=0.6)), None)
