"""Search results and true matches in the formats of TREC, which other evaluators read (trec_eval, ranx, ir_measures).

A run has the lines ``query Q0 reference rank score name``, qrels have ``query 0 reference 1``. Columns are separated by
spaces, so spaces in ids, and other characters that would end a column, are written as in URLs (``%20``).
"""

from collections.abc import Iterator
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from lookalike.io import relevance

BLOCK = 64  # queries whose matches are in memory at a time: in a labelled collection a query may have thousands
SAFE = "/!#$&'()*+,:;=?@[]~\"<>\\^`{|}"  # everything printable except space and %


def token(text: str) -> str:
    """An id as one column of a line."""
    return quote(text, safe=SAFE)


def run(neighbors: pa.Table, k: int, name: str) -> Iterator[str]:
    """The lines of a run: the first k neighbors of each query; scores in full, so that no tie is made or broken.

    neighbors: a NEIGHBORS table, which has one neighbor more
    """
    first = neighbors.filter(pc.less_equal(neighbors["rank"], k))
    first = first.sort_by([("query_id", "ascending"), ("rank", "ascending")])
    label = token(name)
    for batch in first.to_batches(max_chunksize=1 << 14):
        for row in batch.to_pylist():
            score = f"{row['score']:.9g}"  # every float32 has a text of its own
            yield f"{token(row['query_id'])} Q0 {token(row['reference_id'])} {row['rank']} {score} {label}\n"


def qrels(truth: pa.Table, images: pa.Table) -> Iterator[str]:
    """The lines of the true matches; a query without a match has no line, and evaluators leave it out."""
    has_match = pa.array(relevance.matches(truth, images) > 0)
    queries = images.filter(has_match)["image_id"].sort() if images.num_rows else images["image_id"]
    for start in range(0, len(queries), BLOCK):
        block = pa.array(queries.slice(start, BLOCK).to_pylist(), pa.string())
        pairs = relevance.pairs_of(block, truth, images)
        pairs = pairs.sort_by([("query_id", "ascending"), ("reference_id", "ascending")])
        for row in pairs.to_pylist():
            yield f"{token(row['query_id'])} 0 {token(row['reference_id'])} 1\n"
