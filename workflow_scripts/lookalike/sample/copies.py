"""Altered copies of another data set's references, as queries whose true match is known because it was made.

References are ordered by hash. Copies are made of the first ones, one round after the other; images that are held out
of the references are the last ones. So more queries, or a grown folder, leave existing copies as they are, byte for
byte.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from lookalike.config.datasets import Copies
from lookalike.io import images, in_work, relevance
from lookalike.io.formats.tables import BY, IMAGES, MANIFEST
from lookalike.job.errors import LookalikeError
from lookalike.job.progress import Progress
from lookalike.sample.copy_operations import apply
from lookalike.sample.copy_recipes import Draw, describe, digest, draw_steps
from lookalike.sample.drawing import as_jpeg, scaled_down
from lookalike.sample.make_images import Album

log = logging.getLogger(__name__)

BACKGROUNDS = 8  # images that others are pasted into or put beside; at most a tenth of all
WITH_BACKGROUND = {"paste", "collage"}
QUALITY = 95

Row = dict[str, Any]  # a row of the images table


@dataclass(frozen=True)
class Background:
    """An image that is not a reference, for others to be pasted into."""

    image_id: str
    image: Image.Image


def make_images(entry: Copies, sources: pa.Table, album: Album, guard: in_work.Guard) -> pa.Table:
    """Put the copies into ``album`` and return the MANIFEST table of references, training images and copies.

    ``sources`` is the images table of the data set that is copied. Raises LookalikeError where it has too few
    images to hold any out, or none that can be decoded.
    """
    # a copy has its source's values
    breakdowns = [column for column in sources.column_names if column.startswith(BY) or column == "scene"]
    columns = [*IMAGES.columns, "content_hash", *breakdowns]
    if relevance.is_labelled(sources):  # copies are right for their source, not for its class
        group = IMAGES.schema().field("group")
        nothing = pa.nulls(sources.num_rows, group.type)
        sources = sources.set_column(sources.column_names.index("group"), group, nothing)
    references = sources.filter(sources["reference"]).select(columns).to_pylist()
    ranked = sorted(references, key=lambda row: digest(entry.seed, row["image_id"]))
    held_out = _hold_out(entry, ranked, guard)
    held_ids = {row["image_id"] for row in held_out}
    pastes = bool(WITH_BACKGROUND & {*entry.operations})
    backgrounds = [_background(row, entry.max_side, guard) for row in held_out[:BACKGROUNDS]] if pastes else []
    references = [row for row in references if row["image_id"] not in held_ids]

    if held_out:
        log.info("%d of %d images are held out of the references", len(held_out), len(ranked))
    progress = Progress("made", entry.queries + entry.without_match, "copies")
    copies: list[Row] = []
    hashes: dict[str, str] = {}  # of the sources' bytes: a model must have embedded the image that was copied
    sampled = [row for row in ranked if row["image_id"] not in held_ids]
    for row, number, image, sha256 in _with_match(entry.queries, sampled, guard):
        hashes[row["image_id"]] = sha256
        copies.append(
            _copy(entry, row, number, image, backgrounds=backgrounds, album=album) | {"source": row["image_id"]}
        )
        del image  # before the next one is decoded
        progress.advance()
    for row in held_out[: entry.without_match]:
        image, _ = _load(row, guard)
        copies.append(_copy(entry, row, 0, image, backgrounds=backgrounds, album=album) | {"source": None})
        del image
        progress.advance()

    unaltered = {"query": False, "source": None, "operations": None, "parameters": None}
    training = sources.filter(pc.and_not(sources["training"], sources["reference"])).select(columns)
    originals = [*references, *training.to_pylist()]
    originals = [row | unaltered | {"sha256": hashes.get(row["image_id"])} for row in originals]
    return pa.Table.from_pylist(
        originals + copies, schema=MANIFEST.schema("operations", "parameters", "sha256", "content_hash", *breakdowns)
    )


def _hold_out(entry: Copies, ranked: Sequence[Row], guard: in_work.Guard) -> list[Row]:
    """The images to hold out of the references, from the end of the order; undecodable ones are skipped."""
    if not ranked:
        raise LookalikeError("of: that data set has no references to copy. Choose one that has.")
    if entry.without_match >= len(ranked):
        raise LookalikeError(
            f"without_match: {entry.without_match} images are to be held out, but the data set has only {len(ranked)}. "
            "Lower without_match, or add images: at least one must remain a reference."
        )
    size = entry.without_match
    if WITH_BACKGROUND & {*entry.operations}:
        size = max(size, min(BACKGROUNDS, len(ranked) // 10))
    held_out: list[Row] = []
    first_reason = ""
    for row in reversed(ranked[1:]):
        if len(held_out) == size:
            break
        try:
            _load(row, guard)
        except images.BadImage as error:
            _log_undecodable(row, error)
            first_reason = first_reason or f"{row['path']}: {error}"
            continue
        held_out.append(row)
    if entry.without_match and not held_out:
        raise _nothing_decodable(len(ranked) - 1, first_reason)
    if len(held_out) < entry.without_match:
        raise LookalikeError(
            f"without_match: {entry.without_match} images are to be held out, but of {len(ranked)} only "
            f"{len(held_out)} can be decoded and spared. Lower without_match, or fix the images that the log lists."
        )
    return held_out


def _with_match(
    queries: int, references: Sequence[Row], guard: in_work.Guard
) -> Iterator[tuple[Row, int, Image.Image, str]]:
    """Yield references to copy until there are enough: with the number of the round, the image and its hash."""
    yielded = 0
    first_reason = ""
    for number in count():
        decodable = []
        for row in references:
            if yielded == queries:
                return
            try:
                image, sha256 = _load(row, guard)
            except images.BadImage as error:
                _log_undecodable(row, error)
                first_reason = first_reason or f"{row['path']}: {error}"
                continue
            decodable.append(row)
            yielded += 1
            yield row, number, image, sha256
            del image
        if not decodable:
            raise _nothing_decodable(len(references), first_reason)
        references = decodable


def _nothing_decodable(tried: int, first_reason: str) -> LookalikeError:
    return LookalikeError(
        f"of: none of the {tried} references that were tried can be decoded; the first: {first_reason}. "
        "Fix or replace the images."
    )


def _load(row: Row, guard: in_work.Guard) -> tuple[Image.Image, str]:
    """An image and the SHA-256 of its file. Raises BadImage, and LookalikeError for one that has changed."""
    try:
        data = guard.read(row)
    except LookalikeError as error:
        raise LookalikeError(f"of: {error}") from None
    return guard.decode(row, data)[0], hashlib.sha256(data).hexdigest()


def _log_undecodable(row: Row, error: images.BadImage) -> None:
    log.warning("%s is not copied, the next image is used instead: %s", row["path"], error)


def _background(row: Row, max_side: int, guard: in_work.Guard) -> Background:
    image, _ = _load(row, guard)
    return Background(row["image_id"], scaled_down(image, max_side))


def _copy(
    entry: Copies, row: Row, number: int, image: Image.Image, *, backgrounds: Sequence[Background], album: Album
) -> Row:
    """Make one copy, put it into the album, and return its row, without ``source``."""
    steps = draw_steps(Draw(entry.seed, number, row["image_id"]), entry.operations, entry.strengths, entry.chains)
    background = _choose(entry.seed, number, row["image_id"], backgrounds)
    for step in steps:
        if step["operation"] in WITH_BACKGROUND and background:
            step.pop("color", None)
            step["background"] = background.image_id
    data = as_jpeg(
        apply(image, steps, entry.max_side, background.image if background else None), QUALITY, full_color=True
    )
    parameters = json.dumps({"round": number, "steps": steps}, sort_keys=True)
    # Shards are compared by id and size, so the id must change with the image: it is derived from the image's bytes,
    # and from the source and the parameters, since a flipped image is the same in every round.
    image_id = f"copy-{digest(row['image_id'], parameters, hashlib.sha256(data).hexdigest())[:16]}.jpg"
    return {
        **row,
        **album.add(image_id, data),
        "reference": False,
        "query": True,
        "training": False,
        "group": row["group"] if row["group"] is not None else row["image_id"],
        "operations": describe(steps),
        "parameters": parameters,
    }


def _choose(seed: int, number: int, image_id: str, backgrounds: Sequence[Background]) -> Background | None:
    """The background for a copy: by hash, so that another set of backgrounds changes few copies."""
    candidates = [background for background in backgrounds if background.image_id != image_id]
    return min(candidates, key=lambda background: digest(seed, number, image_id, background.image_id), default=None)
