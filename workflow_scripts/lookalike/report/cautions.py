"""What makes the numbers suspect: lines at the top of the page, each with the section that has more."""

from dataclasses import dataclass

from lookalike.report import headline, needs, scenes, words
from lookalike.report.evidence import ACTS, LOOKS, Evidence


@dataclass(frozen=True)
class Caution:
    """A line; ``lead`` opens it in bold, ``section`` is the name of the section that has more, if there is one."""

    lead: str
    text: str
    section: str = ""


def cautions(evidence: Evidence) -> list[Caution]:
    """The lines of this experiment; none where nothing is suspect."""
    found = [
        Caution("Few observations.", headline.few(evidence)),
        Caution("Misses that may be right.", scenes.lead(needs.run_of(evidence, evidence.answers[LOOKS])), "misses"),
        Caution("Duplicates.", _undecidable(evidence), "duplicates"),
        Caution("No queries without a match.", _no_negatives(evidence)),
        *(
            Caution(f"{label} is missing.", f"It was left out because the Python package {package} is not installed.")
            for label, package in evidence.not_installed.items()
        ),
    ]
    return [caution for caution in found if caution.text]


def _undecidable(evidence: Evidence) -> str:
    amount = evidence.duplicates.undecidable
    if not amount:
        return ""
    return (
        f"{words.count(amount, 'query', 'queries')} cannot be decided: the true match has a duplicate that counts as "
        "wrong, so every model scores a miss."
    )


def _no_negatives(evidence: Evidence) -> str:
    """Thresholds were only tried on queries that have a match."""
    answer = evidence.answers.get(ACTS)
    if not answer or not answer.best or len(evidence.matched) < evidence.queries.num_rows:
        return ""
    return "Every query has a match here. Where some have none, a threshold is less precise than this report says."
