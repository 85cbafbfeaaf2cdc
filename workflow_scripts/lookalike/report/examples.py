"""The examples: showcase images and a choice of queries with each model's neighbors, and their thumbnails."""

import base64
import hashlib
import io
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from lookalike.io import images, relevance, store
from lookalike.io.formats.tables import NEIGHBORS
from lookalike.report import negatives, scenes, words
from lookalike.report.evidence import Evidence, Run

SHOWN = 5  # neighbors per model
MOST_MATCHES = 2  # true matches shown next to a query
MOST_IMAGES = 600  # thumbnails, about 3 MB; many models mean fewer rows
MOST_FIRST = 40  # rows configured to be shown first; they get at most half of the thumbnails
SIDE = 112  # pixels

# Rows per outcome, 40 in all. Disagreement shows most; outcomes with too few queries leave their rows to the others.
QUOTAS = {"disagree": 20, "wrong": 8, "right": 6, "none": 6}
MOST_UNMATCHED = 300  # rows where no query has a match: what the models find is all that there is to see
NO_SCORE = float("-inf")

Rows = list[dict[str, Any]]  # of a table of neighbors or of the truth
ByQuery = dict[str, Rows]


@dataclass(frozen=True)
class Thumbnail:
    """An image in the report: its CSS class, or the reason why it is not available."""

    name: str
    image_id: str
    reason: str = ""


@dataclass(frozen=True)
class Hit:
    """A neighbor."""

    image: Thumbnail
    rank: int
    score: float
    right: bool


@dataclass(frozen=True)
class Strip:
    """The first neighbors that one model found for a query, with a short status."""

    run: Run
    hits: list[Hit]
    status: str
    right: bool
    rejected: str = ""


@dataclass(frozen=True)
class Row:
    """A query or showcase image with its matches and each model's neighbors."""

    query: Thumbnail
    operations: str
    kind: str
    outcome: str
    matches: list[Thumbnail]
    more_matches: int
    strips: list[Strip]


@dataclass(frozen=True)
class Examples:
    """The rows, the thumbnails of the report, and the outcomes of all queries.

    ``first`` are the images that are configured to be shown first; ``more`` counts those omitted for space.
    """

    first: list[Row]
    more: int
    rows: list[Row]
    thumbnails: "_Thumbnails"
    outcomes: Counter[str]  # of all queries, shown or not
    shown: Counter[str]
    kinds: list[str]


def make(evidence: Evidence) -> Examples:
    """Choose the examples and load their thumbnails.

    Tables of neighbors are read one at a time, so one table bounds the memory: once for all outcomes, once for the
    chosen rows.
    """
    right = {run.model: _right_queries(evidence, run) for run in evidence.models}
    outcome = _outcomes(evidence, right)
    operations = dict(zip(evidence.queries["image_id"].to_pylist(), _operations(evidence), strict=True))
    configured = _configured(evidence)
    kinds = {query: words.operation_kind(steps) for query, steps in operations.items()}
    chosen = choose(outcome, kinds, sum(QUOTAS.values()) if evidence.matched else MOST_UNMATCHED)
    chosen = [query for query in chosen if query not in configured]
    ids = pa.array([*configured[:MOST_FIRST], *chosen], pa.string())
    truth = _by_query(relevance.pairs_of(ids, evidence.truth, evidence.images), ids)
    neighbors = {run.model: _neighbors(run, ids) for run in evidence.models}
    first = _affordable(configured[:MOST_FIRST], truth, neighbors, MOST_IMAGES // 2)
    shown = _image_ids(first, truth, neighbors)
    chosen = _affordable(chosen, truth, neighbors, MOST_IMAGES - len(shown))
    chosen.sort(key=lambda query: list(QUOTAS).index(outcome[query]))
    duplicates = [image_id for pairs in evidence.duplicates.examples.values() for pair in pairs for image_id in pair]
    chosen_ids = _image_ids(chosen, truth, neighbors)
    beside = [*duplicates, *scenes.image_ids(evidence), *negatives.image_ids(evidence)]
    thumbnails = _Thumbnails(evidence, [*shown, *chosen_ids, *beside])
    reasons = {(image.image_id, model): image.reason for image in evidence.rejected for model in image.models}

    def row(query: str) -> Row:
        matches = sorted(match["reference_id"] for match in truth.get(query, []))
        strips = [
            _strip(
                run,
                neighbors[run.model].get(query, []),
                matches,
                thumbnails,
                k=evidence.k,
                reason=reasons.get((query, run.model), ""),
            )
            for run in evidence.models
        ]
        return Row(
            thumbnails.of(query),
            words.operations(operations.get(query)),
            words.operation_kind(operations.get(query)),
            outcome.get(query, "showcase"),
            [thumbnails.of(match) for match in matches[:MOST_MATCHES]],
            max(0, len(matches) - MOST_MATCHES),
            strips,
        )

    rows = [row(query) for query in chosen]
    return Examples(
        [row(query) for query in first],
        len(configured) - len(first),
        rows,
        thumbnails,
        Counter(outcome.values()),
        Counter(row.outcome for row in rows),
        sorted({row.kind for row in rows if row.kind}, key=lambda kind: (kind == "chain", kind)),
    )


def _right_queries(evidence: Evidence, run: Run) -> set[str]:
    neighbors = store.read_table(run.neighbors, NEIGHBORS)
    return right_queries(neighbors, relevance.right_among(neighbors, evidence.truth, evidence.images))


def right_queries(neighbors: pa.Table, truth: pa.Table) -> set[str]:
    """Queries whose first neighbor is a true match. At equal scores wrong references rank first: ties are misses."""
    known = truth.append_column("right", pa.array([True] * truth.num_rows, pa.bool_()))
    marked = neighbors.join(known, keys=["query_id", "reference_id"], join_type="left outer")
    nothing = pa.scalar(None, pa.float32())
    is_right = pc.is_valid(marked["right"])
    scores = pa.table(
        {
            "query_id": marked["query_id"],
            "right": pc.if_else(is_right, marked["score"], nothing),
            "wrong": pc.if_else(is_right, nothing, marked["score"]),
        }
    )
    best = scores.group_by("query_id", use_threads=False).aggregate([("right", "max"), ("wrong", "max")])
    first = pc.greater(pc.fill_null(best["right_max"], NO_SCORE), pc.fill_null(best["wrong_max"], NO_SCORE))
    return set(best.filter(first)["query_id"].to_pylist())


def _outcomes(evidence: Evidence, right: dict[str, set[str]]) -> dict[str, str]:
    """By query: ``right`` or ``wrong`` for all models, ``disagree``, or ``none`` if the query has no match."""

    def outcome(query: str) -> str:
        if query not in evidence.matched:
            return "none"
        hits = sum(query in queries for queries in right.values())
        return "right" if hits == len(right) else "disagree" if hits else "wrong"

    return {query: outcome(query) for query in evidence.queries["image_id"].to_pylist()}


def _configured(evidence: Evidence) -> list[str]:
    """Ids of the images that are configured to be shown, sorted."""
    if "showcase" not in evidence.images.column_names:
        return []
    return sorted(evidence.images.filter(evidence.images["showcase"])["image_id"].to_pylist())


def _operations(evidence: Evidence) -> list[str | None]:
    queries = evidence.queries
    return queries["operations"].to_pylist() if "operations" in queries.column_names else [None] * queries.num_rows


def choose(outcome: dict[str, str], kind: dict[str, str], most: int = sum(QUOTAS.values())) -> list[str]:
    """Queries to show, by priority: by quota of outcomes, and within a quota alternating between operations.

    A hash of the id breaks ties, so the choice is reproducible and unbiased.
    """
    waiting: dict[str, dict[str, list[str]]] = {name: {} for name in QUOTAS}
    for query in sorted(outcome, key=lambda query: hashlib.sha256(query.encode()).digest()):
        waiting[outcome[query]].setdefault(kind[query], []).append(query)
    mixed = {name: _in_turn(kinds[operation] for operation in sorted(kinds)) for name, kinds in waiting.items()}
    within = _in_turn(mixed[name][:quota] for name, quota in QUOTAS.items())
    spare = chain.from_iterable(mixed[name][quota:] for name, quota in QUOTAS.items())
    return [*within, *spare][:most]


def _in_turn(piles: Iterable[list[str]]) -> list[str]:
    """Interleave: the first of each pile, the second of each, and so on."""
    return [query for turn in zip_longest(*piles) for query in turn if query is not None]


def _by_query(table: pa.Table, queries: pa.Array) -> ByQuery:
    rows: ByQuery = {}
    for row in table.filter(pc.is_in(table["query_id"], value_set=queries)).to_pylist():
        rows.setdefault(row["query_id"], []).append(row)
    return rows


def _neighbors(run: Run, queries: pa.Array) -> ByQuery:
    rows = _by_query(store.read_table(run.neighbors, NEIGHBORS), queries)
    if run.showcase:
        rows |= _by_query(store.read_table(run.showcase, NEIGHBORS), queries)
    return {query: sorted(neighbors, key=lambda row: row["rank"]) for query, neighbors in rows.items()}


def _image_ids(queries: list[str], truth: ByQuery, neighbors: dict[str, ByQuery]) -> list[str]:
    """Ids of all images in the rows of these queries, without repetition."""
    ids: dict[str, None] = {}
    for query in queries:
        ids[query] = None
        ids.update(dict.fromkeys(sorted(match["reference_id"] for match in truth.get(query, []))[:MOST_MATCHES]))
        for of_model in neighbors.values():
            ids.update(dict.fromkeys(neighbor["reference_id"] for neighbor in of_model.get(query, [])[:SHOWN]))
    return list(ids)


def _affordable(queries: list[str], truth: ByQuery, neighbors: dict[str, ByQuery], most: int) -> list[str]:
    """As many of the queries as ``most`` thumbnails allow, and at least one."""
    seen: set[str] = set()
    for place, query in enumerate(queries):
        seen.update(_image_ids([query], truth, neighbors))
        if place and len(seen) > most:
            return queries[:place]
    return queries


def _strip(run: Run, neighbors: Rows, matches: list[str], thumbnails: "_Thumbnails", *, k: int, reason: str) -> Strip:
    hits = [
        Hit(thumbnails.of(row["reference_id"]), row["rank"], row["score"], row["reference_id"] in matches)
        for row in neighbors[:SHOWN]
    ]
    if not neighbors:
        return Strip(run, hits, "image rejected" if reason else "no neighbors", False, reason)
    if not matches:
        return Strip(run, hits, f"top score {neighbors[0]['score']:.2f}", False)
    best = max((row["score"] for row in neighbors if row["reference_id"] in matches), default=math.inf)
    before = [row["score"] for row in neighbors if row["reference_id"] not in matches and row["score"] >= best]
    rank = len(before) + 1
    if best == math.inf or rank > k:
        return Strip(run, hits, f"no match in the top {k}", False)
    return Strip(run, hits, f"match at rank {rank}" + (", tied" if best in before else ""), rank == 1)


class _Thumbnails:
    """Thumbnails by image id. ``data`` maps CSS classes to data URIs and holds each distinct thumbnail once."""

    def __init__(self, evidence: Evidence, ids: list[str]) -> None:
        is_shown = pc.is_in(evidence.images["image_id"], value_set=pa.array(ids, pa.string()))
        rows = evidence.images.filter(is_shown).select(["image_id", "root", "path"]).to_pylist()
        self.data: dict[str, str] = {}
        self._names: dict[str, str] = {}  # data URI -> CSS class
        self._known: dict[str, Thumbnail] = {}
        files = {row["image_id"]: row for row in rows}
        for image_id in ids:  # in order of appearance, so that the report is reproducible
            if image_id in files:
                self._known[image_id] = self._load(**files[image_id])

    def of(self, image_id: str) -> Thumbnail:
        return self._known.get(image_id) or Thumbnail("", image_id, "not in the sample")

    def _load(self, image_id: str, root: str, path: str) -> Thumbnail:
        try:
            image = images.load(root, path)
        except images.BadImage as bad:
            return Thumbnail("", image_id, str(bad))
        uri = thumbnail(image)
        name = self._names.setdefault(uri, f"p{len(self._names)}")
        self.data[name] = uri
        return Thumbnail(name, image_id)


def thumbnail(image: Image.Image) -> str:
    """A small WebP data URI with the aspect ratio of the image."""
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=80, method=2)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
