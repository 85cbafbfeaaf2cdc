"""Every JSON file that a run writes, and the columns of its CSV."""

from typing import Any

from pydantic import BaseModel, ConfigDict


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


STAGES = ("read", "decode", "preprocess", "transfer", "forward", "write")  # of embedding


class EmbedTiming(Record):
    """What one embed job took. ``seconds`` is wall time of the whole stage after loading the model.

    ``stages``: `read`, `decode` and `preprocess` are sums over the threads; `transfer` (to a GPU and back) and
    `forward` are the device's time; `write` is wall time, and so is `wait`, for pictures.
    """

    images: int
    seconds: float
    load_seconds: float
    device: str
    batch_size: int
    threads: int = 1
    precision: str = ""  # what was computed in, such as float32
    stages: dict[str, float] = {}
    bottleneck: str = ""  # of the stages (see ``bottleneck``)

    @property
    def images_per_second(self) -> float:
        """Throughput of the embed stage, model loading left out."""
        return self.images / self.seconds if self.seconds else 0.0


def bottleneck(stages: dict[str, float], threads: int) -> str:
    """The stage of embedding to make faster first; empty where nothing is known.

    Threads prepare pictures while a device computes: what takes longest of preparing (its sum shared among the
    threads), computing and writing decides, and the longest stage of that gives the name.
    """
    parts = {("read", "decode", "preprocess"): threads, ("transfer", "forward"): 1, ("write",): 1}
    took = {part: sum(stages.get(stage, 0.0) for stage in part) / workers for part, workers in parts.items()}
    slowest = max(took, key=lambda part: took[part])
    return max(slowest, key=lambda stage: stages.get(stage, 0.0)) if took[slowest] else ""


class SearchTiming(Record):
    """What one search job took, in seconds of wall time: reading the index, and finding the neighbors.

    Where the shards are scanned, reading them is part of finding.
    """

    queries: int
    read_seconds: float
    seconds: float


class HeldOut(Record):
    """How a threshold that was chosen on one half of the queries holds on the other half.

    ``precision`` is over the pairs that it accepts there (its ``n``), ``recall`` over the true pairs there. All are
    None where the first half has no cut of the wanted precision, and so no threshold.
    """

    threshold: float | None
    chosen_on: int  # queries
    queries: int  # of the other half
    precision: Estimate
    recall: Estimate


class Threshold(Record):
    """The score from which on pairs are accepted at a precision of 90 %, and what that means for these queries.

    ``score`` is a cosine similarity, or a normalised one (docs/metrics.md). All are None where no cut is that precise.
    """

    score: float | None
    precision: float | None
    recall: float | None
    held_out: HeldOut


class Curve(Record):
    """Precision and recall when pairs that score at least ``score`` are accepted; at most 201 points, falling score."""

    score: list[float]
    precision: list[float]
    recall: list[float]


class Scan(Record):
    """``results/{dataset}/indexes/{model}/{index}.faiss`` of a scan index: the shards that are searched instead.

    ``shards``: path of each, relative to this file, and how many references it holds.
    """

    shards: dict[str, int]


class Cost(Record):
    """What vectors cost: ``vector_bytes`` are one vector's as embedding stored it, ``index_bytes`` the index file's.

    Of a scan index ``index_bytes`` are those of the vectors that it names.
    """

    dimension: int
    stored_dtype: str
    vector_bytes: int
    vectors: int
    index_bytes: int

    @property
    def indexed_bytes(self) -> float:
        """Bytes of the index a vector; what an index needs besides its vectors is shared among them."""
        return self.index_bytes / self.vectors


class Metrics(Record):
    """``results/{dataset}/metrics/{model}/{index}.json``.

    ``groups`` counts the independent observations among the queries that have a match: those of one photograph or
    picture are one, and a query without a group is one by itself. ``thresholds`` are by the metric that they belong
    to, ``curves`` by the metric whose list they are of.
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
    thresholds: dict[str, Threshold] = {}
    curves: dict[str, Curve] = {}
    baselines: dict[str, Baseline] = {}  # of the metrics that judge neighbors by captions or categories
    timing: dict[str, Any]
    cost: Cost | None = None  # None in files of versions that did not write it
    sample_sha256: str = ""
    made_from: dict[str, str] = {}  # name of each file of the search -> what tells it from all others
    rejected_sha256: str = ""  # tells the tables of rejected pictures from all others


class Case(Record):
    """Queries that two models answered in one way: how many, and which; docs/file-formats.md says which are listed."""

    count: int
    queries: list[str]


class Cases(Record):
    """The four cases of two models with one index, by whose first neighbor is right; queries with a match only.

    ``only_a_b_near`` are those of ``only_a`` where b had a match among its first three; None where k is below 3.
    """

    index: str
    a: str
    b: str
    both: Case
    neither: Case
    only_a: Case
    only_b: Case
    only_a_b_near: Case | None
    only_b_a_near: Case | None


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


class Approximation(Record):
    """What an index that may miss neighbors costs a model, next to an exact one.

    ``recall`` is of the exact top k; ``differences`` are of metrics, this index minus the exact one; ``speed`` is its
    queries a second as a multiple of the exact one's, None where a timing is missing; ``index_bytes_per_vector`` is
    ``Cost.indexed_bytes``.
    """

    model: str
    index: str
    exact: str
    k: int
    recall: Estimate
    differences: dict[str, Estimate]
    speed: float | None
    index_bytes_per_vector: float | None


class Effect(Record):
    """One value of one key of a varied model against the model's own value.

    ``pairs`` are the models that differ in nothing else, with the value and with the own one; ``difference`` is
    averaged over them, and ``least`` and ``most`` are the smallest and the largest of theirs.
    """

    index: str
    metric: str
    key: str
    value: str
    own: str
    difference: Estimate
    least: float | None
    most: float | None
    pairs: list[tuple[str, str]]
    p: float
    p_holm: float
    verdict: str  # of the value: better, worse, cannot tell


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
    """``results/reports/{experiment}/comparisons.json``; ``effects`` only where the experiment varies one model."""

    experiment: str
    comparisons: list[Comparison]
    cases: list[Cases] = []
    approximations: list[Approximation] = []
    effects: list[Effect] = []
    follows: list[Following] = []
    claims: list[Claim] = []
    sample_sha256: str = ""
    metrics: dict[str, str] = {}  # model/index -> checksum of the metrics that were compared


class Duplicates(Record):
    """``results/reports/{experiment}/duplicates.json``: files of the same bytes, among the pictures that were embedded.

    ``doubled`` references are identical to another one, and form ``groups``. ``undecidable`` counts the queries that no
    model can be sure to get right: their true match has an identical reference that is not one. A query may count both
    as like its true match and as like another reference. ``examples`` are pairs of ids, under the names of the counts.
    """

    references: int
    queries: int
    doubled: int
    groups: int
    undecidable: int
    queries_like_match: int
    queries_like_other: int
    training_like_reference: int
    examples: dict[str, list[tuple[str, str]]]
    sample_sha256: str = ""
    shards_sha256: str = ""  # tells the embedding shards that were read from all others


class Weights(Record):
    """``results/weights/{model}.json``: what exactly was fetched, by name and hash."""

    source: str
    revision: str
    files: dict[str, str]  # file name -> sha256


# Breakdowns by size: the longer side in pixels, by fixed classes, so that they mean the same for every model and data
# set. Most networks see 224 to 518 pixels: pictures of the first classes are enlarged for them.
SIDES = (128, 256, 512, 1024, 2048)
SIZES = (*(f"up to {side} px" for side in SIDES), f"above {SIDES[-1]} px", "unknown")

LEADERBOARD_COLUMNS = ("model", "index", "metric", "value", "low", "high", "n")
