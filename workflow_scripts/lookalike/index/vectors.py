"""Unit vectors out of embedding shards: the wanted ones, in the order of the shards, all at once or block by block."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lookalike import store
from lookalike.formats import FEW, hashes_of

F = TypeVar("F", np.float32, np.float64)
BLOCK = 4096  # vectors: large enough for the matrix product, small enough to stay near the caches


def rows_among(embeddings: Sequence[str], ids: pa.Array) -> list[NDArray[np.int64]]:
    """For each shard, each of its pictures' row among ``ids``; -1 for a picture that is not among them.

    One shard's ids are in memory at a time. Many ``ids`` are found by their sorted hashes, 16 bytes each: a hash table
    of ten million names would take more memory than all else that a streamed index needs.
    """
    columns = (whole(store.read_columns(path, "image_id")["image_id"]) for path in embeddings)
    if len(ids) > FEW:
        hashes = hashes_of(ids)
        order = np.argsort(hashes)
        hashes = hashes[order]
        if (hashes[1:] != hashes[:-1]).all():
            return [_by_hash(column, ids, hashes, order) for column in columns]
    return [_rows(column, ids) for column in columns]


def _rows(column: pa.Array, ids: pa.Array) -> NDArray[np.int64]:
    return np.asarray(pc.index_in(column, value_set=ids).fill_null(-1).to_numpy(), np.int64)


def _by_hash(
    column: pa.Array, ids: pa.Array, hashes: NDArray[np.uint64], order: NDArray[np.int64]
) -> NDArray[np.int64]:
    """As ``_rows``; ``hashes`` are those of ``ids[order]``, rising, and no two are equal."""
    rows = order[np.minimum(np.searchsorted(hashes, hashes_of(column)), len(order) - 1)]
    same = pc.equal(ids.take(pa.array(rows)), column).to_numpy(zero_copy_only=False)
    return np.where(same, rows, -1)


def rows_of(few: pa.Array, among: pa.Array) -> NDArray[np.int64]:
    """The row of each of a few different ids among others, (n,); -1 where it is not there."""
    found = pc.index_in(among, value_set=few).fill_null(-1).to_numpy()  # the hash table is of the fewer ids
    rows = np.full(len(few), -1, np.int64)
    there = np.flatnonzero(found >= 0)
    rows[found[there]] = there
    return rows


def whole(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array: itself where it is one chunk, which ``combine_chunks`` would copy."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


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
