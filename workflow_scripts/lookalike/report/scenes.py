"""What misses found, such as another shot of the right scene; and files of a data set that show the same image."""

from dataclasses import dataclass

from lookalike.io.formats.audit import SAME_IMAGE, SAME_SCENE, Audit, AuditPair
from lookalike.report import words
from lookalike.report.evidence import Evidence, Run

MOST_PAIRS = 6  # of each model and kind


@dataclass(frozen=True)
class Missed:
    """The misses of one model: a sentence about them, and some of them as pairs."""

    run: Run
    sentence: str
    pairs: list[AuditPair]


def missed(evidence: Evidence) -> list[Missed]:
    """One entry for each run whose misses found the same image or scene."""
    return [
        Missed(run, _sentence(audit), _some(audit))
        for run in evidence.runs
        if (audit := run.metrics.audit) and (audit.same_image or audit.same_scene)
    ]


def lead(top: Run | None) -> str:
    """The sentence about the misses of the top model, or nothing."""
    audit = top.metrics.audit if top else None
    return f"{top.label}: {_sentence(audit)}" if top and audit and (audit.same_image or audit.same_scene) else ""


def _sentence(audit: Audit) -> str:
    """Such as ``40 of 80 misses found another shot of the same scene, and 5 another file of the same image.``"""
    kinds = {"another shot of the same scene": audit.same_scene, "another file of the same image": audit.same_image}
    (first, *second) = [(count, what) for what, count in kinds.items() if count]
    found = f"{first[0]:,} of {words.count(audit.misses, 'miss', 'misses')} found {first[1]}"
    found += "".join(f", and {count:,} {what}" for count, what in second)
    return f"{found}. {audit.not_audited:,} were not checked." if audit.not_audited else f"{found}."


def _some(audit: Audit) -> list[AuditPair]:
    return [
        pair
        for kind in (SAME_SCENE, SAME_IMAGE)
        for pair in [pair for pair in audit.pairs if pair.verdict == kind][:MOST_PAIRS]
    ]


def image_ids(evidence: Evidence) -> list[str]:
    """Ids of all images that these parts of the report show."""
    pairs = [pair for entry in missed(evidence) for pair in entry.pairs]
    groups = evidence.near_duplicates.shown if evidence.near_duplicates else []
    return [
        *(image_id for pair in pairs for image_id in (pair.query, pair.match, pair.reference)),
        *(image_id for group in groups for image_id in group),
    ]
