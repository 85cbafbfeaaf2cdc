"""The stage `audit`: wrong answers are compared with the true match: do both show one scene?

First those that rank before the true match, which decide about accuracy; then all that are among the candidates of the
pooled metrics, from the highest score down.
"""

import hashlib
import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import pyarrow as pa
import pyarrow.compute as pc
from threadpoolctl import threadpool_limits

from lookalike.io import identity, images, in_work, made_images, store
from lookalike.io.formats.audit import BY_COLUMN, BY_FEATURES, NOT_AUDITED, OTHER, SAME_SCENE, UNREADABLE
from lookalike.io.formats.tables import AUDIT, IMAGES, NEIGHBORS, SHARD, TRUTH
from lookalike.job import memory
from lookalike.job.errors import LookalikeError
from lookalike.job.progress import Progress
from lookalike.measure.audit import features
from lookalike.measure.audit.features import PLACES, RECIPE, Features, agreement
from lookalike.measure.audit.misses import Miss, candidates, misses

log = logging.getLogger(__name__)

MOST_PAIRS = 10_000  # pairs of misses that local features are compared for; some minutes
MOST_POOLED = 20_000  # further pairs, of the candidates
SEED = 0  # of the choice of misses that are audited if there are more pairs
ENOUGH = 3  # wrong answers of another scene: what follows them decides about no accuracy
AT_ONCE = 64  # misses or candidates between two looks at the limit
CACHED = 1_000  # images whose features are in memory, at most 140 KB each

Row = dict[str, Any]


@dataclass(frozen=True)
class AuditJob:
    """One search whose wrong answers are audited: its neighbors, the sample, and the requested neighbors ``k``.

    ``notes`` is a file for which images are in work (``io.in_work``), ``image_seconds`` limits decoding one of them.
    """

    neighbors: str | Path
    candidates: str | Path
    images: str | Path
    truth: str | Path
    out: str | Path
    notes: str | Path
    k: int
    threads: int
    image_seconds: float = 300
    archives: Sequence[str | Path] = ()  # of images that a run made


def audit(job: AuditJob) -> None:
    """Write the AUDIT table of one model and index.

    The data set's ``scene`` column wins where both images have one; else local features decide. Misses are audited in
    the order of a hash of their ids until MOST_PAIRS pairs were compared; the footer counts those that were not. So are
    candidates in the order of their scores until MOST_POOLED further pairs were compared; ``pooled_from`` in the footer
    is the score from which on all are audited, null where none is missing.
    """
    started = time.monotonic()
    sample_sha256 = identity.check_sample(job.images, job.truth, job.neighbors, job.candidates)
    sample, truth = store.read_table(job.images, IMAGES), store.read_table(job.truth, TRUTH)
    found = misses(store.read_table(job.neighbors, NEIGHBORS), truth, job.k)
    found.sort(key=lambda miss: hashlib.sha256(f"{SEED} {miss.query_id}".encode()).digest())
    made_images.locate(job.archives)
    pooled = candidates(store.read_table(job.candidates, NEIGHBORS), truth)
    memory.return_large_blocks()
    cv2.setNumThreads(1)  # OpenCV's own threads, and NumPy's, would compete with those of the audit
    with (
        in_work.guarding(job.notes, sample_sha256, job.image_seconds) as guard,
        threadpool_limits(1),
        ThreadPoolExecutor(job.threads) as threads,
    ):
        judge = _Judge(sample, [*found, *(miss for _, miss in pooled)], guard)
        rows, audited = _audited(judge, found, MOST_PAIRS, "misses", threads)
        rows += [judge.unaudited(miss) for miss in found[audited:]]
        known = {(row["query_id"], row["reference_id"]) for row in rows}
        of_misses = judge.compared
        pooled = [(score, miss) for score, miss in pooled if (miss.query_id, miss.wrong[0][1]) not in known]
        others, ended = _audited(judge, [miss for _, miss in pooled], MOST_POOLED, "candidates", threads)
    table = pa.Table.from_pylist([*rows, *others], AUDIT.schema()).sort_by(
        [("query_id", "ascending"), ("rank", "ascending")]
    )
    left = len(found) - audited
    provenance: dict[str, Any] = {
        "made_by": "lookalike audit",
        "recipe": RECIPE,
        "seed": SEED,
        "most_pairs": MOST_PAIRS,
        "most_pooled": MOST_POOLED,
        "misses": len(found),
        "not_audited": left,
        "pooled_from": math.nextafter(pooled[ended][0], math.inf) if ended < len(pooled) else None,
        "neighbors": store.identity(job.neighbors),
        "candidates": store.identity(job.candidates),
        identity.SAMPLE: sample_sha256,
        "versions": store.versions("opencv-python-headless", "opencv-python", "pillow"),
    }
    store.write_table(table, job.out, AUDIT, provenance)
    same = pc.sum(pc.equal(table["verdict"], SAME_SCENE)).as_py() or 0
    log.info(
        "%s misses: %s of %s wrong answers show the scene of the true match; compared %s pairs of misses and %s other "
        "candidates in %.0f s",
        *(f"{count:,}" for count in (len(found), same, table.num_rows, of_misses, judge.compared - of_misses)),
        time.monotonic() - started,
    )
    if left:
        log.warning("the limit of %s pairs is reached: %s misses are not audited", f"{MOST_PAIRS:,}", f"{left:,}")
    if ended < len(pooled):
        log.warning(
            "the limit of %s pairs is reached: %s candidates are not audited",
            *(f"{count:,}" for count in (MOST_POOLED, len(pooled) - ended)),
        )


def _audited(
    judge: "_Judge", found: Sequence[Miss], most: int, what: str, threads: ThreadPoolExecutor
) -> tuple[list[Row], int]:
    """The rows of the first misses, until ``most`` pairs were compared, and how many misses these are."""
    rows: list[Row] = []
    audited, most = 0, judge.compared + most
    progress = Progress("audited", len(found), what)
    while audited < len(found) and judge.compared < most:
        for miss_rows in threads.map(judge.rows_of, found[audited : audited + AT_ONCE]):
            rows += miss_rows
            progress.advance()
        audited = min(audited + AT_ONCE, len(found))
    return rows, audited


class _Judge:
    """Judges misses by their images, and keeps the features of those used last."""

    def __init__(self, sample: pa.Table, found: Iterable[Miss], guard: in_work.Guard) -> None:
        self.guard = guard
        ids = sorted(set(chain.from_iterable(miss.image_ids for miss in found)))
        chosen = sample.filter(pc.is_in(sample["image_id"], value_set=pa.array(ids, pa.string())))
        unknown = chosen.filter(pc.is_null(chosen["scene"])) if "scene" in chosen.column_names else chosen
        images.check_roots(unknown, "audit")
        columns = [name for name in (*SHARD.columns, "scene") if name in chosen.column_names]
        self.rows: dict[str, Row] = {row["image_id"]: row for row in chosen.select(columns).to_pylist()}
        self.compared = 0
        self._cached: OrderedDict[tuple[str, bool], Features | None] = OrderedDict()
        self._lock = threading.Lock()
        self._files, self._pixels = memory.Budget(memory.FILES_AT_ONCE), memory.Budget(memory.AT_ONCE)

    def rows_of(self, miss: Miss) -> list[Row]:
        """The rows of one miss: its wrong answers by rank, until ENOUGH of them show another scene."""
        rows: list[Row] = []
        others = 0
        for rank, wrong in miss.wrong:
            row = {"query_id": miss.query_id, "rank": rank, "reference_id": wrong}
            rows.append(row | self._compared_with(wrong, miss))
            others += rows[-1]["verdict"] != SAME_SCENE
            if others == ENOUGH:
                break
        return rows

    def unaudited(self, miss: Miss) -> Row:
        """The row of a miss that is not audited."""
        rank, wrong = miss.wrong[0]
        return {
            **{"query_id": miss.query_id, "rank": rank, "reference_id": wrong, "match_id": miss.matches[0]},
            **{"verdict": NOT_AUDITED, "by": BY_FEATURES, "inliers": None, "mirrored": False},
        }

    def _compared_with(self, wrong: str, miss: Miss) -> Row:
        """The verdict on a wrong answer: of the true matches, the first that shows its scene decides."""
        best: Row = {}
        for match in miss.matches:
            verdict = self._compare(wrong, match, self._scene(match) or self._scene(miss.query_id))
            if verdict["verdict"] == SAME_SCENE:
                return verdict
            if not best or (verdict["inliers"] or 0) > (best["inliers"] or 0):
                best = verdict
        return best

    def _scene(self, image_id: str) -> str | None:
        scene: str | None = self.rows[image_id].get("scene")
        return scene

    def _compare(self, wrong: str, match: str, scene: str | None) -> Row:
        verdict: Row = {"match_id": match, "verdict": OTHER, "by": BY_FEATURES, "inliers": None, "mirrored": False}
        of_wrong = self._scene(wrong)
        if scene is not None and of_wrong is not None:
            return verdict | {"verdict": SAME_SCENE if scene == of_wrong else OTHER, "by": BY_COLUMN}
        with self._lock:
            self.compared += 1
        seen = self._features(wrong, mirrored=False)
        for mirrored in (False, True):
            expected = self._features(match, mirrored=mirrored)
            if seen is None or expected is None:
                return verdict | {"verdict": UNREADABLE}
            places = agreement(expected, seen)
            if places >= PLACES:
                return verdict | {"verdict": SAME_SCENE, "inliers": places, "mirrored": mirrored}
            verdict["inliers"] = max(places, verdict["inliers"] or 0)
        return verdict

    def _features(self, image_id: str, *, mirrored: bool) -> Features | None:
        """The features of an image, or of its mirror image; None if it cannot be decoded."""
        key = (image_id, mirrored)
        with self._lock:
            if key in self._cached:
                self._cached.move_to_end(key)
                return self._cached[key]
        grey = self._grey(self.rows[image_id])
        found = None
        if grey is not None:
            found = features.features_of(features.mirrored(grey) if mirrored else grey)
        with self._lock:
            self._cached[key] = found
            if len(self._cached) > CACHED:
                self._cached.popitem(last=False)
        return found

    def _grey(self, row: Row) -> features.Grey | None:
        try:
            with self._files.share() as take_file, self._pixels.share() as take_pixels:
                take_file(row["bytes"])
                data = self.guard.read(row)
                return features.grey_of(self.guard.decode(row, data, features.least_size, take_pixels)[0])
        except images.BadImage as bad:
            log.info("cannot be compared: %s/%s: %s", row["root"], row["path"], bad)
            return None
        except MemoryError as error:
            raise LookalikeError(
                f"{row['root']}/{row['path']}: out of memory while reading it ({error}). Run on a machine with more "
                "memory, or remove the image from the data set."
            ) from error
