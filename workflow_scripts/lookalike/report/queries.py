"""Every query of an experiment with what each model found for it, as arrays over queries."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, zip_longest

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.io import relevance, store
from lookalike.io.formats.audit import SAME_SCENE
from lookalike.io.formats.tables import AUDIT, NEIGHBORS
from lookalike.job.errors import LookalikeError
from lookalike.report import classmates, maps, tables, words
from lookalike.report.evidence import Evidence, Run
from lookalike.report.maps import Map

SHOWN = 5  # neighbors per model
MOST_MATCHES = 2  # true matches shown next to a query
MOST_QUERIES = 200_000  # listed in a report; a browser holds these, and the tables of neighbors hold all
PRECISION = "90"  # target whose threshold decides which mistakes a system would have acted on

# Rows per outcome in pages without scripts, 40 in all. Disagreement shows most; outcomes with too few queries leave
# their rows to the others.
QUOTAS = {"disagree": 20, "wrong": 8, "right": 6, "none": 6}
OUTCOMES = (*QUOTAS, "showcase")
REJECTED, NO_ROWS, UNRANKED = -1, -2, -3  # instead of a rank; UNRANKED: the query has no match
NOT_FOUND = 0

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Found:
    """What one model found, for n queries. Images are rows of the images table; -1 if missing.

    rank: (n,) of the best true match, from 1, ties counted against the model; NOT_FOUND beyond the first k; REJECTED,
        NO_ROWS or UNRANKED instead
    tied: (n,) whether a wrong reference has the score of the best true match
    margin: (n,) score of the best true match minus that of the best wrong reference; NaN if either is not among the
        neighbors
    accepted: (n,) whether the first neighbor reaches the threshold for 90 % precision
    hits, scores, right: (n, SHOWN) the first neighbors, their scores, and whether they are true matches
    scene: (n, SHOWN) whether they are wrong, and the audit saw the scene of a true match in them
    """

    run: Run
    threshold: float | None
    rank: Ints
    tied: Bools
    margin: Floats
    accepted: Bools
    hits: Ints
    scores: Floats
    right: Bools
    scene: Bools
    reasons: dict[int, str]  # of rejected queries, by position


@dataclass(frozen=True)
class Queries:
    """The listed queries: showcase images first, then those chosen for pages without scripts, then the others.

    ``images`` are rows of the images table. ``matches`` are the rows of each query's true matches, sorted by id.
    """

    evidence: Evidence
    images: Ints
    showcase: int  # the first so many are configured to be shown first
    chosen: int  # the next so many are varied, for pages without scripts
    outcome: list[str]
    matches: list[Sequence[int]]
    found: list[Found]
    outcomes: Counter[str]  # of all queries, listed or not
    maps: list[Map]

    @cached_property
    def ids(self) -> list[str]:
        """The ids of all images of the sample, by row."""
        return list(self.evidence.images["image_id"].to_pylist())

    @cached_property
    def operations(self) -> list[str | None]:
        """The operations of each listed query."""
        return self.column("operations")

    def column(self, name: str) -> list[str | None]:
        """A column of the images table for the listed queries; nulls if the data set has no such column."""
        if name not in self.evidence.images.column_names:
            return [None] * len(self.images)
        return list(self.evidence.images[name].take(pa.array(self.images)).to_pylist())

    @cached_property
    def shown_images(self) -> Ints:
        """Rows of the images that are shown, in order of first appearance, those that only maps show last."""
        matches = np.full((len(self.images), MOST_MATCHES), -1, np.int64)
        for place, of_query in enumerate(self.matches):
            matches[place, : len(of_query[:MOST_MATCHES])] = of_query[:MOST_MATCHES]
        shown = np.hstack([self.images[:, None], matches, *(found.hits for found in self.found)]).ravel()
        rows, first = np.unique(shown[shown >= 0], return_index=True)
        in_order = rows[np.argsort(first)]
        return np.asarray([*in_order, *np.setdiff1d(maps.all_rows(self.maps), rows)], np.int64)


def listed(evidence: Evidence) -> Queries:
    """Rank, judge and order the queries of an experiment. One table of neighbors is in memory at a time."""
    ids = evidence.images["image_id"].combine_chunks()
    is_query = evidence.images["query"].to_numpy()
    first = evidence.images["showcase"].to_numpy() if "showcase" in evidence.images.column_names else ~is_query & False
    candidates = np.flatnonzero(is_query | first)
    truth = _truth(evidence, ids)
    found = [_found(run, evidence, candidates, ids, truth) for run in evidence.models]
    matches = classmates.of(evidence.images) if evidence.labelled else _matches(truth, ids.to_pylist())
    outcome = _outcomes(candidates, is_query, matches, found)
    judged = Counter(outcome[place] for place, row in enumerate(candidates) if is_query[row])
    order = _order(evidence, candidates, first, outcome)
    kept = order.rows
    return Queries(
        evidence,
        candidates[kept],
        order.first,
        order.chosen,
        [outcome[place] for place in kept],
        [matches.get(row, []) for row in candidates[kept].tolist()],
        [_taken(one, kept) for one in found],
        judged,
        maps.read(evidence),
    )


@dataclass(frozen=True)
class _Order:
    rows: Ints
    first: int
    chosen: int


def _order(evidence: Evidence, candidates: Ints, first: Bools, outcome: list[str]) -> _Order:
    """The listed queries as positions among the candidates: configured ones, a varied choice, the others."""
    ids = evidence.images["image_id"].take(candidates).to_pylist()
    operations = (
        evidence.images["operations"].take(candidates).to_pylist()
        if "operations" in evidence.images.column_names
        else [None] * len(ids)
    )
    configured = sorted(np.flatnonzero(first[candidates]).tolist(), key=ids.__getitem__)
    shown = {ids[place] for place in configured}
    judged = {name: kind for name, kind in zip(ids, outcome, strict=True) if name not in shown}
    kinds = {name: words.operation_kind(steps) for name, steps in zip(ids, operations, strict=True)}
    places = {name: place for place, name in enumerate(ids)}
    chosen = sorted(
        (places[name] for name in choose(judged, kinds)), key=lambda place: list(QUOTAS).index(outcome[place])
    )
    ahead = {*configured, *chosen}
    others = [place for place in range(len(ids)) if place not in ahead]
    rows = np.asarray([*configured, *chosen, *others][:MOST_QUERIES], np.int64)
    return _Order(rows, len(configured), len(chosen))


def choose(outcome: dict[str, str], kind: dict[str, str]) -> list[str]:
    """Queries to show, by priority: by quota of outcomes, and within a quota alternating between operations.

    A hash of the id breaks ties, so the choice is reproducible and unbiased.
    """
    waiting: dict[str, dict[str, list[str]]] = {name: {} for name in QUOTAS}
    for query in sorted(outcome, key=lambda query: hashlib.sha256(query.encode()).digest()):
        waiting[outcome[query]].setdefault(kind[query], []).append(query)
    mixed = {name: _in_turn(kinds[operation] for operation in sorted(kinds)) for name, kinds in waiting.items()}
    within = _in_turn(mixed[name][:quota] for name, quota in QUOTAS.items())
    spare = chain.from_iterable(mixed[name][quota:] for name, quota in QUOTAS.items())
    return [*within, *spare][: sum(QUOTAS.values())]


def _in_turn(piles: Iterable[list[str]]) -> list[str]:
    """Interleave: the first of each pile, the second of each, and so on."""
    return [query for turn in zip_longest(*piles) for query in turn if query is not None]


def _matches(truth: tuple[Ints, Ints], ids: list[str]) -> dict[int, list[int]]:
    """The rows of each query's true matches, sorted by id."""
    matches: dict[int, list[int]] = {}
    for query, reference in zip(*(column.tolist() for column in truth), strict=True):
        matches.setdefault(query, []).append(reference)
    return {query: sorted(rows, key=ids.__getitem__) for query, rows in matches.items()}


def _outcomes(candidates: Ints, is_query: Bools, matches: Mapping[int, Sequence[int]], found: list[Found]) -> list[str]:
    """``right`` or ``wrong`` for all models, ``disagree``, ``none`` without a match, or ``showcase``."""
    hits = sum((one.rank == 1).astype(np.int64) for one in found)
    outcome = []
    for place, row in enumerate(candidates.tolist()):
        if not is_query[row]:
            outcome.append("showcase")
        elif row not in matches:
            outcome.append("none")
        else:
            count = int(hits[place])
            outcome.append("right" if count == len(found) else "disagree" if count else "wrong")
    return outcome


def _truth(evidence: Evidence, ids: pa.Array) -> tuple[Ints, Ints]:
    """The rows of each query and its true match."""
    return maps.rows_of(evidence.truth["query_id"], ids), maps.rows_of(evidence.truth["reference_id"], ids)


def _neighbors(run: Run) -> pa.Table:
    table = store.read_table(run.neighbors, NEIGHBORS)
    if run.showcase:
        table = pa.concat_tables([table, store.read_table(run.showcase, NEIGHBORS)])
    return table.combine_chunks()


def _found(run: Run, evidence: Evidence, candidates: Ints, ids: pa.Array, truth: tuple[Ints, Ints]) -> Found:
    table = _neighbors(run)
    n, images = len(candidates), len(ids)
    place_of = np.full(images + 1, -1, np.int64)  # the last is for ids that the sample lacks
    place_of[candidates] = np.arange(n)
    query, reference = (
        pc.fill_null(pc.index_in(table[name].combine_chunks(), value_set=ids), images).to_numpy().astype(np.int64)
        for name in ("query_id", "reference_id")
    )
    place = place_of[query]
    order = np.lexsort((table["rank"].to_numpy(), place))
    order = order[place[order] >= 0]
    place, query, reference = place[order], query[order], reference[order]
    score = table["score"].to_numpy()[order]
    sampled = truth[1] >= 0
    right = np.isin(query * (images + 1) + reference, (truth[0] * (images + 1) + truth[1])[sampled])
    if evidence.labelled:
        right = relevance.is_right(query, reference, np.append(relevance.classes(evidence.images), -1))

    best = {}
    for name, mask in (("right", right), ("wrong", ~right)):
        best[name] = np.full(n, -np.inf, np.float32)
        np.maximum.at(best[name], place[mask], score[mask])
    counts = np.bincount(place, minlength=n)
    starts = np.cumsum(counts) - counts
    ahead = np.bincount(place[~right & (score >= best["right"][place])], minlength=n)
    tied = np.isfinite(best["right"]) & (best["right"] == best["wrong"])
    # A truncated list says nothing about the references that share its lowest score: such a match is not found.
    lowest = np.full(n, np.inf, np.float32)
    np.minimum.at(lowest, place, score)
    searched = evidence.counts[run.model].references - evidence.counts[run.model].rejected_references
    own = evidence.images["reference"].to_numpy()[candidates]
    unproven = (counts > evidence.k) & (searched - own > counts) & (best["right"] == lowest)
    is_found = np.isfinite(best["right"]) & (ahead < evidence.k) & ~unproven
    rank = np.where(is_found, ahead + 1, NOT_FOUND)
    rank[relevance.matches(evidence.truth, evidence.images)[candidates] == 0] = UNRANKED
    reasons = _reasons(run, evidence, candidates)
    rank[counts == 0] = NO_ROWS
    rank[[place for place in reasons if not counts[place]]] = REJECTED

    column = np.arange(len(place)) - starts[place]
    shown = column < SHOWN
    hits, scores, marks = np.full((n, SHOWN), -1), np.full((n, SHOWN), np.nan), np.zeros((n, SHOWN), np.bool_)
    at = place[shown], column[shown]
    hits[at] = np.where(reference < images, reference, -1)[shown]
    scores[at], marks[at] = score[shown], right[shown]
    scene = _same_scene(evidence, run, query * (images + 1) + reference)
    scenes = np.zeros((n, SHOWN), np.bool_)
    scenes[at] = scene[shown]
    target = run.metrics.targets(tables.thresholds_end(evidence)).get(PRECISION)
    accepting = (target.safe or target.seen) if target else None
    threshold = accepting.score if accepting else None
    accepted = (
        np.zeros(n, np.bool_)
        if threshold is None
        else np.maximum(best["right"], best["wrong"]) >= np.float32(threshold)
    )
    both = np.isfinite(best["right"]) & np.isfinite(best["wrong"])
    margin = np.full(n, np.nan)
    margin[both] = best["right"][both].astype(np.float64) - best["wrong"][both]
    return Found(run, threshold, rank, tied & is_found, margin, accepted, hits, scores, marks, scenes, reasons)


def _same_scene(evidence: Evidence, run: Run, pairs: Ints) -> Bools:
    """Which pairs of rows, query * (images + 1) + reference, the audit of a run judged to show one scene.

    Raises LookalikeError for an audit of other neighbors.
    """
    if not evidence.audits:
        return np.zeros(len(pairs), np.bool_)
    path = evidence.audits[evidence.runs.index(run)]
    if store.read_provenance(path).get("neighbors") != store.identity(run.neighbors):
        raise LookalikeError(f"{path}: is the audit of other neighbors than {run.neighbors}. Delete it and run again.")
    audit, ids = store.read_table(path, AUDIT), evidence.images["image_id"].combine_chunks()
    audit = audit.filter(pc.equal(audit["verdict"], SAME_SCENE))
    query, reference = (maps.rows_of(audit[name], ids) for name in ("query_id", "reference_id"))
    return np.isin(pairs, query * (len(ids) + 1) + reference)


def _reasons(run: Run, evidence: Evidence, candidates: Ints) -> dict[int, str]:
    """Why the model rejected a query, by position."""
    reasons = {image.image_id: image.reason for image in evidence.rejected if run.model in image.models}
    rows = evidence.images["image_id"].take(candidates)
    places = np.flatnonzero(pc.is_in(rows, value_set=pa.array(list(reasons), pa.string())).to_numpy())
    return {int(place): reasons[rows[int(place)].as_py()] for place in places}


def _taken(found: Found, rows: Ints) -> Found:
    position = {int(row): place for place, row in enumerate(rows)}
    arrays = {
        name: getattr(found, name)[rows]
        for name in ("rank", "tied", "margin", "accepted", "hits", "scores", "right", "scene")
    }
    reasons = {position[place]: reason for place, reason in found.reasons.items() if place in position}
    return Found(run=found.run, threshold=found.threshold, **arrays, reasons=reasons)
