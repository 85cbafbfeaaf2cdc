"""Every table and JSON file that a run writes: its columns, its types, and the check that both writer and reader call.

The files must open without this project, so only plain Arrow types are used. ``docs/file-formats.md`` describes
them for readers; a contract test holds that page against this module.
"""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from lookalike.errors import LookalikeError

STRING = pa.string()


@dataclass(frozen=True)
class Format:
    """The contract of one kind of Parquet table.

    ``columns`` are required, ``optional`` may be present, ``unique`` must not repeat (together), and only
    ``nullable`` columns may hold nulls.
    """

    name: str
    columns: dict[str, pa.DataType]
    optional: dict[str, pa.DataType] = field(default_factory=dict)
    unique: tuple[str, ...] = ()
    nullable: frozenset[str] = frozenset()

    def schema(self, *optional: str) -> pa.Schema:
        """The Arrow schema with the required columns and the named optional ones."""
        return pa.schema({**self.columns, **{name: self.optional[name] for name in optional}})

    def __str__(self) -> str:
        return f"a table of {self.name}"

    def check(self, table: pa.Table, where: object) -> pa.Table:
        """Return ``table`` if it keeps the contract, else raise LookalikeError naming ``where`` and the column."""
        for name, kind in self.columns.items():
            if name not in table.column_names:
                raise LookalikeError(f"{where}: no column '{name}'; {self} has {', '.join(self.columns)}.")
            self._check_type(table, name, kind, where)
        for name in table.column_names:
            if name not in self.columns and name not in self.optional:
                raise LookalikeError(f"{where}: {self} has no column '{name}'.")
            if name in self.optional:
                self._check_type(table, name, self.optional[name], where)
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
        "gallery": pa.bool_(),  # shown in the report with what it finds; one that has no other role counts nowhere
    },
    unique=("image_id",),
    nullable=frozenset({"group"}),
)

# What make_images wrote: the whole data set. `source` is the reference that a copy was made from, if it is one.
MANIFEST = Format(
    "manifest",
    {**IMAGES.columns, "source": STRING},
    optional=IMAGES.optional,
    unique=("image_id",),
    nullable=IMAGES.nullable | {"source"},
)

# A query without a match has no row.
TRUTH = Format("truth", {"query_id": STRING, "reference_id": STRING}, unique=("query_id", "reference_id"))

# What embedding needs and nothing else: a changed role or caption must not change a shard's bytes.
SHARD = Format("shard", {"image_id": STRING, "root": STRING, "path": STRING, "bytes": pa.int64()}, unique=("image_id",))

# `sha256` is of the bytes that were decoded, `width` and `height` the decoded picture's, upright, in pixels; vectors are
# not normalised.
EMBEDDINGS = Format(
    "embeddings",
    {"image_id": STRING, "sha256": STRING, "embedding": VECTOR},
    optional={"width": pa.int32(), "height": pa.int32()},
    unique=("image_id",),
)

REJECTED = Format("rejected", {"image_id": STRING, "path": STRING, "reason": STRING}, unique=("image_id",))

# Row i of an index file is row i of its ids file.
INDEX_IDS = Format("index ids", {"image_id": STRING}, unique=("image_id",))

# `rank` counts from 1; `score` is cosine similarity, higher is nearer.
NEIGHBORS = Format(
    "neighbors",
    {"query_id": STRING, "rank": pa.int32(), "reference_id": STRING, "score": pa.float32()},
    unique=("query_id", "reference_id"),
)

FORMATS = (IMAGES, MANIFEST, TRUTH, SHARD, EMBEDDINGS, REJECTED, INDEX_IDS, NEIGHBORS)


class Record(BaseModel):
    """A JSON file's contents: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Estimate(Record):
    """A number with its 95 % interval; ``n`` counts the queries it is an average over.

    All are None, and ``n`` is 0, where nothing can be said: no query, or too few references to be wrong with.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int


class Baseline(Record):
    """What a metric of agreement stands between: random neighbors, and those that the text itself would choose.

    ``reached`` is how far on the way from floor to ceiling the model is; ``not_counted`` are queries without a caption
    or category, and for nDCG those that no reference agrees with.
    """

    floor: Estimate
    ceiling: Estimate
    reached: Estimate
    not_counted: int


class EmbedTiming(Record):
    """What one embed job took. ``seconds`` is wall time of the whole stage after loading the model.

    ``stages``: `wait` (for pictures), `forward` and `write` are wall time; `read`, `decode` and `preprocess` are sums
    over the threads.
    """

    images: int
    seconds: float
    load_seconds: float
    device: str
    batch_size: int
    stages: dict[str, float] = {}

    @property
    def images_per_second(self) -> float:
        """Throughput of the embed stage, model loading left out."""
        return self.images / self.seconds if self.seconds else 0.0


class SearchTiming(Record):
    """What one search job took: reading the index and finding the neighbors, in seconds of wall time."""

    queries: int
    seconds: float
    index_bytes: int


class Metrics(Record):
    """``results/{dataset}/metrics/{model}/{index}.json``.

    ``groups`` counts the independent observations among the queries that have a match: those of one photograph or
    picture are one, and a query without a group is one by itself.
    """

    dataset: str
    model: str
    index: str
    references: int
    queries: int
    groups: int
    rejected_references: int
    rejected_queries: int
    metrics: dict[str, Estimate]
    breakdowns: dict[str, dict[str, dict[str, Estimate]]]  # column -> value -> metric -> estimate
    baselines: dict[str, Baseline] = {}  # of the metrics that judge neighbors by captions or categories
    timing: dict[str, Any]


class Comparison(Record):
    """Two models on the same queries; ``difference`` is a minus b, and ``verdict`` speaks of a."""

    index: str
    metric: str
    a: str
    b: str
    difference: Estimate
    p: float
    p_holm: float
    verdict: str  # better, worse, cannot tell


class Following(Record):
    """What one model follows.

    ``evidence``: `color_overlap` is the share of its neighbors that the color histogram finds too; `color`, `grey`,
    `text` and `paste` are the accuracy under that operation less the accuracy under all other single ones. Only what
    the experiment can tell is there.
    """

    index: str
    model: str
    evidence: dict[str, Estimate]


class Claim(Record):
    """A sentence of an article, tested on one model.

    ``difference`` is the model's ``measure`` less that of ``against``: the mean of these models, the best of them, or
    one that gives vectors of the same length (``by``). ``more`` says which sign confirms the sentence. ``reason`` says
    why a sentence could not be tested; it is undecided then.
    """

    article: str
    said: str
    model: str
    against: list[str]
    by: str
    index: str
    measure: str
    more: bool
    difference: Estimate
    p: float
    p_holm: float
    verdict: str  # confirmed, refuted, undecided
    reason: str


class Comparisons(Record):
    """``results/reports/{experiment}/comparisons.json``."""

    experiment: str
    comparisons: list[Comparison]
    follows: list[Following] = []
    claims: list[Claim] = []


class Weights(Record):
    """``results/weights/{model}.json``: what exactly was fetched, by name and hash."""

    source: str
    revision: str
    files: dict[str, str]  # file name -> sha256


LEADERBOARD_COLUMNS = ("model", "index", "metric", "value", "low", "high", "n")
