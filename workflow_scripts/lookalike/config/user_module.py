"""The files behind a model of the family `python`, found without running its code: its module, and its options'."""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WHOLE = 1 << 24  # bytes; of larger files, only parts decide about reruns
PART = 1 << 16


def module_file(factory: str) -> Path | None:
    """The module's file, searched as Python does: first in the working directory, then on the path."""
    inside = Path(*factory.partition(":")[0].split("."))
    for folder in (Path.cwd(), *map(Path, sys.path)):
        for path in (folder / inside / "__init__.py", folder / inside.with_suffix(".py")):
            if path.is_file():
                return path
    return None


def option_files(options: Any) -> dict[str, Path]:
    """The files among the options, by their path as written there: every value, however deeply nested, that is a path.

    Of a folder, such as a checkpoint, all files except hidden ones.
    """
    return {name: path for value in _texts(options) for name, path in _files(value)}


def fingerprint(path: Path) -> bytes:
    """What decides about reruns: a hash of size and contents; of a large file, only its first, middle and last part.

    It is computed whenever a workflow starts, so it must be fast. ``embed.models.python`` checks the whole file.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for start in (0,) if size <= WHOLE else (0, (size - PART) // 2, size - PART):
            file.seek(start)
            digest.update(file.read(WHOLE if size <= WHOLE else PART))
    return digest.digest()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _files(value: str) -> Iterator[tuple[str, Path]]:
    try:
        path = Path(value).expanduser()
        if path.is_file():
            yield value, path
        elif value and path.is_dir():
            for inside in sorted(path.rglob("*")):
                relative = inside.relative_to(path)
                if inside.is_file() and not any(part.startswith(".") for part in relative.parts):
                    yield f"{value.rstrip('/')}/{relative.as_posix()}", inside
    except (OSError, RuntimeError, ValueError):  # too long for a path, an unknown user's home, a null character
        return
