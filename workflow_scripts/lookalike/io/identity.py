"""Files that are read together must be of one sample, one search and one set of shards.

An intact file may still be the wrong one: of another data set or seed, copied to the wrong place, or left by a run
that was killed. So each file records what it was made from, and whoever reads several compares these records.
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
BUILT = ("index_sha256", "shards_sha256", "images_sha256")  # shared by an index, its images and its searches
ROWS = 1 << 16  # hashed at a time

StrPath = str | Path


def hash_sample(images: pa.Table, truth: pa.Table) -> str:
    """The identity of a sample: a hash over the rows and columns of the images and the truth table."""
    digest = hashlib.sha256()
    for table in (images, truth):
        for batch in table.combine_chunks().to_batches(max_chunksize=ROWS):
            digest.update(json.dumps(batch.to_pydict(), sort_keys=True).encode())
        digest.update(json.dumps([table.num_rows, table.column_names]).encode())
    return digest.hexdigest()


def hash_images(images: pa.Table) -> str:
    """The identity of the files of a sample or of its shards: a hash over ids and content hashes, in any order."""
    ordered = images.select(["image_id", "content_hash"]).sort_by("image_id")
    digest = hashlib.sha256()
    for batch in ordered.combine_chunks().to_batches(max_chunksize=ROWS):
        digest.update(json.dumps(list(batch.to_pydict().values())).encode())
    return digest.hexdigest()


def sample_of(path: StrPath) -> str:
    """The hash of the sample that a table was made from. Raises LookalikeError where it is not recorded."""
    return str(_entry(path, store.read_provenance(path), SAMPLE))


def check_sample(images: StrPath, *tables: StrPath, records: Mapping[StrPath, str] | None = None) -> str:
    """The sample's hash. Raises LookalikeError for a table, or a record's hash, of another sample than ``images``.

    Which of the two is wrong cannot be known here, so everything that follows from the sample is made again.
    """
    expected = sample_of(images)
    for path, recorded in [*((path, sample_of(path)) for path in tables), *(records or {}).items()]:
        if recorded != expected:
            raise LookalikeError(
                f"{path}: was made from another sample than {images} (of another data set, seed or time). Sample "
                f"again, which also remakes what depends on it: --forcerun {images}"
            )
    return expected


def is_absent(path: StrPath) -> bool:
    """Whether a table is of a role that the data set lacks: no metric is computed from it, unlike from an empty one."""
    return store.read_provenance(path).get(ROLE) == ABSENT


def shards(embeddings: Sequence[StrPath]) -> dict[str, str]:
    """The identity of each embedding shard, by its file's name."""
    return {Path(path).name: store.identity(path) for path in embeddings}


def hash_shards(embeddings: Sequence[StrPath]) -> str:
    """The identity of a set of embedding shards, whatever their order."""
    return hashlib.sha256(json.dumps(shards(embeddings), sort_keys=True).encode()).hexdigest()


def check_shards(embeddings: Sequence[StrPath], indexed: Mapping[str, str], ids: StrPath) -> None:
    """Check that shards are those that an index was built from, as its ids' footer lists them."""
    current = shards(embeddings)
    if differing := sorted(name for name in {*current, *indexed} if current.get(name) != indexed.get(name)):
        raise LookalikeError(
            f"{Path(embeddings[0]).parent / differing[0]}: is not the shard that {ids} was built from. "
            f"Build the index again: --forcerun {ids}"
        )


def check_rejected(embeddings: Sequence[StrPath], rejected: Sequence[StrPath]) -> None:
    """Check that each table of rejected images was written together with the embeddings at the same position."""
    for path, shard in zip(rejected, embeddings, strict=False):
        footer = store.read_provenance(shard)
        _entry(shard, footer, "shard_sha256")
        if _shared(store.read_provenance(path)) != _shared(footer):
            raise LookalikeError(
                f"{path}: was not written together with {shard}. Embed this shard again: --forcerun {shard}"
            )


def check_search(first: StrPath, *tables: StrPath) -> None:
    """Check that tables of neighbors were written by one search."""
    expected = _shared(store.read_provenance(first))
    _entry(first, expected, "shards_sha256")
    for path in tables:
        if _shared(store.read_provenance(path)) != expected:
            raise LookalikeError(f"{path}: was not written together with {first}. Search again: --forcerun {first}")


def _entry(path: StrPath, footer: Mapping[str, Any], name: str) -> Any:
    """A required entry of a footer: two missing entries would compare as equal."""
    if not footer.get(name):
        raise LookalikeError(
            f"{path}: does not record what it was made from ({name}): another program, or an older version, wrote it. "
            f"{store.REMEDY}"
        )
    return footer[name]


def _shared(footer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in footer.items() if name not in OWN}
