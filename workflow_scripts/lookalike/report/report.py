"""The report: one self-contained HTML file that works offline and starts with the answer.

Each section is a template (``templates/*.html.j2``) listed in ``SECTIONS``. Templates only lay out what functions of
this package compute. To add a section, add a template, its entry in ``SECTIONS`` and its data in ``_content``.
"""

import logging
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from lookalike import __version__
from lookalike.io import store
from lookalike.report import (
    cases,
    choices,
    examples,
    explorer,
    figures,
    headline,
    meaning,
    negatives,
    page_scripts,
    pareto,
    queries,
    scatter,
    scenes,
    sprites,
    tables,
    words,
)
from lookalike.report import evidence as inputs
from lookalike.report.evidence import Evidence, ReportJob

log = logging.getLogger(__name__)
TEMPLATES = Path(__file__).parent / "templates"

# Template and heading, in order. A section without data says so instead of disappearing; only sections that depend on
# the configuration or data set (a varied model, captions, an approximate index) are omitted.
SECTIONS = (
    ("leaderboard", "Leaderboard"),
    ("choices", "Effect of each setting"),
    ("pairs", "Pairwise comparison"),
    ("explorer", "Explorer"),
    ("threshold", "Which score threshold?"),
    ("negatives", "Queries without a match"),
    ("agreement", "Semantic agreement"),
    ("operations", "Accuracy by query type"),
    ("follows", "What does each model rely on?"),
    ("cost", "Accuracy vs. cost"),
    ("approximation", "Cost of approximation"),
    ("misses", "What misses found"),
    ("duplicates", "Duplicate files"),
    ("near_duplicates", "Near-duplicates"),
    ("rejected", "Rejected images"),
    ("made", "How this report was made"),
)


def write_report(job: ReportJob) -> None:
    """Write an experiment's report: one self-contained HTML file, or above ``limits`` with a folder beside it.

    ``key`` is ``plan.Plan.report_key``. ``metrics`` and ``seen`` (INDEX_IMAGES) are parallel, in the experiment's
    order; ``neighbors`` and ``showcase`` (neighbors of the showcase images) may be in any order, as their footers
    identify them. The output is reproducible byte for byte. Raises LookalikeError if an input is missing or damaged, or
    if inputs contradict each other.
    """
    evidence, page = inputs.read(job), Path(job.out)
    explored, files = _explored(evidence, job.limits)
    html = render(evidence, explored)
    cases.write(files, page)
    with store.atomic(page) as temporary:
        temporary.write_text(html, encoding="utf-8")
    cases.tidy(files, page)
    log.info("report: %s", page.resolve())


def render(evidence: Evidence, explored: dict[str, Any]) -> str:
    """The HTML of the report."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,  # ids, paths and labels are untrusted
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
            "about",
            "score",
        )
    }
    environment.globals |= {
        "count": words.count,
        "style": _included("style.css") + _included("map.css"),
        "script": Markup(page_scripts.bundle()),
    }
    return environment.get_template("index.html.j2").render(_content(evidence) | explored)


def _included(name: str) -> str:
    """The style sheet, included verbatim."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


def _content(evidence: Evidence) -> dict[str, Any]:
    names, ladders = tables.metric_names(evidence), meaning.ladders(evidence)
    missed, unmatched = scenes.missed(evidence), negatives.rows(evidence)
    optional: dict[str, object] = {
        **{"choices": evidence.varied, "agreement": ladders, "approximation": evidence.approximations},
        **{"misses": missed, "near_duplicates": evidence.near_duplicates, "negatives": unmatched},
    }
    return {
        "evidence": evidence,
        "sections": [section for section in SECTIONS if optional.get(section[0], True)],
        "sentence": headline.sentence(evidence),
        "facts": headline.facts(evidence),
        "few": headline.few(evidence),
        "grouped": headline.grouped(evidence),
        "found_instead": scenes.lead(headline.best(evidence.runs)),
        "missed": missed,
        "metrics": tables.primary(names),
        "more_metrics": [name for name in names if name not in tables.primary(names)],
        "normalised": tables.normalised(names),
        "cases": tables.cases(evidence),
        "leaderboard": tables.leaderboard(evidence),
        "needs": tables.needs(evidence),
        "deciding": [metric for metric, _ in tables.needs(evidence)],
        "matrices": tables.matrices(evidence),
        "left_out": tables.left_out(evidence),
        "breakdowns": figures.breakdowns(evidence),
        "curves": figures.precision_recall(evidence),
        "negatives": unmatched,
        "negatives_sentence": negatives.sentence,
        "approximated": tables.approximated(evidence),
        "choices": choices.tables(evidence),
        "speed": scatter.by_speed(evidence),
        "bytes": scatter.by_bytes(evidence),
        "devices": scatter.devices_of(evidence),
        "pareto": pareto.sentence,
        "ladders": ladders,
        "follows": meaning.follows(evidence),
        "rejected": tables.rejected(evidence),
        "provenance": tables.provenance(evidence),
        "definitions": tables.definitions(evidence),
        "shares": figures.shares,
        "symbols": tables.SYMBOLS,
        "colors": figures.COLORS,
        "shapes": figures.SHAPES,
        "best_by": evidence.best_by,
        "versions": {"lookalike": __version__, **store.versions("pyarrow", "pillow", "jinja2")},
    }


def _explored(evidence: Evidence, limits: cases.Limits) -> tuple[dict[str, Any], cases.Files | None]:
    """The queries with their thumbnails, for the explorer and for pages without scripts; and files beside the page."""
    listed = queries.listed(evidence)
    twins = [image_id for pairs in evidence.duplicates.examples.values() for pair in pairs for image_id in pair]
    elsewhere = {*twins, *scenes.image_ids(evidence), *negatives.image_ids(evidence)}
    rows = [row for row, image_id in enumerate(listed.ids) if image_id in elsewhere] if elsewhere else []
    many = len(listed.images) > limits.queries
    room = sprites.FOLDER if many else sprites.PAGE
    thumbnails = None
    if evidence.has_pixels:
        thumbnails = sprites.make(evidence, list(dict.fromkeys([*rows, *listed.shown_images.tolist()])), room)
    shown = explorer.make(listed, thumbnails)
    uris = thumbnails.uris() if thumbnails else []
    files = None
    if many or len(shown.data) + sum(map(len, uris)) > limits.bytes:
        files = cases.Files(shown.data, thumbnails.sheets if thumbnails else [])
    content = {
        "examples": examples.make(listed, thumbnails),
        "explorer": shown,
        "judged": listed.outcomes,
        "outcomes": words.outcomes(one_model=len(evidence.models) == 1, known=bool(evidence.matched)),
        "sprites": files.images() if files else uris,
        "beside": files.script if files else "",
        "omitted": thumbnails.omitted if thumbnails else 0,
    }
    return content, files
