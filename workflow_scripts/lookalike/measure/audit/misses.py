"""Misses: queries with a match for which a wrong reference ranks before it."""

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
    matches: dict[str, list[str]] = {}
    for query, reference in zip(*(truth[name].to_pylist() for name in ("query_id", "reference_id")), strict=True):
        matches.setdefault(query, []).append(reference)
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
