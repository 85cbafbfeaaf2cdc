"""``lookalike.read_embeddings``: the vectors that a run wrote, with ids and roles."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lookalike.io import store
from lookalike.io.checks import IDENTITY
from lookalike.io.formats.tables import EMBEDDINGS, IMAGES
from lookalike.job.errors import LookalikeError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

Role = Literal["reference", "query", "training", "showcase"]
ROLES: tuple[Role, ...] = ("reference", "query", "training", "showcase")
# Duplicates take the vector of the first shard, in the order of a run (``plan.paths.Paths.shard_ids``).
PARTS = ("references", "images", "queries", "training", "showcase")


class Embeddings(NamedTuple):
    """The embeddings of one model on one data set; row i of each is of one image.

    ids: (n,) object, of str. vectors: (n, d) float32, not normalised. roles: a bool column for each role, with the ids
    as index; an image may have several roles.
    """

    ids: NDArray[np.object_]
    vectors: NDArray[np.float32]
    roles: "pd.DataFrame"


def read_embeddings(folder: str | os.PathLike[str], role: Role | None = None) -> Embeddings:
    """Read a folder of embeddings, ``results/{dataset}/embeddings/{model}``, in the order of its files.

    References, queries and training images are in one folder. With ``role``, only the images of that role are
    returned: reference, query, training, or showcase. Duplicate files have the vector of the first of them, as in
    index and search. Rejected images have no row.

    Raises LookalikeError for a folder without embeddings, a damaged or unfinished run, files of different settings,
    and a sample that does not belong to the vectors.
    """
    if role is not None and role not in ROLES:
        raise LookalikeError(f"role: is {role!r}.{did_you_mean(str(role), ROLES)} Use {', '.join(ROLES)}, or None.")
    folder = Path(folder)
    shards = sorted(folder.glob("*.parquet"), key=lambda path: (_part(path), path.name))
    if not shards:
        raise LookalikeError(
            f"{folder}: has no embeddings. Pass the folder of a model, such as results/demo/embeddings/pixels, of a "
            "finished run."
        )
    sample = folder.parent.parent / "sample"
    tables = [_shard(path, sample / "shards" / path.name, shards[0]) for path in shards]
    table = pa.concat_tables(tables)
    images = store.read_table(sample / "images.parquet", IMAGES)
    rejected = sum(_rejected(path) for path in shards)
    if table.num_rows + rejected != images.num_rows:
        raise LookalikeError(
            f"{folder}: {table.num_rows:,} embedded and {rejected:,} rejected images are not the {images.num_rows:,} "
            f"of {sample / 'images.parquet'}: the run is not finished, or files are left from another one. Run again."
        )
    vectors = _matrix(table["embedding"])[_first_of_its_content(table["sha256"])]
    roles = _roles(images, table["image_id"], sample / "images.parquet")
    if role is not None:
        vectors, roles = vectors[roles[role]], roles[roles[role]]
    return Embeddings(roles.index.to_numpy(object), vectors, roles)


def _part(path: Path) -> int:
    part = path.stem.rpartition("-")[0]
    return PARTS.index(part) if part in PARTS else len(PARTS)


def _shard(path: Path, sampled: Path, first: Path) -> pa.Table:
    """A shard's table. Raises LookalikeError if it is of another sample, or of other settings than the first one."""
    footer, expected = store.read_provenance(path), store.read_provenance(first)
    if differing := [name for name in IDENTITY if footer.get(name) != expected.get(name)]:
        raise LookalikeError(
            f"{path}: was embedded with other settings or code ({', '.join(differing)}) than {first.name}. Run again."
        )
    if footer.get("shard_sha256") != store.identity(sampled):
        raise LookalikeError(f"{path}: was embedded from another sample than {sampled}. Run again.")
    return store.read_table(path, EMBEDDINGS).select(["image_id", "sha256", "embedding"])


def _rejected(path: Path) -> int:
    """How many images of a shard were rejected."""
    return int(store.read_provenance(path.parents[2] / "rejected" / path.parent.name / path.name)["rows"])


def _matrix(column: pa.ChunkedArray) -> NDArray[np.float32]:
    size = column.type.list_size
    parts = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, size) for chunk in column.chunks]
    return np.concatenate([np.empty((0, size), np.float32), *parts]).astype(np.float32, copy=False)


def _first_of_its_content(sha256: pa.ChunkedArray) -> NDArray[np.int64]:
    """(n,) int64: for each row, the first row with the same file."""
    codes = sha256.combine_chunks().dictionary_encode().indices.to_numpy()
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    return np.asarray(first[inverse], np.int64)


def _roles(images: pa.Table, ids: pa.ChunkedArray, where: Path) -> "pd.DataFrame":
    import pandas as pd

    listed = {role: images[role].fill_null(False) for role in ROLES if role in images.column_names}
    known = pd.DataFrame(
        {role: listed[role].to_numpy() if role in listed else np.zeros(images.num_rows, bool) for role in ROLES},
        index=pd.Index(images["image_id"].to_pylist(), dtype=object),
    )
    rows = known.index.get_indexer(pd.Index(ids.to_pylist(), dtype=object))
    if (rows < 0).any():
        unknown = ids[int(np.argmin(rows))]
        raise LookalikeError(f"{where}: has no image '{unknown}', which is embedded. Run the workflow again.")
    return known.iloc[rows]
