"""An index file as something to search: vectors to compare each query with, or a FAISS index to ask."""

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

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stored:
    """An index as it was read: a FAISS index, or, where it is a scan, the shards and which of their rows it has."""

    faiss: Any | None
    shards: tuple[str, ...] = ()
    references: tuple[NDArray[np.bool_], ...] = ()

    def transform(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors (n, d) as this index compares them."""
        return queries if self.faiss is None else faiss_index.transform(self.faiss, queries)

    def blocks(self) -> Iterator[NDArray[np.float32]] | None:
        """All references' vectors, in order, in blocks; None where the index does not keep them whole."""
        if self.faiss is None:
            return vectors.blocks(self.shards, self.references)
        kept = faiss_index.full_vectors(self.faiss)
        return None if kept is None else vectors.split(kept)


def load(index: str, ids: str, reference_ids: pa.Array, settings: dict[str, float]) -> Stored:
    """Read an index whose files were checked (``checks.check_index``), with its search parameters set.

    Raises LookalikeError where the shards of a scan index do not hold the references in the order of the ids.
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
        # against this shard's references alone: a hash table of all ids would be most of the memory
        (rows,) = vectors.rows_among([shard], reference_ids.slice(done, count))
        references.append(rows >= 0)
        if not np.array_equal(rows[rows >= 0], np.arange(count)):
            break
        done += count
    if done != len(reference_ids):
        raise LookalikeError(
            f"{ids}: its {len(reference_ids)} references are not those of the shards that {index} names. "
            "Delete both and run again."
        )
    return Stored(None, shards, tuple(references))


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


def on_gpu(index: Any) -> Any:
    """The index on a GPU that no other job has, or None, with the reason logged, where it cannot be put on one."""
    import faiss

    device = faiss_index.gpu()
    if device is None:
        return None
    options = faiss.GpuClonerOptions()
    options.useFloat16 = False  # the same results as on the CPU, up to ties
    try:
        return faiss.index_cpu_to_gpu(faiss_index.gpu_memory(), device, index, options)
    except RuntimeError as error:
        log.warning("this index cannot be searched on a GPU (%s): searching on the CPU", reason(error))
        return None
