"""The tables that a run writes: columns, types, and the check that both writer and reader call.

Only plain Arrow types are used, so that the files can be opened without Lookalike.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.job.errors import LookalikeError

STRING = pa.string()
HASH_TABLE_LIMIT = 1 << 18  # largest number of ids to keep in a hash table, for its memory
BLOCK = 1 << 12  # ids converted to Python strings at a time


def hashes_of(ids: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """Hash n strings to (n,) uint64: 8 bytes each, a tenth of what a hash table takes. Only equal in this process."""
    hashes = np.empty(len(ids), np.int64)
    for start in range(0, len(ids), BLOCK):
        block = ids.slice(start, BLOCK)
        hashes[start : start + len(block)] = np.fromiter(map(hash, block.to_pylist()), np.int64, len(block))
    return hashes.view(np.uint64)


def _codes(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """(n,) numbers, equal for equal values of a column."""
    indices = pc.dictionary_encode(column).combine_chunks().indices
    return np.asarray(indices.to_numpy(zero_copy_only=False), np.int64)


@dataclass(frozen=True)
class Format:
    """The contract of one kind of Parquet table.

    ``columns`` are required and ``optional`` columns may be present, as may string columns with the prefix ``open_to``,
    unless that is empty. The values of the ``unique`` columns, taken together, must not repeat. Of the required columns
    only ``nullable`` ones may contain nulls.
    """

    name: str
    columns: dict[str, pa.DataType]
    optional: dict[str, pa.DataType] = field(default_factory=dict)
    unique: tuple[str, ...] = ()
    nullable: frozenset[str] = frozenset()
    open_to: str = ""

    def schema(self, *optional: str) -> pa.Schema:
        """The Arrow schema with the required columns and the given optional ones."""
        return pa.schema({**self.columns, **{name: self.optional.get(name, STRING) for name in optional}})

    def is_open_to(self, column: str) -> bool:
        """Whether a data set may add this column, which the format does not list."""
        return bool(self.open_to) and column.startswith(self.open_to)

    def __str__(self) -> str:
        return f"a table of {self.name}"

    def check(self, table: pa.Table, where: object) -> pa.Table:
        """Return ``table`` if it satisfies the contract, else raise LookalikeError naming ``where`` and the column."""
        for name, dtype in self.columns.items():
            if name not in table.column_names:
                raise LookalikeError(f"{where}: no column '{name}'; {self} has {', '.join(self.columns)}.")
            self._check_type(table, name, dtype, where)
        for name in table.column_names:
            if name not in self.columns and name not in self.optional and not self.is_open_to(name):
                raise LookalikeError(f"{where}: {self} has no column '{name}'.")
            if name in self.optional or self.is_open_to(name):
                self._check_type(table, name, self.optional.get(name, STRING), where)
            elif name not in self.nullable and (empty := table[name].null_count):
                raise LookalikeError(f"{where}: {empty} nulls in column '{name}'; {self} allows none.")
        self._check_unique(table, where)
        return table

    def _check_type(self, table: pa.Table, name: str, expected: pa.DataType, where: object) -> None:
        actual = table.schema.field(name).type
        if not (is_vector(actual) if expected == VECTOR else actual == expected):
            raise LookalikeError(f"{where}: column '{name}' is {actual}; in {self} it is {expected}.")

    def _check_unique(self, table: pa.Table, where: object) -> None:
        if not self.unique or not table.num_rows:
            return
        if (
            len(self.unique) == 1 and table.num_rows > HASH_TABLE_LIMIT
        ):  # a hash table of millions of ids takes a gigabyte
            hashes = hashes_of(table[self.unique[0]])
            ordered = np.sort(hashes)
            table = table.filter(pa.array(np.isin(hashes, ordered[1:][ordered[1:] == ordered[:-1]])))
            if not table.num_rows:
                return
        codes = np.zeros(table.num_rows, np.int64)
        for name in self.unique:  # at most two columns of 2 ** 31 values; `group_by` would import pandas
            codes = codes * table.num_rows + _codes(table[name])
        _, firsts, counts = np.unique(codes, return_index=True, return_counts=True)
        repeated = firsts[counts > 1]
        if len(repeated):
            first = ", ".join(str(table[name][int(repeated.min())]) for name in self.unique)
            hint = " Rename one of the images." if self.unique == ("image_id",) else ""
            raise LookalikeError(
                f"{where}: duplicate {' and '.join(self.unique)} '{first}' ({len(repeated)} in total).{hint}"
            )


VECTOR = pa.list_(pa.float32())  # a placeholder for fixed_size_list<float32 or float16, D>, where D is the model's


def is_vector(dtype: pa.DataType) -> bool:
    """True for the types allowed in an embedding column: fixed-size lists of float32 or float16."""
    return pa.types.is_fixed_size_list(dtype) and dtype.value_type in (pa.float32(), pa.float16())


BY = "by_"  # prefix of the columns that a data set adds for breakdowns, such as `by_camera`

# What is known of an image before embedding. `bytes` is the file size; images of one `group` depend on each other
# (tiles of one photograph).
IMAGES = Format(
    "images",
    {
        "image_id": STRING,
        "reference": pa.bool_(),
        "query": pa.bool_(),
        "training": pa.bool_(),
        "root": STRING,
        "path": STRING,
        "bytes": pa.int64(),
        "group": STRING,
    },
    optional={
        "captions": pa.list_(STRING),
        "labels": pa.list_(STRING),
        "class": STRING,  # labelled collections: images of one class are right for each other (relevance.py)
        "operations": STRING,  # copies: "crop:medium" or "crop:medium + jpeg:heavy"; null for references
        "parameters": STRING,  # copies: the exact draws, as JSON
        "sha256": STRING,  # of the file's bytes, if sampling read them; null if it only listed the file
        "content_hash": STRING,  # of the file's contents (content_hashes.py); always present for files made by a run
        "scene": STRING,  # images of one scene show the same thing; null where unknown
        "showcase": pa.bool_(),  # shown in the report with its neighbors; without another role it counts nowhere
    },
    unique=("image_id",),
    nullable=frozenset({"group"}),
    open_to=BY,
)

# Written by make_images: the whole data set. `source` is the reference that a copy was made from; null for originals.
MANIFEST = Format(
    "manifest",
    {**IMAGES.columns, "source": STRING},
    optional=IMAGES.optional,
    unique=("image_id",),
    nullable=IMAGES.nullable | {"source"},
    open_to=BY,
)

# A query without a match has no row.
TRUTH = Format("truth", {"query_id": STRING, "reference_id": STRING}, unique=("query_id", "reference_id"))

# Only what embedding needs: a changed role or caption must not change a shard's bytes.
# `content_hash` detects an image that was replaced by another of the same size.
SHARD = Format(
    "shard",
    {"image_id": STRING, "root": STRING, "path": STRING, "bytes": pa.int64(), "content_hash": STRING},
    unique=("image_id",),
)

# `sha256` is of the decoded file's bytes, `width` and `height` are of the upright image, in pixels; vectors are not
# normalised.
EMBEDDINGS = Format(
    "embeddings",
    {"image_id": STRING, "sha256": STRING, "embedding": VECTOR},
    optional={"width": pa.int32(), "height": pa.int32()},
    unique=("image_id",),
)

REJECTED = Format("rejected", {"image_id": STRING, "path": STRING, "reason": STRING}, unique=("image_id",))

# Row i of the ids belongs to row i of the index.
INDEX_IDS = Format("index ids", {"image_id": STRING}, unique=("image_id",))

# What a model saw of every image of the sample: the hash and size of what was decoded, or why it was rejected.
INDEX_IMAGES = Format(
    "index images",
    {"image_id": STRING, "sha256": STRING, "width": pa.int32(), "height": pa.int32(), "reason": STRING},
    unique=("image_id",),
    nullable=frozenset({"sha256", "width", "height", "reason"}),
)

# `rank` counts from 1; `score` is cosine similarity, higher is nearer.
NEIGHBORS = Format(
    "neighbors",
    {"query_id": STRING, "rank": pa.int32(), "reference_id": STRING, "score": pa.float32()},
    unique=("query_id", "reference_id"),
)

# How much of its class each query found among its first R neighbors, where R (`relevant`) is the number of right ones.
# `found` of them are right; `precision` is the sum of the precision at the rank of each.
CLASS_RANKS = Format(
    "class ranks",
    {"query_id": STRING, "relevant": pa.int32(), "found": pa.int32(), "precision": pa.float64()},
    unique=("query_id",),
)

# Duplicate files that include a reference; rows with equal `sha256` are duplicates of each other.
DUPLICATES = Format(
    "duplicates",
    {"sha256": STRING, "image_id": STRING, "reference": pa.bool_(), "query": pa.bool_(), "training": pa.bool_()},
    unique=("image_id",),
)

# Files that show the same image: re-saved, resized, compressed again, turned. `group` is the id of one of its images,
# which each of the others was compared with.
NEAR_DUPLICATES = Format("near duplicates", {"group": STRING, "image_id": STRING}, unique=("image_id",))

# Wrong references that rank before a true match, compared with it. `match_id` is that match, `rank` counts from 1.
AUDIT = Format(
    "audit",
    {
        "query_id": STRING,
        "rank": pa.int32(),
        "reference_id": STRING,
        "match_id": STRING,
        "verdict": STRING,  # same scene, other, unreadable
        "by": STRING,  # scene (the data set's column) or features
        "inliers": pa.int32(),  # places that agree; null unless by features
        "mirrored": pa.bool_(),
    },
    unique=("query_id", "reference_id"),
    nullable=frozenset({"inliers"}),
)

# Places of images on a plane, between -1 and 1: what a projection kept of a model's vectors, for people to look at.
MAP = Format("map", {"image_id": STRING, "x": pa.float32(), "y": pa.float32()}, unique=("image_id",))

FORMATS = (
    *(IMAGES, MANIFEST, TRUTH, SHARD, EMBEDDINGS, REJECTED, INDEX_IDS, INDEX_IMAGES, NEIGHBORS, DUPLICATES),
    *(CLASS_RANKS, NEAR_DUPLICATES, AUDIT, MAP),
)
