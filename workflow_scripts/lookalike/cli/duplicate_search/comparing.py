"""Which images of a collection are copies of each other: candidates by vectors and hashes, judged by their pixels."""

import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from lookalike.cli.duplicate_search.alignment import Prepared, Verdict, compare, confirm, prepare_file
from lookalike.cli.duplicate_search.threads import in_threads
from lookalike.job.progress import Progress
from lookalike.sample.near_duplicates.groups import same_images
from lookalike.sample.near_duplicates.signatures import Signatures

log = logging.getLogger(__name__)

BLOCK = 512  # rows of the similarity matrix in memory at a time
PER_IMAGE = 15  # most similar candidates of an image: in a folder of one texture, all resemble all
CACHED = 1_000  # images whose features are in memory, about 150 KB each
SURE = 2.0  # the score of pairs that pixels decide: above any cosine

Ints = NDArray[np.int64]
Scores = NDArray[np.float32]
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Pairs:
    """Pairs of images that may be copies, smaller row first.

    rows: (p, 2) int64. cosine: (p,) float32. score: (p,) float32, SURE where pixels confirm the pair, -1 where they
    refute it, and the cosine where they cannot tell.
    """

    rows: Ints
    cosine: Scores
    score: Scores

    @property
    def undecided(self) -> int:
        """How many pairs pixels neither confirm nor refute."""
        return int(np.count_nonzero((self.score >= 0) & (self.score < SURE)))

    def accepted(self, threshold: float) -> NDArray[np.bool_]:
        """(p,) bool: pairs that pixels confirm, and those that they cannot decide with a cosine of the threshold."""
        return np.asarray(self.score >= threshold)


def compared(
    vectors: Vectors,
    signatures: Signatures,
    small: Callable[[int], bytes],
    *,
    least: float,
    threads: int,
    between: NDArray[np.bool_] | None = None,
    most: int = PER_IMAGE,
) -> Pairs:
    """Compare the images of n unit vectors.

    least: cosine from which on a pair is a candidate. small: a small version of an image, by its row.
    between: (n, 2) bool, the sides that each image is on; if given, only pairs across both count
    most: candidates of an image, the most similar ones
    """
    usable = ~signatures.flat
    same = same_images(signatures).pairs
    if between is not None:
        same = same[across(between[same[:, 0]], between[same[:, 1]])]
    near = np.array([*_candidates(vectors, usable, least, between, most)], np.int64).reshape(-1, 2)
    alike = {(int(a), int(b)) for a, b in same}
    pairs = sorted({(int(a), int(b)) for a, b in [*_first(same, most), *near]})
    judge = _Judge(small)
    progress = Progress("compared", len(pairs), "pairs", every=5.0)
    verdicts = []

    def judged(pair: tuple[int, int]) -> Verdict:
        return (judge.confirmed if pair in alike else judge.verdict)(pair)

    with threadpool_limits(1):  # NumPy's threads, like those of OpenCV, would compete with these
        for verdict in in_threads(judged, pairs, threads):
            verdicts.append(verdict)
            progress.advance()
    rows = np.array(pairs, np.int64).reshape(-1, 2)
    cosine = np.array([vectors[a] @ vectors[b] for a, b in rows], np.float32)
    fixed = {Verdict.COPY: SURE, Verdict.OTHER: -1.0}
    score = np.array([fixed.get(verdict, np.nan) for verdict in verdicts], np.float32)
    return Pairs(rows, cosine, np.where(np.isnan(score), cosine, score).astype(np.float32))


def _first(pairs: Ints, most: int) -> Iterator[tuple[int, int]]:
    """For each image its pairs with the first others: these are the same for all copies of one image."""
    count: Counter[int] = Counter()
    for a, b in pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))].tolist():
        count[b] += 1
        if count[b] <= most:
            yield a, b


def across(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(p,) bool: whether the images of each pair, (p, 2) bool, are on different sides; one may be on both."""
    return np.asarray((first & second[:, ::-1]).any(axis=1))


def _candidates(
    vectors: Vectors, usable: NDArray[np.bool_], least: float, between: NDArray[np.bool_] | None, most: int
) -> Iterator[tuple[int, int]]:
    """The pairs with a cosine of at least ``least``, the most similar of each image only."""
    found: set[tuple[int, int]] = set()
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK] @ vectors.T
        block[~usable[start : start + BLOCK]] = -1
        block[:, ~usable] = -1
        block[np.arange(len(block)), np.arange(start, start + len(block))] = -1
        if between is not None:
            block[~(between[start : start + BLOCK] @ between[:, ::-1].T)] = -1
        count = min(most, block.shape[1] - 1)
        if count < 1:
            return
        nearest = np.argpartition(-block, count - 1, axis=1)[:, :count]
        cosines = np.take_along_axis(block, nearest, axis=1)
        for row, column in zip(*np.nonzero(cosines >= least), strict=True):
            a, b = start + int(row), int(nearest[row, column])
            found.add((min(a, b), max(a, b)))
    yield from sorted(found)


class _Judge:
    """Compares pairs by their pixels, and keeps the features of the images used last."""

    def __init__(self, small: Callable[[int], bytes]) -> None:
        self._small = small
        self._cached: OrderedDict[int, tuple[threading.Lock, list[Prepared]]] = OrderedDict()
        self._lock = threading.Lock()

    def verdict(self, pair: tuple[int, int]) -> Verdict:
        """The verdict on a pair, in any orientation."""
        return compare(self._prepared(pair[0]), self._prepared(pair[1]))

    def confirmed(self, pair: tuple[int, int]) -> Verdict:
        """The verdict on a pair whose thumbnails are the same."""
        return confirm(self._prepared(pair[0], features=False), self._prepared(pair[1], features=False))

    def _prepared(self, row: int, *, features: bool = True) -> Prepared:
        """An image; its features are found by one thread, while others that need them wait."""
        with self._lock:
            lock, found = self._cached.setdefault(row, (threading.Lock(), []))
            self._cached.move_to_end(row)
            if len(self._cached) > CACHED:
                self._cached.popitem(last=False)
        with lock:
            if not found:
                found.append(prepare_file(self._small(row)))
            if features:
                _ = found[0].features
        return found[0]
