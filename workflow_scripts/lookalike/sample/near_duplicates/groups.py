"""Groups of images that are the same: candidates, confirmed by their thumbnails."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lookalike.sample.near_duplicates.candidates import PART, PARTS, candidates
from lookalike.sample.near_duplicates.signatures import TURNS, Rows, Signatures, turned

GREY = 6.0  # largest mean absolute difference of grey thumbnails, of 255
TINT = 8.0  # and of their color differences
ALIKE = 0.96  # least correlation of grey thumbnails
# Two images of one outline (a dark corner, the frame of a screenshot) correlate whatever they show. Their details do
# not: what differs from the surroundings, where strong edges count no more than weak ones.
SURROUNDINGS = 5  # pixels of a thumbnail
STRONG = 4.0  # grey values, of 255
DETAILS = 0.8  # least correlation of details
PAIRS = 1 << 12  # pairs confirmed at a time
MOST_PAIRS = 5_000_000  # confirmed pairs; beyond, groups are incomplete


@dataclass(frozen=True)
class Found:
    """The confirmed pairs, (m, 2) int64 rows with the smaller first, and whether MOST_PAIRS was reached."""

    pairs: Rows
    capped: bool


def same_images(signatures: Signatures) -> Found:
    """All pairs of images that are the same; flat ones, which have nothing to be recognized by, are in none."""
    found: list[Rows] = []
    total = 0
    for pairs in _confirmed(signatures):
        found.append(pairs)
        total += len(pairs)
        if total > MOST_PAIRS:
            break
    pairs = np.unique(np.concatenate([np.empty((0, 2), np.int64), *found]), axis=0)
    return Found(pairs, total > MOST_PAIRS)


def _confirmed(signatures: Signatures) -> Iterator[Rows]:
    for probe, row in candidates(signatures):
        for start in range(0, len(probe), PAIRS):
            chosen = slice(start, start + PAIRS)
            same = _are_same(signatures, probe[chosen], row[chosen])
            pairs = np.stack([signatures.image[probe[chosen]], row[chosen]], axis=1)[same]
            yield np.sort(pairs, axis=1)


def _are_same(signatures: Signatures, probe: Rows, row: Rows) -> NDArray[np.bool_]:
    """(p,) bool: whether the thumbnails of pairs agree, with the probe's orientation."""
    image, turn = signatures.image[probe], signatures.turn[probe]
    same = np.zeros(len(probe), np.bool_)
    for number in np.unique(turn):
        of = turn == number
        grey = turned(signatures.grey[image[of]], TURNS[number]).astype(np.float32)
        other = signatures.grey[row[of]].astype(np.float32)
        tints = signatures.tints[image[of]]
        tints = np.stack([turned(tints[:, band], TURNS[number]) for band in range(tints.shape[1])], axis=1)
        far = np.abs(tints.astype(np.float32) - signatures.tints[row[of]]).mean(axis=(1, 2, 3))
        near = (np.abs(grey - other).mean(axis=(1, 2)) <= GREY) & (far <= TINT) & (_largest_part(grey - other) <= PART)
        same[of] = (
            near & (correlation(grey, other) >= ALIKE) & (correlation(_details(grey), _details(other)) >= DETAILS)
        )
    return same


def _largest_part(difference: NDArray[np.float32]) -> NDArray[np.float32]:
    side = difference.shape[1] // PARTS
    parts = difference.reshape(-1, PARTS, side, PARTS, side).mean(axis=(2, 4))
    return np.asarray(np.abs(parts).max(axis=(1, 2)))


def _details(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    from scipy.ndimage import uniform_filter

    surroundings = uniform_filter(grey, (0, SURROUNDINGS, SURROUNDINGS), mode="nearest")
    return np.asarray(np.clip(grey - surroundings, -STRONG, STRONG))


def correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """The correlation of each pair of thumbnails, (p, s, s) both: (p,), from -1 to 1."""
    a = a - a.mean(axis=(1, 2), keepdims=True)
    b = b - b.mean(axis=(1, 2), keepdims=True)
    both = np.sqrt((a * a).sum(axis=(1, 2)) * (b * b).sum(axis=(1, 2)))
    return np.asarray((a * b).sum(axis=(1, 2)) / np.maximum(both, 1e-6))


def stars(pairs: Rows, count: int) -> Rows:
    """(count,) int64: the group of each image as the row of its center, or -1 for an image without a partner.

    Every member is the same image as the center, so groups do not chain images that only a third one links. The image
    with most remaining partners is the next center; of several, the first.
    """
    group = np.full(count, -1, np.int64)
    partners: dict[int, set[int]] = {}
    for one, other in pairs.tolist():
        partners.setdefault(one, set()).add(other)
        partners.setdefault(other, set()).add(one)
    waiting = [(-len(others), row) for row, others in partners.items()]
    heapq.heapify(waiting)
    while waiting:
        size, center = heapq.heappop(waiting)
        left = partners.get(center)
        if left and -size != len(left):  # some are in other groups by now
            heapq.heappush(waiting, (-len(left), center))
        elif left:
            members = {center, *left}
            group[sorted(members)] = center
            for row in set().union(*(partners[member] for member in members)) - members:
                partners[row] -= members
            for row in members:
                del partners[row]
    return group
