"""Hard negatives: which queries without a match would be accepted at a score threshold, and with which reference.

In practice most queries have no match. The nearest references of such queries are the mistakes that a system makes
first, and the best examples to look at before a threshold is used.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.io import relevance, store
from lookalike.io.formats.hard_negatives import HardNegative, HardNegatives
from lookalike.io.formats.records import Threshold
from lookalike.io.formats.tables import NEIGHBORS
from lookalike.io.formats.thresholds import Target
from lookalike.metrics.evaluation import NORMALISED, Results

MOST = 20  # listed per threshold


def scores_of(thresholds: Mapping[str, Threshold | Target]) -> dict[str, float | None]:
    """The score of each threshold, None without one: of a target precision the safe one, or else the one seen."""
    scores: dict[str, float | None] = {}
    for name, threshold in thresholds.items():
        cut = threshold.safe or threshold.seen if isinstance(threshold, Target) else threshold
        scores[name] = None if cut is None else cut.score
    return scores


def hard_negatives(
    results: Results, truth: pa.Table, images: pa.Table, thresholds: Mapping[str, float | None]
) -> dict[str, HardNegatives]:
    """The hard negatives of each threshold that has a score; names that end in ``_sn`` are of normalised scores."""
    found = {}
    for name, threshold in thresholds.items():
        if threshold is not None:
            pairs = results.candidates_sn if name.endswith(NORMALISED) else results.neighbors
            found[name] = above(store.read_table(pairs, NEIGHBORS), truth, images, threshold)
    return found


def above(pairs: pa.Table, truth: pa.Table, images: pa.Table, threshold: float) -> HardNegatives:
    """Count the queries without a match that have a pair of at least ``threshold``, and list those that score highest.

    pairs: a NEIGHBORS table with every pair that scores at least ``threshold`` and is the first of its query
    """
    unmatched = images["query"].to_numpy() & (relevance.matches(truth, images) == 0)
    ids = images["image_id"].filter(pa.array(unmatched))
    first = pairs.filter(pc.and_(pc.equal(pairs["rank"], 1), pc.is_in(pairs["query_id"], ids.combine_chunks())))
    first = first.sort_by([("score", "descending"), ("query_id", "ascending")])
    return HardNegatives(
        threshold=threshold,
        queries=int(np.count_nonzero(unmatched)),
        above=int(np.count_nonzero(first["score"].to_numpy().astype(np.float64) >= threshold)),
        closest=[
            HardNegative(query=row["query_id"], reference=row["reference_id"], score=row["score"])
            for row in first.slice(0, MOST).to_pylist()
        ],
    )
