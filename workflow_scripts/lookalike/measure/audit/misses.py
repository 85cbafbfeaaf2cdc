"""Wrong answers to audit: misses, and the wrong pairs among the candidates of pooled metrics.

A miss is a query with a match for which a wrong reference ranks before it.
"""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

MOST_MATCHES = 3  # true matches that wrong answers are compared with


@dataclass(frozen=True)
class Miss:
    """A query whose first neighbor is wrong.

    wrong: rank and id of the neighbors before the first true match, among the first k
    matches: true matches, at most MOST_MATCHES: those that were found first, then by id
    """

    query_id: str
    wrong: tuple[tuple[int, str], ...]
    matches: tuple[str, ...]

    @property
    def image_ids(self) -> tuple[str, ...]:
        """All images that the audit may need to know."""
        return (self.query_id, *self.matches, *(name for _, name in self.wrong))


def misses(neighbors: pa.Table, truth: pa.Table, k: int) -> list[Miss]:
    """The misses of a search that found anything, from its NEIGHBORS and the TRUTH table.

    At equal scores wrong references rank first, as in every metric.
    """
    matches = _matches(truth)
    listed = neighbors.filter(pc.is_in(neighbors["query_id"], value_set=truth["query_id"].combine_chunks()))
    ranked: dict[str, list[tuple[float, bool, int, str]]] = {}
    for query, rank, reference, score in zip(*(listed[name].to_pylist() for name in listed.column_names), strict=True):
        ranked.setdefault(query, []).append((-score, reference in matches[query], rank, reference))
    found = []
    for query, rows in ranked.items():
        rows.sort()
        wrong = []
        for place, (_, is_true, _, reference) in enumerate(rows[:k], start=1):
            if is_true:
                break
            wrong.append((place, reference))
        if wrong:
            seen = [reference for _, is_true, _, reference in rows if is_true]
            others = sorted(set(matches[query]).difference(seen))
            found.append(Miss(query, tuple(wrong), (*seen, *others)[:MOST_MATCHES]))
    return found


def candidates(pairs: pa.Table, truth: pa.Table) -> list[tuple[float, Miss]]:
    """The wrong pairs of queries with a match, from a NEIGHBORS table of all queries: each with its score, best first.

    At equal scores by the ids.
    """
    matches = _matches(truth)
    listed = pairs.filter(pc.is_in(pairs["query_id"], value_set=truth["query_id"].combine_chunks()))
    rows = zip(*(listed[name].to_pylist() for name in listed.column_names), strict=True)
    found = [
        (score, Miss(query, ((rank, reference),), tuple(sorted(matches[query])[:MOST_MATCHES])))
        for query, rank, reference, score in rows
        if reference not in matches[query]
    ]
    return sorted(found, key=lambda pair: (-pair[0], pair[1].query_id, pair[1].wrong))


def _matches(truth: pa.Table) -> dict[str, list[str]]:
    matches: dict[str, list[str]] = {}
    for query, reference in zip(*(truth[name].to_pylist() for name in ("query_id", "reference_id")), strict=True):
        matches.setdefault(query, []).append(reference)
    return matches
