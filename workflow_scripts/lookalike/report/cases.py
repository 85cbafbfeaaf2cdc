"""The folder ``cases/`` beside a page that would become too large: thumbnails and what the explorer knows of queries.

A page that is opened from a disk may fetch nothing, so the data come as a script and the thumbnails as images.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lookalike.io import store

FOLDER = "cases"


@dataclass(frozen=True)
class Limits:
    """What the page itself may hold: queries, and bytes of data and thumbnails. Above either, the folder holds them."""

    queries: int = 20_000
    bytes: int = 15_000_000


IN_PAGE = Limits()


@dataclass(frozen=True)
class Files:
    """The files of a folder: ``data`` is what the explorer unpacks, base64; ``sheets`` are images.

    Their names begin with a hash of them all, so that a page finds its own files or none.
    """

    data: str
    sheets: list[bytes]

    @property
    def _hash(self) -> str:
        digest = hashlib.sha256(self.data.encode())
        for sheet in self.sheets:
            digest.update(hashlib.sha256(sheet).digest())
        return digest.hexdigest()[:12]

    @property
    def script(self) -> str:
        """The address of the script with the data, relative to the page."""
        return f"{FOLDER}/{self._hash}.js"

    def images(self) -> list[str]:
        """The addresses of the sheets of thumbnails, relative to the page."""
        own = self._hash
        return [f"{FOLDER}/{own}-{number}.webp" for number in range(len(self.sheets))]

    def contents(self) -> Mapping[str, bytes]:
        """The files by their addresses."""
        script = f'window.lookalikeCases = "{self.data}";\n'.encode()
        return {self.script: script, **dict(zip(self.images(), self.sheets, strict=True))}


def write(files: Files | None, page: Path) -> None:
    """Write the folder beside a page, empty for a page that needs none. The files of an older page stay."""
    (page.parent / FOLDER).mkdir(parents=True, exist_ok=True)
    for address, content in files.contents().items() if files else ():
        with store.atomic(page.parent / address) as temporary:
            temporary.write_bytes(content)


def tidy(files: Files | None, page: Path) -> None:
    """Remove the files of older pages, once the page is written."""
    own = set(files.contents()) if files else set()
    for path in (page.parent / FOLDER).iterdir():
        if path.suffix in (".js", ".webp") and f"{FOLDER}/{path.name}" not in own:
            path.unlink()
