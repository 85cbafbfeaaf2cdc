"""Finds the duplicates of a folder, or what of one folder is in another: the core of `lookalike duplicates`."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lookalike.cli import runs
from lookalike.cli.duplicate_search import calibration, defaults
from lookalike.cli.duplicate_search.calibration import Calibration
from lookalike.cli.duplicate_search.comparing import SURE, Pairs, compared
from lookalike.cli.duplicate_search.groups import BYTES, COSINE, PIXELS, Group, grouped
from lookalike.cli.duplicate_search.reading import Collection, File, list_files, list_folders, read
from lookalike.embed.catalogue import Catalogue
from lookalike.embed.library import load_model
from lookalike.io import vector_store
from lookalike.job.errors import LookalikeError

log = logging.getLogger(__name__)

GIVEN, CALIBRATED, SHIPPED = "given", "calibrated", "shipped default"
MARGIN = 0.3  # below the threshold from which candidates are compared, where the model has no shipped default


@dataclass(frozen=True)
class Request:
    """What to search: a folder or a list of files, or what of a folder is in ``against``.

    precision: in percent. model: a name of the catalogue; None for the best one available locally.
    threshold: cosine that decides where pixels cannot tell; None to calibrate it
    """

    images: Path | tuple[str, ...]
    against: Path | None = None
    precision: int = 99
    model: str | None = None
    threshold: float | None = None
    configfiles: tuple[Path, ...] = ()
    results: Path = Path("results")
    threads: int = os.cpu_count() or 1


@dataclass(frozen=True)
class Match:
    """An image of one folder that is also in the other."""

    image: File
    match: File
    by: str  # as in groups.Member
    score: float


@dataclass(frozen=True)
class Result:
    """What was found. ``threshold`` comes from ``source``: given, calibrated, or the shipped default."""

    collection: Collection
    model: str
    threshold: float
    source: str
    calibration: Calibration | None
    undecided: int  # pairs that are left to the threshold
    groups: list[Group]
    matches: list[Match]

    @property
    def cosine(self) -> float | None:
        """The threshold; None where no cosine is accepted, and only pixels decide."""
        return None if self.threshold >= SURE else self.threshold


def search(request: Request) -> Result:
    """Search for duplicates. Raises LookalikeError for a folder, model or threshold that cannot be used."""
    if not 50 <= request.precision <= 99:
        raise LookalikeError(f"--precision {request.precision}: is in percent. Choose a whole number from 50 to 99.")
    if request.threshold is not None and not 0 <= request.threshold <= 1:
        raise LookalikeError(f"--threshold {request.threshold:g}: is a cosine. Choose one from 0 to 1.")
    catalogue = Catalogue.open(request.configfiles, request.results)
    catalogue.check_models([request.model] if request.model else [])
    name = request.model or _best(catalogue)
    least = _least(name, request.threshold)
    cv2.setNumThreads(1)  # OpenCV's own threads would compete with those that compare pairs
    model = load_model(name, config=request.configfiles, results=request.results, threads=request.threads)
    if isinstance(request.images, Path):
        roots = [str(folder.expanduser()) for folder in (request.images, request.against) if folder]
        listing = list_folders(roots)
    else:
        roots = []
        listing = list_files(request.images)
    collection = read(listing, model, _store(request.results), request.threads)
    sides = _sides(collection, roots)
    pairs = compared(
        collection.vectors,
        collection.signatures,
        lambda row: collection.small.get(collection.contents[row]),
        least=least,
        threads=request.threads,
        between=sides,
    )
    chosen = None
    threshold, source = request.threshold, GIVEN
    if threshold is None:
        if pairs.undecided:
            chosen = calibration.calibrate(
                collection, pairs, model, least=least, percent=request.precision, threads=request.threads, sides=sides
            )
        threshold, source = (chosen.threshold, CALIBRATED) if chosen else (None, SHIPPED)
        if threshold is None:
            threshold, source = defaults.of(name).threshold, SHIPPED
    groups = grouped(collection, pairs, threshold) if sides is None else []
    matches = _matches(collection, pairs, threshold, roots[0]) if sides is not None else []
    return Result(collection, name, threshold, source, chosen, pairs.undecided, groups, matches)


def _store(results: Path) -> Path:
    """The vector store: of a run in the working directory, or that of comparisons."""
    own = results / Path(vector_store.FOLDER).name
    return own if own.is_dir() else runs.home() / vector_store.FOLDER


def _best(catalogue: Catalogue) -> str:
    return defaults.preferred(name for name in defaults.PREFERRED if catalogue.why_missing(name) is None)


def _least(name: str, threshold: float | None) -> float:
    """The cosine from which on pixels are compared; never above the threshold."""
    if name in defaults.DEFAULTS or threshold is None:
        shipped = defaults.of(name).candidates
        return shipped if threshold is None else min(shipped, threshold)
    return threshold - MARGIN * (1 - threshold)


def _sides(collection: Collection, roots: Sequence[str]) -> NDArray[np.bool_] | None:
    """(n, 2) bool: whether a content is in each of two folders; it may be in both. None for one folder."""
    if len(roots) < 2:
        return None
    inside = [{file.sha256 for file in collection.files if (file.root == roots[0]) is first} for first in (True, False)]
    return np.array([[sha256 in side for side in inside] for sha256 in collection.contents], bool).reshape(-1, 2)


def _matches(collection: Collection, pairs: Pairs, threshold: float, first: str) -> list[Match]:
    """The pairs of an image of the first folder and one of the other, by path."""
    files: dict[str, tuple[list[File], list[File]]] = {sha256: ([], []) for sha256 in collection.contents}
    for file in collection.files:
        files[file.sha256][file.root != first].append(file)
    found = [Match(a, b, BYTES, 1.0) for mine, others in files.values() for a in mine for b in others]
    kept = pairs.accepted(threshold)
    columns = (pairs.rows[kept].tolist(), pairs.cosine[kept].tolist(), (pairs.score[kept] >= SURE).tolist())
    for (one, other), cosine, sure in zip(*columns, strict=True):
        for a, b in ((one, other), (other, one)):
            mine, others = files[collection.contents[a]][0], files[collection.contents[b]][1]
            found += [Match(x, y, PIXELS if sure else COSINE, round(cosine, 4)) for x in mine for y in others]
    return sorted(found, key=lambda match: (match.image.path, match.by != BYTES, -match.score, match.match.path))
