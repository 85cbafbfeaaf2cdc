"""FAISS indexes from factory strings: made, trained with errors that help, set for searching, put on a GPU."""

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike import devices
from lookalike.errors import LookalikeError, did_you_mean

log = logging.getLogger(__name__)
SCRATCH = 512 << 20  # bytes that FAISS may take on a GPU besides the index
COMFORTABLE = 39  # training vectors a centroid: FAISS' own ClusteringParameters.min_points_per_centroid


def make(factory: str, dimension: int) -> Any:
    """An empty index for unit vectors, compared by inner product. Raises LookalikeError where there is none."""
    import faiss

    try:
        return faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise LookalikeError(
            f"indexes: FAISS cannot build factory '{factory}' for vectors of {dimension} dimensions: {reason(error)}. "
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
    device = None if ivf is None else _device()
    if ivf is not None and device is not None:
        assigner = faiss.index_cpu_to_gpu(_gpu_memory(), device, faiss.IndexFlatIP(ivf.d))
        ivf.clustering_index = assigner
    try:
        index.train(vectors)
        if ivf is not None:
            ivf.clustering_index = None  # FAISS does not own it: it must not outlive the object here
    except RuntimeError as error:
        raise LookalikeError(
            f"indexes: FAISS cannot train factory '{factory}' on {len(vectors)} vectors: {reason(error)}"
        ) from None
    if not np.isfinite(transform(index, vectors[:1000])).all():
        raise LookalikeError(
            f"indexes: factory '{factory}' divides by a variance of zero: the model's vectors vary in fewer directions "
            "than it keeps. Ask for fewer principal components in `factory`."
        )


def configure(index: Any, factory: str, settings: dict[str, float]) -> None:
    """Set search parameters, such as nprobe, in place. Raises LookalikeError naming those that the index has."""
    import faiss

    space = faiss.ParameterSpace()
    for name, value in settings.items():
        try:
            space.set_index_parameter(index, name, value)
        except RuntimeError:
            space.initialize(index)
            ranges = space.parameter_ranges
            known = sorted({ranges.at(number).name for number in range(ranges.size())})
            allowed = did_you_mean(name, known) if known else " It has none."
            raise LookalikeError(f"indexes: factory '{factory}' has no search setting '{name}'.{allowed}") from None


def transform(index: Any, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors (n, d) as the index compares them: through its transforms, such as whitening; quantised they are not."""
    import faiss

    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        for step in _steps(index):
            vectors = step.apply(np.ascontiguousarray(vectors))
        return transform(index.index, vectors)
    return vectors


def full_vectors(index: Any) -> NDArray[np.float32] | None:
    """The stored vectors (n, d') of an index that keeps them whole and compares each with every query; else None.

    A view into the index: good for as long as the index is.
    """
    import faiss

    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        return full_vectors(index.index)
    if not isinstance(index, faiss.IndexFlat):
        return None
    stored: NDArray[np.float32] = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d)
    return stored.reshape(index.ntotal, index.d)


def on_gpu(index: Any) -> Any:
    """The index on a GPU that no other job has, or None, with the reason logged, where it cannot be put on one."""
    import faiss

    device = _device()
    if device is None:
        return None
    options = faiss.GpuClonerOptions()
    options.useFloat16 = False  # the same results as on the CPU, up to ties
    try:
        return faiss.index_cpu_to_gpu(_gpu_memory(), device, index, options)
    except RuntimeError as error:
        log.warning("this index cannot be searched on a GPU (%s): searching on the CPU", reason(error))
        return None


def repeatable(factory: str, threads: int) -> None:
    """Set FAISS' threads for building: one for graphs, whose edges depend on which thread comes first."""
    import faiss

    graph = "HNSW" in factory or "NSG" in factory
    faiss.omp_set_num_threads(1 if graph else threads)
    if graph and threads > 1:
        log.info("building '%s' in one thread, so that it comes out the same every time", factory)


def reason(error: RuntimeError) -> str:
    """The sentence in a FAISS error."""
    return str(error).strip().splitlines()[-1].split("Error: ")[-1].split(" failed: ")[-1].rstrip(".")


def _demands(index: Any) -> tuple[int, int]:
    """How many centroids an index learns at most in one go, and how many principal components it keeps."""
    import faiss

    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        steps = _steps(index)
        kept = [step.d_out for step in steps if isinstance(step, faiss.PCAMatrix)]
        inside = [step.pq for step in steps if isinstance(step, faiss.OPQMatrix) and step.pq is not None]
        centroids, dimensions = _demands(index.index)
        return max(centroids, *(pq.ksub for pq in inside), 0), max(dimensions, *kept, 0)
    if isinstance(index, faiss.IndexRefine):
        return _demands(index.base_index)
    lists = getattr(index, "nlist", 0)
    codes = index.pq.ksub if hasattr(index, "pq") else 0
    return max(lists, codes), 0


def _steps(index: Any) -> list[Any]:
    """The transforms that vectors pass before they are stored."""
    import faiss

    return [faiss.downcast_VectorTransform(index.chain.at(number)) for number in range(index.chain.size())]


def _device() -> int | None:
    """A GPU for this job, or None where FAISS can use none."""
    import faiss

    count = faiss.get_num_gpus() if hasattr(faiss, "StandardGpuResources") else 0
    if not count:
        built = hasattr(faiss, "StandardGpuResources")
        devices.go_without_gpu("FAISS finds no device" if built else "this FAISS is built without GPUs")
        return None
    return devices.claim(devices.visible_devices(count))


def _gpu_memory() -> Any:
    import faiss

    resources = faiss.StandardGpuResources()
    resources.setTempMemory(SCRATCH)
    return resources
