"""What an image is recognized by when it was saved again: a small thumbnail and two hashes of it.

All are of the image in a canonical orientation, so that a turned or mirrored copy has the same: transposed and mirrored
until the brightness changes most from left to right, and rises to the right and downwards. Where that is a close call,
a re-saved copy may fall on the other side, so such an image is looked up in the other orientations too.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 64  # of the thumbnail that hashes are computed from
BITS = 16  # a hash has BITS x BITS bits
KEPT = 32  # side of the grey thumbnail that confirms a candidate
TINTS = 8  # side of its color differences
CLOSE = 1.15  # ratio of the two main gradients that is too close to tell which is larger
FAINT = 0.03  # of the norm of all coefficients: a gradient whose sign is uncertain
FLAT = 5.0  # standard deviation of grey values below which an image has nothing to be recognized by

Bytes = NDArray[np.uint8]
Rows = NDArray[np.int64]
Turn = tuple[bool, bool, bool]  # transpose, then mirror left to right, then top to bottom
TURNS: tuple[Turn, ...] = tuple(product((False, True), (False, True), (False, True)))


@dataclass(frozen=True)
class Signatures:
    """Of n images, and the p >= n orientations in which they are looked up; the first n are the canonical ones.

    grey: (n, KEPT, KEPT) uint8
    tints: (n, 2, TINTS, TINTS) uint8, Cb and Cr
    flat: (n,) bool, see FLAT
    image: (p,) int64, and ``turn``: (p,) uint8, row of TURNS that is applied to the image's canonical orientation
    phash, dhash: (p, BITS * BITS / 8) uint8, packed bits
    """

    grey: Bytes
    tints: Bytes
    flat: NDArray[np.bool_]
    image: Rows
    turn: Bytes
    phash: Bytes
    dhash: Bytes


def thumbnail(image: Image.Image) -> Bytes:
    """(SIDE, SIDE, 3) uint8: a small YCbCr image, whatever the aspect ratio."""
    small = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(small.convert("YCbCr"))


def least_size(size: tuple[int, int]) -> tuple[int, int]:
    """The smallest size to decode an image at (``images.decode``)."""
    return min(size[0], 2 * SIDE), min(size[1], 2 * SIDE)


def sign(thumbnails: Bytes) -> Signatures:
    """The signatures of some thumbnails, (n, SIDE, SIDE, 3) uint8."""
    canonical, doubtful = _canonical(thumbnails)
    image = [np.arange(len(canonical))]
    turn = [np.zeros(len(canonical), np.uint8)]
    hashes = [_hashes(canonical[..., 0])]
    for number, flags in enumerate(TURNS[1:], start=1):
        rows = np.flatnonzero(doubtful[:, number])
        image.append(rows)
        turn.append(np.full(len(rows), number, np.uint8))
        hashes.append(_hashes(turned(canonical[rows, ..., 0], flags)))
    grey = part_sums(canonical[..., 0], KEPT) / (SIDE // KEPT) ** 2
    tints = np.stack([part_sums(canonical[..., band], TINTS) for band in (1, 2)], axis=1) / (SIDE // TINTS) ** 2
    return Signatures(
        grey=np.rint(grey).astype(np.uint8),
        tints=np.rint(tints).astype(np.uint8),
        flat=np.asarray(grey.std((1, 2)) < FLAT),
        image=np.concatenate(image),
        turn=np.concatenate(turn),
        phash=np.concatenate([phash for phash, _ in hashes]),
        dhash=np.concatenate([dhash for _, dhash in hashes]),
    )


def joined(parts: list[Signatures]) -> Signatures:
    """The signatures of several lists of images, one after the other."""
    first = np.cumsum([0, *(len(part.grey) for part in parts)])[:-1]
    probes = [_probes(part, int(start)) for part, start in zip(parts, first, strict=True)]
    canonical = [[column[: len(part.grey)] for column in columns] for part, columns in zip(parts, probes, strict=True)]
    others = [[column[len(part.grey) :] for column in columns] for part, columns in zip(parts, probes, strict=True)]
    image, turn, phash, dhash = (np.concatenate(columns) for columns in zip(*canonical, *others, strict=True))
    return Signatures(
        grey=np.concatenate([part.grey for part in parts]),
        tints=np.concatenate([part.tints for part in parts]),
        flat=np.concatenate([part.flat for part in parts]),
        image=image,
        turn=turn,
        phash=phash,
        dhash=dhash,
    )


def _probes(part: Signatures, first: int) -> tuple[Rows, Bytes, Bytes, Bytes]:
    return part.image + first, part.turn, part.phash, part.dhash


def turned(images: Bytes, flags: Turn) -> Bytes:
    """Thumbnails, (n, s, s, ...) uint8, in another orientation."""
    transpose, mirror, flip = flags
    images = images.swapaxes(1, 2) if transpose else images
    images = images[:, :, ::-1] if mirror else images
    return images[:, ::-1] if flip else images


def part_sums(images: Bytes, parts: int) -> NDArray[np.int16]:
    """(n, parts, parts) int16: the sum of each part of (n, s, s) thumbnails; exact, as a part has at most 64 pixels."""
    step = images.shape[1] // parts
    return _row_sums(_row_sums(images, step).swapaxes(1, 2), step).swapaxes(1, 2)


def _row_sums(images: NDArray[Any], step: int) -> NDArray[np.int16]:
    """(n, s / step, s): sums of ``step`` successive rows. Slices are added, which is several times faster than sum."""
    sums = images[:, ::step].astype(np.int16)
    for number in range(1, step):
        sums += images[:, number::step]
    return sums


def _canonical(thumbnails: Bytes) -> tuple[Bytes, NDArray[np.bool_]]:
    """Thumbnails in their canonical orientation; and (n, 8) bool, other TURNS of these that are close calls."""
    coefficients = _dct(thumbnails[..., 0])
    right, down = coefficients[:, 0, 1].copy(), coefficients[:, 1, 0].copy()
    rest = coefficients.reshape(len(coefficients), -1)[:, 1:]
    faint = FAINT * np.sqrt((rest**2).sum(1))
    transposed = abs(right) < abs(down)
    right[transposed], down[transposed] = down[transposed], right[transposed]
    canonical = np.empty_like(thumbnails)
    for flags in TURNS:
        rows = (transposed == flags[0]) & ((right < 0) == flags[1]) & ((down < 0) == flags[2])
        canonical[rows] = turned(thumbnails[rows], flags)
    right, down = abs(right), abs(down)
    unsure = (right < CLOSE * np.maximum(down, faint), right < faint, down < faint)
    doubtful = np.ones((len(thumbnails), len(TURNS)), np.bool_)
    for number, (transpose, mirror, flip) in enumerate(TURNS):
        # mirroring comes after transposing, which swaps what is uncertain
        sides = (mirror, unsure[2] if transpose else unsure[1]), (flip, unsure[1] if transpose else unsure[2])
        for flag, uncertain in ((transpose, unsure[0]), *sides):
            if flag:
                doubtful[:, number] &= uncertain
    return canonical, doubtful


def _hashes(grey: Bytes) -> tuple[Bytes, Bytes]:
    """The perceptual and the difference hash of (n, SIDE, SIDE) grey thumbnails, as imagehash computes them.

    Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010): which low frequencies are above
    their median, and where the brightness rises from left to right.
    """
    low = _dct(grey).reshape(len(grey), BITS * BITS)
    step = SIDE // BITS
    rows = _row_sums(grey, step) / step
    columns = rows @ _averages(SIDE, BITS + 1)
    return (
        np.packbits(low > np.median(low, axis=1, keepdims=True), axis=1),
        np.packbits((columns[:, :, 1:] > columns[:, :, :-1]).reshape(len(grey), BITS * BITS), axis=1),
    )


def _dct(grey: Bytes) -> NDArray[np.float32]:
    """(n, BITS, BITS) float32: the low frequencies of the discrete cosine transform of type 2, vertical first."""
    waves = np.cos(np.pi / SIDE * np.arange(BITS)[:, None] * (np.arange(SIDE) + 0.5)).astype(np.float32)
    return np.asarray(waves @ grey.astype(np.float32) @ waves.T)


def _averages(before: int, after: int) -> NDArray[np.float32]:
    """(before, after) float32: averages of a row of ``before`` values over ``after`` parts of equal length."""
    edges = np.linspace(0, before, after + 1)
    starts = np.arange(before)[:, None]
    overlap = np.minimum(edges[1:], starts + 1) - np.maximum(edges[:-1], starts)
    return np.asarray(np.clip(overlap, 0, None) * after / before, np.float32)
