"""Vectors that were computed before, found by the SHA-256 of an image's bytes and by what else decides its vector.

``results/vector_store/{identity}/`` is the folder of one combination of settings, code, weights, precision, engine,
exported network and versions (``DECIDES``). Its tables are embedding shards: hard links to finished ones, which take no
space, and what jobs that did not finish have computed. Beside each is ``{name}.keys``, by which an image is looked up
without reading them.

Every file is written once, whole, and under a name of its own, so jobs never wait for each other. Nothing depends on
any of them: one that is missing, damaged or of another identity is passed over, and its images are computed again.
"""

import hashlib
import json
import logging
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lookalike.io import store
from lookalike.io.formats.tables import EMBEDDINGS
from lookalike.job.errors import LookalikeError

log = logging.getLogger(__name__)

FOLDER = "results/vector_store"
DECIDES = ("key", "code", "weights_sha256", "dtypes", "engine", "export", "decoders", "versions")  # of a shard's footer
KEYS = np.dtype([("image_id", "<u8"), ("sha256", "<u8")])  # hash of the id, and the hash of the bytes, cut to 64 bits
SECONDS = 30  # of computing that are lost at most when a job is killed
BYTES = 1 << 26  # of vectors that wait to be written
BLOCK = 4096  # rows that are read at a time
ATTEMPTS = 3  # to read a vector that other jobs move to another file
TEMPORARY = ".*.tmp"


@dataclass(frozen=True)
class Found:
    """Vectors that the store has, (n, d) in the stored dtype, with the hashes and sizes of their images."""

    sha256: list[str]
    sizes: list[tuple[int, int]]  # width, height
    vectors: NDArray[Any]


class VectorStore:
    """The part of a store that one job may use. As a context, it keeps what was computed before an error.

    ``provenance`` is the footer of the job's shard.
    """

    def __init__(self, folder: str | Path, provenance: dict[str, Any]) -> None:
        self.provenance = provenance
        self.identity = _identity(provenance)
        self.folder = Path(folder) / hashlib.sha256(self.identity.encode()).hexdigest()[:32]
        self._files: list[Path] = []  # tables
        self._damaged: set[Path] = set()
        self._used: set[Path] = set()  # those that vectors were taken from, and those that this job wrote
        self._pending: list[pa.Table] = []
        self._waiting = 0  # bytes
        self._written = time.monotonic()
        self._writable = True
        self._load()

    def _load(self) -> None:
        """Read all keys: 20 bytes of memory for each vector."""
        self._files, parts = [], []
        for path in sorted(self.folder.glob("*.keys")):
            with suppress(OSError, ValueError):  # removed by now, or cut short
                table = path.with_suffix(".parquet")
                parts.append(np.frombuffer(b"" if table in self._damaged else path.read_bytes(), KEYS))
                self._files.append(table)
        keys = np.concatenate(parts) if parts else np.empty(0, KEYS)
        numbers = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
        order = np.argsort(keys["sha256"], kind="stable")  # of several files with an image, the first is read
        self._ids = np.sort(keys["image_id"])
        self._hashes, self._numbers = keys["sha256"][order], numbers[order]

    def has_ids(self, ids: pa.ChunkedArray) -> NDArray[np.bool_]:
        """Which of n image ids the store knows, (n,): images that are worth reading first. Their bytes may differ."""
        keys = _of_ids(ids.to_pylist())
        if not len(self._ids):
            return np.zeros(len(keys), np.bool_)
        known: NDArray[np.bool_] = self._ids[np.minimum(np.searchsorted(self._ids, keys), len(self._ids) - 1)] == keys
        return known

    def has(self, sha256: str) -> bool:
        """Whether there should be a vector of the image with this hash; only ``take`` can tell."""
        return self._number(int(sha256[:16], 16)) is not None

    def _number(self, key: int) -> int | None:
        """The number of the first file with an image."""
        row = int(np.searchsorted(self._hashes, np.uint64(key)))
        return int(self._numbers[row]) if row < len(self._hashes) and self._hashes[row] == key else None

    def take(self, hashes: Iterable[str], dimension: int) -> Iterator[Found]:
        """The vectors of images by their hashes, in blocks and in any order; those that cannot be had are left out.

        A file that another job has replaced meanwhile is looked for again.
        """
        remaining = set(hashes)
        for _ in range(ATTEMPTS):
            replaced = False
            for path, wanted in self._by_file(remaining):
                self._used.add(path)
                try:
                    for found in self._read(path, wanted, dimension):
                        remaining.difference_update(found.sha256)
                        yield found
                except LookalikeError as error:
                    if path.exists():
                        self._damaged.add(path)
                        log.warning("vector store: its %d images are computed again. %s", len(wanted), error)
                    else:
                        replaced = True
            if not replaced:
                return
            self._load()
        log.warning("vector store: %d images are computed again, since their files were removed", len(remaining))

    def _by_file(self, hashes: Iterable[str]) -> list[tuple[Path, list[str]]]:
        by_number: dict[int, list[str]] = {}
        for sha256 in sorted(hashes):
            if (number := self._number(int(sha256[:16], 16))) is not None:
                by_number.setdefault(number, []).append(sha256)
        return [(self._files[number], wanted) for number, wanted in sorted(by_number.items())]

    def _read(self, path: Path, wanted: list[str], dimension: int) -> Iterator[Found]:
        self._check(path)
        remaining = set(wanted)
        for batch in store.read_batches(path, "sha256", "width", "height", "embedding", rows=BLOCK):
            rows = []
            for row, sha256 in enumerate(batch["sha256"].to_pylist()):
                if sha256 in remaining:
                    remaining.remove(sha256)
                    rows.append(row)
            if not rows:
                continue
            part = batch.take(pa.array(rows))
            sizes = list(zip(part["width"].to_pylist(), part["height"].to_pylist(), strict=True))
            vectors = part["embedding"].flatten().to_numpy().reshape(len(rows), -1)
            if vectors.shape[1] != dimension:
                raise LookalikeError(f"{path}: its vectors have {vectors.shape[1]} dimensions, not {dimension}.")
            yield Found(part["sha256"].to_pylist(), sizes, vectors)

    def _check(self, path: Path) -> None:
        """Raise LookalikeError for a damaged table, or one of another identity: a shard may have been overwritten."""
        if _identity(store.read_provenance(path)) != self.identity:
            raise LookalikeError(f"{path}: is of another model, code or engine.")
        store.verify(path)  # what follows takes its vectors block by block

    def add(self, table: pa.Table) -> None:
        """Keep a table of EMBEDDINGS; it is on disk after ``SECONDS``, or once ``BYTES`` are waiting."""
        self._pending.append(table)
        self._waiting += table.nbytes
        if self._waiting > BYTES or time.monotonic() - self._written > SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was added. Where that fails, the job continues without it."""
        tables, self._pending, self._waiting, self._written = self._pending, [], 0, time.monotonic()
        if not tables or not self._writable:
            return
        try:
            self._write(pa.concat_tables(tables))
        except (LookalikeError, MemoryError) as error:
            self._writable = False
            log.warning("vector store: if this job is killed, the next attempt computes its vectors again. %s", error)

    def _write(self, table: pa.Table) -> None:
        path = self.folder / f"{secrets.token_hex(16)}.parquet"
        footer = {name: self.provenance[name] for name in DECIDES}
        store.write_table(table, path, EMBEDDINGS, {"made_by": "lookalike embed", **footer})
        self._used.add(path)
        _write_keys(path, table)

    def __enter__(self) -> "VectorStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.flush()

    def adopt(self, shard: str | Path) -> None:
        """Link a finished shard into the store, and remove what it makes superfluous.

        Where the file system has no hard links, what the job computed is kept as it is, in files of its own.
        """
        try:
            table = store.read_columns(shard, "image_id", "sha256")
            if not table.num_rows:
                return
            path = self.folder / f"{store.identity(shard)[:32]}.parquet"
            temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
            self.folder.mkdir(parents=True, exist_ok=True)
            os.link(shard, temporary)
            temporary.replace(path)
            temporary.unlink(missing_ok=True)  # where both are one file already, replacing it changes nothing
            _write_keys(path, table)
        except (OSError, LookalikeError) as error:
            log.debug("vector store: %s cannot be linked: %s", shard, error)
            self.flush()
            return
        self._pending.clear()
        for used in sorted(self._used - {path}):
            with suppress(OSError, LookalikeError):
                self._shrink(used, table["sha256"])

    def _shrink(self, path: Path, covered: pa.ChunkedArray) -> None:
        """Remove a table of which no shard is a link; images that ``covered`` lacks get a smaller one."""
        if path.stat().st_nlink > 1:
            return
        rest = None
        with suppress(LookalikeError):  # nothing of it can be used
            self._check(path)
            table = store.read_table(path, EMBEDDINGS)
            rest = table.filter(pc.invert(pc.is_in(table["sha256"], covered)))
        if rest:
            self._write(rest)
        _remove(path)


@dataclass(frozen=True)
class Usage:
    """Size of a store: its vectors, and the bytes that only the store uses, since no shard is the same file."""

    vectors: int
    own_bytes: int


def usage(folder: str | Path) -> Usage:
    """How large a store is."""
    vectors = own = 0
    for path in Path(folder).glob("*/*"):
        with suppress(OSError):
            status = path.stat()
            own += status.st_size if status.st_nlink == 1 else 0
            vectors += status.st_size // KEYS.itemsize if path.suffix == ".keys" else 0
    return Usage(vectors, own)


def prune(folder: str | Path, days: float) -> int:
    """Remove what no shard shares and what is older than so many days; return the bytes that this frees."""
    before, oldest = usage(folder).own_bytes, time.time() - days * 86400
    for path in [*Path(folder).glob("*/*.parquet"), *Path(folder).glob(f"*/{TEMPORARY}")]:
        with suppress(OSError):
            status = path.stat()
            if status.st_nlink == 1 and status.st_mtime <= oldest:
                _remove(path)
    for keys in Path(folder).glob("*/*.keys"):
        if not keys.with_suffix(".parquet").exists():
            keys.unlink(missing_ok=True)
    for part in Path(folder).glob("*"):
        with suppress(OSError):  # not empty
            part.rmdir()
    return before - usage(folder).own_bytes


def _identity(footer: dict[str, Any]) -> str:
    """What decides a vector besides the image, of a shard's footer, as JSON. Writing Parquet changes none."""
    content = {name: footer.get(name) for name in DECIDES}
    versions = {name: version for name, version in (footer.get("versions") or {}).items() if name != "pyarrow"}
    return json.dumps({**content, "versions": versions}, sort_keys=True)


def _write_keys(path: Path, table: pa.Table) -> None:
    keys = np.empty(table.num_rows, KEYS)
    keys["image_id"] = _of_ids(table["image_id"].to_pylist())
    keys["sha256"] = [int(sha256[:16], 16) for sha256 in table["sha256"].to_pylist()]
    with store.atomic(path.with_suffix(".keys")) as temporary:
        temporary.write_bytes(keys.tobytes())


def _of_ids(ids: list[str]) -> NDArray[np.uint64]:
    digests = (hashlib.blake2b(image_id.encode(), digest_size=8).digest() for image_id in ids)
    return np.fromiter((int.from_bytes(digest) for digest in digests), np.uint64, len(ids))


def _remove(path: Path) -> None:
    path.with_suffix(".keys").unlink(missing_ok=True)
    path.unlink(missing_ok=True)
