"""Files are written whole or not at all, and say inside what made them.

Every Parquet footer carries a ``lookalike`` entry, a JSON object: what made the file, from which key and weights,
library versions, row count. No dates and no host names: the same input must give the same bytes.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ValidationError

from lookalike.errors import LookalikeError, writing
from lookalike.formats import Format

FOOTER_KEY = b"lookalike"
R = TypeVar("R", bound=BaseModel)


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success its file becomes ``path`` in one step, else it is removed.

    The name is unique, so that an orphan of a killed run cannot write into a newer run's file.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_table(table: pa.Table, path: str | Path, format: Format, provenance: dict[str, Any]) -> None:
    """Check ``table`` against ``format`` and write it to ``path`` with ``provenance`` in the footer.

    zstd throughout; float32 vectors as byte-stream-split without a dictionary, which compresses floats best. float16
    vectors are plain: DuckDB 1.x reads no byte-stream-split of them.
    """
    format.check(table, path)
    footer = {"format": format.name, "rows": table.num_rows, **provenance}
    encoded = {FOOTER_KEY: json.dumps(footer, sort_keys=True).encode()}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **encoded})
    split = "embedding" in table.column_names and table.schema.field("embedding").type.value_type == pa.float32()
    with atomic(path) as temporary:
        pq.write_table(
            table,
            temporary,
            compression="zstd",
            use_dictionary=[name for name in table.column_names if name not in ("embedding", "sha256", "image_id")],
            column_encoding={"embedding.list.element": "BYTE_STREAM_SPLIT"} if split else None,
        )


def read_table(path: str | Path, format: Format) -> pa.Table:
    """Read a table that ``write_table`` wrote, checked against ``format``."""
    return format.check(_open(path).read(), path)


def read_columns(path: str | Path, *columns: str) -> pa.Table:
    """Read some columns of a table that was checked already, without reading the others."""
    return _open(path).read(columns=list(columns))


def read_batches(path: str | Path, *columns: str, rows: int) -> Iterator[pa.RecordBatch]:
    """Read some columns of a table that was checked already, at most ``rows`` rows at a time."""
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
        yield from file.iter_batches(rows, columns=list(columns))


def read_provenance(path: str | Path) -> dict[str, Any]:
    """Return the footer's ``lookalike`` entry, without reading the rows."""
    entry = (_open(path).schema_arrow.metadata or {}).get(FOOTER_KEY)
    if entry is None:
        raise LookalikeError(
            f"{path}: has no provenance in its footer, so Lookalike did not write it. Delete it and run again."
        )
    return dict(json.loads(entry))


def read_schema(path: str | Path) -> pa.Schema:
    """Return a table's columns and their types, without reading the rows."""
    return _open(path).schema_arrow


def _open(path: str | Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise LookalikeError(f"{path}: does not exist. Run the workflow again to make it.") from None
    except pa.ArrowInvalid as error:
        raise LookalikeError(f"{path}: is damaged ({error}). Delete it and run again.") from None


def write_json(record: BaseModel, path: str | Path) -> None:
    """Write a record of ``formats`` as indented JSON."""
    with atomic(path) as temporary:
        temporary.write_text(record.model_dump_json(indent=2) + "\n")


def read_json(path: str | Path, record: type[R]) -> R:
    """Read a record of ``formats``; a file of another shape is refused by name."""
    try:
        return record.model_validate_json(Path(path).read_text())
    except FileNotFoundError:
        raise LookalikeError(f"{path}: does not exist. Run the workflow again to make it.") from None
    except ValidationError as error:
        raise LookalikeError(
            f"{path}: is not a {record.__name__} file ({error.errors()[0]['msg']}). Delete it and run again."
        ) from None


def sha256_file(path: str | Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of distributions, for a footer; a missing one is left out."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
