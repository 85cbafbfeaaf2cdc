"""Outside pictures, queries worth looking at, what each model found; and the pictures, each in the page once."""

import base64
import hashlib
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from lookalike.io import images, store
from lookalike.io.formats.tables import NEIGHBORS
from lookalike.report import words
from lookalike.report.evidence import Evidence, Run

SHOWN = 5  # neighbors of each model
MOST_MATCHES = 2  # true matches that are shown beside a query
MOST_PICTURES = 600  # about 3 MB; with many models, fewer rows
MOST_FIRST = 40  # rows of pictures that were asked for; they get half of the pictures at most
SIDE = 112  # pixels

# How many rows of each kind, of 40. Where models disagree there is most to see; what a kind has too few of, others get.
QUOTAS = {"disagree": 20, "wrong": 8, "right": 6, "none": 6}
NO_SCORE = float("-inf")


@dataclass(frozen=True)
class Picture:
    """A picture of the page: its CSS class, or the reason why it cannot be shown."""

    name: str
    image_id: str
    reason: str = ""


@dataclass(frozen=True)
class Hit:
    """A neighbor."""

    picture: Picture
    rank: int
    score: float
    right: bool


@dataclass(frozen=True)
class Strip:
    """The first neighbors that one model found for a query, and in a word how well it did."""

    run: Run
    hits: list[Hit]
    status: str
    right: bool
    rejected: str = ""


@dataclass(frozen=True)
class Row:
    """A query, or an outside picture, with everything that is shown of it."""

    query: Picture
    operations: str
    kind: str
    outcome: str
    matches: list[Picture]
    more_matches: int
    strips: list[Strip]


@dataclass(frozen=True)
class Examples:
    """The rows, the pictures of the page (CSS class -> data URI, and by id), and how all queries fell out.

    ``first`` are the pictures that the configuration wants to see, ``more`` those of them that there is no room for.
    """

    first: list[Row]
    more: int
    rows: list[Row]
    pictures: dict[str, str]
    album: "_Pictures"
    outcomes: Counter[str]  # of all queries, not only those that are shown
    shown: Counter[str]
    kinds: list[str]


def make(evidence: Evidence) -> Examples:
    """Choose queries and gather their pictures.

    The tables of neighbors are read one at a time, whole for the outcomes and then only the chosen rows, so that
    memory is bounded by one table.
    """
    right = {
        run.model: right_queries(store.read_table(run.neighbors, NEIGHBORS), evidence.truth) for run in evidence.models
    }
    outcome = _outcomes(evidence, right)
    written = dict(zip(evidence.queries["image_id"].to_pylist(), _operations(evidence), strict=True))
    wanted = _wanted(evidence)
    chosen = choose(outcome, {query: words.operation_kind(one) for query, one in written.items()})
    chosen = [query for query in chosen if query not in wanted]
    ids = pa.array([*wanted[:MOST_FIRST], *chosen], pa.string())
    truth = _by_query(evidence.truth, ids)
    found = {run.model: _neighbors(run, ids) for run in evidence.models}
    first = _affordable(wanted[:MOST_FIRST], truth, found, MOST_PICTURES // 2)
    shown = _picture_ids(first, truth, found)
    chosen = _affordable(chosen, truth, found, MOST_PICTURES - len(shown))
    chosen.sort(key=lambda query: list(QUOTAS).index(outcome[query]))
    twins = [one for pairs in evidence.duplicates.examples.values() for pair in pairs for one in pair]
    pictures = _Pictures(evidence, [*shown, *_picture_ids(chosen, truth, found), *twins])
    reasons = {(one.image_id, model): one.reason for one in evidence.rejected for model in one.models}

    def row(query: str) -> Row:
        matches = sorted(one["reference_id"] for one in truth.get(query, []))
        strips = [
            _strip(
                run,
                found[run.model].get(query, []),
                matches,
                pictures,
                k=evidence.k,
                reason=reasons.get((query, run.model), ""),
            )
            for run in evidence.models
        ]
        return Row(
            pictures.of(query),
            words.operations(written.get(query)),
            words.operation_kind(written.get(query)),
            outcome.get(query, "outside"),
            [pictures.of(match) for match in matches[:MOST_MATCHES]],
            max(0, len(matches) - MOST_MATCHES),
            strips,
        )

    rows = [row(query) for query in chosen]
    return Examples(
        [row(query) for query in first],
        len(wanted) - len(first),
        rows,
        pictures.data,
        pictures,
        Counter(outcome.values()),
        Counter(row.outcome for row in rows),
        sorted({row.kind for row in rows if row.kind}, key=lambda kind: (kind == "chain", kind)),
    )


def right_queries(neighbors: pa.Table, truth: pa.Table) -> set[str]:
    """Queries whose match came first. A wrong reference with the same score stands before it: ties count as misses."""
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
    """Of each query: all models right, all wrong, or do they disagree; ``none`` where there is no match to find."""

    def outcome(query: str) -> str:
        if query not in evidence.matched:
            return "none"
        hits = sum(query in found for found in right.values())
        return "right" if hits == len(right) else "disagree" if hits else "wrong"

    return {query: outcome(query) for query in evidence.queries["image_id"].to_pylist()}


def _wanted(evidence: Evidence) -> list[str]:
    """The pictures that are to be shown whatever was found for them, in the order of their ids."""
    if "showcase" not in evidence.images.column_names:
        return []
    return sorted(evidence.images.filter(evidence.images["showcase"])["image_id"].to_pylist())


def _operations(evidence: Evidence) -> list[str | None]:
    queries = evidence.queries
    return queries["operations"].to_pylist() if "operations" in queries.column_names else [None] * queries.num_rows


def choose(outcome: dict[str, str], kind: dict[str, str]) -> list[str]:
    """Queries to show, most wanted first: by quota, and within a quota one operation after the other.

    Among equals a hash of the id decides, so that the choice is the same every time and nobody's favorite.
    """
    waiting: dict[str, dict[str, list[str]]] = {name: {} for name in QUOTAS}
    for query in sorted(outcome, key=lambda query: hashlib.sha256(query.encode()).digest()):
        waiting[outcome[query]].setdefault(kind[query], []).append(query)
    mixed = {name: _in_turn(kinds[one] for one in sorted(kinds)) for name, kinds in waiting.items()}
    wanted = _in_turn(mixed[name][:quota] for name, quota in QUOTAS.items())
    spare = chain.from_iterable(mixed[name][quota:] for name, quota in QUOTAS.items())
    return [*wanted, *spare][: sum(QUOTAS.values())]


def _in_turn(piles: Iterable[list[str]]) -> list[str]:
    """The first of each pile, the second of each, and so on."""
    return [one for turn in zip_longest(*piles) for one in turn if one is not None]


def _by_query(table: pa.Table, queries: pa.Array) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in table.filter(pc.is_in(table["query_id"], value_set=queries)).to_pylist():
        rows.setdefault(row["query_id"], []).append(row)
    return rows


def _neighbors(run: Run, queries: pa.Array) -> dict[str, list[dict[str, Any]]]:
    rows = _by_query(store.read_table(run.neighbors, NEIGHBORS), queries)
    if run.showcase:
        rows |= _by_query(store.read_table(run.showcase, NEIGHBORS), queries)
    return {query: sorted(found, key=lambda row: row["rank"]) for query, found in rows.items()}


Found = dict[str, dict[str, list[dict[str, Any]]]]  # model -> query -> rows of neighbors


def _picture_ids(queries: list[str], truth: dict[str, list[dict[str, Any]]], found: Found) -> list[str]:
    """Every picture that rows of these queries show, once."""
    ids: dict[str, None] = {}
    for query in queries:
        ids[query] = None
        ids.update(dict.fromkeys(sorted(one["reference_id"] for one in truth.get(query, []))[:MOST_MATCHES]))
        for neighbors in found.values():
            ids.update(dict.fromkeys(one["reference_id"] for one in neighbors.get(query, [])[:SHOWN]))
    return list(ids)


def _affordable(queries: list[str], truth: dict[str, list[dict[str, Any]]], found: Found, most: int) -> list[str]:
    """As many of the queries as ``most`` pictures allow, and one at least."""
    seen: set[str] = set()
    for place, query in enumerate(queries):
        seen.update(_picture_ids([query], truth, found))
        if place and len(seen) > most:
            return queries[:place]
    return queries


def _strip(
    run: Run, neighbors: list[dict[str, Any]], matches: list[str], pictures: "_Pictures", *, k: int, reason: str
) -> Strip:
    hits = [
        Hit(pictures.of(one["reference_id"]), one["rank"], one["score"], one["reference_id"] in matches)
        for one in neighbors[:SHOWN]
    ]
    if not neighbors:
        return Strip(run, hits, "picture rejected" if reason else "no neighbors", False, reason)
    if not matches:
        return Strip(run, hits, f"nearest at {neighbors[0]['score']:.2f}", False)
    right = [one for one in neighbors if one["reference_id"] in matches]
    if not right:
        return Strip(run, hits, f"not in the first {k}", False)
    best = max(one["score"] for one in right)
    before = [one for one in neighbors if one["reference_id"] not in matches and one["score"] >= best]
    rank = len(before) + 1
    tied = any(one["score"] == best for one in before)
    if rank > k:
        return Strip(run, hits, f"not in the first {k}", False)
    status = "found first" if rank == 1 else f"found at rank {rank}"
    return Strip(run, hits, f"{status}, tied" if tied else status, rank == 1)


class _Pictures:
    """Thumbnails by image id. ``data`` has every distinct one once, whatever number of ids or places share it."""

    def __init__(self, evidence: Evidence, ids: list[str]) -> None:
        here = pc.is_in(evidence.images["image_id"], value_set=pa.array(ids, pa.string()))
        rows = evidence.images.filter(here).select(["image_id", "root", "path"]).to_pylist()
        self.data: dict[str, str] = {}
        self._names: dict[str, str] = {}  # data URI -> CSS class
        self._known: dict[str, Picture] = {}
        where = {row["image_id"]: row for row in rows}
        for image_id in ids:  # in order of appearance, so that the page is the same every time
            if image_id in where:
                self._known[image_id] = self._load(**where[image_id])

    def of(self, image_id: str) -> Picture:
        return self._known.get(image_id) or Picture("", image_id, "not in the sample")

    def _load(self, image_id: str, root: str, path: str) -> Picture:
        try:
            image = images.load(root, path)
        except images.BadImage as bad:
            return Picture("", image_id, str(bad))
        uri = thumbnail(image)
        name = self._names.setdefault(uri, f"p{len(self._names)}")
        self.data[name] = uri
        return Picture(name, image_id)


def thumbnail(image: Image.Image) -> str:
    """A small WebP as a data URI, its proportions kept."""
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=80, method=2)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
