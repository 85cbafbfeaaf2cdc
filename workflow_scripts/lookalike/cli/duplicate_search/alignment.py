"""Whether one image is a copy of another, and not another shot of its scene: do their pixels agree once aligned?

A copy that was cropped, resized, captioned, padded or mirrored lies on its original exactly: scaled and moved, but not
turned, sheared or in perspective, and its details are the same. Two shots of one scene share local features too, but no
such alignment fits them. Features and their matches are those of the scene audit.
"""

from dataclasses import dataclass
from enum import Enum
from io import BytesIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookalike.measure.audit.features import PLACES, Features, Grey, matches, mirrored
from lookalike.sample.near_duplicates.signatures import KEPT, TURNS, turned

SIDE = 320  # pixels: the longer side of an image is scaled to this, up or down
FEATURES = 400
CONTRAST = 0.015  # least contrast of a feature: blurred and dark images have few with SIFT's own 0.04
ERROR = 4.0  # pixels from where the alignment puts a feature
LEAST = 8  # features that have to agree with an alignment
RICH = 100  # features of both images with which strangers, too, are told apart
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
SURROUNDINGS = 41  # pixels: what is brighter or darker over a larger area is light, not detail

Transform = NDArray[np.float64]


class Verdict(Enum):
    """What two images' pixels say about them."""

    COPY = "copy"
    OTHER = "other"  # another shot of the same scene, or a stranger
    UNKNOWN = "unknown"  # too few features agree to say


@dataclass(frozen=True)
class Prepared:
    """An image for comparisons: grey values, (height, width) uint8, and local features of it."""

    grey: Grey
    features: Features


def prepare(grey: Grey) -> Prepared:
    """Find the local features of an image."""
    size = (grey.shape[1], grey.shape[0])
    found, descriptors = cv2.SIFT.create(FEATURES, contrastThreshold=CONTRAST).detectAndCompute(grey, None)
    if descriptors is None or not len(found):
        return Prepared(grey, Features(np.empty((0, 2), np.float32), np.empty((0, 128), np.uint8), size))
    points = np.array([point.pt for point in found[:FEATURES]], np.float32)
    return Prepared(grey, Features(points, descriptors[:FEATURES].astype(np.uint8), size))


def grey_of(small: bytes) -> Grey:
    """The grey values of a small image file, its longer side scaled to SIDE."""
    image = Image.open(BytesIO(small)).convert("L")
    scale = SIDE / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC))


def mirror(image: Prepared) -> Prepared:
    """The mirror image, with features of its own."""
    return prepare(mirrored(image.grey))


def compare(a: Prepared, b: Prepared) -> Verdict:
    """Compare two images in the orientation that they have."""
    fewest = min(len(a.features.points), len(b.features.points))
    stranger = Verdict.OTHER if fewest >= RICH else Verdict.UNKNOWN
    aligned = _aligned(a, b)
    if aligned is None:
        return stranger
    transform, agreeing = aligned
    if _is_upright(transform, a.grey, TURN + TURN_BY_FEW / agreeing) and _agree(a.grey, b.grey, transform):
        return Verdict.COPY
    return Verdict.OTHER if agreeing >= PLACES else stranger


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
        a.features.points[rows], b.features.points[columns], method=cv2.RANSAC, ransacReprojThreshold=ERROR
    )
    agreeing = 0 if transform is None else int(inside.sum())
    return (np.asarray(transform, np.float64), agreeing) if agreeing >= LEAST else None


def confirm(a: Prepared, b: Prepared) -> Verdict:
    """Compare two images whose thumbnails are the same, in any orientation: never UNKNOWN.

    Thumbnails of two pages of one template are the same, too. Those of copies with hardly a detail have to do.
    """
    height, width = b.grey.shape
    ways = [np.ascontiguousarray(turned(a.grey[None], flags)[0]) for flags in TURNS]
    thumbnails = [cv2.resize(grey, (KEPT, KEPT), interpolation=cv2.INTER_AREA).astype(np.int16) for grey in ways]
    aim = cv2.resize(b.grey, (KEPT, KEPT), interpolation=cv2.INTER_AREA).astype(np.int16)
    best = int(np.argmin([np.abs(thumbnail - aim).sum() for thumbnail in thumbnails]))
    way, on_its_side = ways[best], TURNS[best][0]
    fitted: Grey = cv2.resize(way, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)
    everywhere = np.ones(b.grey.shape, np.bool_)
    differing, compared = _differing(fitted, b.grey, everywhere)
    if on_its_side:  # which of the two is upright, and so the direction of its lines of text, is unknown
        differing = max(differing, _differing(fitted.T.copy(), b.grey.T.copy(), everywhere.T)[0])
    if differing <= SHARE * compared:
        return Verdict.COPY
    same = not on_its_side and compare(prepare(way), b) is Verdict.COPY
    return Verdict.COPY if same else Verdict.OTHER


def _is_upright(transform: Transform, grey: Grey, most: float) -> bool:
    """Whether an image is scaled and moved only: its border is turned by at most so many pixels of its own size."""
    scale = np.sqrt(abs(np.linalg.det(transform[:, :2])))
    if transform[0, 0] <= 0 or transform[1, 1] <= 0:
        return False
    return bool(max(abs(transform[0, 1]), abs(transform[1, 0])) * max(grey.shape) / 2 <= most * scale)


def _agree(a: Grey, b: Grey, transform: Transform) -> bool:
    """Whether the pixels of two aligned images agree wherever both show something, and one shows most of the other."""
    height, width = b.shape
    scale = abs(np.linalg.det(transform[:, :2]))
    shrinks = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    moved = cv2.warpAffine(a, transform, (width, height), flags=shrinks)
    inside = cv2.warpAffine(np.full_like(a, 255), transform, (width, height)) == 255
    if max(inside.sum() / (scale * a.size), inside.mean()) < COVER:
        return False
    # beyond its frame, an image is continued by the other, or windows near the frame would differ
    differing, compared = _differing(np.where(inside, moved, b), b, inside)
    return compared > 0 and differing <= SHARE * compared


def _differing(a: Grey, b: Grey, inside: NDArray[np.bool_]) -> tuple[float, float]:
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
    return sum(sorted(bands)[:-EDITED]), float(weight.sum())


def _details(grey: Grey) -> NDArray[np.float32]:
    values = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), BLUR)
    return np.asarray(values - cv2.blur(values, (SURROUNDINGS, SURROUNDINGS)))
