"""Small tables of the workflow's formats, written so that a test's case is seen at a glance."""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from lookalike.formats import IMAGES, NEIGHBORS, REJECTED, TRUTH


def images_table(
    references: Sequence[str],
    queries: Sequence[str],
    groups: Mapping[str, str] | None = None,
    operations: Mapping[str, str] | None = None,
) -> pa.Table:
    """An images table; a picture may be in both roles."""
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
    if operations is None:
        return pa.table(columns, schema=IMAGES.schema())
    return pa.table(
        {**columns, "operations": [operations.get(name) for name in names]}, schema=IMAGES.schema("operations")
    )


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


def rejected_table(ids: Sequence[str]) -> pa.Table:
    """A table of rejected pictures."""
    return pa.table(
        {"image_id": list(ids), "path": list(ids), "reason": ["truncated"] * len(ids)}, schema=REJECTED.schema()
    )
