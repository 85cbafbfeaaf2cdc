"""Metrics of a labelled collection, where all images of a query's class are right.

K. Musgrave, S. Belongie, S.-N. Lim, A Metric Learning Reality Check, ECCV 2020: R-precision and mAP@R look at the first
R neighbors of a query, where R is the number of right references. So both are 1 exactly if all of these rank before all
others, however large the class is.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.job.errors import LookalikeError
from lookalike.metrics.joining import Floats
from lookalike.metrics.ranking import Ranking

FIRST = 10  # the literature's recall at 10: whether any of the first ten neighbors is right


def by_class(
    ranking: Ranking, ranks: pa.Table, images: pa.Table, k: int, where: object = "class ranks"
) -> dict[str, Floats | None]:
    """The metrics averaged over queries, as of ``ranking.at_k``: accuracy at 1, 3 and 10, mAP@R and R-precision.

    ranks: a CLASS_RANKS table; a query that it lacks, since it was rejected, found nothing

    A query that has k right references, or only few wrong ones, makes recall at k and mAP at k meaningless, so they are
    left out. Raises LookalikeError if a query's number of right references is not that of the sample.
    """
    rows = pc.index_in(images["image_id"].take(ranking.counted), value_set=ranks["query_id"].combine_chunks())
    known = rows.is_valid().to_numpy().astype(np.bool_)
    table = ranks.take(rows.drop_null().combine_chunks())
    if table.num_rows != ranks.num_rows or (table["relevant"].to_numpy() != ranking.matches[known]).any():
        raise LookalikeError(f"{where}: does not have the classes of the sample. Delete it and run again.")

    def per_query(column: str) -> Floats:
        values = np.zeros(len(ranking.counted))
        values[known] = table[column].to_numpy() / ranking.matches[known]
        return values

    outcomes: dict[str, Floats | None] = {}
    for cutoff in sorted({cutoff for cutoff in (1, 3, min(k, FIRST)) if cutoff <= k}):
        meaningful = ranking.can_be_missed_at(cutoff)
        outcomes[f"accuracy_at_{cutoff}"] = ranking.correct_at(cutoff).astype(np.float64) if meaningful else None
    meaningful = ranking.can_be_missed_at(1)
    outcomes["map_at_r"] = per_query("precision") if meaningful else None
    outcomes["r_precision"] = per_query("found") if meaningful else None
    return outcomes
