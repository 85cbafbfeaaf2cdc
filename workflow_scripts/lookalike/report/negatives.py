"""Rows of the report's table of hard negatives: queries without a match that a threshold accepts."""

from dataclasses import dataclass

from lookalike.io.formats.hard_negatives import HardNegative, HardNegatives
from lookalike.report import words
from lookalike.report.evidence import Evidence, Run

SHOWN = 4  # pairs per model


@dataclass(frozen=True)
class Row:
    """One model at one threshold; ``shown`` are the pairs with the highest scores."""

    run: Run
    found: HardNegatives
    shown: list[HardNegative]

    @property
    def share(self) -> float:
        """The share of queries without a match that are accepted."""
        return self.found.above / self.found.queries


def rows(evidence: Evidence) -> list[Row]:
    """One row per model with the first index, for the threshold of raw scores; none if every query has a match."""
    found = [(run, run.metrics.hard_negatives.get("recall_at_p90")) for run in evidence.models]
    return [Row(run, one, one.closest[:SHOWN]) for run, one in found if one and one.queries]


def image_ids(evidence: Evidence) -> list[str]:
    """Ids of the images that the rows show."""
    return [name for row in rows(evidence) for pair in row.shown for name in (pair.query, pair.reference)]


def sentence(row: Row) -> str:
    """``3 of 40 queries without a match (7.5 %) would be accepted``."""
    queries = words.count(row.found.queries, "query without a match", "queries without a match")
    return f"{words.number(row.found.above)} of {queries} ({words.percent(row.share)}) would be accepted"
