"""Load an index file for searching: vectors to compare each query with, or a FAISS index to query."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lookalike.config.factories import reason
from lookalike.io import faiss_index, store, vectors
from lookalike.io.formats.records import Scan
from lookalike.job.errors import LookalikeError, did_you_mean

SHARED_MEMORY = 48 << 10  # bytes that a block of GPU threads may have, in which FAISS keeps a query's distance tables

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stored:
    """A loaded index: a FAISS index, or, for a scan index, its shards and masks of their references."""

    faiss: Any | None
    shards: tuple[str, ...] = ()
    references: tuple[NDArray[np.bool_], ...] = ()

    def transform(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Transform vectors (n, d) as this index does before comparing them."""
        return queries if self.faiss is None else faiss_index.transform(self.faiss, queries)

    def blocks(self) -> Iterator[NDArray[np.float32]] | None:
        """All references' vectors in order, in blocks; None if the index does not store full vectors."""
        if self.faiss is None:
            return vectors.blocks(self.shards, self.references)
        full = faiss_index.full_vectors(self.faiss)
        return None if full is None else vectors.split(full)


def load(index: str, ids: str, reference_ids: pa.Array, settings: dict[str, float]) -> Stored:
    """Load an index, already checked by ``checks.check_index``, and set its search parameters.

    Raises LookalikeError if the shards of a scan index do not hold the references in the order of the ids.
    """
    key = json.loads(store.read_provenance(ids)["index_key"])
    if key.get("scan"):
        return _scan(index, ids, reference_ids)
    import faiss

    loaded = faiss.read_index(index)
    configure(loaded, key["factory"], settings)
    return Stored(loaded)


def _scan(index: str, ids: str, reference_ids: pa.Array) -> Stored:
    manifest = store.read_json(index, Scan)
    shards = tuple(str(Path(index).parent / shard) for shard in manifest.shards)
    references, done = [], 0
    for shard, count in zip(shards, manifest.shards.values(), strict=True):
        # one shard's references at a time: a hash table of all ids would take most of the memory
        (rows,) = vectors.rows_among([shard], reference_ids.slice(done, count))
        references.append(rows >= 0)
        if not np.array_equal(rows[rows >= 0], np.arange(count)):
            break
        done += count
    if done != len(reference_ids):
        raise LookalikeError(
            f"{ids}: its {len(reference_ids)} references do not match the shards that {index} lists. Delete both files "
            "and run again."
        )
    return Stored(None, shards, tuple(references))


def configure(index: Any, factory: str, settings: dict[str, float]) -> None:
    """Set search parameters, such as nprobe, in place. Raises LookalikeError for one that the index does not have."""
    import faiss

    space = faiss.ParameterSpace()
    for name, value in settings.items():
        try:
            space.set_index_parameter(index, name, value)
        except RuntimeError:
            space.initialize(index)
            ranges = space.parameter_ranges
            names = sorted({ranges.at(position).name for position in range(ranges.size())})
            hint = did_you_mean(name, names) if names else " It has no search settings."
            raise LookalikeError(f"indexes: factory '{factory}' has no search setting '{name}'.{hint}") from None


def on_gpu(index: Any) -> Any:
    """A copy of the index on a free GPU; None, with the reason logged, if that is not possible."""
    import faiss

    device = faiss_index.gpu()
    if device is None:
        return None
    options = faiss.GpuClonerOptions()
    options.useFloat16 = _needs_half_tables(index)  # else the same results as on the CPU, up to ties
    try:
        _check_nprobe(index)
        return faiss.index_cpu_to_gpu(faiss_index.gpu_memory(), device, index, options)
    except RuntimeError as error:
        log.warning("this index cannot be searched on a GPU (%s); searching on the CPU", reason(error))
        return None


def _needs_half_tables(index: Any) -> bool:
    """Whether an IVF index's codes are too long for distance tables in float32: FAISS refuses them on a GPU.

    Of an index other than IVF, float16 would round the vectors themselves.
    """
    import faiss

    ivf = faiss.try_extract_index_ivf(index)
    pq = None if ivf is None else getattr(faiss.downcast_index(ivf), "pq", None)
    return pq is not None and 4 * pq.M * pq.ksub > SHARED_MEMORY


def _check_nprobe(index: Any) -> None:
    """Raise RuntimeError if more clusters are visited than FAISS can on a GPU; it would fail at the first search."""
    import faiss

    ivf: Any = faiss.try_extract_index_ivf(index)
    if ivf is not None and min(ivf.nprobe, ivf.nlist) > faiss_index.GPU_MOST:
        raise RuntimeError(f"nprobe is {ivf.nprobe}, and FAISS visits at most {faiss_index.GPU_MOST} clusters there")
