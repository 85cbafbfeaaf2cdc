"""FAISS indexes from factory strings: made, trained and filled, with errors that help."""

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike.config import factories
from lookalike.config.factories import reason
from lookalike.io import faiss_index
from lookalike.job.errors import LookalikeError

log = logging.getLogger(__name__)
CHECKED = 256  # vectors whose scores are checked once an index is filled,
NEAREST_CHECKED = 100  # with as many neighbors each
BACKWARDS = -0.3  # correlation: coarse codes of vectors that are all alike may come near zero
BLOCK = 4096  # vectors whose residuals are computed at a time
COMFORTABLE = 39  # training vectors a centroid: FAISS' own ClusteringParameters.min_points_per_centroid


def make(factory: str, dimension: int) -> Any:
    """An empty index for unit vectors, compared by inner product. Raises LookalikeError where there is none."""
    try:
        return factories.make(factory, dimension)
    except ValueError as error:
        raise LookalikeError(
            f"indexes: FAISS cannot build factory '{factory}' for vectors of {dimension} dimensions: {error}. "
            "docs/indexes.md shows factories that work."
        ) from None


def train(index: Any, factory: str, vectors: NDArray[np.float32], gpu: bool) -> None:
    """Train an index in place on (n, d) unit vectors.

    Raises LookalikeError where they are too few, or vary in too few directions; few ones are a warning. With ``gpu``
    the search for the nearest centroid, most of the work, is done there; centroids are averaged on the CPU either way.
    """
    import faiss

    centroids, dimensions = _demands(index)
    least = max(centroids, dimensions + 1)  # n vectors span n - 1 directions around their mean
    if len(vectors) < least:
        what = f"{centroids} clusters" if centroids > dimensions else f"{dimensions} principal components"
        raise LookalikeError(
            f"indexes: factory '{factory}' learns {what}, which takes at least {least} training vectors, and there are "
            f"{len(vectors)}. Ask for fewer in `factory`, or give more: `train: {{sample: ...}}`, or more pictures."
        )
    if len(vectors) < COMFORTABLE * centroids:
        log.warning(
            "factory '%s' learns %d clusters from %d training vectors; %d or more would be better. "
            "Ask for fewer in `factory`, or give more: `train: {sample: ...}`, or more pictures.",
            *(factory, centroids, len(vectors), COMFORTABLE * centroids),
        )
    ivf: Any = faiss.try_extract_index_ivf(index) if gpu else None
    device = None if ivf is None else faiss_index.gpu()
    if ivf is not None and device is not None:
        assigner = faiss.index_cpu_to_gpu(faiss_index.gpu_memory(), device, faiss.IndexFlatIP(ivf.d))
        ivf.clustering_index = assigner
    try:
        index.train(vectors)
    except RuntimeError as error:
        raise LookalikeError(
            f"indexes: FAISS cannot train factory '{factory}' on {len(vectors)} vectors: {reason(error)}"
        ) from None
    finally:
        if ivf is not None:
            ivf.clustering_index = None  # FAISS does not own it: it must not outlive the object here
    if not np.isfinite(faiss_index.transform(index, vectors[:1000])).all():
        raise LookalikeError(
            f"indexes: factory '{factory}' divides by a variance of zero: the model's vectors vary in fewer directions "
            "than it keeps. Ask for fewer principal components in `factory`."
        )


def fit_ranges(index: Any, vectors: NDArray[np.float32]) -> bool:
    """Set the ranges of scalar quantizers (``SQ8``) to those of the vectors (n, d) that a trained index will hold.

    FAISS cuts off what lies beyond the ranges it was trained on, and other images than the references have others.
    True where there was such a quantizer.
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
    """Raise LookalikeError where a filled index's scores are not about the inner products of the vectors (n, d) in it.

    Codes are coarse, so what is refused is what no approximation does: best scores that are not the largest, one score
    for pairs that differ, scores that fall as the inner products rise, and errors of half of two lengths' product.
    """
    asked = np.ascontiguousarray(vectors[np.linspace(0, len(vectors) - 1, min(CHECKED, len(vectors))).astype(int)])
    scores, rows = index.search(asked, min(NEAREST_CHECKED, len(vectors)))
    found = rows >= 0
    query, column = np.nonzero(found)
    given = scores[query, column]
    left, right = faiss_index.transform(index, asked), faiss_index.transform(index, vectors[rows[query, column]])
    true = np.einsum("ij,ij->i", left[query], right)
    size = float(np.linalg.norm(left[query], axis=1) @ np.linalg.norm(right, axis=1)) / max(len(true), 1)
    small = 1e-4 * size
    falls = np.where(found[:, 1:], np.diff(np.where(found, scores, 0), axis=1), 0).max(initial=0) <= small
    if not len(true) or size == 0:
        why = "" if len(true) else "it finds nothing"
    elif not np.isfinite(given).all():
        why = "some are not finite"
    elif not falls:
        why = "the best one is the smallest"
    elif np.ptp(true) > 0.01 * size and np.ptp(given) <= small:
        why = f"all are {given[0]:.3f}, of inner products from {true.min():.3f} to {true.max():.3f}"
    elif np.ptp(true) > 0.01 * size and np.corrcoef(given, true)[0, 1] < BACKWARDS:
        why = "they fall as the inner products rise"
    elif (off := float(np.sqrt(np.square(given - true, dtype=np.float64).mean()))) > size / 2:
        why = f"they are off by {off:.3f}, of vectors whose lengths multiply to {size:.3f}"
    else:
        why = ""
    if why:
        raise LookalikeError(
            f"indexes: factory '{factory}' does not score by inner product: of {len(given)} scores of vectors that it "
            f"holds, {why}. Choose another factory: docs/indexes.md shows some that work."
        )


def add(index: Any, vectors: NDArray[np.float32]) -> None:
    """Add unit vectors (n, d) to an index in place, each as ``transform`` has it."""
    import faiss

    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        add(index.index, faiss_index.apply_transforms(index, vectors))
        index.ntotal = index.index.ntotal
    else:
        index.add(np.ascontiguousarray(vectors))


def repeatable(factory: str, threads: int) -> None:
    """Set FAISS' threads for building: one for graphs, whose edges depend on which thread comes first."""
    import faiss

    graph = "HNSW" in factory or "NSG" in factory
    faiss.omp_set_num_threads(1 if graph else threads)
    if graph and threads > 1:
        log.info("building '%s' in one thread, so that it comes out the same every time", factory)


def _demands(index: Any) -> tuple[int, int]:
    """How many centroids an index learns at most in one go, and how many principal components it keeps."""
    import faiss

    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        steps = faiss_index.steps(index)
        kept = [step.d_out for step in steps if isinstance(step, faiss.PCAMatrix)]
        inside = [step.pq for step in steps if isinstance(step, faiss.OPQMatrix) and step.pq is not None]
        centroids, dimensions = _demands(index.index)
        return max(centroids, *(pq.ksub for pq in inside), 0), max(dimensions, *kept, 0)
    if isinstance(index, faiss.IndexRefine):
        return _demands(index.base_index)
    lists = getattr(index, "nlist", 0)
    codes = index.pq.ksub if hasattr(index, "pq") else 0
    return max(lists, codes), 0
