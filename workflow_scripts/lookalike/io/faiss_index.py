"""The parts of a FAISS index: its transforms and the vectors that it stores in full; and a GPU to compute on."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike.io.vectors import equal_rows
from lookalike.job import devices, gpus

GPU_MOST = 2048  # neighbors, and clusters (nprobe), that FAISS can select on a GPU
SCRATCH = 512 << 20  # bytes that FAISS may take on a GPU besides the index


def transform(index: Any, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors (n, d) as the index compares them: after its transforms, such as whitening, but not quantised.

    Equal vectors stay equal, which FAISS' matrix product alone does not guarantee: its rounding depends on the row.
    """
    import faiss

    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        return transform(index.index, apply_transforms(index, vectors))
    return vectors


def apply_transforms(index: Any, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors (n, d) after the transforms of an IndexPreTransform, but not those of the index inside it."""
    copies, originals = equal_rows(vectors)
    for step in steps(index):
        vectors = step.apply(np.ascontiguousarray(vectors))
        vectors[copies] = vectors[originals]
    return vectors


def full_vectors(index: Any) -> NDArray[np.float32] | None:
    """The stored vectors (n, d') of an index that stores them in full and compares each with every query; else None.

    A view into the index, valid as long as the index exists.
    """
    import faiss

    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        return full_vectors(index.index)
    if not isinstance(index, faiss.IndexFlat):
        return None
    stored: NDArray[np.float32] = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d)
    return stored.reshape(index.ntotal, index.d)


def steps(index: Any) -> list[Any]:
    """The transforms that are applied to vectors before they are stored."""
    import faiss

    return [faiss.downcast_VectorTransform(index.chain.at(number)) for number in range(index.chain.size())]


def gpu() -> int | None:
    """The number of a GPU for this job, or None where FAISS cannot use any."""
    import faiss

    supports_gpu = hasattr(faiss, "StandardGpuResources")
    held = gpus.held()
    claimed = gpus.claim() if supports_gpu else None  # before FAISS starts CUDA
    count = faiss.get_num_gpus() if supports_gpu else 0
    if not count:
        if not held:
            gpus.release()
        devices.go_without_gpu("FAISS finds no device" if supports_gpu else "this FAISS is built without GPU support")
        return None
    names = devices.visible_devices(count)
    return 0 if claimed and count == 1 else gpus.claim_one_of([*names])


def gpu_memory() -> Any:
    """FAISS' resources on a GPU, with bounded scratch memory."""
    import faiss

    resources = faiss.StandardGpuResources()
    resources.setTempMemory(SCRATCH)
    return resources
