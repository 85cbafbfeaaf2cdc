"""The report: one self-contained HTML file that works offline and starts with the answer.

Each section is a template (``templates/*.html.j2``) listed in ``SECTIONS`` or in ``appendix.HEADINGS``. Templates only
lay out what functions of this package compute. To add a section, add a template, its entry there and its data in
``_content``; in the appendix also what ``appendix`` says where it has nothing to show.
"""

import logging
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from lookalike import __version__
from lookalike.io import in_work, made_images, store
from lookalike.report import (
    appendix,
    board,
    cases,
    cautions,
    choices,
    examples,
    explorer,
    figures,
    headline,
    meaning,
    needs,
    negatives,
    page_scripts,
    pareto,
    queries,
    scatter,
    scenes,
    sprites,
    tables,
    useit,
    words,
)
from lookalike.report import evidence as inputs
from lookalike.report.evidence import Evidence, ReportJob

log = logging.getLogger(__name__)
TEMPLATES = Path(__file__).parent / "templates"

# Template and heading, in order; ``appendix.HEADINGS`` lists the others, which are folded.
SECTIONS = (
    ("use", "Use it"),
    ("board", "Board"),
    ("explorer", "Explorer"),
)


def write_report(job: ReportJob) -> None:
    """Write an experiment's report: one self-contained HTML file, or above ``limits`` with a folder beside it.

    ``key`` is ``plan.Plan.report_key``. ``metrics`` and ``seen`` (INDEX_IMAGES) are parallel, in the experiment's
    order; ``neighbors`` and ``showcase`` (neighbors of the showcase images) may be in any order, as their footers
    identify them. The output is reproducible byte for byte. Raises LookalikeError if an input is missing or damaged, or
    if inputs contradict each other.
    """
    evidence, page = inputs.read(job), Path(job.out)
    made_images.locate(job.archives)
    sample_sha256 = evidence.runs[0].metrics.sample_sha256
    with in_work.guarding(job.notes, sample_sha256, job.image_seconds) as guard:
        explored, files = _explored(evidence, job.limits, guard)
    html = render(evidence, explored)
    cases.write(files, page)
    with store.atomic(page) as temporary:
        temporary.write_text(html, encoding="utf-8")
    cases.tidy(files, page)
    log.info("report: %s", page.resolve())


def render(evidence: Evidence, explored: dict[str, Any]) -> str:
    """The HTML of the report."""
    return _template().render(_content(evidence) | explored)


@cache
def _template() -> jinja2.Template:
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
            "operation",
            "evidence_name",
            "about",
            "score",
        )
    }
    environment.filters["metric"] = _metric
    environment.globals |= {
        "count": words.count,
        "style": _included("style.css") + _included("print.css") + _included("map.css"),
        "script": Markup(page_scripts.bundle()),
    }
    return environment.get_template("index.html.j2")


@jinja2.pass_context
def _metric(context: jinja2.runtime.Context, name: str) -> str:
    """The name of a metric on this page."""
    return words.metric(name, labelled=context["evidence"].labelled)


def _included(name: str) -> str:
    """The style sheet, included verbatim."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


def _content(evidence: Evidence) -> dict[str, Any]:
    names = tables.metric_names(evidence)
    offered = needs.needs(evidence)
    cards = useit.cards(evidence, offered)
    present, absent = appendix.divide(evidence)
    sections = [section for section in SECTIONS if section[0] != "use" or cards]
    return {
        "evidence": evidence,
        "question": headline.question(evidence),
        "sections": sections,
        "appendix": present,
        "present": [name for name, _ in present],
        "absent": absent,
        "navigation": [*sections, ("appendix", "Appendix")],
        "needs": offered,
        "offered": [need.name for need in offered],
        "cards": cards,
        "boards": board.boards(evidence, offered),
        "cautions": cautions.cautions(evidence),
        "facts": headline.facts(evidence),
        "grouped": headline.grouped(evidence),
        "missed": scenes.missed(evidence),
        "metrics": names,
        "ordered": tables.ordered(evidence),
        "normalised": tables.normalised(names),
        "pairs": tables.pairs(evidence),
        "same_on": tables.same_on,
        "deciding": [need.metric for need in offered],
        "matrices": tables.matrices(evidence),
        "left_out": tables.left_out(evidence),
        "breakdowns": figures.breakdowns(evidence),
        "curves": figures.precision_recall(evidence),
        "negatives": negatives.rows(evidence),
        "negatives_sentence": negatives.sentence,
        "approximated": tables.approximated(evidence),
        "choices": choices.tables(evidence),
        "speed": scatter.by_speed(evidence),
        "bytes": scatter.by_bytes(evidence),
        "devices": scatter.devices_of(evidence),
        "pareto": pareto.sentence,
        "ladders": meaning.ladders(evidence),
        "follows": meaning.follows(evidence),
        "rejected": tables.rejected(evidence),
        "provenance": tables.provenance(evidence),
        "definitions": tables.definitions(evidence),
        "shares": figures.shares,
        "symbols": tables.SYMBOLS,
        "colors": figures.COLORS,
        "shapes": figures.SHAPES,
        "versions": {"lookalike": __version__, **store.versions("pyarrow", "pillow", "jinja2")},
    }


def _explored(
    evidence: Evidence, limits: cases.Limits, guard: in_work.Guard
) -> tuple[dict[str, Any], cases.Files | None]:
    """The queries with their thumbnails, for the explorer and for pages without scripts; and files beside the page."""
    listed = queries.listed(evidence)
    twins = [image_id for pairs in evidence.duplicates.examples.values() for pair in pairs for image_id in pair]
    elsewhere = {*twins, *scenes.image_ids(evidence), *negatives.image_ids(evidence)}
    rows = [row for row, image_id in enumerate(listed.ids) if image_id in elsewhere] if elsewhere else []
    many = len(listed.images) > limits.queries
    room = sprites.FOLDER if many else sprites.PAGE
    thumbnails = None
    if evidence.has_pixels:
        shown_rows = list(dict.fromkeys([*rows, *listed.shown_images.tolist()]))
        thumbnails = sprites.make(evidence, shown_rows, guard, room)
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
