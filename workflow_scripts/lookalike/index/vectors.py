"""Unit vectors out of embedding shards: the wanted ones, in the order of the shards, all at once or block by block."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lookalike import store

F = TypeVar("F", np.float32, np.float64)
FEW = 1 << 18  # ids: fewer are looked up shard by shard
BLOCK = 4096  # vectors: large enough for the matrix product, small enough to stay near the caches


def rows_among(embeddings: Sequence[str], ids: pa.Array) -> list[NDArray[np.int64]]:
    """For each shard, each of its pictures' row among ``ids``; -1 for a picture that is not among them."""
    if len(ids) <= FEW:  # a hash table for every shard, and one shard's ids in memory at a time
        return [row for path in embeddings for row in _rows([store.read_columns(path, "image_id")["image_id"]], ids)]
    return _rows([store.read_columns(path, "image_id")["image_id"] for path in embeddings], ids)


def _rows(columns: Sequence[pa.ChunkedArray], ids: pa.Array) -> list[NDArray[np.int64]]:
    together = pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string())
    rows = pc.index_in(together, value_set=ids).fill_null(-1).to_numpy()
    ends = np.cumsum([len(column) for column in columns])
    return [part.astype(np.int64) for part in np.split(rows, ends[:-1])]


def read(embeddings: Sequence[str], wanted: Sequence[NDArray[np.bool_]]) -> NDArray[np.float32]:
    """The wanted vectors of the shards, (n, d) float32 of length 1; one copy of them in memory."""
    count = sum(int(here.sum()) for here in wanted)
    vectors = np.empty((count, dimension(embeddings)), np.float32)
    done = 0
    for part in _parts(embeddings, wanted):
        vectors[done : done + len(part)] = part
        done += len(part)
    return vectors


def blocks(
    embeddings: Sequence[str], wanted: Sequence[NDArray[np.bool_]], size: int = BLOCK
) -> Iterator[NDArray[np.float32]]:
    """The wanted vectors of the shards as blocks (size, d) of unit vectors, the last one smaller.

    Each block is a view of one buffer: it is good until the next is asked for.
    """
    buffer = np.empty((size, dimension(embeddings)), np.float32)
    filled = 0
    for part in _parts(embeddings, wanted):
        taken = 0
        while taken < len(part):
            step = min(size - filled, len(part) - taken)
            buffer[filled : filled + step] = part[taken : taken + step]
            taken, filled = taken + step, filled + step
            if filled == size:
                yield buffer
                filled = 0
    if filled:
        yield buffer[:filled]


def dimension(embeddings: Sequence[str]) -> int:
    """The length of the shards' vectors."""
    return int(store.read_schema(embeddings[0]).field("embedding").type.list_size)


def split(vectors: NDArray[np.float32], size: int = BLOCK) -> Iterator[NDArray[np.float32]]:
    """``vectors`` (n, d) as blocks of the size that ``blocks`` has."""
    return (vectors[start : start + size] for start in range(0, len(vectors), size))


def unit(vectors: NDArray[F]) -> NDArray[F]:
    """(n, d) vectors to length 1, in place.

    A vector of zeros (a plain picture under `pixels`) stays zero: it scores 0 with everything.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    normalised: NDArray[F] = np.divide(vectors, lengths, out=vectors, where=lengths > 0)
    return normalised


def _parts(embeddings: Sequence[str], wanted: Iterable[NDArray[np.bool_]]) -> Iterator[NDArray[np.float32]]:
    for path, here in zip(embeddings, wanted, strict=True):
        if not here.any():
            continue
        done = 0
        for batch in store.read_batches(path, "embedding", rows=BLOCK):
            column = batch["embedding"]
            chosen = here[done : done + len(column)]
            done += len(column)
            if chosen.any():
                matrix = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size)
                yield unit(matrix[chosen].astype(np.float32, copy=False))
