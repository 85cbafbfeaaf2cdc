"""Files that are read together must be of one sample, one search and one set of shards.

A file that is whole may still be another's: of another data set or seed, copied to the wrong place, or left by a run
that was killed. So each says what it was made from, and whoever reads several compares that.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from lookalike.io import store
from lookalike.job.errors import LookalikeError

SAMPLE = "sample_sha256"
ROLE = "role"  # in the footer of a table of a role that the data set lacks
ABSENT = "absent"
OWN = ("format", "rows", "policy", "normalise", ROLE)  # entries in which the files of one search differ
BUILT = ("index_sha256", "shards_sha256", "pictures_sha256")  # shared by an index, its images and its searches
ROWS = 1 << 16  # hashed at a time

StrPath = str | Path


def hash_sample(images: pa.Table, truth: pa.Table) -> str:
    """What tells samples apart: a hash over the rows of the images and the truth table, columns included."""
    digest = hashlib.sha256()
    for table in (images, truth):
        for batch in table.combine_chunks().to_batches(max_chunksize=ROWS):
            digest.update(json.dumps(batch.to_pydict(), sort_keys=True).encode())
        digest.update(json.dumps([table.num_rows, table.column_names]).encode())
    return digest.hexdigest()


def sample_of(path: StrPath) -> str:
    """The hash of the sample that a table was made from. Raises LookalikeError for one that does not say."""
    return str(_entry(path, store.read_provenance(path), SAMPLE))


def check_sample(images: StrPath, *tables: StrPath, records: Mapping[StrPath, str] | None = None) -> str:
    """The sample's hash. Raises LookalikeError for a table, or a record's hash, that is of another one than ``images``.

    Which of the two is the stranger cannot be known from here, so all that follows from the sample is made again.
    """
    expected = sample_of(images)
    for path, found in [*((path, sample_of(path)) for path in tables), *(records or {}).items()]:
        if found != expected:
            raise LookalikeError(
                f"{path}: was made from another sample than {images} (of another data set, seed or time). Take the "
                f"sample again, and make what follows from it: --forcerun {images}"
            )
    return expected


def is_absent(path: StrPath) -> bool:
    """Whether a table is of a role that the data set lacks: no number is made from it, whereas an empty one counts."""
    return store.read_provenance(path).get(ROLE) == ABSENT


def shards(embeddings: Sequence[StrPath]) -> dict[str, str]:
    """The identity of each embedding shard, by its file's name."""
    return {Path(path).name: store.identity(path) for path in embeddings}


def hash_shards(embeddings: Sequence[StrPath]) -> str:
    """What tells sets of embedding shards apart, whatever their order."""
    return hashlib.sha256(json.dumps(shards(embeddings), sort_keys=True).encode()).hexdigest()


def check_shards(embeddings: Sequence[StrPath], indexed: Mapping[str, str], ids: StrPath) -> None:
    """Check that shards are those that an index was built from, as its ids' footer lists them."""
    found = shards(embeddings)
    if odd := sorted(name for name in {*found, *indexed} if found.get(name) != indexed.get(name)):
        raise LookalikeError(
            f"{Path(embeddings[0]).parent / odd[0]}: is not the shard that {ids} was built from. "
            f"Build the index again: --forcerun {ids}"
        )


def check_rejected(embeddings: Sequence[StrPath], rejected: Sequence[StrPath]) -> None:
    """Check that each table of rejected images was written beside the embeddings at its place in the list."""
    for path, beside in zip(rejected, embeddings, strict=False):
        ours, theirs = store.read_provenance(path), store.read_provenance(beside)
        _entry(beside, theirs, "shard_sha256")
        if _shared(ours) != _shared(theirs):
            raise LookalikeError(
                f"{path}: was not written together with {beside}. Embed this shard again: --forcerun {beside}"
            )


def check_search(first: StrPath, *others: StrPath) -> None:
    """Check that tables of neighbors were written by one search."""
    expected = _shared(store.read_provenance(first))
    _entry(first, expected, "shards_sha256")
    for path in others:
        if _shared(store.read_provenance(path)) != expected:
            raise LookalikeError(f"{path}: was not written together with {first}. Search again: --forcerun {first}")


def _entry(path: StrPath, footer: Mapping[str, Any], name: str) -> Any:
    """An entry that every file of its kind has: one that is missing would equal every other that is missing."""
    if not footer.get(name):
        raise LookalikeError(
            f"{path}: does not say what it was made from ({name}): another program, or an older version, wrote it. "
            f"{store.REMEDY}"
        )
    return footer[name]


def _shared(footer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in footer.items() if name not in OWN}
