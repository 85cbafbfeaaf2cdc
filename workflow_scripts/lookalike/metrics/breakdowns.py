"""Which queries to look at together: by what was done to them, by size, by what the data set knows of them."""

import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from lookalike.io.formats.records import SIDES, SIZES
from lookalike.io.formats.tables import BY
from lookalike.metrics.joining import Bools

log = logging.getLogger(__name__)

CHAIN = "chain"  # copies made by two or three operations in a row
STRENGTHS = ("light", "medium", "heavy")
MOST_VALUES = 20  # of a column; more parts than that hold too few queries each, and nobody reads them

Parts = dict[str, Bools]


def break_down(queries: pa.Table, sides: Sequence[int | None]) -> dict[str, Parts]:
    """Column -> value -> (q,) bool, which queries have that value.

    queries: rows of the images table; sides: the longer side of each, in pixels, None where it is not known

    ``operations`` and ``strength`` are of copies, strengths of single operations only; ``size`` is of all pictures;
    ``labels`` and the columns ``by_...`` are what the data set brings, where at most MOST_VALUES values occur.
    """
    found = {**by_operation(queries), "size": _sizes(sides)}
    for column in queries.column_names:
        if column == "labels" or column.startswith(BY):
            found[column] = _values(queries, column)
    return {column: parts for column, parts in found.items() if parts}


def by_operation(queries: pa.Table) -> dict[str, Parts]:
    """The columns ``operations`` and ``strength`` of ``break_down``; none where the queries are no copies."""
    if "operations" not in queries.column_names:
        return {}
    made_by = [(text or "").split(" + ") for text in queries["operations"].to_pylist()]
    operations = [CHAIN if len(steps) > 1 else steps[0].partition(":")[0] for steps in made_by]
    strengths = ["" if len(steps) > 1 else steps[0].partition(":")[2] for steps in made_by]
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
    """One part for every value; a query with several labels is in several, one without any in none."""
    cells = [cell if isinstance(cell, list) else [cell] for cell in queries[column].to_pylist()]
    values = sorted({value for cell in cells for value in cell if value})
    if len(values) > MOST_VALUES:
        log.info(
            "no breakdown by '%s': %d values, and more than %d are not broken down", column, len(values), MOST_VALUES
        )
        return {}
    return {value: np.array([value in cell for cell in cells], dtype=np.bool_) for value in values}


def _parts(given: Sequence[str], order: Sequence[str]) -> Parts:
    column = np.array(given, dtype=object)
    return {value: column == value for value in order if value in given}
