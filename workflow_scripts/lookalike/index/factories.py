"""FAISS indexes from factory strings: create, train, fill and check, with actionable errors."""

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike.config import factories
from lookalike.config.factories import reason
from lookalike.io import faiss_index
from lookalike.job.errors import LookalikeError

log = logging.getLogger(__name__)
CHECKED = 256  # vectors whose scores are checked in a filled index
NEAREST_CHECKED = 100  # neighbors checked per vector
BACKWARDS = -0.3  # correlation below which scores are reversed; coarse codes of similar vectors may be near zero
BLOCK = 4096  # vectors whose residuals are computed at a time
COMFORTABLE = 39  # training vectors per centroid: FAISS' ClusteringParameters.min_points_per_centroid


def make(factory: str, dimension: int) -> Any:
    """Create an empty inner-product index for unit vectors. Raises LookalikeError if FAISS rejects the factory."""
    try:
        return factories.make(factory, dimension)
    except ValueError as error:
        raise LookalikeError(
            f"indexes: FAISS cannot build factory '{factory}' for vectors of {dimension} dimensions: {error}. "
            "docs/indexes.md lists factories that work."
        ) from None


def train(index: Any, factory: str, vectors: NDArray[np.float32], gpu: bool) -> None:
    """Train an index in place on (n, d) float32 unit vectors.

    Raises LookalikeError if there are too few vectors or they vary in too few directions; warns if there are few. With
    ``gpu``, the search for the nearest centroid, most of the work, runs there; the CPU always averages the centroids.
    """
    import faiss

    centroids, dimensions = _demands(index)
    least = max(centroids, dimensions + 1)  # n vectors span n - 1 directions around their mean
    if len(vectors) < least:
        what = f"{centroids} clusters" if centroids > dimensions else f"{dimensions} principal components"
        raise LookalikeError(
            f"indexes: factory '{factory}' learns {what}, which needs at least {least} training vectors; there are "
            f"{len(vectors)}. Reduce the number in `factory`, raise `train: {{sample: ...}}`, or add images."
        )
    if len(vectors) < COMFORTABLE * centroids:
        log.warning(
            "factory '%s' learns %d clusters from %d training vectors; %d or more are recommended. "
            "Reduce the number in `factory`, raise `train: {sample: ...}`, or add images.",
            *(factory, centroids, len(vectors), COMFORTABLE * centroids),
        )
    ivf: Any = faiss.try_extract_index_ivf(index) if gpu else None
    device = None if ivf is None else faiss_index.gpu()
    try:
        if ivf is not None and device is not None:
            assigner = _on_gpu(faiss.IndexFlatIP(ivf.d), device)
            ivf.clustering_index = assigner
        index.train(vectors)
    except RuntimeError as error:
        raise LookalikeError(
            f"indexes: FAISS cannot train factory '{factory}' on {len(vectors)} vectors: {reason(error)}"
        ) from None
    finally:
        if ivf is not None:
            ivf.clustering_index = None  # FAISS does not own it: the pointer must not outlive ``assigner``
    if not np.isfinite(faiss_index.transform(index, vectors[:1000])).all():
        raise LookalikeError(
            f"indexes: factory '{factory}' divides by a variance of zero: the model's vectors vary in fewer directions "
            "than it keeps. Use fewer principal components in `factory`."
        )


def _on_gpu(empty: Any, device: int) -> Any:
    """A copy of an empty index on a GPU; None, which trains on the CPU, if that fails, with the reason logged."""
    import faiss

    try:
        return faiss.index_cpu_to_gpu(faiss_index.gpu_memory(), device, empty)
    except RuntimeError as error:
        log.warning("clusters cannot be trained on a GPU (%s); training on the CPU", reason(error))
        return None


def fit_ranges(index: Any, vectors: NDArray[np.float32]) -> bool:
    """Set the ranges of a trained index's scalar quantizers (``SQ8``) from the vectors (n, d) it will hold.

    FAISS clips values outside the ranges it was trained on, and the training images' ranges differ from the
    references'. Returns whether the index has such a quantizer.
    """
    import faiss

    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        return _has_ranges(index.index) and fit_ranges(index.index, faiss_index.transform(index, vectors))
    inner = [getattr(index, name) for name in ("base_index", "refine_index", "storage") if hasattr(index, name)]
    fitted = [fit_ranges(part, vectors) for part in inner]
    quantizer = getattr(index, "sq", None)
    if quantizer is None or not quantizer.trained.size():
        return any(fitted)
    low, high = np.full(index.d, np.inf, np.float32), np.full(index.d, -np.inf, np.float32)
    for start in range(0, len(vectors), BLOCK):
        block = np.ascontiguousarray(vectors[start : start + BLOCK])
        if getattr(index, "by_residual", False):
            block = block - index.quantizer.reconstruct_batch(index.quantizer.assign(block, 1)[:, 0])
        low, high = np.minimum(low, block.min(axis=0)), np.maximum(high, block.max(axis=0))
    quantizer.train(np.stack([low, high]))
    return True


def _has_ranges(index: Any) -> bool:
    return any(hasattr(part, "sq") and part.sq.trained.size() for part in factories.parts(index))


def check_scores(index: Any, factory: str, vectors: NDArray[np.float32]) -> None:
    """Raise LookalikeError if a filled index's scores do not approximate the inner products of its vectors (n, d).

    Codes are coarse, so only errors that no approximation makes are rejected: scores that do not descend, one score for
    pairs that differ, scores that fall as the inner products rise, and errors above half the product of the norms.
    """
    queries = np.ascontiguousarray(vectors[np.linspace(0, len(vectors) - 1, min(CHECKED, len(vectors))).astype(int)])
    scores, rows = index.search(queries, min(NEAREST_CHECKED, len(vectors)))
    valid = rows >= 0
    query, column = np.nonzero(valid)
    approximate = scores[query, column]
    left, right = faiss_index.transform(index, queries), faiss_index.transform(index, vectors[rows[query, column]])
    exact = np.einsum("ij,ij->i", left[query], right)
    size = float(np.linalg.norm(left[query], axis=1) @ np.linalg.norm(right, axis=1)) / max(len(exact), 1)
    small = 1e-4 * size
    descends = np.where(valid[:, 1:], np.diff(np.where(valid, scores, 0), axis=1), 0).max(initial=0) <= small
    if not len(exact) or size == 0:
        why = "" if len(exact) else "it finds nothing"
    elif not np.isfinite(approximate).all():
        why = "some are not finite"
    elif not descends:
        why = "the best is the smallest"
    elif np.ptp(exact) > 0.01 * size and np.ptp(approximate) <= small:
        why = f"all are {approximate[0]:.3f}, for inner products from {exact.min():.3f} to {exact.max():.3f}"
    elif np.ptp(exact) > 0.01 * size and np.corrcoef(approximate, exact)[0, 1] < BACKWARDS:
        why = "they fall as the inner products rise"
    elif (rmse := float(np.sqrt(np.square(approximate - exact, dtype=np.float64).mean()))) > size / 2:
        why = f"their RMS error is {rmse:.3f}, for vectors whose norms multiply to {size:.3f}"
    else:
        why = ""
    if why:
        raise LookalikeError(
            f"indexes: factory '{factory}' does not score by inner product: of {len(approximate)} scores of its own "
            f"vectors, {why}. Choose another factory: docs/indexes.md lists some that work."
        )


def add(index: Any, vectors: NDArray[np.float32]) -> None:
    """Add unit vectors (n, d) to an index in place, with the same transforms as ``faiss_index.transform``."""
    import faiss

    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        add(index.index, faiss_index.apply_transforms(index, vectors))
        index.ntotal = index.index.ntotal
    else:
        index.add(np.ascontiguousarray(vectors))


def repeatable(factory: str, threads: int) -> None:
    """Set FAISS' threads for building: one for graphs, whose edges depend on the order of the threads."""
    import faiss

    graph = "HNSW" in factory or "NSG" in factory
    faiss.omp_set_num_threads(1 if graph else threads)
    if graph and threads > 1:
        log.info("building '%s' in one thread, for reproducible results", factory)


def _demands(index: Any) -> tuple[int, int]:
    """The largest number of centroids that an index learns in one clustering, and its principal components."""
    import faiss

    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        steps = faiss_index.steps(index)
        kept = [step.d_out for step in steps if isinstance(step, faiss.PCAMatrix)]
        quantizers = [step.pq for step in steps if isinstance(step, faiss.OPQMatrix) and step.pq is not None]
        centroids, dimensions = _demands(index.index)
        return max(centroids, *(pq.ksub for pq in quantizers), 0), max(dimensions, *kept, 0)
    if isinstance(index, faiss.IndexRefine):
        return _demands(index.base_index)
    lists = getattr(index, "nlist", 0)
    codes = index.pq.ksub if hasattr(index, "pq") else 0
    return max(lists, codes), 0
