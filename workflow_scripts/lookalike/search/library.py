"""``lookalike.search``: the exact search of a run, on arrays."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lookalike.io.vectors import split, unit
from lookalike.job.errors import LookalikeError
from lookalike.search import exact


class Neighbors(NamedTuple):
    """The nearest references of each query, nearest first.

    indices: (q, k) int64, rows of the references; scores: (q, k) float32, cosine similarity. Where a query is left with
    fewer than k references, the last index is -1 and its score minus infinity.
    """

    indices: NDArray[np.int64]
    scores: NDArray[np.float32]


def search(
    queries: ArrayLike, references: ArrayLike, k: int = 10, *, own: NDArray[np.int64] | None = None
) -> Neighbors:
    """The k nearest references of each query by cosine similarity, exactly, as an index of type Flat in a run.

    queries: (q, d), and references: (n, d); they are converted to float32 and normalised in a copy. A vector of zeros
        scores 0 with everything.
    k: at most n neighbors are returned
    own: (q,) int64, the row of the reference that is the query itself and is left out, or -1. To search for images
        among themselves: ``search(vectors, vectors, own=np.arange(len(vectors)))``.

    Of equal scores, the reference in the earlier row comes first. Equal vectors have equal scores, to the last bit.
    Raises LookalikeError for arrays of other shapes, and for vectors that are not finite.

    >>> import lookalike as la
    >>> la.search([[1, 0]], [[0, 2], [3, 0], [1, 0]], k=2)
    Neighbors(indices=array([[1, 2]]), scores=array([[1., 1.]], dtype=float32))
    """
    found, among = _vectors(queries, "queries"), _vectors(references, "references")
    if found.shape[1] != among.shape[1]:
        raise LookalikeError(
            f"queries: have {found.shape[1]} dimensions, and references {among.shape[1]}. Embed both with one model."
        )
    if k < 1:
        raise LookalikeError(f"k: is {k}. Set it to 1 or more.")
    excluded = np.full(len(found), -1, np.int64) if own is None else np.asarray(own)
    if excluded.shape != (len(found),) or not np.issubdtype(excluded.dtype, np.integer):
        raise LookalikeError(
            f"own: has the shape {excluded.shape} and dtype {excluded.dtype}. Pass one row number per query, or -1."
        )
    outside = (excluded < -1) | (excluded >= len(among))
    if outside.any():
        raise LookalikeError(
            f"own: has {excluded[np.argmax(outside)]}, which is not a row of the {len(among)} references. Pass a row, "
            "counted from 0, or -1."
        )
    nearest = exact.search(found, split(among), min(k, len(among)), excluded.astype(np.int64))
    return Neighbors(nearest.rows, nearest.scores)


def _vectors(given: ArrayLike, name: str) -> NDArray[np.float32]:
    try:
        vectors = np.array(given, np.float32)  # a copy, which is normalised in place
    except (TypeError, ValueError) as error:
        raise LookalikeError(f"{name}: are not an array of numbers ({error}). Pass (n, dimension).") from None
    if vectors.ndim != 2 or not vectors.shape[1]:
        raise LookalikeError(f"{name}: have the shape {vectors.shape}. Pass (n, dimension); of one, vector[None].")
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise LookalikeError(
            f"{name}: row {int(np.argmin(finite))} has NaN or infinite numbers. Leave out rows of images that could "
            "not be embedded: vectors[np.isfinite(vectors).all(axis=1)]."
        )
    zero = ~vectors.any(axis=1)
    if np.asarray(given)[zero].any():
        raise LookalikeError(f"{name}: have rows whose numbers are all too small for float32. Scale them up.")
    return unit(vectors)
