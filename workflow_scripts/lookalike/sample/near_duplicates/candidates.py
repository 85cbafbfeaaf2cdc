"""Pairs of images that may be the same: blocks by the brightness of their parts, and two hashes within a block.

Hashes of same images differ in up to a third of their bits, which no hash table can look up. But same images agree in
the brightness of every part of their thumbnails (PART). So they are split at the median of one part after the other,
with a margin of PART: no pair is lost, and what is compared within the blocks is a small share of all pairs.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lookalike.sample.near_duplicates.signatures import KEPT, TURNS, Bytes, Rows, Signatures, part_sums, turned

PHASH_BITS = 90  # of 256: largest distance of candidates
DHASH_BITS = 70
PARTS = 8  # a thumbnail has PARTS x PARTS parts, each of which must agree: a screenshot may differ in a few
PART = 10  # largest difference of the mean grey value of a part
AREA = (KEPT // PARTS) ** 2  # pixels of a part
SMALL = 1 << 16  # pairs that are sooner compared than split
GAIN = 0.9  # of the pairs of a block, its halves may have so many at most
SPREAD_OF = 1 << 10  # images by which the part that spreads most is chosen
AT_ONCE = 256  # images looked up at a time: bounds the memory where all images look alike

Sums = NDArray[np.int16]
Block = tuple[Rows, Rows]  # rows of probes, and of the images that may be the same as any of them


def candidates(signatures: Signatures) -> Iterator[Block]:
    """Probes and the images whose canonical hashes are near theirs, parallel, some at a time: each pair at least once.

    Pairs that differ in a part by more than PART may be missing. Flat images, which have nothing to be recognized by,
    are in none.
    """
    images = np.flatnonzero(~signatures.flat)
    probes = np.flatnonzero(~signatures.flat[signatures.image])
    for block in _blocks((probes, images), _parts(signatures)):
        yield from _near(signatures, *block)


def _parts(signatures: Signatures) -> Sums:
    """(p, PARTS * PARTS) int16: the sum of the grey values of each part of the probes, in their orientations."""
    sums = part_sums(signatures.grey, PARTS)[signatures.image]
    for number in np.unique(signatures.turn):
        of = signatures.turn == number
        sums[of] = turned(sums[of], TURNS[number])
    return sums.reshape(-1, PARTS * PARTS)


def _blocks(whole: Block, parts: Sums) -> Iterator[Block]:
    """Blocks that together hold every pair whose parts agree."""
    waiting = [whole]
    while waiting:
        block = waiting.pop()
        if _pairs(block) > SMALL:
            halves = [half for half in _halves(block, parts) if _pairs(half)]
            if sum(map(_pairs, halves)) <= GAIN * _pairs(block):
                waiting += halves
                continue
        yield block


def _halves(block: Block, parts: Sums) -> list[Block]:
    """The block split at the median of the part in which its probes spread most."""
    probes, images = block
    part = int(np.argmax(parts[probes[:: len(probes) // SPREAD_OF + 1]].std(axis=0)))
    of_probes, of_images = parts[probes, part], parts[images, part]
    middle = int(np.median(of_probes))
    return [
        (probes[of_probes <= middle], images[of_images <= middle + PART * AREA]),
        (probes[of_probes > middle], images[of_images > middle - PART * AREA]),
    ]


def _pairs(block: Block) -> int:
    return len(block[0]) * len(block[1])


def _near(signatures: Signatures, probes: Rows, images: Rows) -> Iterator[Block]:
    """The pairs of a block whose hashes are near."""
    import faiss

    index = faiss.IndexBinaryFlat(8 * signatures.phash.shape[1])
    index.add(signatures.phash[images])
    threads = faiss.omp_get_max_threads()
    for start in range(0, len(probes), AT_ONCE):
        some = probes[start : start + AT_ONCE]
        faiss.omp_set_num_threads(1 if _pairs((some, images)) <= SMALL else threads)  # starting them takes longer
        limits, _, positions = index.range_search(signatures.phash[some], PHASH_BITS + 1)
        faiss.omp_set_num_threads(threads)
        probe, row = np.repeat(some, np.diff(limits).astype(np.int64)), images[positions]
        other = signatures.image[probe] != row
        # two canonical orientations find each other: once is enough
        other &= (signatures.turn[probe] > 0) | (signatures.image[probe] < row)
        probe, row = probe[other], row[other]
        near = _distance(signatures.dhash[probe], signatures.dhash[row]) <= DHASH_BITS
        yield probe[near], row[near]


def _distance(a: Bytes, b: Bytes) -> Rows:
    """The number of bits in which packed hashes differ."""
    return np.asarray(np.bitwise_count(a ^ b).sum(axis=1, dtype=np.int64))
