"""The report: one HTML file that opens anywhere, without a network, and answers the question first.

Sections are templates of their own (``templates/*.html.j2``), listed in ``SECTIONS`` and in the page's order; each
draws what a function of this package computed. A new section is a template, a name in that list and its data here.
"""

import logging
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from lookalike import __version__
from lookalike.io import store
from lookalike.report import choices, examples, figures, headline, meaning, pareto, scatter, tables, words
from lookalike.report import evidence as inputs
from lookalike.report.evidence import Evidence, ReportJob

log = logging.getLogger(__name__)
TEMPLATES = Path(__file__).parent / "templates"

# Template and heading, in the page's order. A section whose data is missing says so rather than vanishing; only those
# that an experiment must ask for (a varied model, captions, an approximate index) are left out where it does not.
SECTIONS = (
    ("leaderboard", "Leaderboard"),
    ("choices", "What each choice does"),
    ("pairs", "Model against model"),
    ("threshold", "Which score threshold?"),
    ("agreement", "Do neighbors mean the same?"),
    ("operations", "Accuracy by kind of query"),
    ("follows", "What does a model follow?"),
    ("cost", "Accuracy against cost"),
    ("approximation", "What approximation costs"),
    ("examples", "See for yourself"),
    ("duplicates", "Identical pictures"),
    ("rejected", "Rejected pictures"),
    ("made", "How this was made"),
)


def write_report(job: ReportJob) -> None:
    """Write an experiment's report as one self-contained HTML file.

    ``key`` is ``plan.Plan.report_key``; ``metrics`` and ``seen`` (what each model saw of every image) come in the
    experiment's order, and ``neighbors`` and ``showcase`` (neighbors of outside images) in any, since their footers say
    which model they are of. The same input gives the same bytes. Raises LookalikeError where an input is missing or
    damaged, or where inputs contradict each other.
    """
    page = render(inputs.read(job))
    with store.atomic(job.out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    log.info("the report: %s", Path(job.out).resolve())


def render(evidence: Evidence) -> str:
    """The page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,  # ids, paths and labels are other people's text
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        name: getattr(words, name)
        for name in (
            "percent",
            "interval",
            "points",
            "probability",
            "number",
            "size",
            "listing",
            "metric",
            "operation",
            "evidence_name",
        )
    }
    environment.globals |= {"count": words.count, "raw": _raw}
    return environment.get_template("index.html.j2").render(_content(evidence))


def _raw(name: str) -> str:
    """A template file that is no template: style and script, put into the page as they are."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


def _content(evidence: Evidence) -> dict[str, Any]:
    names, ladders = tables.metric_names(evidence), meaning.ladders(evidence)
    asked_for = {"choices": evidence.varied, "agreement": ladders, "approximation": evidence.approximations}
    return {
        "evidence": evidence,
        "sections": [one for one in SECTIONS if asked_for.get(one[0], True)],
        "sentence": headline.sentence(evidence),
        "facts": headline.facts(evidence),
        "few": headline.few(evidence),
        "grouped": headline.grouped(evidence),
        "metrics": tables.primary(names),
        "more_metrics": [name for name in names if name not in tables.primary(names)],
        "normalised": tables.normalised(names),
        "cases": tables.cases(evidence),
        "leaderboard": tables.leaderboard(evidence),
        "matrices": tables.matrices(evidence),
        "left_out": tables.left_out(evidence),
        "breakdowns": figures.breakdowns(evidence),
        "curves": figures.precision_recall(evidence),
        "approximated": tables.approximated(evidence),
        "choices": choices.tables(evidence),
        "speed": scatter.by_speed(evidence),
        "bytes": scatter.by_bytes(evidence),
        "devices": scatter.devices_of(evidence),
        "pareto": pareto.sentence,
        "ladders": ladders,
        "follows": meaning.follows(evidence),
        "examples": examples.make(evidence),
        "rejected": tables.rejected(evidence),
        "made": tables.how_made(evidence),
        "definitions": tables.definitions(evidence),
        "shares": figures.shares,
        "symbols": tables.SYMBOLS,
        "colors": figures.COLORS,
        "shapes": figures.SHAPES,
        "best_by": evidence.best_by,
        "versions": {"lookalike": __version__, **store.versions("pyarrow", "pillow", "jinja2")},
    }
