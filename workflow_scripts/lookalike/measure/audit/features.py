"""Whether two images show one scene: do local features of both lie as in two views of one thing?

Lowe, "Distinctive Image Features from Scale-Invariant Keypoints", IJCV 60 (2004), 91-110, for features and the ratio
test; Barath et al., "MAGSAC++, a fast, reliable and accurate robust estimator", CVPR 2020, for the homography.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

RECIPE = 1  # goes up whenever verdicts may change
SIDE = 480  # pixels: the longer side of an image is reduced to this
FEATURES = 1_000
RATIO = 0.8  # of the distances to the nearest and the second nearest feature
ERROR = 4.0  # pixels from where the homography puts a feature
PLACE = 3.0  # pixels: features closer than this are one place
PLACES = 12  # distinct places that have to agree
LARGEST_RATIO = 20.0  # of the areas of one frame in both images

Points = NDArray[np.float32]
Grey = NDArray[np.uint8]


@dataclass(frozen=True)
class Features:
    """Of one image.

    points: (m, 2) float32, in pixels
    descriptors: (m, 128) uint8
    size: width, height
    """

    points: Points
    descriptors: NDArray[np.uint8]
    size: tuple[int, int]


def least_size(size: tuple[int, int]) -> tuple[int, int]:
    """The smallest size to decode an image at (``images.decode``)."""
    scale = min(1.0, SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def grey_of(image: Image.Image) -> Grey:
    """The grey values that features are found in, (height, width) uint8."""
    return np.asarray(image.convert("L").resize(least_size(image.size), Image.Resampling.LANCZOS, reducing_gap=3.0))


def mirrored(grey: Grey) -> Grey:
    """The mirror image: no feature of an image is found in it."""
    return np.ascontiguousarray(grey[:, ::-1])


def features_of(grey: Grey) -> Features:
    """The local features of an image."""
    size = (grey.shape[1], grey.shape[0])
    found, descriptors = cv2.SIFT.create(FEATURES).detectAndCompute(grey, None)
    if descriptors is None or not len(found):
        return Features(np.empty((0, 2), np.float32), np.empty((0, 128), np.uint8), size)
    points = np.array([point.pt for point in found[:FEATURES]], np.float32)
    return Features(points, descriptors[:FEATURES].astype(np.uint8), size)  # whole numbers up to 255


def agreement(a: Features, b: Features) -> int:
    """The number of distinct places of two images that agree; 0 if they are not two views of one thing."""
    if min(len(a.points), len(b.points)) < PLACES:
        return 0
    rows, columns = matches(a, b)
    if len(rows) < PLACES:
        return 0
    source, target = a.points[rows], b.points[columns]
    homography, inside = cv2.findHomography(source, target, cv2.USAC_MAGSAC, ERROR)
    if homography is None or not _is_plausible(np.asarray(homography, np.float64), a.size):
        return 0
    inliers = inside.ravel().astype(bool)
    return min(_places(source[inliers]), _places(target[inliers]))


def matches(a: Features, b: Features) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of features that are each other's nearest, and much nearer than the second nearest, in both directions."""
    left, right = a.descriptors.astype(np.float32), b.descriptors.astype(np.float32)
    distances = left @ right.T  # in place from here on: allocating takes longer than computing
    distances *= -2
    distances += (left**2).sum(1)[:, None]
    distances += (right**2).sum(1)
    column, clear = _nearest(distances, 1)
    row, clear_back = _nearest(distances, 0)
    rows = np.flatnonzero(clear & clear_back[column] & (row[column] == np.arange(len(column))))
    return rows, column[rows]


def _nearest(distances: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The nearest feature along an axis, and whether it passes the ratio test; ``distances`` are squared."""
    nearest = np.expand_dims(distances.argmin(axis), axis)
    first = np.take_along_axis(distances, nearest, axis)
    np.put_along_axis(distances, nearest, np.inf, axis)
    clear = first < RATIO**2 * distances.min(axis, keepdims=True)
    np.put_along_axis(distances, nearest, first, axis)
    return nearest.squeeze(axis), clear.squeeze(axis)


def _is_plausible(homography: NDArray[np.float64], size: tuple[int, int]) -> bool:
    """Whether a homography shows the frame of an image as a camera could: convex, and neither tiny nor immense."""
    width, height = size
    corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]], np.float64) @ homography.T
    if np.any(corners[:, 2] * corners[0, 2] <= 0):  # behind the camera
        return False
    frame = corners[:, :2] / corners[:, 2:]
    sides = np.roll(frame, -1, axis=0) - frame
    turns = sides[:, 0] * np.roll(sides[:, 1], -1) - sides[:, 1] * np.roll(sides[:, 0], -1)
    if not (np.all(turns > 0) or np.all(turns < 0)):
        return False
    x, y = frame[:, 0], frame[:, 1]
    area = abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
    return bool(1 / LARGEST_RATIO <= area / (width * height) <= LARGEST_RATIO)


def _places(points: Points) -> int:
    return len(np.unique(np.round(points / PLACE), axis=0))
