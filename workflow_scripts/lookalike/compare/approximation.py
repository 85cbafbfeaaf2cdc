"""Cost of approximation: an approximate index compared with an exact one on the same queries and vectors."""

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

METRICS = ("accuracy_at_1", "uap")  # whose loss is reported, if they were measured
Search = tuple[str, str]  # an index and a model


def recall_of_exact(exact: pa.Table, approximate: pa.Table, k: int) -> tuple[list[str], Floats]:
    """The share of each query's exact top k among the first k neighbors of an approximate index.

    exact, approximate: NEIGHBORS tables, ``exact`` with k + 1 rows per query, or all references if there are fewer

    Returns the queries of ``exact`` and their shares, (q,) float64 in [0, 1]. References that tie with the k-th count
    as correct, as far as ``exact`` contains them. A query without approximate neighbors has a share of 0.
    """
    pairs = exact.to_pandas()
    last = pairs[pairs["rank"] <= k].groupby("query_id", sort=False)["score"].agg(["min", "size"])
    pairs = pairs.join(last, on="query_id")
    correct = pairs[pairs["score"] >= pairs["min"]]
    first = approximate.filter(pc.less_equal(approximate["rank"], k)).select(["query_id", "reference_id"]).to_pandas()
    hits = correct.merge(first, on=["query_id", "reference_id"]).groupby("query_id").size()
    shares = np.minimum(hits.reindex(last.index, fill_value=0) / last["size"], 1.0)
    return [str(query) for query in last.index], shares.to_numpy(np.float64)


def approximations(
    records: Sequence[Metrics],
    neighbors: Sequence[str | Path],
    groups: Mapping[str, str | None],
    difference: Callable[[str, Search, Search], Estimate],
) -> Iterator[Approximation]:
    """The cost of each approximate index for each model; none for a model without an exact search.

    records, neighbors: parallel, one per search
    groups: query -> group
    difference: the difference of a metric between two searches, the first minus the second
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
        baseline, exact_path = exact[record.model]
        k = int(footer["k"])
        queries, shares = recall_of_exact(store.read_table(exact_path, NEIGHBORS), store.read_table(path, NEIGHBORS), k)
        codes = group_codes([groups.get(query) for query in queries])
        yield Approximation(
            model=record.model,
            index=record.index,
            exact=baseline.index,
            k=k,
            recall=estimate(shares, codes),
            differences={
                name: difference(name, (record.index, record.model), (baseline.index, record.model))
                for name in METRICS
                if name in record.metrics and name in baseline.metrics
            },
            speed=_speed(record, baseline),
            index_bytes_per_vector=record.cost.indexed_bytes if record.cost else None,
        )


def is_exact(footer: dict[str, Any]) -> bool:
    """Whether the footer is of an exact search, which compares uncompressed vectors with all references."""
    entry = json.loads(footer.get("index_key", "{}"))
    return bool(entry.get("scan")) or entry.get("factory") == "Flat"


def _speed(record: Metrics, exact: Metrics) -> float | None:
    """Queries per second relative to the exact search; None if a timing is missing."""
    seconds = [metrics.timing.get("search", {}).get("seconds") for metrics in (exact, record)]
    return float(seconds[0] / seconds[1]) if all(seconds) else None
