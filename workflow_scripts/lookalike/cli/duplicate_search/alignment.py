"""Whether one image is a copy of another, and not another shot of its scene: do their pixels agree once aligned?

A copy that was cropped, resized, captioned, padded, mirrored or turned by a right angle lies on its original exactly:
scaled and moved, but not sheared or in perspective, and its details are the same. Two shots of one scene share local
features too, but no such alignment fits them. Features and their matches are those of the scene audit.
"""

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from io import BytesIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookalike.measure.audit.features import PLACES, Features, Grey, matches
from lookalike.sample.near_duplicates.signatures import KEPT, TURNS, Turn, turned

SIDE = 320  # pixels: the longer side of an image is scaled to this, up or down
DETECTED = 224  # pixels: of what features are found in, which takes most of the time
FEATURES = 400
CONTRAST = 0.015  # least contrast of a feature: blurred and dark images have few with SIFT's own 0.04
ERROR = 4.0  # pixels from where the alignment puts a feature
TRIALS = 500  # to find an alignment: enough where a quarter of the matches are right
LEAST = 8  # features that have to agree with an alignment
RICH = 60  # features of both images with which strangers, too, are told apart
# pixels by which a copy's border may seem turned or sheared: the fewer features agree, the less is known
TURN, TURN_BY_FEW = 0.5, 40.0
COVER = 0.9  # share of one image that the other has to show
WINDOW = 9  # pixels: the details of two images are compared around each pixel
ALIKE = 0.7  # least correlation of the details in a window
# A caption or a sticker is in a few of the ROWS bands of an image, where details may differ. Two pages of one template,
# two screenshots and two shots from one place differ elsewhere, too, if only a little.
ROWS, EDITED = 16, 4
SHARE = 0.01  # of the details, elsewhere: most that may differ
FAINT, STRONG = 3.0, 15.0  # standard deviation of details, of 255: below, a window says nothing, and above no more
BLUR = 1.2  # pixels: what compression and resizing take away
# Drawings, products on white and pages have one plain ground. What differs on it is never taken for a caption, and
# tones have to agree: shapes of another color have the same details.
PLAIN = 0.5  # share of the pixels that have the most frequent grey value, or one of its NEAR neighbors
NEAR = 2
TONES = 40  # pixels: the longer side of what tones are compared in
TONE = 25  # of 255: largest difference of brightness and of both color differences
SURROUNDINGS = 41  # pixels: what is brighter or darker over a larger area is light, not detail

Transform = NDArray[np.float64]


class Verdict(Enum):
    """What two images' pixels say about them."""

    COPY = "copy"
    OTHER = "other"  # another shot of the same scene, or a stranger
    UNKNOWN = "unknown"  # too few features agree to say


@dataclass(frozen=True)
class Prepared:
    """An image for comparisons: grey values, (height, width) uint8, and tones, (h, w, 3) uint8, a small YCbCr image."""

    grey: Grey
    tones: Grey

    @cached_property
    def plain(self) -> bool:
        """Whether it shows something on one plain ground."""
        counts = np.bincount(self.grey.ravel(), minlength=256)
        near = np.convolve(counts, np.ones(2 * NEAR + 1, np.int64), "same")
        return bool(near.max() >= PLAIN * self.grey.size)

    @cached_property
    def features(self) -> Features:
        """Its local features, found when they are first needed."""
        height, width = self.grey.shape
        scale = min(1.0, DETECTED / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        found, descriptors = cv2.SIFT.create(
            FEATURES, contrastThreshold=CONTRAST, enable_precise_upscale=True
        ).detectAndCompute(cv2.resize(self.grey, size, interpolation=cv2.INTER_AREA), None)
        if descriptors is None or not len(found):
            return Features(np.empty((0, 2), np.float32), np.empty((0, 128), np.uint8), (width, height))
        points = (np.array([point.pt for point in found[:FEATURES]]) + 0.5) * [width / size[0], height / size[1]] - 0.5
        return Features(points.astype(np.float32), descriptors[:FEATURES].astype(np.uint8), (width, height))

    def turned(self, turn: Turn) -> "Prepared":
        """The image in another orientation; its features are those of this one."""
        image = Prepared(*(np.ascontiguousarray(turned(part[None], turn)[0]) for part in (self.grey, self.tones)))
        transpose, mirror, flip = turn
        points, (height, width) = self.features.points.copy(), image.grey.shape
        points = points[:, ::-1] if transpose else points
        points = np.where([mirror, flip], np.array([width, height], np.float32) - 1 - points, points)
        descriptors = self.features.descriptors
        descriptors = descriptors[:, MIRRORED] if sum(turn) % 2 else descriptors
        image.__dict__["features"] = Features(points, descriptors, (width, height))
        return image


def _mirrored() -> NDArray[np.int64]:
    """The order of a descriptor's numbers in the mirror image: 4 rows of 4 cells along the feature's direction, each
    with 8 directions relative to it."""
    row, column, direction = np.mgrid[:4, :4, :8]
    return np.asarray(((3 - row) * 4 + column) * 8 + -direction % 8).ravel()


MIRRORED = _mirrored()
MIRROR: Turn = (False, True, False)


def prepare(image: Image.Image) -> Prepared:
    """Scale the longer side of an image to SIDE."""
    scale = SIDE / max(image.size)
    size, small = (
        (max(1, round(image.width * part)), max(1, round(image.height * part)))
        for part in (scale, TONES / max(image.size))
    )
    grey = image.convert("L").resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
    return Prepared(np.asarray(grey), np.asarray(image.convert("YCbCr").resize(small, Image.Resampling.BOX)))


def prepare_file(small: bytes) -> Prepared:
    """The image of a small image file."""
    return prepare(Image.open(BytesIO(small)).convert("RGB"))


def compare(a: Prepared, b: Prepared) -> Verdict:
    """Compare two images, mirrored or not, and turned by any number of right angles."""
    if a.plain and b.plain:  # vectors tell little about these
        return Verdict.COPY if _fits(a, b) or _same_scene(a, b) is Verdict.COPY else Verdict.OTHER
    return _same_scene(a, b)


def _same_scene(a: Prepared, b: Prepared) -> Verdict:
    verdict = Verdict.OTHER if min(len(a.features.points), len(b.features.points)) >= RICH else Verdict.UNKNOWN
    for way in (a, a.turned(MIRROR)):
        if (aligned := _aligned(way, b)) is None:
            continue
        transform, agreeing = aligned
        turns = _right_angles(transform, b.grey, TURN + TURN_BY_FEW / agreeing)
        if turns is not None and _agree(way, b, transform, either_way=turns % 2 == 1):
            return Verdict.COPY
        if agreeing >= PLACES:
            verdict = Verdict.OTHER
    return verdict


def magnification(a: Prepared, b: Prepared) -> float | None:
    """How much larger b shows what both show, as they were prepared; None if too few features agree to say."""
    aligned = _aligned(a, b)
    return float(np.sqrt(abs(np.linalg.det(aligned[0][:, :2])))) if aligned else None


def _aligned(a: Prepared, b: Prepared) -> tuple[Transform, int] | None:
    """What moves a onto b, and how many features agree with that; None if these are too few."""
    if min(len(a.features.points), len(b.features.points)) < LEAST:
        return None
    rows, columns = matches(a.features, b.features)
    if len(rows) < LEAST:
        return None
    transform, inside = cv2.estimateAffine2D(
        a.features.points[rows],
        b.features.points[columns],
        method=cv2.RANSAC,
        ransacReprojThreshold=ERROR,
        maxIters=TRIALS,
    )
    agreeing = 0 if transform is None else int(inside.sum())
    return (np.asarray(transform, np.float64), agreeing) if agreeing >= LEAST else None


def confirm(a: Prepared, b: Prepared) -> Verdict:
    """Compare two images whose thumbnails are the same, in any orientation: never UNKNOWN.

    Thumbnails of two pages of one template are the same, too. Those of copies with hardly a detail have to do.
    """
    return Verdict.COPY if _fits(a, b) or compare(a, b) is Verdict.COPY else Verdict.OTHER


def _fits(a: Prepared, b: Prepared) -> bool:
    """Whether two images agree in the orientation in which their thumbnails are most alike, scaled to one size."""
    small, aim = (
        np.asarray(cv2.resize(image.grey, (KEPT, KEPT), interpolation=cv2.INTER_AREA), np.uint8) for image in (a, b)
    )
    away = [int(np.abs(turned(small[None], turn)[0] - aim.astype(np.int16)).sum()) for turn in TURNS]
    turn = TURNS[int(np.argmin(away))]
    way = [np.ascontiguousarray(turned(part[None], turn)[0]) for part in (a.grey, a.tones)]
    fitted = [
        np.asarray(cv2.resize(part, aim.shape[1::-1], interpolation=cv2.INTER_AREA), np.uint8)
        for part, aim in zip(way, (b.grey, b.tones), strict=True)
    ]
    if (a.plain and b.plain) and not _same_tones(fitted[1], b.tones, np.ones(b.tones.shape[:2], np.bool_)):
        return False
    everywhere = np.ones(b.grey.shape, np.bool_)
    edited = 0 if a.plain and b.plain else EDITED
    return _same_details(fitted[0], b.grey, everywhere, edited, either_way=turn[0])


def _right_angles(transform: Transform, grey: Grey, most: float) -> int | None:
    """By how many right angles an image is turned, besides scaled and moved; None if by another angle, or sheared.

    Its border may be turned by ``most`` pixels of its own size.
    """
    linear = transform[:, :2]
    scale = np.sqrt(abs(np.linalg.det(linear)))
    turns = round(float(np.arctan2(linear[1, 0] - linear[0, 1], linear[0, 0] + linear[1, 1]) / (np.pi / 2))) % 4
    upright = np.linalg.matrix_power(np.array([[0, 1], [-1, 0]]), turns) @ linear
    if upright[0, 0] <= 0 or upright[1, 1] <= 0:
        return None
    return turns if max(abs(upright[0, 1]), abs(upright[1, 0])) * max(grey.shape) / 2 <= most * scale else None


def _agree(a: Prepared, b: Prepared, transform: Transform, *, either_way: bool) -> bool:
    """Whether the pixels of two aligned images agree wherever both show something, and one shows most of the other."""
    height, width = b.grey.shape
    scale = abs(np.linalg.det(transform[:, :2]))
    shrinks = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    moved = cv2.warpAffine(a.grey, transform, (width, height), flags=shrinks)
    inside = cv2.warpAffine(np.full_like(a.grey, 255), transform, (width, height)) == 255
    if max(inside.sum() / (scale * a.grey.size), inside.mean()) < COVER:
        return False
    plain = a.plain and b.plain
    if plain and not _same_tones(*_aligned_tones(a, b, transform)):
        return False
    # beyond its frame, an image is continued by the other, or windows near the frame would differ
    whole = np.asarray(np.where(inside, moved, b.grey), np.uint8)
    return _same_details(whole, b.grey, inside, 0 if plain else EDITED, either_way=either_way)


def _aligned_tones(a: Prepared, b: Prepared, transform: Transform) -> tuple[Grey, Grey, NDArray[np.bool_]]:
    """The tones of a moved onto those of b, these, and where both are."""
    shrink, enlarge = TONES / SIDE, SIDE / TONES
    center = np.array([[1, 0, (enlarge - 1) / 2], [0, 1, (enlarge - 1) / 2], [0, 0, 1]])
    larger = center @ np.diag([enlarge, enlarge, 1])
    small = (np.diag([shrink, shrink, 1]) @ np.linalg.inv(center) @ np.vstack([transform, [0, 0, 1]]) @ larger)[:2]
    size = b.tones.shape[1::-1]
    inside = cv2.warpAffine(np.full(a.tones.shape[:2], 255, np.uint8), small, size) == 255
    return np.asarray(cv2.warpAffine(a.tones, small, size), np.uint8), b.tones, inside


def _same_tones(a: Grey, b: Grey, inside: NDArray[np.bool_]) -> bool:
    """Whether brightness and colors of two aligned images agree, but for a few places."""
    away = np.abs(a.astype(np.int16) - b).max(axis=2)
    return bool(np.count_nonzero(inside & (away > TONE)) <= SHARE * np.count_nonzero(inside))


def _same_details(a: Grey, b: Grey, inside: NDArray[np.bool_], edited: int, *, either_way: bool) -> bool:
    """Whether two aligned images have the same details, but for what may be edited: so many bands.

    either_way: which of two directions is that of lines of text is unknown, since one image lies on its side
    """
    differing, compared = _differing(a, b, inside, edited)
    if either_way:
        differing = max(differing, _differing(a.T.copy(), b.T.copy(), inside.T, edited)[0])
    return differing <= SHARE * compared


def _differing(a: Grey, b: Grey, inside: NDArray[np.bool_], edited: int) -> tuple[float, float]:
    """How much of the details of two aligned images differs outside of what may be edited, and of how much."""
    one, other = _details(a), _details(b)

    def mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.blur(values, (WINDOW, WINDOW)))

    means = mean(one), mean(other)
    spreads = [np.sqrt(np.maximum(mean(x * x) - y * y, 0)) for x, y in zip((one, other), means, strict=True)]
    larger = np.maximum(*spreads)
    weight = np.where(inside & (larger >= FAINT), np.minimum(larger, STRONG), 0)
    differs = mean(one * other) - means[0] * means[1] < ALIKE * spreads[0] * spreads[1]
    bands = [float(band.sum()) for band in np.array_split(weight * differs, ROWS)]
    return sum(sorted(bands)[: ROWS - edited]), float(weight.sum())


def _details(grey: Grey) -> NDArray[np.float32]:
    values = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), BLUR)
    return np.asarray(values - cv2.blur(values, (SURROUNDINGS, SURROUNDINGS)))
