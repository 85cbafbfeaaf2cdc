"""The JSON files that a run writes, and the columns of its CSV file."""

from collections.abc import Mapping
from typing import Any

from lookalike.io.formats.answers import Answer
from lookalike.io.formats.audit import Audit
from lookalike.io.formats.base import Estimate as Estimate
from lookalike.io.formats.base import Record as Record
from lookalike.io.formats.hard_negatives import HardNegatives
from lookalike.io.formats.thresholds import Target


class Baseline(Record):
    """Baselines of an agreement metric: random neighbors (``floor``) and those that the text selects (``ceiling``).

    ``reached`` is the model's position between the two, 0 to 1. ``not_counted`` counts the queries without a
    caption or category, and for nDCG also those without an agreeing reference.
    """

    floor: Estimate
    ceiling: Estimate
    reached: Estimate
    not_counted: int


STAGES = ("read", "decode", "preprocess", "transfer", "forward", "write")  # of embedding


class EmbedTiming(Record):
    """Timing of one embed job. ``seconds`` is the wall time of the whole stage after loading the model.

    ``images`` were computed in that time; ``from_store`` more were taken from the vector store before and after. It is
    ``representative`` of the model's speed if those were at most as many, and hardly any was read in between.

    ``stages``, in seconds: `read`, `decode` and `preprocess` are summed over the threads; `transfer` (to a GPU and
    back) and `forward` are device time; `write` and `wait` (for images) are wall time.
    """

    images: int
    seconds: float
    load_seconds: float
    device: str
    batch_size: int
    from_store: int = 0
    representative: bool = True
    threads: int = 1
    precision: str = ""  # compute dtype, such as float32
    engine: str = ""  # onnxruntime or torch; other families: python
    stages: dict[str, float] = {}
    bottleneck: str = ""  # one of the stages (see ``bottleneck``)
    peak_memory_mb: float | None = None  # of the process, model included
    peak_gpu_memory_mb: float | None = None  # reserved by torch; None without a GPU

    @property
    def images_per_second(self) -> float:
        """Throughput of the embed stage without model loading."""
        return self.images / self.seconds if self.seconds else 0.0


def bottleneck(stages: dict[str, float], threads: int) -> str:
    """The stage of embedding to speed up first; empty if nothing was measured.

    Threads prepare images while the device computes. The slowest of preparing (divided among the threads), computing
    and writing decides; its longest stage is the bottleneck.
    """
    parts = {("read", "decode", "preprocess"): threads, ("transfer", "forward"): 1, ("write",): 1}
    seconds = {part: sum(stages.get(stage, 0.0) for stage in part) / workers for part, workers in parts.items()}
    slowest = max(seconds, key=lambda part: seconds[part])
    return max(slowest, key=lambda stage: stages.get(stage, 0.0)) if seconds[slowest] else ""


class SearchTiming(Record):
    """Wall times of one search job in seconds: ``read_seconds`` to load the index, ``seconds`` to search.

    For a scan index, reading the shards is part of the search. ``latency`` is of queries searched one by one, of which
    there are ``latency_queries``.
    """

    queries: int
    read_seconds: float
    seconds: float
    device: str = ""
    latency_queries: int = 0
    latency_median: float | None = None
    latency_p95: float | None = None
    peak_memory_mb: float | None = None  # as of embedding, before the latency is measured
    peak_gpu_memory_mb: float | None = None


class HeldOut(Record):
    """Precision and recall, on one half of the queries, of a threshold chosen on the other half.

    ``precision`` is over the accepted pairs (its ``n``), ``recall`` over the true pairs of the second half. All are
    None if no threshold reaches the target precision on the first half.
    """

    threshold: float | None
    chosen_on: int  # queries
    queries: int  # in the half that it is evaluated on
    precision: Estimate
    recall: Estimate


class Threshold(Record):
    """The lowest score at which accepted pairs have a precision of 90 %, with precision and recall on these queries.

    ``score`` is a cosine similarity, or a normalised score (docs/metrics.md). All are None if no score is that precise.
    """

    score: float | None
    precision: float | None
    recall: float | None
    held_out: HeldOut


class Curve(Record):
    """Precision and recall for accepting pairs of at least ``score``; at most 201 points, in descending score."""

    score: list[float]
    precision: list[float]
    recall: list[float]


class Scan(Record):
    """``results/{dataset}/indexes/{model}/{index}.faiss`` of a scan index: a list of the shards to search.

    ``shards``: path relative to this file -> number of references in it.
    """

    shards: dict[str, int]


class Cost(Record):
    """Storage costs in bytes: ``vector_bytes`` of one embedding as stored, ``index_bytes`` of the index file.

    For a scan index, ``index_bytes`` counts the vectors in the shards that it lists.
    """

    dimension: int
    stored_dtype: str
    vector_bytes: int
    vectors: int
    index_bytes: int

    @property
    def indexed_bytes(self) -> float:
        """Index bytes per vector, including the overhead of the index."""
        return self.index_bytes / self.vectors


class Metrics(Record):
    """``results/{dataset}/metrics/{model}/{index}.json``.

    ``groups`` counts the independent observations among the queries with a match: queries from one photograph form a
    group, and a query without a group is its own. ``thresholds`` and ``curves`` have the name of their metric as key.
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
    thresholds: dict[str, Threshold | Target] = {}  # recall_at_p90, recall_at_p90_sn; 90, 95, 99
    thresholds_sn: dict[str, Target] = {}  # 90, 95, 99 for normalised scores
    thresholds_scene: dict[str, Target] = {}  # the same without junk; empty if nothing is junk or that is not known
    curves: dict[str, Curve] = {}
    hard_negatives: dict[str, HardNegatives] = {}  # by threshold: queries without a match that it accepts
    baselines: dict[str, Baseline] = {}  # of the metrics that compare captions or categories
    timing: dict[str, Any]
    cost: Cost | None = None  # None in files of earlier versions
    sample_sha256: str = ""
    made_from: dict[str, str] = {}  # search output, and what scenes are judged by -> its identity
    audit: Audit | None = None  # None in files of earlier versions

    def threshold(self, metric: str) -> Threshold:
        """The threshold of ``recall_at_p90`` or ``recall_at_p90_sn``."""
        threshold = self.thresholds[metric]
        assert isinstance(threshold, Threshold), metric
        return threshold

    def targets(self, end: str = "") -> dict[str, Target]:
        """The thresholds of each target precision, for raw scores, normalised ones (``_sn``), or ``_scene``."""
        named: Mapping[str, Threshold | Target] = self.thresholds_sn if end == "_sn" else self.thresholds
        if end == "_scene" and self.thresholds_scene:
            named = self.thresholds_scene
        return {percent: target for percent, target in named.items() if isinstance(target, Target)}


class Case(Record):
    """Queries with one outcome for two models: their number, and a selection of ids (see docs/file-formats-json.md)."""

    count: int
    queries: list[str]


class Cases(Record):
    """The four outcomes of two models with one index, by whose first neighbor is correct; queries with a match only.

    ``only_a_b_near``: those of ``only_a`` where b has a match among its first three; None if k is below 3.
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
    """Two models on the same queries; ``difference`` is a minus b, and ``verdict`` is about a.

    ``tests`` is the number of tests that ``p_holm`` is corrected for. With ``queries_needed`` queries, which are
    ``groups_needed`` groups, a difference of this size would be significant in 80 of 100 repetitions; None if it is
    significant or nothing can be said.
    """

    index: str
    metric: str
    a: str
    b: str
    difference: Estimate
    p: float
    p_holm: float
    tests: int = 1
    verdict: str  # better, worse, cannot tell, too few groups
    queries_needed: int | None = None
    groups_needed: int | None = None


class Approximation(Record):
    """The cost of an approximate index for a model, compared with an exact one.

    ``recall`` is that of the exact top k. ``differences`` of metrics are this index minus the exact one. ``speed`` is
    its queries per second as a multiple of the exact index's, None if a timing is missing. ``index_bytes_per_vector``
    is ``Cost.indexed_bytes``.
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
    """The effect of changing one key of a varied model from its own value to another.

    ``pairs`` are the models that differ only in this key (with ``value``, with ``own``). ``difference`` is their mean,
    ``least`` and ``most`` the smallest and the largest difference.
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
    verdict: str  # about ``value``: better, worse, cannot tell, too few groups
    queries_needed: int | None = None  # as in ``Comparison``


class Following(Record):
    """Which cues one model follows.

    ``evidence``: `color_overlap` is the fraction of its neighbors that the color histogram finds too. `color`, `grey`,
    `text` and `paste` are the accuracy under that operation minus the accuracy under all other single operations. Only
    what the experiment can measure is present.
    """

    index: str
    model: str
    evidence: dict[str, Estimate]


class Claim(Record):
    """A claim of an article, tested on one model.

    ``difference`` is the model's ``measure`` minus that of ``against``: the mean of these models, the best of them, or
    one with vectors of the same dimension (``by``). ``more``: a positive difference confirms the claim. ``reason``: why
    the claim could not be tested; it is then undecided.
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
    answers: dict[str, Answer]  # need -> answer
    cases: list[Cases] = []
    approximations: list[Approximation] = []
    effects: list[Effect] = []
    follows: list[Following] = []
    claims: list[Claim] = []
    sample_sha256: str = ""
    metrics: dict[str, str] = {}  # model/index -> checksum of the compared metrics


class Duplicates(Record):
    """``results/reports/{experiment}/duplicates.json``: duplicate files among the embedded images.

    ``doubled`` counts the references with a duplicate reference, which form ``groups``. ``undecidable`` counts the
    queries that no model can be sure to answer correctly: their true match has a duplicate that is not a match.
    ``queries_like_match`` and ``queries_like_other`` count the queries that duplicate their true match and another
    reference; a query may count in both. ``examples`` are pairs of ids, with the names of the counts as keys.
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
    shards_sha256: str = ""  # identity of the embedding shards


class Weights(Record):
    """``results/weights/{weights}/weights.json``: the fetched files and their hashes."""

    source: str
    revision: str
    files: dict[str, str]  # file name -> sha256


# Breakdowns by size: fixed classes of the longer side in pixels, comparable across models and data sets. Most networks
# take 224 to 518 pixels, so images of the first classes are enlarged.
SIDES = (128, 256, 512, 1024, 2048)
SIZES = (*(f"up to {side} px" for side in SIDES), f"above {SIDES[-1]} px", "unknown")

LEADERBOARD_COLUMNS = ("model", "index", "metric", "value", "low", "high", "n")
