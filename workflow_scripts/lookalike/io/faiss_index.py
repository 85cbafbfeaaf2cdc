"""What a FAISS index is made of: its transforms, the vectors that it keeps whole, and a GPU to compute on."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike.io.vectors import equal_rows
from lookalike.job import devices

SCRATCH = 512 << 20  # bytes that FAISS may take on a GPU besides the index


def transform(index: Any, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors (n, d) as the index compares them: through its transforms, such as whitening; quantised they are not.

    Equal ones stay equal, which FAISS' matrix product alone does not promise: it rounds by where a row stands.
    """
    import faiss

    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        return transform(index.index, apply_transforms(index, vectors))
    return vectors


def apply_transforms(index: Any, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors (n, d) through the transforms of an IndexPreTransform, but not of what is inside it."""
    copies, originals = equal_rows(vectors)
    for step in steps(index):
        vectors = step.apply(np.ascontiguousarray(vectors))
        vectors[copies] = vectors[originals]
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


def steps(index: Any) -> list[Any]:
    """The transforms that vectors pass before they are stored."""
    import faiss

    return [faiss.downcast_VectorTransform(index.chain.at(number)) for number in range(index.chain.size())]


def gpu() -> int | None:
    """A GPU for this job, or None where FAISS can use none."""
    import faiss

    count = faiss.get_num_gpus() if hasattr(faiss, "StandardGpuResources") else 0
    if not count:
        built = hasattr(faiss, "StandardGpuResources")
        devices.go_without_gpu("FAISS finds no device" if built else "this FAISS is built without GPUs")
        return None
    return devices.claim(devices.visible_devices(count))


def gpu_memory() -> Any:
    """FAISS' resources on a GPU, with bounded scratch memory."""
    import faiss

    resources = faiss.StandardGpuResources()
    resources.setTempMemory(SCRATCH)
    return resources
