"""The appendix: sections that have something to say, and one line about the others."""

from collections.abc import Callable
from dataclasses import dataclass

from lookalike.report import figures, meaning, negatives, scenes, tables, words
from lookalike.report.evidence import Evidence

HEADINGS = {
    "pairs": "Pairwise comparison",
    "threshold": "Score thresholds",
    "operations": "Accuracy by query type",
    "cost": "Accuracy vs. cost",
    "choices": "Effect of each setting",
    "approximation": "Cost of approximation",
    "agreement": "Semantic agreement",
    "follows": "What does each model rely on?",
    "misses": "What misses found",
    "negatives": "Queries without a match",
    "duplicates": "Duplicate files",
    "near_duplicates": "Near-duplicates",
    "rejected": "Rejected images",
    "metrics": "All metrics",
    "made": "How this report was made",
}


@dataclass(frozen=True)
class Absent:
    """A section that is left out, and why."""

    heading: str
    reason: str


def divide(evidence: Evidence) -> tuple[list[tuple[str, str]], list[Absent]]:
    """The name and heading of each section that has something to say; and the others."""
    reasons = {name: why(evidence) for name, why in WHY_ABSENT.items()}
    present = [(name, heading) for name, heading in HEADINGS.items() if not reasons.get(name)]
    return present, [Absent(heading, reasons[name]) for name, heading in HEADINGS.items() if reasons.get(name)]


# Each of the following says why a section has nothing to say; an empty string if it has.

NO_MATCH = "no query has a known match"


def _pairs(evidence: Evidence) -> str:
    if len(evidence.counts) == 1:
        return "there is only one model"
    if tables.pairs(evidence) or (evidence.matched and tables.left_out(evidence)):
        return ""
    return "the models were not compared" if evidence.matched else NO_MATCH


def _threshold(evidence: Evidence) -> str:
    if figures.precision_recall(evidence):
        return ""
    if evidence.labelled and evidence.matched:
        return "the best ten pairs per query are only a small share of all true pairs of such large classes"
    return "precision was not measured" if evidence.matched else NO_MATCH


def _operations(evidence: Evidence) -> str:
    if figures.breakdowns(evidence):
        return ""
    return (
        "the data set records no operations, labels or sizes that divide the queries" if evidence.matched else NO_MATCH
    )


def _cost(evidence: Evidence) -> str:
    known = any(run.embed or run.metrics.cost or run.search for run in evidence.runs)
    return "" if known else "neither speeds nor sizes are known"


def _choices(evidence: Evidence) -> str:
    return "" if evidence.effects else "the experiment varies no model"


def _approximation(evidence: Evidence) -> str:
    return "" if evidence.approximations else "no approximate index was compared with an exact one"


def _agreement(evidence: Evidence) -> str:
    return "" if meaning.ladders(evidence) else "the data set has no captions or categories"


def _follows(evidence: Evidence) -> str:
    found = meaning.follows(evidence)
    if found.rows or found.tested:
        return ""
    return "it needs the model color-histogram, or queries that are copies made by known operations"


def _misses(evidence: Evidence) -> str:
    if scenes.missed(evidence):
        return ""
    if not evidence.matched:
        return NO_MATCH
    audited = any(run.metrics.audit for run in evidence.runs)
    return "no miss found another file or shot of the right image" if audited else "misses were not audited"


def _negatives(evidence: Evidence) -> str:
    if negatives.rows(evidence):
        return ""
    if not evidence.matched:
        return NO_MATCH
    every = len(evidence.matched) == evidence.queries.num_rows
    return "every query has a match" if every else "no threshold was measured"


def _duplicates(evidence: Evidence) -> str:
    found = evidence.duplicates
    harm = (found.queries_like_match, found.queries_like_other, found.undecidable, found.training_like_reference)
    if found.doubled or any(harm):
        return ""
    references, queries = words.count(found.references, "reference"), words.count(found.queries, "query", "queries")
    return (
        f"none of the {references} is byte-identical to another reference, to one of the {queries}, or to a training "
        "image"
    )


def _near_duplicates(evidence: Evidence) -> str:
    found = evidence.near_duplicates
    if found is None:
        return "the data set’s entry leaves them out"
    if found.groups or found.capped:
        return ""
    skipped = ((found.rejected, "unreadable"), (found.flat, "with little contrast"))
    parts = [f"{words.number(amount)} {what}" for amount, what in skipped if amount]
    compared = f"; not compared: {words.listing(parts)}" if parts else ""
    return f"none found among {words.count(evidence.images.num_rows, 'image')}{compared}"


def _rejected(evidence: Evidence) -> str:
    if evidence.rejected or evidence.left_out:
        return ""
    return f"every model could read all {words.count(evidence.images.num_rows, 'image')}"


WHY_ABSENT: dict[str, Callable[[Evidence], str]] = {
    "pairs": _pairs,
    "threshold": _threshold,
    "operations": _operations,
    "cost": _cost,
    "choices": _choices,
    "approximation": _approximation,
    "agreement": _agreement,
    "follows": _follows,
    "misses": _misses,
    "negatives": _negatives,
    "duplicates": _duplicates,
    "near_duplicates": _near_duplicates,
    "rejected": _rejected,
}
