"""The queries that pages without scripts and on paper show: rows of images with each model's neighbors."""

from collections.abc import Sequence
from dataclasses import dataclass

from lookalike.report import words
from lookalike.report.evidence import Run
from lookalike.report.queries import MOST_MATCHES, NOT_FOUND, REJECTED, UNRANKED, Found, Queries
from lookalike.report.sprites import ACROSS, Thumbnails

MOST_FIRST = 40  # rows configured to be shown first


@dataclass(frozen=True)
class Thumbnail:
    """An image in the report: its cell in a sprite, or the text shown instead, and the reason if it is broken."""

    image_id: str
    sheet: int = 0
    x: int = 0
    y: int = 0
    text: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Hit:
    """A neighbor."""

    image: Thumbnail
    rank: int
    score: float
    right: bool


@dataclass(frozen=True)
class Strip:
    """The first neighbors that one model found for a query, with a short status."""

    run: Run
    hits: list[Hit]
    status: str
    right: bool
    rejected: str = ""


@dataclass(frozen=True)
class Row:
    """A query or showcase image with its matches and each model's neighbors."""

    query: Thumbnail
    operations: str
    caption: str
    outcome: str
    matches: list[Thumbnail]
    more_matches: int
    strips: list[Strip]


@dataclass(frozen=True)
class Examples:
    """The rows; ``first`` are the images that are configured to be shown first. ``pixels``: thumbnails by image id."""

    first: list[Row]
    rows: list[Row]
    pixels: "Pixels"


class Pixels:
    """Thumbnails by image id."""

    def __init__(self, ids: Sequence[str], thumbnails: Thumbnails | None) -> None:
        self.thumbnails = thumbnails
        self._rows = {ids[row]: row for row in [*thumbnails.cells, *thumbnails.reasons]} if thumbnails else {}

    def of(self, image_id: str) -> Thumbnail:
        """The thumbnail of an image; its id, in a report without pixels."""
        if self.thumbnails is None:
            return Thumbnail(image_id, text=image_id)
        row = self._rows.get(image_id, -1)
        if row in self.thumbnails.cells:
            sheet, cell = divmod(self.thumbnails.cells[row], ACROSS**2)
            return Thumbnail(image_id, sheet, cell % ACROSS, cell // ACROSS)
        reason = self.thumbnails.reasons.get(row, "not in the sample")
        return Thumbnail(image_id, text=reason, reason=reason)


def make(queries: Queries, thumbnails: Thumbnails | None) -> Examples:
    """The configured images, and the varied choice of queries."""
    pixels = Pixels(queries.ids, thumbnails)
    captions = captions_of(queries, queries.images.tolist())

    def row(place: int) -> Row:
        matches = [pixels.of(queries.ids[match]) for match in queries.matches[place]]
        return Row(
            pixels.of(queries.ids[queries.images[place]]),
            words.operations(queries.operations[place]),
            captions[place],
            queries.outcome[place],
            matches[:MOST_MATCHES],
            max(0, len(matches) - MOST_MATCHES),
            [_strip(queries, found, place, pixels) for found in queries.found],
        )

    first = range(min(queries.showcase, MOST_FIRST))
    chosen = range(queries.showcase, min(queries.showcase + queries.chosen, len(queries.images)))
    return Examples([row(place) for place in first], [row(place) for place in chosen], pixels)


def captions_of(queries: Queries, rows: Sequence[int]) -> list[str]:
    """The first caption of each image; empty where it has no caption."""
    if "captions" not in queries.evidence.images.column_names:
        return [""] * len(rows)
    return [(texts or [""])[0] or "" for texts in queries.evidence.images["captions"].take(list(rows)).to_pylist()]


def _strip(queries: Queries, found: Found, place: int, pixels: Pixels) -> Strip:
    hits = [
        Hit(
            pixels.of(queries.ids[row]),
            column + 1,
            float(found.scores[place, column]),
            bool(found.right[place, column]),
        )
        for column, row in enumerate(found.hits[place].tolist())
        if row >= 0
    ]
    rank, k = int(found.rank[place]), queries.evidence.k
    if rank == REJECTED:
        return Strip(found.run, hits, "image rejected", False, found.reasons[place])
    if not hits:
        return Strip(found.run, hits, "no neighbors", False)
    if rank == UNRANKED:
        return Strip(found.run, hits, f"top score {hits[0].score:.2f}", False)
    if rank == NOT_FOUND:
        return Strip(found.run, hits, f"no match in the top {k}", False)
    return Strip(found.run, hits, f"match at rank {rank}" + (", tied" if found.tied[place] else ""), rank == 1)
