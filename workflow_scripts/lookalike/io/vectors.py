"""Unit vectors out of embedding shards: a selection, in the order of the shards, all at once or block by block.

A vector is a function of the file's bytes: duplicates take the vector of the first of them, in the order of the shards.
A network rounds by batch and machine, so shards differ in the last bits, and a tie would become a ranking.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lookalike.io import store
from lookalike.io.formats.tables import HASH_TABLE_LIMIT, hashes_of
from lookalike.job.errors import LookalikeError

F = TypeVar("F", np.float32, np.float64)
BLOCK = 4096  # vectors: large enough for the matrix product, small enough to stay near the caches


def rows_among(embeddings: Sequence[str], ids: pa.Array) -> list[NDArray[np.int64]]:
    """For each shard, the row of each of its images among ``ids``; -1 for an image that is not among them.

    One shard's ids are in memory at a time. Many ``ids`` are looked up by their sorted hashes, 16 bytes each: a hash
    table of ten million names would take more memory than everything else that a scan index needs.
    """
    columns = (whole(store.read_columns(path, "image_id")["image_id"]) for path in embeddings)
    if len(ids) > HASH_TABLE_LIMIT:
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
    """As ``_rows``; ``hashes`` are those of ``ids[order]``, strictly increasing."""
    rows = order[np.minimum(np.searchsorted(hashes, hashes_of(column)), len(order) - 1)]
    same = pc.equal(ids.take(pa.array(rows)), column).to_numpy(zero_copy_only=False)
    return np.where(same, rows, -1)


def rows_of(ids: pa.Array, among: pa.Array) -> NDArray[np.int64]:
    """The row of each of a few distinct ids among others, (n,); -1 where it is missing."""
    positions = pc.index_in(among, value_set=ids).fill_null(-1).to_numpy()  # the hash table is of the fewer ids
    rows = np.full(len(ids), -1, np.int64)
    matching = np.flatnonzero(positions >= 0)
    rows[positions[matching]] = matching
    return rows


def whole(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array, without a copy where it has one chunk; ``combine_chunks`` always copies."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def read(embeddings: Sequence[str], masks: Sequence[NDArray[np.bool_]]) -> NDArray[np.float32]:
    """The selected vectors of the shards, (n, d) float32 of length 1; one copy of them in memory.

    ``masks`` has one for each shard: which of its rows are selected.
    """
    count = sum(int(mask.sum()) for mask in masks)
    vectors = np.empty((count, dimension(embeddings)), np.float32)
    done = 0
    for part in _parts(embeddings, masks):
        vectors[done : done + len(part)] = part
        done += len(part)
    return vectors


def blocks(
    embeddings: Sequence[str], masks: Sequence[NDArray[np.bool_]], size: int = BLOCK
) -> Iterator[NDArray[np.float32]]:
    """The selected vectors of the shards as blocks (size, d) of unit vectors, the last one smaller.

    Each block is a view of one buffer, valid until the next block is requested.
    """
    buffer = np.empty((size, dimension(embeddings)), np.float32)
    filled = 0
    for part in _parts(embeddings, masks):
        copied = 0
        while copied < len(part):
            step = min(size - filled, len(part) - copied)
            buffer[filled : filled + step] = part[copied : copied + step]
            copied, filled = copied + step, filled + step
            if filled == size:
                yield buffer
                filled = 0
    if filled:
        yield buffer[:filled]


def dimension(embeddings: Sequence[str]) -> int:
    """The length of the shards' vectors."""
    return int(store.read_schema(embeddings[0]).field("embedding").type.list_size)


def split(vectors: NDArray[np.float32], size: int = BLOCK) -> Iterator[NDArray[np.float32]]:
    """``vectors`` (n, d) in blocks of the same size as those of ``blocks``."""
    return (vectors[start : start + size] for start in range(0, len(vectors), size))


def unit(vectors: NDArray[F]) -> NDArray[F]:
    """Scale (n, d) vectors to length 1, in place.

    A vector of zeros (an image of one color under `pixels`) stays zero: it scores 0 with everything. Numbers whose
    squares overflow or underflow are scaled first, so that they are not mistaken for zeros.
    """
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    extreme = ~((lengths > np.sqrt(np.finfo(vectors.dtype).tiny) * 1e3) & (lengths < np.inf))[:, 0]
    if extreme.any():
        scaled = vectors[extreme]
        largest = np.abs(scaled).max(axis=1, keepdims=True)
        np.divide(scaled, largest, out=scaled, where=largest > 0)
        vectors[extreme], lengths[extreme] = scaled, np.linalg.norm(scaled, axis=1, keepdims=True)
    normalised: NDArray[F] = np.divide(vectors, lengths, out=vectors, where=lengths > 0)
    return normalised


def equal_rows(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of (n, d) that equal an earlier one to the last bit, and the first such row of each."""
    sums = np.ascontiguousarray(vectors).view(np.uint32).sum(axis=1, dtype=np.uint64)  # equal rows have equal ones
    ordered = np.sort(sums)
    rows = np.flatnonzero(np.isin(sums, ordered[1:][ordered[1:] == ordered[:-1]]))
    if not len(rows):
        return rows, rows
    _, first, inverse = np.unique(vectors[rows], axis=0, return_index=True, return_inverse=True)
    originals = rows[first[inverse.reshape(-1)]]
    copies = originals != rows
    return rows[copies], originals[copies]


@dataclass(frozen=True)
class Shared:
    """Rows of one shard that share their vector with other rows; ``slots`` are rows of the table of shared vectors."""

    copies: NDArray[np.int64]  # rows that take a vector, increasing
    copy_slots: NDArray[np.int64]
    originals: NDArray[np.int64]  # rows that give one, increasing
    original_slots: NDArray[np.int64]

    def give(self, rows: NDArray[np.int64], vectors: NDArray[np.float32], shared: NDArray[np.float32]) -> None:
        """Put the originals' vectors into ``shared`` and set the copies' from it; ``rows`` are those of ``vectors``."""
        positions, slots = _positions(rows, self.originals, self.original_slots)
        shared[slots] = vectors[positions]
        positions, slots = _positions(rows, self.copies, self.copy_slots)
        vectors[positions] = shared[slots]


def _positions(
    rows: NDArray[np.int64], selected: NDArray[np.int64], slots: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions in ``rows`` of the ``selected`` ones between its ends, and their slots; all increase."""
    part = slice(*np.searchsorted(selected, (rows[0], rows[-1] + 1)))
    return np.searchsorted(rows, selected[part]), slots[part]


def _duplicates(embeddings: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Rows, counted over all shards, whose file's bytes an earlier row has; that row; and each shard's first row.

    One shard's hashes are in memory as text at a time; of the others, 8 bytes each.
    """
    shards = [hashes_of(whole(store.read_columns(path, "sha256")["sha256"])) for path in embeddings]
    offsets = np.cumsum([0, *map(len, shards)])
    hashes = np.concatenate(shards)
    ordered = np.sort(hashes)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    rows = np.flatnonzero(np.isin(hashes, repeated)) if len(repeated) else np.empty(0, np.int64)
    if not len(rows):
        return rows, rows, offsets
    del ordered, hashes
    contents = []  # whole: two files may share 64 bits
    for path, (first, last) in zip(embeddings, pairwise(offsets), strict=True):
        in_shard = rows[slice(*np.searchsorted(rows, (first, last)))] - first
        if len(in_shard):
            contents.append(whole(store.read_columns(path, "sha256")["sha256"]).take(pa.array(in_shard)))
    content = pa.chunked_array(contents).combine_chunks().dictionary_encode().indices.to_numpy()
    _, first_of = np.unique(content, return_index=True)
    originals = rows[first_of[content]]
    copies = originals != rows
    return rows[copies], originals[copies], offsets


def _shared(embeddings: Sequence[str], masks: Sequence[NDArray[np.bool_]]) -> tuple[list[Shared], int]:
    """For each shard, its selected rows that share a vector; and how many different vectors are shared."""
    copies, originals, offsets = _duplicates(embeddings)
    if len(copies):
        used = np.concatenate(masks)[copies]
        copies, originals = copies[used], originals[used]
    givers, slots = np.unique(originals, return_inverse=True)
    shared = []
    for first, last in pairwise(offsets):
        taking, giving = (slice(*np.searchsorted(rows, (first, last))) for rows in (copies, givers))
        numbers = np.arange(giving.start, giving.stop)
        shared.append(Shared(copies[taking] - first, slots[taking], givers[giving] - first, numbers))
    return shared, len(givers)


def _parts(embeddings: Sequence[str], masks: Sequence[NDArray[np.bool_]]) -> Iterator[NDArray[np.float32]]:
    shards, count = _shared(embeddings, masks)
    shared = np.empty((count, dimension(embeddings)), np.float32)
    for path, mask, sharing in zip(embeddings, masks, shards, strict=True):
        needed = mask.copy()
        needed[sharing.originals] = True
        if not needed.any():
            continue
        done = 0
        for batch in store.read_batches(path, "embedding", rows=BLOCK):
            column = batch["embedding"]
            rows = done + np.flatnonzero(needed[done : done + len(column)])
            if len(rows):
                matrix = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size)
                part = matrix[rows - done].astype(np.float32, copy=False)
                _check_finite(part, path, rows)
                sharing.give(rows, unit(part), shared)
                yield part[mask[rows]]
            done += len(column)


def _check_finite(vectors: NDArray[np.float32], path: str, rows: NDArray[np.int64]) -> None:
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        row = int(rows[np.argmin(finite)])
        raise LookalikeError(
            f"{path}: the vector of '{store.read_columns(path, 'image_id')['image_id'][row]}' holds NaN or infinite "
            f"numbers. Embed this shard again: --forcerun {path}"
        )
