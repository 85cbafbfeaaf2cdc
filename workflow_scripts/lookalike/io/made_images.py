"""Where the images are that a run made: tables say ``results/{dataset}/images``, in whatever folder a job has them.

With a shared file system both are the same. With remote storage, each job gets copies of its inputs in a folder that
the next job may not have, so a table must not name it.
"""

import re
from collections.abc import Iterable
from pathlib import Path

ROOT = re.compile(r"(?:^|/)(results/[^/]+/images)$")
_folders: dict[str, str] = {}  # root in tables -> folder, for this process


def root_of(folder: Path) -> str:
    """The root that tables give for the images of a folder with archives."""
    path = folder.as_posix()
    match = ROOT.search(path)
    return match[1] if match else path


def locate(archives: Iterable[str | Path]) -> None:
    """Let this process find the images in these archives, wherever they are."""
    for folder in {Path(archive).parent for archive in archives}:
        _folders[root_of(folder)] = str(folder)


def located() -> dict[str, str]:
    """What this process knows, for another one that ``remember`` tells."""
    return dict(_folders)


def remember(folders: dict[str, str]) -> None:
    """Know what another process has ``located``."""
    _folders.update(folders)


def folder_of(root: str) -> str:
    """The folder that the images of a root are in."""
    return _folders.get(root, root)
