"""Fusion of several models: one ranking made of the lists of neighbors that each of them found.

``sum`` adds the scores (E. A. Fox, J. A. Shaw, Combination of Multiple Searches, TREC-2, 1994, CombSUM), normalised to
mean 0 and variance 1 (M. Montague, J. A. Aslam, Relevance Score Normalization for Metasearch, CIKM 2001), here over all
queries of a model, so that it counts how sure a model is of a query. ``reciprocal-rank`` adds 1 / (60 + rank):
G. V. Cormack, C. L. A. Clarke, S. Büttcher, Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning
Methods, SIGIR 2009.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.io.formats.tables import NEIGHBORS
from lookalike.metrics.joining import Floats, Ints

WAYS = ("sum", "reciprocal-rank")
SMOOTHING = 60  # Cormack et al.: the difference of the first ranks should not decide alone
DECIMALS = 9  # differences below are rounding errors, and a tie


def fuse(tables: Sequence[pa.Table], images: pa.Table, way: str) -> pa.Table:
    """A NEIGHBORS table of all references that any model found for a query, best first.

    tables: a NEIGHBORS table per model; images: the IMAGES table

    A reference that a model did not find has the lowest score that the model kept for the query, and no reciprocal
    rank. Reciprocal ranks often tie (each model has another reference first), and then the sum decides. ``score`` is
    minus the place, so that what still ties has equal scores.
    """
    ids = images["image_id"].combine_chunks()
    lists = [_of(table, ids) for table in tables]
    distinct = np.unique(np.concatenate([pairs for pairs, *_ in lists]))
    query, reference = np.divmod(distinct, len(ids))
    total, ranks = np.zeros(len(distinct)), np.zeros(len(distinct))
    for pairs, scores, reciprocal, lowest in lists:
        number = np.searchsorted(distinct, pairs)
        of_model = lowest[query]
        of_model[number] = scores
        total += of_model
        ranks[number] += reciprocal
    total, ranks = np.round(total, DECIMALS), np.round(ranks, DECIMALS)
    first = total if way == "sum" else ranks
    order = np.lexsort((reference, -total, -first, query))
    query, reference, total, first = query[order], reference[order], total[order], first[order]
    starts = np.diff(query, prepend=-1) != 0
    place = np.arange(len(query)) - np.maximum.accumulate(np.where(starts, np.arange(len(query)), 0))
    is_new = starts | (np.diff(first, prepend=np.nan) != 0) | (np.diff(total, prepend=np.nan) != 0)
    level = place[np.maximum.accumulate(np.where(is_new, np.arange(len(query)), 0))]
    columns = (
        ids.take(pa.array(query)),
        pa.array(place + 1, pa.int32()),
        ids.take(pa.array(reference)),
        pa.array(-level, pa.float32()),
    )
    return pa.table(dict(zip(NEIGHBORS.columns, columns, strict=True)), NEIGHBORS.schema())


def _of(table: pa.Table, ids: pa.Array) -> tuple[Ints, Floats, Floats, Floats]:
    """Codes of a model's pairs, their normalised scores, reciprocal ranks, and the lowest score of each query.

    Pairs of a query that tie have the rank of the last. A query without neighbors has the model's lowest score.
    """
    query, reference = (pc.index_in(table[name], value_set=ids).to_numpy() for name in ("query_id", "reference_id"))
    raw = table["score"].to_numpy().astype(np.float64)
    spread = raw.std() if len(raw) else 0.0
    score = (raw - raw.mean()) / spread if spread > 0 else np.zeros(len(raw))
    lowest = np.full(len(ids), score.min(initial=0))
    kept = np.full(len(ids), np.inf)
    np.minimum.at(kept, query, score)
    lowest[np.isfinite(kept)] = kept[np.isfinite(kept)]
    _, tied = np.unique(np.stack([query.astype(np.float64), raw]), axis=1, return_inverse=True)
    last = np.zeros(len(raw))
    np.maximum.at(last, tied.reshape(-1), table["rank"].to_numpy())
    pairs = query.astype(np.int64) * len(ids) + reference
    return pairs, score, 1 / (SMOOTHING + last[tied.reshape(-1)]), lowest
