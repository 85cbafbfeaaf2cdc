"""Small tables of the workflow's formats, written so that a test's case is seen at a glance."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from lookalike.io import identity, store
from lookalike.io.formats.tables import IMAGES, INDEX_IMAGES, NEIGHBORS, REJECTED, TRUTH
from lookalike.metrics.evaluation import Results

MADE = {"sample_sha256": "a sample", "shards_sha256": "its shards", "shard_sha256": "one shard"}  # as footers say it


def images_table(
    references: Sequence[str],
    queries: Sequence[str],
    groups: Mapping[str, str] | None = None,
    operations: Mapping[str, str] | None = None,
    *,
    brought: Mapping[str, Mapping[str, str]] | None = None,
    labels: Mapping[str, list[str]] | None = None,
) -> pa.Table:
    """An images table; an image may be in both roles. ``brought`` are the data set's own columns, id -> cell."""
    names = list(dict.fromkeys([*references, *queries]))
    in_references, in_queries = set(references), set(queries)
    columns: dict[str, object] = {
        "image_id": names,
        "reference": [name in in_references for name in names],
        "query": [name in in_queries for name in names],
        "training": [False] * len(names),
        "root": ["."] * len(names),
        "path": names,
        "bytes": [1] * len(names),
        "group": [(groups or {}).get(name) for name in names],
    }
    known = {"operations": operations, "labels": labels, **(brought or {})}
    more = {column: [cells.get(name) for name in names] for column, cells in known.items() if cells is not None}
    return pa.table({**columns, **more}, schema=IMAGES.schema(*more))


def truth_table(pairs: Sequence[tuple[str, str]]) -> pa.Table:
    """A truth table of (query, reference) pairs."""
    return pa.table(
        {"query_id": [query for query, _ in pairs], "reference_id": [reference for _, reference in pairs]},
        schema=TRUTH.schema(),
    )


def neighbors_table(found: Mapping[str, Sequence[tuple[str, float]]]) -> pa.Table:
    """A neighbors table: query -> its (reference, score) pairs, nearest first."""
    rows = [
        (query, place, reference, score)
        for query, pairs in found.items()
        for place, (reference, score) in enumerate(pairs, start=1)
    ]
    columns = list(zip(*rows, strict=True)) or [()] * 4
    return pa.table(dict(zip(NEIGHBORS.columns, columns, strict=True)), schema=NEIGHBORS.schema())


def write_search(
    path: Path, found: Mapping[str, Sequence[tuple[str, float]]], queries: int, footer: dict[str, Any] | None = None
) -> Results:
    """The files of a search on a data set without training images; ``path`` is the one of the neighbors."""
    made = Results(
        path, *(path.with_suffix(f".{name}.parquet") for name in ("candidates", "training", "candidates_sn"))
    )
    footer = MADE | {"key": '{"family": "pixels"}'} | (footer or {})
    store.write_table(neighbors_table(found), made.neighbors, NEIGHBORS, footer)
    store.write_table(candidates_table(found, queries), made.candidates, NEIGHBORS, footer)
    for absent in (made.training, made.candidates_sn):
        store.write_table(neighbors_table({}), absent, NEIGHBORS, footer | {identity.ROLE: identity.ABSENT})
    return made


def candidates_table(found: Mapping[str, Sequence[tuple[str, float]]], queries: int) -> pa.Table:
    """Candidates by DISC21's rule: the ten times ``queries`` best pairs; those that tie with the next stay out."""
    scores = sorted((score for pairs in found.values() for _, score in pairs), reverse=True)
    bar = scores[10 * queries] if len(scores) > 10 * queries else float("-inf")
    return neighbors_table({query: [pair for pair in pairs if pair[1] > bar] for query, pairs in found.items()})


def seen_table(sides: Mapping[str, tuple[int, int]] | None = None, rejected: Sequence[str] = ()) -> pa.Table:
    """What a model saw of the images: widths and heights of some, and which were rejected."""
    sides, none = sides or {}, [None] * len(rejected)
    columns = {
        "image_id": [*sides, *rejected],
        "sha256": [*sides, *none],
        "width": [*(width for width, _ in sides.values()), *none],
        "height": [*(height for _, height in sides.values()), *none],
        "reason": [None] * len(sides) + ["truncated"] * len(rejected),
    }
    return pa.table(columns, INDEX_IMAGES.schema())


def rejected_table(ids: Sequence[str]) -> pa.Table:
    """A table of rejected images."""
    return pa.table(
        {"image_id": list(ids), "path": list(ids), "reason": ["truncated"] * len(ids)}, schema=REJECTED.schema()
    )
