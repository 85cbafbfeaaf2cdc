"""What approximation costs: an index that may miss neighbors, beside an exact one on the same queries and vectors."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.io import store
from lookalike.io.formats.records import Approximation, Estimate, Metrics
from lookalike.io.formats.tables import NEIGHBORS
from lookalike.metrics.rates import Floats, estimate, group_codes

METRICS = ("accuracy_at_1", "uap")  # whose loss is told, as far as they were measured
Which = tuple[str, str]  # an index and a model


def recall_of_exact(exact: pa.Table, found: pa.Table, k: int) -> tuple[list[str], Floats]:
    """Of each query's exact top k, the share that is among the first k that another index found.

    Both are tables of NEIGHBORS, ``exact`` with k + 1 rows a query or all there are. Returns the exact table's queries
    and (q,) shares. A reference that ties with the k-th is as right as it is, where the table shows it. A query that
    the other index found nothing for has a share of 0.
    """
    pairs = exact.to_pandas()
    last = pairs[pairs["rank"] <= k].groupby("query_id", sort=False)["score"].agg(["min", "size"])
    pairs = pairs.join(last, on="query_id")
    right = pairs[pairs["score"] >= pairs["min"]]
    answers = found.filter(pc.less_equal(found["rank"], k)).select(["query_id", "reference_id"]).to_pandas()
    hits = right.merge(answers, on=["query_id", "reference_id"]).groupby("query_id").size()
    shares = np.minimum(hits.reindex(last.index, fill_value=0) / last["size"], 1.0)
    return [str(query) for query in last.index], shares.to_numpy(np.float64)


def approximations(
    records: Sequence[Metrics],
    neighbors: Sequence[str | Path],
    groups: Mapping[str, str | None],
    gap: Callable[[str, Which, Which], Estimate],
) -> Iterator[Approximation]:
    """What each index that is not exact costs each model; nothing where no exact one was searched beside it.

    ``records`` and ``neighbors`` are parallel, ``groups`` is by query, and ``gap`` gives the difference of a metric
    between two searches, the first minus the second.
    """
    footers = [store.read_provenance(path) for path in neighbors]
    exact = {
        record.model: (record, path)
        for record, footer, path in reversed(list(zip(records, footers, neighbors, strict=True)))
        if is_exact(footer)
    }
    for record, footer, path in zip(records, footers, neighbors, strict=True):
        if is_exact(footer) or record.model not in exact:
            continue
        beside, exact_path = exact[record.model]
        k = int(footer["k"])
        queries, shares = recall_of_exact(store.read_table(exact_path, NEIGHBORS), store.read_table(path, NEIGHBORS), k)
        codes = group_codes([groups.get(query) for query in queries])
        yield Approximation(
            model=record.model,
            index=record.index,
            exact=beside.index,
            k=k,
            recall=estimate(shares, codes),
            differences={
                name: gap(name, (record.index, record.model), (beside.index, record.model))
                for name in METRICS
                if name in record.metrics and name in beside.metrics
            },
            speed=_speed(record, beside),
            index_bytes_per_vector=record.cost.indexed_bytes if record.cost else None,
        )


def is_exact(footer: dict[str, Any]) -> bool:
    """Whether neighbors were found by comparing whole vectors with all references, by their footer."""
    entry = json.loads(footer.get("index_key", "{}"))
    return bool(entry.get("scan")) or entry.get("factory") == "Flat"


def _speed(record: Metrics, exact: Metrics) -> float | None:
    """Queries a second, as a multiple of the exact search's; None where a timing is missing."""
    seconds = [one.timing.get("search", {}).get("seconds") for one in (exact, record)]
    return float(seconds[0] / seconds[1]) if all(seconds) else None
