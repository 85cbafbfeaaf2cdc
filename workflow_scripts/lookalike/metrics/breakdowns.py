"""Breakdowns of the queries: by operation, by size, and by labels and custom columns of the data set."""

import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from lookalike.io.formats.records import SIDES, SIZES
from lookalike.io.formats.tables import BY
from lookalike.metrics.joining import Bools

log = logging.getLogger(__name__)

CHAIN = "chain"  # copies made by several operations
STRENGTHS = ("light", "medium", "heavy")
MOST_VALUES = 20  # of a column; more parts have too few queries each, and nobody reads them

Parts = dict[str, Bools]


def break_down(queries: pa.Table, sides: Sequence[int | None]) -> dict[str, Parts]:
    """Column -> value -> (q,) bool: the queries that have the value.

    queries: rows of the images table
    sides: the longer side of each query in pixels, None if unknown

    ``operations`` and ``strength`` (of single operations) exist for copies only, ``size`` for all images; ``labels``
    and the data set's ``by_...`` columns are included if they have at most MOST_VALUES values.
    """
    columns = {**by_operation(queries), "size": _sizes(sides)}
    for column in queries.column_names:
        if column == "labels" or column.startswith(BY):
            columns[column] = _values(queries, column)
    return {column: parts for column, parts in columns.items() if parts}


def by_operation(queries: pa.Table) -> dict[str, Parts]:
    """The columns ``operations`` and ``strength`` of ``break_down``; empty if the queries are not copies."""
    if "operations" not in queries.column_names:
        return {}
    chains = [(text or "").split(" + ") for text in queries["operations"].to_pylist()]
    operations = [CHAIN if len(steps) > 1 else steps[0].partition(":")[0] for steps in chains]
    strengths = ["" if len(steps) > 1 else steps[0].partition(":")[2] for steps in chains]
    return {
        "operations": _parts(operations, [*sorted(set(operations) - {"", CHAIN}), CHAIN]),
        "strength": _parts(strengths, STRENGTHS),
    }


def _sizes(sides: Sequence[int | None]) -> Parts:
    if all(side is None for side in sides):
        return {}
    classes = [SIZES[-1] if side is None else SIZES[int(np.searchsorted(SIDES, side))] for side in sides]
    return _parts(classes, SIZES)


def _values(queries: pa.Table, column: str) -> Parts:
    """One part per value; a query with several labels is in several parts, a query without labels in none."""
    cells = [cell if isinstance(cell, list) else [cell] for cell in queries[column].to_pylist()]
    values = sorted({value for cell in cells for value in cell if value})
    if len(values) > MOST_VALUES:
        log.info("no breakdown by '%s': it has %d values, the limit is %d", column, len(values), MOST_VALUES)
        return {}
    return {value: np.array([value in cell for cell in cells], dtype=np.bool_) for value in values}


def _parts(values: Sequence[str], order: Sequence[str]) -> Parts:
    column = np.array(values, dtype=object)
    return {value: column == value for value in order if value in values}
