"""A threshold for a collection's own images: altered copies of some of them show how precise each score is.

Every copy has a match, and most images of a folder have none. So a threshold that is precise on copies is then held
against the collection: how many false pairs it should have, given how often a copy matches a wrong image, and how many
pairs were found.
"""

import logging
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookalike.cli.duplicate_search.comparing import SURE, Pairs, across, compared
from lookalike.cli.duplicate_search.reading import Collection, SmallImages
from lookalike.config.datasets import Operation
from lookalike.embed.library import Model
from lookalike.io.vectors import unit
from lookalike.metrics.pooled import Predictions
from lookalike.metrics.targets import safe_threshold
from lookalike.sample.copy_operations import apply
from lookalike.sample.copy_recipes import Draw, digest, draw_steps
from lookalike.sample.drawing import as_jpeg
from lookalike.sample.near_duplicates.signatures import joined, sign, thumbnail

log = logging.getLogger(__name__)

SEED = 0
OPERATIONS: tuple[Operation, ...] = (
    *("crop", "jpeg", "color", "brightness", "text", "flip", "pad", "sticker", "screenshot", "webp", "noise"),
)
CHAINS = 0.3  # share of copies with two or three alterations
SPARE = 1.35  # times as many copies as a proof without any error takes
QUALITY = 90
NEAREST = 5  # candidates of a copy: its source, and what it is mistaken for


@dataclass(frozen=True)
class Calibration:
    """What copies of a collection's images say about thresholds.

    copies: how many were made; found: share of them that the threshold finds
    threshold: the lowest that is shown to be precise; None if no threshold is
    false_per_image: wrong matches of a copy among all images; at_most: its 95 % upper bound
    expected_false: wrong pairs to expect in the collection, of ``pairs`` that were found there
    """

    copies: int
    found: float
    threshold: float | None
    false_per_image: float
    at_most: float
    expected_false: float
    pairs: int


def copies_needed(percent: int) -> int:
    """How many copies can show a precision."""
    return int(np.ceil(SPARE * fewest_copies(percent)))


def fewest_copies(percent: int) -> int:
    """With fewer independent copies, no precision is shown, however good a model is."""
    return int(np.ceil(np.log(0.05) / np.log(percent / 100))) if percent < 100 else 2**31


def calibrate(
    collection: Collection,
    pairs: Pairs,
    model: Model,
    *,
    least: float,
    percent: int,
    threads: int,
    sides: NDArray[np.bool_] | None = None,
) -> Calibration | None:
    """Make copies, compare them with all images, and choose a threshold; None where there are too few images."""
    usable = [row for row in range(len(collection.contents)) if not collection.signatures.flat[row]]
    if len(usable) < fewest_copies(percent):
        return None
    chosen = sorted(usable, key=lambda row: digest(SEED, collection.contents[row]))[: copies_needed(percent)]
    log.info("calibrating on %d altered copies of these images", len(chosen))
    small = SmallImages()
    signatures = []
    files: list[bytes] = []
    for row in chosen:
        data = _copy(collection.small.get(collection.contents[row]), collection.contents[row])
        image = Image.open(BytesIO(data)).convert("RGB")
        small.add(str(len(files)), image)
        signatures.append(sign(thumbnail(image)[None]))
        files.append(data)
    count = len(collection.contents)
    known = joined([collection.signatures, joined(signatures)])
    vectors = np.concatenate([collection.vectors, unit(model.embed(files))])

    def small_of(row: int) -> bytes:
        return collection.small.get(collection.contents[row]) if row < count else small.get(str(row - count))

    is_copy = np.arange(len(vectors)) >= count
    between = np.stack([is_copy, ~is_copy], axis=1)
    found = compared(vectors, known, small_of, least=least, threads=threads, between=between, most=NEAREST)
    return choose(found, np.array(chosen), pairs, count, percent, sides=sides)


def _copy(data: bytes, sha256: str) -> bytes:
    steps: list[dict[str, Any]] = draw_steps(Draw(SEED, sha256), OPERATIONS, ("light",), CHAINS)
    image = Image.open(BytesIO(data)).convert("RGB")
    return as_jpeg(apply(image, steps, 2 * max(image.size), None), QUALITY, full_color=True)


def choose(
    found: Pairs,
    sources: NDArray[np.int64],
    pairs: Pairs,
    count: int,
    percent: int,
    *,
    sides: NDArray[np.bool_] | None = None,
) -> Calibration:
    """Choose the threshold from pairs of an image (rows below ``count``) and a copy (``count`` + i, of ``sources``[i]).

    A copy's match with a confirmed copy of its source is neither right nor wrong. Nor is one with another image of the
    same folder where only pairs between two folders count: ``sides`` says which of them each image is in.
    """
    image, copy = found.rows[:, 0], found.rows[:, 1] - count
    right = image == sources[copy]
    confirmed = {(int(a), int(b)) for a, b in pairs.rows[pairs.score >= SURE]}
    confirmed |= {(b, a) for a, b in confirmed}
    also = np.array([(int(sources[c]), int(i)) in confirmed for i, c in zip(image, copy, strict=True)], bool)
    wanted = ~also if sides is None else ~also & across(sides[image], sides[sources[copy]])
    counts = (found.score > 0) & (right | wanted)
    order = np.lexsort((right[counts], -found.score[counts]))
    score = found.score[counts][order].astype(np.float64)
    right, group = right[counts][order], copy[counts][order].astype(np.int64)
    predictions = Predictions(score, right, group, np.ones(len(sources), np.int64))
    threshold = None
    if safe := safe_threshold(predictions, percent):
        # a copy's false matches, for all images of the collection; every pair has two images
        expected = {one: np.count_nonzero(~right[score >= one]) / len(sources) * count / 2 for one in np.unique(score)}
        most = {one: (1 - percent / 100) * np.count_nonzero(pairs.accepted(one)) for one in expected}
        threshold = next(
            (float(one) for one in sorted(expected) if one >= safe.score and expected[one] <= most[one]), None
        )
    shown = threshold if threshold is not None else SURE
    accepted = score >= shown
    wrong = int(np.count_nonzero(~right[accepted]))
    return Calibration(
        copies=len(sources),
        found=float(np.count_nonzero(right[accepted]) / len(sources)),
        threshold=threshold,
        false_per_image=wrong / len(sources),
        at_most=_upper(wrong, len(sources)),
        expected_false=wrong / len(sources) * count / 2,
        pairs=int(np.count_nonzero(pairs.accepted(shown))),
    )


def _upper(wrong: int, total: int) -> float:
    """The one-sided 95 % upper bound of a rate per image (Clopper and Pearson, 1934)."""
    from scipy.special import betaincinv

    return float(betaincinv(wrong + 1, max(total - wrong, 1e-9), 0.95))
