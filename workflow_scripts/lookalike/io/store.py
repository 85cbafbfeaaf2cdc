"""Files are written whole or not at all, record what made them, and are verified whenever they are read.

Every Parquet footer carries a ``lookalike`` entry, a JSON object: what made the file, from which key and weights,
library versions, row count. No dates and no host names: the same input must give the same bytes.

A flipped bit is an error that names the file. In Parquet, page checksums cover the data and the ``lookalike_sha256``
entry the footer: SHA-256 of all bytes before the footer, and of the footer with that second hash set to zeros. The
first makes the second one identify the whole file; only ``verify`` checks it. JSON has a ``checksum`` of itself.
"""

import hashlib
import json
import os
import re
import secrets
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ValidationError

from lookalike.io.formats.tables import Format
from lookalike.job.errors import LookalikeError, writing

FOOTER_KEY = b"lookalike"
CHECKSUM_KEY = "lookalike_sha256"
HASHES = re.compile(rb"data:([0-9a-f]{64}) footer:([0-9a-f]{64})")  # the value of CHECKSUM_KEY
NO_HASH = b"0" * 64
TAIL = struct.Struct("<I4s")  # ends a Parquet file: length of the footer, and MAGIC
MAGIC = b"PAR1"
CHECKSUM = "checksum"  # the key that JSON files have besides their record's
REMEDY = "Delete it and run again."
R = TypeVar("R", bound=BaseModel)


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success its file becomes ``path`` in one step, else it is removed.

    The name is unique, so that a leftover process of a killed run cannot write into a newer run's file.
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
    table = table.replace_schema_metadata(encoded)  # drops the metadata of the file that it was read from
    split = "embedding" in table.column_names and table.schema.field("embedding").type.value_type == pa.float32()
    with atomic(path) as temporary:
        with pq.ParquetWriter(
            temporary,
            table.schema,
            compression="zstd",
            use_dictionary=[name for name in table.column_names if name not in ("embedding", "sha256", "image_id")],
            column_encoding={"embedding.list.element": "BYTE_STREAM_SPLIT"} if split else None,
            write_page_checksum=True,
        ) as writer:
            writer.write_table(table)
            writer.add_key_value_metadata({CHECKSUM_KEY: f"data:{NO_HASH.decode()} footer:{NO_HASH.decode()}"})
        _seal(temporary)


def _seal(path: Path) -> None:
    """Put the hashes into the footer of a Parquet file, where space was reserved for them."""
    with path.open("r+b") as file:
        start, footer = _footer(file)
        data = _hash_of_start(file, start)
        *_, place = HASHES.finditer(footer)
        footer = _replaced(footer, place.start(1), data.encode())
        footer = _replaced(footer, place.start(2), hashlib.sha256(footer).hexdigest().encode())
        file.seek(start)
        file.write(footer)


def _replaced(text: bytes, start: int, part: bytes) -> bytes:
    return text[:start] + part + text[start + len(part) :]


def _footer(file: BinaryIO) -> tuple[int, bytes]:
    """Where the footer of a Parquet file starts, and its bytes. Raises ValueError if it is missing."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - TAIL.size))
    length, magic = TAIL.unpack(file.read().rjust(TAIL.size))
    start = size - TAIL.size - length
    if magic != MAGIC or start < 0:
        raise ValueError("it does not end as a Parquet file does")
    file.seek(start)
    return start, file.read(length)


def read_table(path: str | Path, format: Format) -> pa.Table:
    """Read a table that ``write_table`` wrote, checked against ``format``."""
    return format.check(read_columns(path), path)


def read_columns(path: str | Path, *columns: str) -> pa.Table:
    """Read some columns of a table that was checked already, or all, without reading the others."""
    with _opened(path) as file:
        table = file.read(columns=list(columns) or None)
        _check_count(table.num_rows, file)
        return table


def read_batches(path: str | Path, *columns: str, rows: int) -> Iterator[pa.RecordBatch]:
    """Read some columns of a table that was checked already, at most ``rows`` rows at a time.

    A damaged page header may make columns differ in their rows, and raises only after the last batch: use none of them
    then, or ``verify`` the file first.
    """
    with _opened(path, pre_buffer=False, buffer_size=1 << 20) as file:
        count = 0
        for batch in file.iter_batches(rows, columns=list(columns)):
            count += batch.num_rows
            yield batch
        _check_count(count, file)


def _check_count(rows: int, file: pq.ParquetFile) -> None:
    """Where the header of a page is damaged, the reader may stop before it without an error."""
    if rows != file.metadata.num_rows:
        raise ValueError(f"{rows} of its {file.metadata.num_rows} rows can be read")


def read_provenance(path: str | Path) -> dict[str, Any]:
    """Return the footer's ``lookalike`` entry, without reading the rows."""
    with _opened(path) as file:
        return dict(json.loads(file.schema_arrow.metadata[FOOTER_KEY]))


def read_schema(path: str | Path) -> pa.Schema:
    """Return a table's columns and their types, without reading the rows."""
    with _opened(path) as file:
        return file.schema_arrow


def identity(path: str | Path) -> str:
    """The identity of a table's file: a hash over all of its bytes, read from its footer."""
    with _reading(path):
        return _verified(path)


def verify(path: str | Path) -> None:
    """Raise LookalikeError for a table's file of which any byte has changed; reads all of it."""
    with _reading(path):
        _verified(path)
        with Path(path).open("rb") as file:
            start, footer = _footer(file)
            *_, recorded = HASHES.finditer(footer)
            if _hash_of_start(file, start).encode() != recorded.group(1):
                raise ValueError("the checksum of its pages does not match")


def _hash_of_start(file: BinaryIO, size: int) -> str:
    """SHA-256 of a file's first bytes."""
    file.seek(0)
    digest = hashlib.sha256()
    for begin in range(0, size, 1 << 20):
        digest.update(file.read(min(1 << 20, size - begin)))
    return digest.hexdigest()


@contextmanager
def _opened(path: str | Path, **options: Any) -> Iterator[pq.ParquetFile]:
    """A Parquet file whose footer is verified now, and whose pages are when they are read."""
    with _reading(path):
        _verified(path)
        with pq.ParquetFile(path, page_checksum_verification=True, **options) as file:
            yield file


def _verified(path: str | Path) -> str:
    """The hash of a Parquet file's footer. Raises ValueError where it does not match the bytes."""
    with Path(path).open("rb") as file:
        _, footer = _footer(file)
    hashes = list(HASHES.finditer(footer))
    if not hashes:
        raise LookalikeError(
            f"{path}: has no provenance and checksum in its footer: another program, or an older version, wrote it. "
            f"{REMEDY}"
        )
    recorded = hashes[-1].group(2)
    if hashlib.sha256(_replaced(footer, hashes[-1].start(2), NO_HASH)).hexdigest().encode() != recorded:
        raise ValueError("the checksum of its footer does not match")
    return recorded.decode()


@contextmanager
def _reading(path: str | Path) -> Iterator[None]:
    """Turn whatever a library raises for a missing, unreadable or damaged file into one sentence with a remedy.

    Memory may run out because a flipped bit made a length immense, or because there is too little.
    """
    try:
        yield
    except FileNotFoundError:
        raise LookalikeError(f"{path}: does not exist. Run the workflow again to make it.") from None
    except MemoryError as error:
        raise LookalikeError(
            f"{path}: reading it needs more memory than is available ({_one_line(error)}). Use a machine with more; if "
            f"the file is not that large, it is damaged. {REMEDY}"
        ) from None
    except (OSError, ValueError, RecursionError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise LookalikeError(
                f"{path}: cannot be read ({error.strerror}). Check the file's permissions and the disk."
            ) from None
        raise LookalikeError(f"{path}: is damaged ({_one_line(error)}). {REMEDY}") from None


def _one_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def write_json(record: BaseModel, path: str | Path) -> None:
    """Write a record of ``formats`` as indented JSON, with a checksum of it as the last key."""
    text = record.model_dump_json(indent=2).removesuffix("\n}")
    with atomic(path) as temporary:
        temporary.write_text(f'{text},\n  "{CHECKSUM}": "{checksum(record)}"\n}}\n', encoding="utf-8")


def read_json(path: str | Path, record: type[R]) -> R:
    """Read a record of ``formats``; a file of another shape, or whose checksum does not match, is refused."""
    with _reading(path):
        content = json.loads(Path(path).read_bytes().decode("utf-8"), object_pairs_hook=_each_once)
    if not isinstance(content, dict) or CHECKSUM not in content:
        raise LookalikeError(f"{path}: has no '{CHECKSUM}': another program, or an older version, wrote it. {REMEDY}")
    if content.pop(CHECKSUM) != _checksum(content):
        raise LookalikeError(f"{path}: is damaged, or was edited (its checksum does not match). {REMEDY}")
    try:
        return record.model_validate(content)
    except ValidationError as error:
        raise LookalikeError(
            f"{path}: is not a {record.__name__} file ({error.errors()[0]['msg']}). {REMEDY}"
        ) from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON mapping. Raises ValueError for a duplicate key: programs differ in which of the values they take."""
    mapping: dict[str, Any] = {}
    for key, value in pairs:
        if key in mapping:
            raise ValueError(f"duplicate key '{key}'")
        mapping[key] = value
    return mapping


def checksum(record: BaseModel) -> str:
    """SHA-256 of a record's values: neither white space nor the order of keys is part of it."""
    return _checksum(json.loads(record.model_dump_json()))


def _checksum(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sha256_file(path: str | Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of distributions, for a footer; a missing one is left out."""
    installed = {}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            installed[package] = metadata.version(package)
    return installed
