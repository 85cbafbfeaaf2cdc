"""What the root of a published data set holds, part by part, and what is missing."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from lookalike.job.errors import LookalikeError
from lookalike.sample.left_out import LeftOut

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Who publishes a data set, and under which terms."""

    title: str
    publisher: str
    page: str
    licence: str
    docs: str


@dataclass
class Part:
    """A part of a data set as found: images in one role, or a file about them."""

    name: str
    unit: str  # what `found` counts: images, true pairs, captions
    found: int
    wanted: str  # what the entry takes of it, in words
    published: int | None = None  # how many there are as published; None where copies differ
    missing: str = ""  # what the entry needs and what is missing, and where it belongs
    places: list[str] = field(default_factory=list)  # folders and files that it was found in, relative to the root
    absent: list[str] = field(default_factory=list)  # what is published and missing, and not required
    remarks: list[str] = field(default_factory=list)  # what differs from what is expected; it stops nothing
    left_out: LeftOut = field(default_factory=LeftOut)  # what was listed and is not among its images; also a remark

    def leave_out(self, odd: LeftOut) -> None:
        """Add remarks about what was listed and is not among the part's images, and count it for the report."""
        self.left_out = odd
        self.remarks += odd.lines()

    @property
    def notes(self) -> list[str]:
        """What a user should know, and what stops nothing."""
        return [*(f"missing, not required: {line}" for line in self.absent), *self.remarks]


@dataclass
class FoundParts:
    """What the root of a data set holds, for one entry of the configuration."""

    source: Source
    root: str
    parts: list[Part]

    @property
    def missing(self) -> list[str]:
        """One line for each part that is missing or incomplete."""
        return [f"{part.name}: {part.missing}" for part in self.parts if part.missing]

    @property
    def left_out(self) -> list[dict[str, Any]]:
        """What was left out of every part, for the footer of the images table."""
        return [row for part in self.parts for row in part.left_out.rows(f"{self.root} ({part.name})")]

    def how_to_get(self) -> list[str]:
        """Where to fetch the data set, its licence, and where to put it."""
        source = self.source
        return [
            f"Fetch it from: {source.publisher}, {source.page}",
            f"Licence: {source.licence}",
            f"Put it into: {self.root} (a relative path starts at the folder where snakemake is run)",
            f"Every step: {source.docs}",
        ]

    def stop_where_incomplete(self, name: str) -> None:
        """Raise LookalikeError where something is missing that the entry needs."""
        if self.missing:
            lines = [*(f"Missing: {line}" for line in self.missing), *self.how_to_get()]
            lines.append(
                f"To see what was found and what is missing: lookalike check {name} (and the run's --configfile)"
            )
            raise LookalikeError(
                f"datasets.{name}.root: '{self.root}' does not hold the {self.source.title} images and tables that "
                "this data set needs.\n  " + "\n  ".join(lines)
            )

    def log(self) -> None:
        """Log what was found."""
        for part in self.parts:
            log.info("%s: %s %s in %s", part.name, f"{part.found:,}", part.unit, shortened(part.places))
            for note in part.notes:
                log.warning("%s: %s", part.name, note)

    @property
    def absent(self) -> list[str]:
        """What is published and missing, and not required: where counts differ, the likely reason."""
        return [f"{part.name}: {line}" for part in self.parts for line in part.absent]

    def remedy(self, name: str) -> str:
        """What to do where counts differ from those expected."""
        likely = f"Likely missing: {'; '.join(self.absent)}. Add it" if self.absent else "Look for what is missing"
        return f"{likely}, or correct expect if this is intended. To see what was found: lookalike check {name}"


@dataclass
class FoundImages(FoundParts):
    """One table of images (of published.LISTED), and by image the texts about it: captions, or labels."""

    images: pa.Table
    texts: dict[str, list[str]]


def shortened(places: Sequence[str]) -> str:
    """``refs_0.zip, refs_1.zip, ... (20 in all)``."""
    return ", ".join(places) if len(places) <= 3 else f"{places[0]}, {places[1]}, ... ({len(places)} in all)"
