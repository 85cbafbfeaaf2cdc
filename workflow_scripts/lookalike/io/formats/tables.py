"""Every table that a run writes: its columns, its types, and the check that both writer and reader call.

The files must open without this project, so only plain Arrow types are used.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.job.errors import LookalikeError

STRING = pa.string()
FEW = 1 << 18  # ids: a hash table of no more is small
BLOCK = 1 << 12  # ids that are Python's strings at a time


def hashes_of(ids: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """(n,) 64-bit hashes of strings: 8 bytes each, where a hash table of them takes ten times as much."""
    from pandas.util import hash_array

    found = np.empty(len(ids), np.uint64)
    for start in range(0, len(ids), BLOCK):
        block = ids.slice(start, BLOCK)
        found[start : start + len(block)] = hash_array(np.asarray(block.to_pylist(), object), categorize=False)
    return found


@dataclass(frozen=True)
class Format:
    """The contract of one kind of Parquet table.

    ``columns`` are required, ``optional`` may be present, and so may string columns whose name begins with ``open_to``,
    if that is not empty. ``unique`` must not repeat (together), and of the required columns only ``nullable`` ones may
    hold nulls.
    """

    name: str
    columns: dict[str, pa.DataType]
    optional: dict[str, pa.DataType] = field(default_factory=dict)
    unique: tuple[str, ...] = ()
    nullable: frozenset[str] = frozenset()
    open_to: str = ""

    def schema(self, *optional: str) -> pa.Schema:
        """The Arrow schema with the required columns and the named optional ones."""
        return pa.schema({**self.columns, **{name: self.optional.get(name, STRING) for name in optional}})

    def is_open_to(self, column: str) -> bool:
        """Whether a column is one that a data set may bring without being named here."""
        return bool(self.open_to) and column.startswith(self.open_to)

    def __str__(self) -> str:
        return f"a table of {self.name}"

    def check(self, table: pa.Table, where: object) -> pa.Table:
        """Return ``table`` if it keeps the contract, else raise LookalikeError naming ``where`` and the column."""
        for name, kind in self.columns.items():
            if name not in table.column_names:
                raise LookalikeError(f"{where}: no column '{name}'; {self} has {', '.join(self.columns)}.")
            self._check_type(table, name, kind, where)
        for name in table.column_names:
            if name not in self.columns and name not in self.optional and not self.is_open_to(name):
                raise LookalikeError(f"{where}: {self} has no column '{name}'.")
            if name in self.optional or self.is_open_to(name):
                self._check_type(table, name, self.optional.get(name, STRING), where)
            elif name not in self.nullable and (empty := table[name].null_count):
                raise LookalikeError(f"{where}: {empty} empty cells in column '{name}'; {self} has none.")
        self._check_unique(table, where)
        return table

    def _check_type(self, table: pa.Table, name: str, expected: pa.DataType, where: object) -> None:
        found = table.schema.field(name).type
        if not (is_vector(found) if expected == VECTOR else found == expected):
            raise LookalikeError(f"{where}: column '{name}' is {found}; in {self} it is {expected}.")

    def _check_unique(self, table: pa.Table, where: object) -> None:
        if not self.unique or not table.num_rows:
            return
        if len(self.unique) == 1 and table.num_rows > FEW:  # a hash table of millions of names would take a gigabyte
            hashes = hashes_of(table[self.unique[0]])
            ordered = np.sort(hashes)
            table = table.filter(pa.array(np.isin(hashes, ordered[1:][ordered[1:] == ordered[:-1]])))
        counts = table.group_by(list(self.unique), use_threads=False).aggregate([([], "count_all")])
        repeated = counts.filter(pc.greater(counts["count_all"], 1))
        if repeated.num_rows:
            first = ", ".join(str(repeated[name][0]) for name in self.unique)
            hint = " Rename one of the pictures." if self.unique == ("image_id",) else ""
            raise LookalikeError(
                f"{where}: duplicate {' and '.join(self.unique)} '{first}' ({repeated.num_rows} in all).{hint}"
            )


VECTOR = pa.list_(pa.float32())  # stands for fixed_size_list<float32 or float16, D>, where D is the model's


def is_vector(kind: pa.DataType) -> bool:
    """True for the types that an embedding column may have: fixed-size lists of float32 or float16."""
    return pa.types.is_fixed_size_list(kind) and kind.value_type in (pa.float32(), pa.float16())


BY = "by_"  # begins the columns that a data set brings for breakdowns, such as `by_camera`

# What is known of a picture before anything is embedded. `bytes` is its size, `group` names what makes pictures
# dependent on each other (tiles of one photograph).
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
        "operations": STRING,  # copies: "crop:medium" or "crop:medium + jpeg:heavy"; null for references
        "parameters": STRING,  # copies: the exact draws, as JSON
        "sha256": STRING,  # of the file's bytes, where sampling read them; null where it only listed the file
        "content_hash": STRING,  # of the file's contents (content_hashes.py); a run's own files have it in every row
        "showcase": pa.bool_(),  # shown in the report with what it finds; one that has no other role counts nowhere
    },
    unique=("image_id",),
    nullable=frozenset({"group"}),
    open_to=BY,
)

# What make_images wrote: the whole data set. `source` is the reference that a copy was made from, if it is one.
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

# What embedding needs and nothing else: a changed role or caption must not change a shard's bytes.
# `content_hash` makes an image that was replaced by another of the same size a change.
SHARD = Format(
    "shard",
    {"image_id": STRING, "root": STRING, "path": STRING, "bytes": pa.int64(), "content_hash": STRING},
    unique=("image_id",),
)

# `sha256` is of the bytes that were decoded, `width` and `height` of the picture, upright, in pixels; vectors are not
# normalised.
EMBEDDINGS = Format(
    "embeddings",
    {"image_id": STRING, "sha256": STRING, "embedding": VECTOR},
    optional={"width": pa.int32(), "height": pa.int32()},
    unique=("image_id",),
)

REJECTED = Format("rejected", {"image_id": STRING, "path": STRING, "reason": STRING}, unique=("image_id",))

# Row i of an index file is row i of its ids file.
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

# Pictures of the same bytes, where one of them is a reference: those with the same `sha256` are identical.
DUPLICATES = Format(
    "duplicates",
    {"sha256": STRING, "image_id": STRING, "reference": pa.bool_(), "query": pa.bool_(), "training": pa.bool_()},
    unique=("image_id",),
)

FORMATS = (IMAGES, MANIFEST, TRUTH, SHARD, EMBEDDINGS, REJECTED, INDEX_IDS, INDEX_IMAGES, NEIGHBORS, DUPLICATES)
