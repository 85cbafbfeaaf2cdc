import base64
import json
import re
import subprocess
import sys
import zlib
from dataclasses import dataclass, field
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from lookalike.compare.answers import answers
from lookalike.io import store
from lookalike.io.formats.audit import SAME_SCENE
from lookalike.io.formats.hard_negatives import HardNegative, HardNegatives
from lookalike.io.formats.records import (
    Approximation,
    Case,
    Cases,
    Comparison,
    Comparisons,
    Cost,
    Curve,
    Duplicates,
    Effect,
    Estimate,
    HeldOut,
    Metrics,
    Threshold,
)
from lookalike.io.formats.tables import AUDIT, IMAGES, INDEX_IMAGES, MAP, NEIGHBORS, TRUTH, Format
from lookalike.io.formats.thresholds import Safe, Seen, Target, Transfer
from lookalike.io.in_work import Guard
from lookalike.job.errors import LookalikeError
from lookalike.metrics.ranking import rank
from lookalike.metrics.rates import FEWEST, NOTHING, SIGNIFICANCE, sign_flip
from lookalike.report import appendix, headline, pareto, queries, sprites, words
from lookalike.report import evidence as inputs_of
from lookalike.report.cases import IN_PAGE, Limits
from lookalike.report.evidence import ReportJob
from lookalike.report.report import write_report
from tables import MADE

HOSTILE = "\"><script>alert('x')</script>\n<img src=https://evil.example/a.png> 図 \u202e.png"
CPU = {
    "embed": {"images": 8, "seconds": 2.0, "images_per_second": 4.0, "load_seconds": 1.0, "device": "CPU (2 threads)"}
}


UNVERIFIED = Target(
    seen=Seen(score=0.81259, precision=0.9, recall=0.45),
    safe=None,
    transfer=Transfer(precision=Estimate(value=0.875, low=0.5, high=0.95, n=8), recall=0.25, without=0.0, halves=200),
    verdict="too few queries",
    queries_needed=1234,
    false_matches_per_query=0.0625,
    share_with_match=0.8,
)


@dataclass
class Experiment:
    """A small experiment on disk: six references, and queries with configurable neighbors per model."""

    folder: Path
    models: list[str] = field(default_factory=lambda: ["good", "fair"])
    labels: dict[str, str] = field(default_factory=dict)
    title: str = "Which model?"
    references: list[str] = field(default_factory=lambda: [f"ref-{number}" for number in range(6)])
    queries: dict[str, str | None] = field(default_factory=lambda: {"q-0": "ref-0", "q-1": "ref-1", "q-2": None})
    operations: dict[str, str] | None = field(
        default_factory=lambda: {"q-0": "crop:light", "q-1": "blur:heavy + jpeg:light"}
    )
    found: dict[tuple[str, str], list[str]] = field(default_factory=dict)  # (model, query) -> neighbors
    scores: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    rejected: dict[str, dict[str, str]] = field(default_factory=dict)  # model -> image -> reason
    accuracy: dict[str, float] = field(default_factory=lambda: {"good": 1.0, "fair": 0.5})
    breakdowns: dict[str, dict[str, dict[str, Estimate]]] = field(default_factory=dict)
    verdict: str = "cannot tell"
    timing: dict[str, dict[str, object]] = field(default_factory=dict)
    too_easy: set[str] = field(default_factory=set)  # metrics without a value, since every ranking scores the same
    indexes: list[str] = field(default_factory=lambda: ["flat"])
    groups: dict[str, str] = field(default_factory=dict)
    pooled: tuple[str, ...] = ()  # suffixes of the pooled metrics: "" for raw scores, "_sn"
    threshold: float | None = 0.8125
    targets: dict[str, Target] = field(default_factory=lambda: {"90": UNVERIFIED})
    cases: list[Cases] = field(default_factory=list)
    showcase: list[str] = field(default_factory=list)  # images without a role, to be shown first
    shown: list[str] = field(default_factory=list)  # queries to be shown first
    duplicates: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # kind -> pairs
    undecidable: int = 0
    costs: dict[str, Cost] = field(default_factory=dict)
    effects: list[Effect] = field(default_factory=list)
    approximations: list[Approximation] = field(default_factory=list)
    left_out: list[dict[str, object]] = field(default_factory=list)  # ignored files in the data set's folders
    hard_negatives: dict[str, dict[str, HardNegatives]] = field(default_factory=dict)  # by model
    footer: dict[str, object] = field(default_factory=dict)  # of the neighbors, in addition to the common entries
    captions: dict[str, str] = field(default_factory=dict)
    columns: dict[str, dict[str, str]] = field(default_factory=dict)  # by_* column -> image -> value
    maps: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)  # model -> image -> place
    scenes: dict[tuple[str, str], str] = field(default_factory=dict)  # (model, query) -> wrong reference of its scene
    k: int = 3
    limits: Limits = IN_PAGE
    settings: dict[str, object] = field(default_factory=dict)  # of the report, in addition to the common ones

    def report(self) -> str:
        """Write the files and the report; return its HTML."""
        job = ReportJob(**self.inputs(), out=self.folder / "index.html", limits=self.limits)  # type: ignore[arg-type]
        write_report(job)
        return (self.folder / "index.html").read_text(encoding="utf-8")

    def inputs(self) -> dict[str, object]:
        pairs = [(model, index) for model in self.models for index in self.indexes]
        labels = {model: self.labels.get(model, f"The {model} one") for model in self.models}
        key = {"experiment": "trial", "title": self.title, "dataset": "tiles", "labels": labels, "k": self.k}
        key |= self.settings | ({"varied": "The good one"} if self.effects else {})
        return {
            "key": json.dumps(key),
            "notes": self.folder / "report.in_work",
            "images": self._images(),
            "truth": self._truth(),
            "metrics": [self._metrics(model, index) for model, index in pairs],
            "neighbors": [self._neighbors(model, index) for model, index in pairs],
            "showcase": [self._showcase(*pair) for pair in pairs if self.showcase],
            "seen": [self._seen(*pair) for pair in pairs],
            "comparisons": self._comparisons(),
            "duplicates": self._duplicates(),
            "maps": [self._map(model, places) for model, places in self.maps.items()],
            "audit": [self._audit(*pair) for pair in pairs if self.scenes],
        }

    def _images(self) -> Path:
        ids = [*self.references, *self.queries, *self.showcase]
        for number, _ in enumerate(ids):
            noise = np.random.default_rng(number).integers(0, 255, (40, 50, 3), dtype=np.uint8)
            if not (self.folder / f"{number}.png").exists():
                Image.fromarray(noise).save(self.folder / f"{number}.png")
        columns = {
            "image_id": ids,
            "reference": [one in self.references for one in ids],
            "query": [one in self.queries for one in ids],
            "training": [False] * len(ids),
            "root": [str(self.folder)] * len(ids),
            "path": [f"{number}.png" for number, _ in enumerate(ids)],
            "bytes": [1] * len(ids),
            "group": [self.groups.get(one) for one in ids],
        }
        optional = []
        if self.operations is not None:
            columns["operations"] = [self.operations.get(one) for one in ids]
            optional.append("operations")
        if self.showcase or self.shown:
            columns["showcase"] = [one in self.showcase or one in self.shown for one in ids]
            optional.append("showcase")
        if self.captions:
            columns["captions"] = [[self.captions[one]] if one in self.captions else None for one in ids]
        columns |= {name: [values.get(one) for one in ids] for name, values in self.columns.items()}
        optional += [*(["captions"] if self.captions else []), *self.columns]
        schema = IMAGES.schema(*optional)
        return self._table("images", columns, IMAGES, schema, MADE | {"left_out": self.left_out})

    def _truth(self) -> Path:
        matched = {query: match for query, match in self.queries.items() if match}
        columns = {"query_id": list(matched), "reference_id": list(matched.values())}
        return self._table("truth", columns, TRUTH, TRUTH.schema(), MADE)

    def _showcase(self, model: str, index: str) -> Path:
        return self._neighbors(model, index, f"{model}-{index}.showcase", dict.fromkeys(self.showcase))

    def _neighbors(self, model: str, index: str, name: str = "", queries: dict[str, str | None] | None = None) -> Path:
        rows: list[tuple[str, int, str, float]] = []
        for query, match in (self.queries if queries is None else queries).items():
            if query in self.rejected.get(model, {}):
                continue
            default = [match] if match else []
            order = self.found.get(
                (model, query), [*default, *(one for one in self.references if one != match)][: self.k + 1]
            )
            scores = self.scores.get((model, query), [0.9 - 0.1 * place for place in range(len(order))])
            rows += [(query, rank, *pair) for rank, pair in enumerate(zip(order, scores, strict=True), 1)]
        columns = dict(zip(NEIGHBORS.columns, map(list, zip(*rows, strict=True)), strict=True))
        made = {
            **MADE,
            "model": model,
            "index": index,
            "key": '{"family": "pixels"}',
            "weights": {"source": "w", "revision": "r7"},
            "embed_versions": {"torch": "2.9.1", "pillow": "11.3.0 / 12.0.0"},
            "versions": {"faiss-cpu": "1.13.0"},
            **self.footer,
        }
        return self._table(name or f"{model}-{index}", columns, NEIGHBORS, NEIGHBORS.schema(), made)

    def _map(self, model: str, places: dict[str, tuple[float, float]]) -> Path:
        columns = {"image_id": list(places), "x": [x for x, _ in places.values()], "y": [y for _, y in places.values()]}
        counted = {"method": "t-SNE", "kept_neighbors": 0.625, "query": 1, "reference": 1}
        made = {**MADE, "model": model, **counted, **self.footer}
        return self._table(f"{model}.map", columns, MAP, MAP.schema(), made)

    def _audit(self, model: str, index: str) -> Path:
        rows = [
            {"query_id": query, "rank": 1, "reference_id": wrong, "match_id": self.queries[query] or "", "inliers": 9}
            | {"verdict": SAME_SCENE, "by": "features", "mirrored": False}
            for (of, query), wrong in self.scenes.items()
            if of == model
        ]
        columns = {name: [row[name] for row in rows] for name in AUDIT.columns}
        made = {**MADE, "neighbors": store.identity(self._neighbors(model, index))}
        return self._table(f"{model}-{index}.audit", columns, AUDIT, AUDIT.schema(), made)

    def _duplicates(self) -> Path:
        kinds = ("queries_like_match", "queries_like_other", "training_like_reference")
        record = Duplicates(
            references=len(self.references),
            queries=len(self.queries),
            doubled=2 * len(self.duplicates.get("doubled", [])),
            groups=len(self.duplicates.get("doubled", [])),
            undecidable=self.undecidable,
            examples={kind: self.duplicates.get(kind, []) for kind in ("doubled", *kinds)},
            **{kind: len(self.duplicates.get(kind, [])) for kind in kinds},
            sample_sha256=MADE["sample_sha256"],
            shards_sha256=MADE["shards_sha256"],
        )
        path = self.folder / "duplicates.json"
        store.write_json(record, path)
        return path

    def _seen(self, model: str, index: str) -> Path:
        bad = self.rejected.get(model, {})
        none = dict.fromkeys(("sha256", "width", "height"), [None] * len(bad))
        columns = {"image_id": list(bad), **none, "reason": list(bad.values())}
        return self._table(f"{model}-{index}.images", columns, INDEX_IMAGES, INDEX_IMAGES.schema(), MADE | self.footer)

    def _metrics(self, model: str, index: str) -> Path:
        matched = sum(match is not None for match in self.queries.values())
        value = self.accuracy.get(model, 0.5) if matched else None
        estimate = Estimate(value=value, low=value and value / 2, high=value, n=matched)
        bad = self.rejected.get(model, {})
        names = ("accuracy_at_1", "accuracy_at_3", "recall_at_3")
        record = Metrics(
            dataset="tiles",
            model=model,
            index=index,
            references=len(self.references),
            queries=len(self.queries),
            groups=len({self.groups.get(query, query) for query, match in self.queries.items() if match}),
            rejected_references=sum(one in self.references for one in bad),
            rejected_queries=sum(one in self.queries for one in bad),
            hard_negatives=self.hard_negatives.get(model, {}),
            metrics={name: NOTHING if name in self.too_easy else estimate for name in names}
            | {"mrr": estimate}
            | {f"{name}{end}": estimate for end in self.pooled for name in ("uap", "uap_k10", "recall_at_p90")},
            thresholds={f"recall_at_p90{end}": self._threshold(estimate) for end in self.pooled if matched}
            | (self.targets if matched and self.pooled else {}),
            thresholds_sn=self.targets if matched and "_sn" in self.pooled else {},
            curves={
                f"uap{end}": Curve(score=[0.9, 0.8125, 0.5], precision=[1, 0.9, 0.5], recall=[0.2, 0.45, 0.5])
                for end in self.pooled
                if matched
            },
            breakdowns=self.breakdowns,
            timing=self.timing.get(model, CPU),
            cost=self.costs.get(model),
            sample_sha256=MADE["sample_sha256"],
            made_from={"neighbors": store.identity(self._neighbors(model, index))},
        )
        path = self.folder / f"{model}-{index}.json"
        store.write_json(record, path)
        return path

    def _threshold(self, estimate: Estimate) -> Threshold:
        known = self.threshold is not None
        return Threshold(
            score=self.threshold,
            precision=0.9 if known else None,
            recall=0.45 if known else None,
            held_out=HeldOut(
                threshold=0.75 if known else None,
                chosen_on=2,
                queries=1,
                precision=Estimate(value=0.875, low=0.5, high=0.95, n=8) if known else NOTHING,
                recall=Estimate(value=0.25, low=0.125, high=0.5, n=8) if known else NOTHING,
            ),
        )

    def _comparisons(self) -> Path:
        gap = Estimate(value=0.5, low=0.1, high=0.9, n=2)
        found = [
            Comparison(
                index=index, metric="accuracy_at_1", a=a, b=b, difference=gap, p=0.01, p_holm=0.02, verdict=self.verdict
            )
            if metric not in self.too_easy and any(self.queries.values())
            else Comparison(
                index=index,
                metric=metric,
                a=a,
                b=b,
                difference=NOTHING,
                p=1.0,
                p_holm=1.0,
                verdict="cannot tell",
            )
            for index in self.indexes
            for metric in sorted({"accuracy_at_1", *self.too_easy})
            for place, a in enumerate(self.models)
            for b in self.models[place + 1 :]
        ]
        path = self.folder / "comparisons.json"
        sections = {"cases": self.cases, "effects": self.effects, "approximations": self.approximations}
        records = [
            store.read_json(self._metrics(model, index), Metrics) for model in self.models for index in self.indexes
        ]
        metrics = {f"{record.model}/{record.index}": store.checksum(record) for record in records}
        compared = Comparisons(
            experiment="trial",
            comparisons=found,
            answers=answers(records, found),
            metrics=metrics,
            sample_sha256=MADE["sample_sha256"],
            **sections,
        )
        store.write_json(compared, path)
        return path

    def _table(
        self,
        name: str,
        columns: dict[str, list[object]],
        kind: Format,
        schema: pa.Schema,
        made: dict[str, object],
    ) -> Path:
        path = self.folder / f"{name}.parquet"
        store.write_table(pa.table(columns, schema=schema), path, kind, made)
        return path


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return Experiment(tmp_path)


class Page(HTMLParser):
    """Tags with their attributes, and the visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.style = self.words = ""
        self._open = ""
        self.feed(html)
        self.words = " ".join(self.words.replace(words.SPACE, " ").split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attributes}))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open == "style":
            self.style += data
        elif self._open not in ("script", "title"):
            self.words += f" {data}"

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def balanced(html: str) -> bool:
    """Whether elements are closed in the order in which they were opened."""

    class Stack(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []
            self.wrong = False

        def handle_starttag(self, tag: str, attributes: object) -> None:
            if tag not in ("meta", "br", "hr", "input"):
                self.open = [*self.open, tag]

        def handle_startendtag(self, tag: str, attributes: object) -> None:
            pass

        def handle_endtag(self, tag: str) -> None:
            self.wrong = self.wrong or self.open[-1:] != [tag]
            self.open = self.open[:-1]

    stack = Stack()
    stack.feed(html)
    return not stack.open and not stack.wrong


def test_the_report_loads_nothing_from_the_network(experiment: Experiment) -> None:
    page = Page(experiment.report())
    assert not page.named("link")
    assert not any("src" in attributes for _, attributes in page.tags)
    links = [attributes["href"] for _, attributes in page.tags if "href" in attributes]
    assert links
    assert all(link.startswith("#") for link in links)
    urls = re.findall(r"url\(([^)]*)", page.style)
    assert urls
    assert all(url.startswith("data:image/webp;base64,") for url in urls)
    assert "@import" not in page.style
    assert any("default-src 'none'" in attributes.get("content", "") for attributes in page.named("meta"))


def test_tags_are_balanced_and_links_resolve(experiment: Experiment) -> None:
    experiment.rejected = {"good": {"q-0": "damaged"}}
    html = experiment.report()
    assert balanced(html)
    page = Page(html)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    linked = {attributes["href"][1:].partition("?")[0] for _, attributes in page.tags if "href" in attributes}
    assert linked <= set(ids)


def test_the_same_input_gives_the_same_bytes(experiment: Experiment) -> None:
    assert experiment.report() == experiment.report()


def test_without_a_title_the_page_asks_what_its_data_answer(experiment: Experiment) -> None:
    def title() -> str:
        html = experiment.report()
        (found,) = re.findall(r"<title>(.*) – Lookalike</title>", html)
        assert f"<h1><bdi>{found}</bdi></h1>" in html
        return str(found)

    assert title() == "Which model?"
    experiment.title = ""
    assert title() == "Which model finds the right images?"
    experiment.models = ["good"]
    assert title() == "How often does The good one find the right images?"
    experiment.queries = dict.fromkeys(experiment.queries)
    assert title() == "What does The good one find?"


def test_the_headline_names_models_that_are_not_significantly_different(experiment: Experiment) -> None:
    assert (
        "The good one ranks a true match first for 100 % of 2 queries. "
        "The fair one is not significantly different from The good one." in Page(experiment.report()).words
    )


def test_the_headline_names_a_significantly_better_model(experiment: Experiment) -> None:
    experiment.models = ["fair", "good"]
    experiment.verdict = "worse"  # of the first, fair
    page = Page(experiment.report()).words
    assert "The good one ranks a true match first" in page
    assert "The good one is significantly better than the other model" in page
    assert "not significantly different" not in page


def test_the_matrix_shows_both_sides_of_a_comparison(experiment: Experiment) -> None:
    experiment.verdict = "better"
    matrix = section(experiment.report(), "pairs").partition("Two models")[0]
    assert matrix.count('<td class="better"') == matrix.count('<td class="worse"') == 1
    page = Page(matrix).words
    assert "▲ better +50.0 points, p = 0.020" in page
    assert "▼ worse −50.0 points, p = 0.020" in page


def test_intervals_and_p_values_of_two_models_are_text(experiment: Experiment) -> None:
    """Readers without a pointer get no tooltips."""
    experiment.models = ["fair", "good"]
    experiment.verdict = "worse"
    page = Page(section(experiment.report(), "pairs").partition("Two models")[2]).words
    assert "The good one and The fair one" in page
    assert "Accuracy@1 −50.0 −90.0 to −10.0 p = 0.020 p = 0.010 ▲ better" in page


def test_models_that_agree_on_every_query_are_said_to_be_the_same(experiment: Experiment) -> None:
    everywhere = {"only_a": case(), "only_b": case(), "only_a_b_near": None, "only_b_a_near": None}
    experiment.cases = [Cases(index="flat", a="good", b="fair", both=case("q-1"), neither=case("q-0"), **everywhere)]
    page = Page(section(experiment.report(), "pairs")).words
    assert page.count("same on all 2") == 3  # on both sides of the matrix, and in the table of the two models
    assert "10.0 to +90.0" not in page


def test_the_leaderboard_is_sorted_by_accuracy_and_marks_models_that_are_worse(experiment: Experiment) -> None:
    experiment.models = ["fair", "good"]
    experiment.verdict = "worse"
    board = Page(experiment.report().partition('<section id="board"')[2].partition("</section>")[0]).words
    assert board.index("The good one") < board.index("The fair one")
    assert "★ best" in board
    assert "▼ significantly worse" in board
    assert "50.0 % 25.0–50.0 %" in board


def test_a_model_is_best_only_if_significantly_better_than_another(experiment: Experiment) -> None:
    board = Page(experiment.report().partition('<section id="board"')[2].partition("</section>")[0]).words
    assert "highest" in board
    assert "≈ cannot tell apart" in board
    assert "★ best" not in board


def test_a_single_model_has_no_standing(experiment: Experiment) -> None:
    experiment.models = ["good"]
    board = Page(experiment.report().partition('<section id="board"')[2].partition("</section>")[0]).words
    assert not re.search("highest|best|★", board)
    assert "compare" not in board


def test_the_header_counts_the_source_images_of_the_queries(experiment: Experiment) -> None:
    experiment.queries = {f"q-{number}": f"ref-{number % 6}" for number in range(30)}
    experiment.groups = {query: f"image-{number % 3}" for number, query in enumerate(experiment.queries)}
    page = Page(experiment.report()).words
    assert "with a match 30 without a match 0 independent groups 3 models 2" in page
    assert (
        "These 30 queries were made from only 3 images. Queries from one source tend to succeed or fail together, so "
        "they amount to 3 observations. The intervals are therefore wide. With fewer than 6, no test can reach "
        "significance. Add images, not more copies of the same ones." in page
    )
    assert "form one independent group: they tend to succeed or fail together" in page
    experiment.operations = None
    assert "These 30 queries come from only 3 independent groups" in Page(experiment.report()).words


def test_few_queries_give_a_warning_and_ten_groups_do_not(experiment: Experiment) -> None:
    page = Page(experiment.report()).words
    assert "Only 2 queries with a match: another sample could give quite different results." in page
    assert "one independent group" not in page
    experiment.queries = {f"q-{number}": "ref-0" for number in range(10)}
    page = Page(experiment.report()).words
    assert "independent groups 10" in page
    assert "Few observations" not in page


def test_the_report_warns_where_no_test_can_be_significant() -> None:
    assert headline.DECIDABLE == FEWEST
    undecided, decided = np.arange(headline.DECIDABLE - 1), np.arange(headline.DECIDABLE)
    for groups, significant in ((undecided, False), (decided, True)):
        p = sign_flip(np.ones(len(groups)), np.zeros(len(groups)), groups)
        assert (p < SIGNIFICANCE) == significant


def test_a_metric_that_every_ranking_satisfies_is_marked_and_not_compared(experiment: Experiment) -> None:
    experiment.too_easy = {"recall_at_3"}
    html = experiment.report()
    page = Page(html).words
    assert page.count("– too few references") == 2 * 2  # on the board, and among all metrics
    assert "– no match" not in page
    assert "No table for Recall@3: with so few references, every ranking scores the same." in page
    assert html.count('<table class="matrix') == 1
    assert "p = 1.000" not in page


def test_too_few_references_leave_accuracy_unmeasured(experiment: Experiment) -> None:
    experiment.too_easy = {"accuracy_at_1", "accuracy_at_3", "recall_at_3"}
    html = experiment.report()
    page = Page(html).words
    assert "With so few references, every ranking scores the same, so accuracy cannot be measured." in page
    assert "No table for Accuracy@1, Accuracy@3 and Recall@3" in page
    assert "has a known match" not in page
    assert "No query has a match" not in page
    assert balanced(html)


def test_ignored_files_are_counted_by_reason(experiment: Experiment) -> None:
    assert "Ignored files and folders" not in section_words(experiment.report(), "rejected")
    experiment.left_out = [
        {"folder": "my <images>", "reason": ".nef files, which are camera raw", "count": 1030, "examples": ["a.NEF"]},
        {"folder": "photos", "reason": "thumbnails (@eaDir)", "count": 2, "examples": ["@eaDir/", "b/@eaDir/"]},
    ]
    page = experiment.report()
    assert "my &lt;images&gt;" in page
    assert ".nef files, which are camera raw 1,030 my <images> a.NEF" in section_words(page, "rejected")
    assert "thumbnails (@eaDir) 2 photos @eaDir/ , b/@eaDir/" in section_words(page, "rejected")


def test_a_rejected_reference_that_is_no_match_penalizes_no_model(experiment: Experiment) -> None:
    experiment.rejected = {model: {"ref-4": "empty", "ref-5": "empty"} for model in experiment.models}
    page = Page(experiment.report()).words
    assert "references searched, of 6 4 queries 3 with" in page
    penalized = "No model is penalized: none of the rejected images is a query with a match or a true match."
    assert page.count(penalized) == 2
    assert "images rejected 2" in page


def test_the_report_says_which_rejected_images_count_against_a_model(experiment: Experiment) -> None:
    experiment.rejected = {"good": {"q-0": "damaged", "ref-5": "empty"}, "fair": {"ref-1": "damaged", "ref-5": "bad"}}
    page = Page(experiment.report()).words
    assert "references searched, of 6 4–5 queries, 0–1 of them rejected 3 with" in page
    assert (
        "2 of 3 rejected images are queries with a match or true matches and count against the models that rejected "
        "them." in page
    )
    experiment.rejected = {"good": {"q-0": "damaged"}}
    page = Page(experiment.report()).words
    assert (
        "1 rejected image is a query with a match or a true match and counts against the models that rejected it."
        in page
    )
    assert "references 6 queries, 0–1 of them rejected 3" in page


def test_unknown_speed_is_reported(experiment: Experiment) -> None:
    experiment.timing = {"fair": {}}
    page = Page(experiment.report()).words
    assert "Speed unknown for The fair one" in page
    assert "Measured once, on CPU (2 threads)" in page
    assert "Do not compare speeds across machines." in page


def test_speeds_of_two_devices_come_with_a_warning(experiment: Experiment) -> None:
    experiment.timing = {"fair": {"embed": {**CPU["embed"], "device": "NVIDIA H100"}}}
    assert (
        "Devices differ. The good one: measured on CPU (2 threads). The fair one: measured on NVIDIA H100."
        in Page(experiment.report()).words
    )


def test_embedding_time_is_broken_down_by_step_for_each_model(experiment: Experiment) -> None:
    stages = {"read": 0.008, "decode": 0.4, "preprocess": 0.2, "transfer": 0.0, "forward": 1.6, "write": 0.004}
    steps = {"stages": stages, "bottleneck": "forward", "precision": "float32", "threads": "2", "batch_size": "16 + 8"}
    experiment.timing = {"fair": {"embed": {**CPU["embed"], **steps}}}
    page = Page(experiment.report()).words
    assert "Embedding time by step" in page
    assert "Precision The fair one 1 50 25 0 200 0.5 forward 2 16 + 8 float32" in page
    experiment.timing = {}
    assert "Embedding time by step" not in Page(experiment.report()).words


# --- costs ---


def cost(dimension: int, index_bytes: int = 0) -> Cost:
    """The cost of float16 vectors in an index of six."""
    return Cost(
        dimension=dimension,
        stored_dtype="float16",
        vector_bytes=2 * dimension,
        vectors=6,
        index_bytes=index_bytes or 24 * dimension,
    )


def timed(images_per_second: float, **stages: float) -> dict[str, object]:
    seconds = 8 / images_per_second
    steps = {"stages": stages, "bottleneck": "forward", "precision": "float32", "threads": "2", "batch_size": "4"}
    return {"embed": {"images": 8, "seconds": seconds, "load_seconds": 0.0, "device": "CPU", **steps}}


def section_words(page: str, name: str) -> str:
    return Page(page.partition(f'<section id="{name}"')[2].partition("</section>")[0]).words


def test_all_costs_are_listed(experiment: Experiment) -> None:
    experiment.costs = {"good": cost(512), "fair": cost(16)}
    experiment.timing = {
        "good": timed(4, read=0.2, forward=1.6)
        | {
            "search": {
                **{"queries": 3, "seconds": 0.1, "latency_median": 0.0123, "latency_p95": 0.25},
                **{"peak_memory_mb": 300.0, "peak_gpu_memory_mb": None},
            }
        },
        "fair": timed(16, read=0.2, forward=0.1),
    }
    embed = experiment.timing["good"]["embed"]
    assert isinstance(embed, dict)
    embed |= {"peak_memory_mb": 1000.0, "peak_gpu_memory_mb": 2000.0}
    found = section_words(experiment.report(), "cost")
    assert "The good one flat 512 1,024 float16 2,048 12.3 kB 4 30 12.3 ms 250 ms 1.05 GB + GPU 2.1 GB 315 MB" in found
    assert "The fair one flat 16 32 float16 64 384 bytes 16 unknown unknown unknown unknown unknown" in found


def test_models_are_dominated_only_if_significantly_worse(experiment: Experiment) -> None:
    experiment.costs = {"good": cost(16), "fair": cost(512)}
    experiment.timing = {"good": timed(4), "fair": timed(16)}
    found = section_words(experiment.report(), "cost")
    assert "On the front: The good one and The fair one." in found  # one is more accurate, the other faster
    assert "Off the front, but not significantly worse: The fair one." in found  # larger and less accurate
    experiment.verdict = "better"
    found = section_words(experiment.report(), "cost")
    assert (
        "On the front: The good one. Dominated by a model that costs no more: The fair one (by The good one)." in found
    )


def test_runs_of_different_indexes_are_compared_by_disjoint_intervals(experiment: Experiment) -> None:
    experiment.indexes, experiment.models = ["flat", "small"], ["good"]
    experiment.costs = {"good": cost(16)}
    found = section_words(experiment.report(), "cost")
    assert "On the front: The good one, flat and The good one, small." in found  # equal in both
    a, b, c = (run_of(accuracy, low, high) for accuracy, low, high in ((0.9, 0.8, 1), (0.7, 0.6, 0.8), (0.6, 0.5, 0.7)))
    untested = SimpleNamespace(verdict=lambda *_: None)
    assert not pareto.better(untested, a, b)
    assert pareto.better(untested, a, c)
    assert [standing.state for standing in pareto.standings(untested, [(a, 2), (b, 3), (c, 1)])] == [
        "front",
        "open",
        "front",
    ]
    assert [standing.state for standing in pareto.standings(untested, [(a, 2), (b, 1), (c, 2)])] == [
        "front",
        "front",
        "dominated",
    ]


def run_of(value: float, low: float, high: float) -> Any:
    return SimpleNamespace(estimate=lambda _: Estimate(value=value, low=low, high=high, n=9))


def test_speeds_on_different_devices_have_no_front(experiment: Experiment) -> None:
    experiment.timing = {"good": timed(4), "fair": {"embed": {**CPU["embed"], "device": "NVIDIA H100"}}}
    page = experiment.report()
    assert "no Pareto front is drawn" in section_words(page, "cost")
    assert "On the front" not in page
    assert 'class="front"' not in page


def test_the_front_is_a_staircase_through_its_models(experiment: Experiment) -> None:
    experiment.timing = {"good": timed(4), "fair": timed(16)}
    lines = [line for line in Page(experiment.report()).named("line") if line.get("class") == "front"]
    assert len(lines) == 4  # one horizontal and one vertical step per model
    assert lines[0]["x1"] == "0.0%"
    assert all(a["x2"] == b["x1"] and a["y2"] == b["y1"] for a, b in pairwise(lines))
    assert lines[-1]["y2"] == "340.0"


def effect(value: str, gap: float, verdict: str, **more: Any) -> Effect:
    difference = Estimate(value=gap, low=gap - 0.1, high=gap + 0.1, n=2)
    pairs = [("fair", "good")]
    return Effect(
        index="flat",
        metric="accuracy_at_1",
        key="pooling",
        value=value,
        own="cls",
        difference=difference,
        p=0.01,
        p_holm=0.02,
        verdict=verdict,
        **({"least": gap, "most": gap, "pairs": pairs} | more),
    )


def test_each_setting_has_effects_with_intervals_verdicts_and_costs(experiment: Experiment) -> None:
    experiment.effects = [effect("mean", -0.25, "worse", least=-0.3, most=0.1), effect("gem", 0.0, "cannot tell")]
    experiment.costs = {"good": cost(512), "fair": cost(16)}
    experiment.timing = {"good": timed(4), "fair": timed(10)}
    found = section_words(experiment.report(), "choices")
    assert "Variants of The good one ." in found
    assert "pooling: cls default: the baseline for the rows below" in found
    assert (
        "pooling: mean ▼ −25.0 −35.0 to −15.0; worse p = 0.020 (p = 0.010 before correction) −30.0 "
        "to +10.0 by combination × 2.50 × 0.0312" in found
    )
    assert "pooling: gem ≈ 0.0 −10.0 to +10.0; cannot tell p = 0.020 (p = 0.010 before correction) × 2.50" in found
    experiment.timing["fair"] = {"embed": {**CPU["embed"], "device": "NVIDIA H100"}}
    assert "−30.0 to +10.0 by combination unknown × 0.0312" in section_words(experiment.report(), "choices")


def test_an_approximate_index_is_compared_with_the_exact_one(experiment: Experiment) -> None:
    assert 'id="approximation"' not in experiment.report()
    recall = Estimate(value=0.9, low=0.8, high=0.95, n=3)
    lost = {"accuracy_at_1": Estimate(value=-0.05, low=-0.1, high=0.0, n=3), "uap": NOTHING}
    experiment.approximations = [
        Approximation(
            model="good",
            index="small",
            exact="flat",
            k=10,
            recall=recall,
            differences=lost,
            speed=4.0,
            index_bytes_per_vector=64.0,
        )
    ]
    found = section_words(experiment.report(), "approximation")
    assert "The good one small 90.0 % 80.0–95.0 % −5.0 −10.0 to 0.0 unknown 4 64" in found


def test_without_a_varied_model_there_is_no_section_on_settings(experiment: Experiment) -> None:
    page = experiment.report()
    assert '<section id="choices"' not in page
    assert "Effect of each setting (the experiment varies no model)" in page


def test_every_rejected_image_is_listed_once_with_its_models(experiment: Experiment) -> None:
    experiment.rejected = {"good": {"q-0": "damaged", "ref-5": "empty"}, "fair": {"q-0": "damaged"}}
    page = Page(experiment.report().partition('<section id="rejected"')[2].partition("</section>")[0]).words
    assert "q-0 6.png damaged all models" in page
    assert "ref-5 5.png empty The good one" in page
    assert page.count("6.png") == 1


def test_counts_add_up_for_every_model(experiment: Experiment) -> None:
    experiment.rejected = {"good": {"q-0": "damaged", "ref-5": "empty"}, "fair": {"q-0": "damaged"}}
    page = Page(experiment.report()).words
    assert "The good one 6 = 5 embedded + 1 rejected 3 = 2 embedded + 1 rejected" in page
    assert "The fair one 6 = 6 embedded + 0 rejected 3 = 2 embedded + 1 rejected" in page
    assert "with a match 2 without a match 1" in page


def test_counts_that_contradict_the_metrics_stop_the_report(experiment: Experiment) -> None:
    inputs = experiment.inputs()
    experiment.rejected = {"good": {"q-0": "damaged"}}
    experiment._seen("good", "flat")
    with pytest.raises(LookalikeError, match=r"'good'.*rejected queries is 0, but 1 in"):
        write_report(ReportJob(**inputs, out=experiment.folder / "index.html"))  # type: ignore[arg-type]


def test_groups_that_contradict_the_metrics_stop_the_report(experiment: Experiment) -> None:
    inputs = experiment.inputs()
    experiment.groups = {"q-0": "dune", "q-1": "dune"}
    experiment._images()
    with pytest.raises(LookalikeError, match=r"'good'.*groups is 2, but 1 in"):
        write_report(ReportJob(**inputs, out=experiment.folder / "index.html"))  # type: ignore[arg-type]


def test_a_long_list_of_rejected_images_is_cut_with_a_pointer_to_the_rest(experiment: Experiment) -> None:
    experiment.references = [f"ref-{number:03d}" for number in range(130)]
    experiment.queries = {"q-0": "ref-129"}
    experiment.models = ["good"]
    experiment.rejected = {"good": dict.fromkeys(experiment.references[:120], "damaged")}
    page = Page(experiment.report()).words
    assert "99.png" in page
    assert "100.png" not in page
    assert "and 20 more in" in page
    assert "good-flat.images.parquet" in page


def test_no_rejected_images_is_one_sentence(experiment: Experiment) -> None:
    assert "Rejected images (every model could read all 9 images)" in Page(experiment.report()).words


def test_true_matches_are_marked_visually_and_for_screen_readers(experiment: Experiment) -> None:
    experiment.found = {("fair", "q-0"): ["ref-3", "ref-0", "ref-2", "ref-4"], ("fair", "q-1"): ["ref-3", "ref-4"]}
    html = experiment.report()
    page = Page(html)
    marked = [one["aria-label"] for one in page.named("span") if "a true match" in one.get("aria-label", "")]
    assert sorted(marked) == [
        "Rank 1: ref-0, a true match",
        "Rank 1: ref-1, a true match",
        "Rank 2: ref-0, a true match",
    ]
    assert html.count('<li class="right">') == len(marked)
    assert page.words.count("match, 0.") == len(marked)  # for screen readers, which skip the check mark
    for status in ("✓ match at rank 1", "match at rank 2", "no match in the top 3"):
        assert status in page.words
    assert "True match ref-0" in html
    assert "No match among the references" in html


def test_outcomes_are_those_of_the_metrics_with_ties_as_misses(experiment: Experiment) -> None:
    experiment.scores = {("fair", "q-0"): [0.5, 0.5, 0.4, 0.3]}
    experiment.models = ["fair"]
    inputs = experiment.inputs()
    neighbors, truth, images = (
        store.read_table(path, kind)
        for path, kind in (
            (inputs["neighbors"][0], NEIGHBORS),  # type: ignore[index]
            (inputs["truth"], TRUTH),
            (inputs["images"], IMAGES),
        )
    )
    ranking = rank(neighbors, truth, images, searched=6, kept=4, where="neighbors")
    counted = images.take(ranking.counted)["image_id"].to_pylist()
    right = {query for query, correct in zip(counted, ranking.correct_at(1), strict=True) if correct}
    listed = queries.listed(inputs_of.read(ReportJob(**inputs, out="")))  # type: ignore[arg-type]
    ids = images["image_id"].take(listed.images).to_pylist()
    assert {query for query, place in zip(ids, listed.found[0].rank, strict=True) if place == 1} == right == {"q-1"}
    assert "match at rank 2, tied" in Page(experiment.report()).words


def test_each_thumbnail_is_included_once(experiment: Experiment) -> None:
    page = Page(experiment.report())
    assert len(re.findall(r"url\(data:image/webp", page.style)) == 1  # one sprite holds them all
    cells: dict[tuple[str, str], set[str]] = {}
    for one in page.named("span"):
        if re.match(r"pic s\d", one.get("class", "")):
            cells.setdefault((one["class"].split()[1], one["style"]), set()).add(one["title"])
    assert all(len(ids) == 1 for ids in cells.values())
    assert (
        len(cells) == len({title for ids in cells.values() for title in ids}) == 3 + 4
    )  # queries and references found


def test_an_image_that_cannot_be_decoded_shows_why(experiment: Experiment) -> None:
    experiment._images()
    (experiment.folder / "0.png").write_bytes(b"nothing")
    page = Page(experiment.report())
    labels = [one.get("aria-label", "") for one in page.named("span")]
    assert "True match ref-0; not available: is text, not an image" in labels


def test_a_rejected_query_is_marked_in_the_examples(experiment: Experiment) -> None:
    experiment.rejected = {"fair": {"q-0": "damaged: no end"}}
    assert "This model rejected the query: damaged: no end." in Page(experiment.report()).words


def test_hostile_text_stays_text(experiment: Experiment) -> None:
    experiment.queries[HOSTILE] = "ref-0"
    experiment.references[1] = experiment.queries["q-1"] = f"reference {HOSTILE}"
    experiment.operations = {HOSTILE: HOSTILE}
    experiment.labels = {"good": HOSTILE}
    experiment.title = HOSTILE
    experiment.rejected = {"fair": {HOSTILE: HOSTILE}}
    html = experiment.report()
    page = Page(html)
    assert len(page.named("script")) == 2  # the data, in base64, and the code
    assert not page.named("img")
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert balanced(html)
    assert HOSTILE in {one.get("title") for one in page.named("p")}
    assert "alert('x')" in page.words


def test_the_package_versions_of_the_embeddings_are_listed(experiment: Experiment) -> None:
    page = Page(experiment.report()).words
    assert "w, r7 Embedded with pillow 11.3.0 / 12.0.0, torch 2.9.1 Full provenance" in page


@pytest.mark.parametrize(
    ("source", "revision", "expected"),
    [
        ("hub owner/vit", None, "hub owner/vit, r7 (not pinned: main may point to another commit later)"),
        ("hub owner/vit", "v1", "hub owner/vit, r7 (not pinned: v1 may point to another commit later)"),
        ("hub owner/vit", "a" * 40, "hub owner/vit, r7 Embedded with"),
        ("folder vit", None, "folder vit, r7 Embedded with"),
    ],
)
def test_weights_of_a_branch_are_marked_as_not_pinned(
    source: str, revision: str | None, expected: str, experiment: Experiment
) -> None:
    key = {"family": "transformers", "checkpoint": "owner/vit"} | ({"revision": revision} if revision else {})
    experiment.footer = {"key": json.dumps(key), "weights": {"source": source, "revision": "r7"}}
    assert expected in Page(experiment.report()).words


def test_a_single_model_is_reported_without_comparisons(experiment: Experiment) -> None:
    experiment.models = ["good"]
    page = Page(experiment.report()).words
    assert "The good one ranks a true match first for 100 % of 2 queries (95 % interval 50–100 %)." in page
    assert "Pairwise comparison (there is only one model)" in page
    assert "Models disagree" not in page


def test_without_matches_the_report_says_what_cannot_be_measured(experiment: Experiment) -> None:
    experiment.queries = {"q-0": None, "q-1": None}
    page = Page(experiment.report()).words
    assert "None of the 2 queries has a known match, so accuracy cannot be measured." in page
    assert "Score thresholds (no query has a known match)" in page
    assert "Pairwise comparison (no query has a known match)" in page
    assert "– no match" in page
    assert "∅ No known answer" in page


def test_without_operations_the_report_explains_the_missing_breakdown(experiment: Experiment) -> None:
    experiment.operations = None
    assert "Accuracy by query type (the data set records no operations" in Page(experiment.report()).words


def test_breakdowns_show_every_model_with_its_interval(experiment: Experiment) -> None:
    estimate = Estimate(value=0.5, low=0.25, high=0.75, n=4)
    nothing = Estimate(value=None, low=None, high=None, n=0)
    experiment.breakdowns = {
        "operations": {"crop": {"accuracy_at_1": estimate}, "flip": {"accuracy_at_1": nothing}},
        "strength": {value: {"accuracy_at_1": estimate} for value in ("heavy", "light", "medium")},
    }
    part = section(experiment.report(), "operations")
    labels = [one["aria-label"] for one in Page(part).named("svg") if "aria-label" in one]
    found = [label.replace(words.SPACE, " ") for label in labels if "interval" in label]
    assert found[0] == "Crop: The good one 50.0 %, interval 25.0–75.0 %; The fair one 50.0 %, interval 25.0–75.0 %"
    assert [label.partition(":")[0] for label in found] == ["Crop", "Light", "Medium", "Heavy"]


def section(html: str, name: str) -> str:
    return html.partition(f'<section id="{name}"')[2].partition("</section>")[0]


def test_breakdowns_by_size_and_custom_columns_are_drawn(experiment: Experiment) -> None:
    part = {"accuracy_at_1": Estimate(value=0.5, low=0.25, high=0.75, n=4)}
    experiment.breakdowns = {
        "size": dict.fromkeys(("up to 1024 px", "unknown", "up to 256 px"), part),
        "by_camera": dict.fromkeys(("old", "new"), part),
        "labels": {"only one": part},
    }
    html = section(experiment.report(), "operations")
    page = Page(html).words
    assert "By size (longer side) up to 256 px" in page
    assert page.index("up to 256 px") < page.index("up to 1024 px") < page.index("unknown")
    assert "By camera new" in page
    assert "only one" not in page, "a part with all queries is not a breakdown"


def test_a_threshold_is_shown_rounded_down_with_its_verdict(experiment: Experiment) -> None:
    experiment.pooled = ("",)
    safe = Safe(score=0.94999, precision=0.99, bound=0.955, recall=0.4, groups=80)
    experiment.targets = {
        "90": UNVERIFIED,
        "95": UNVERIFIED.model_copy(update={"safe": safe, "verdict": "holds", "queries_needed": None}),
        "99": UNVERIFIED.model_copy(update={"seen": None, "verdict": "does not hold", "queries_needed": None}),
    }
    html = experiment.report()
    page = Page(section(html, "threshold")).words
    first = "The good one 90 % too few queries at least about 1,300 needed 0.8125 unverified 45.0 % 87.5 % 50.0–95.0 %"
    assert f"{first} 0.0625" in page
    assert "The good one 95 % holds 0.9499 40.0 %" in page
    assert "The good one 99 % does not hold none: no threshold reaches 99 % precision" in page
    assert "<b>0.9499</b>" in html
    assert "<b>0.8125</b>" not in html  # bold only where it holds
    card = Page(section(html, "use")).words
    assert "90 % 0.8125 45.0 % unverified: too few queries 95 % 0.9499 40.0 % holds" in card
    assert "99 % none – no score reaches 99 %; does not hold" in card
    assert "threshold = 0.9499 # 95 % precision: holds" in card
    assert 'threshold = float("inf") # 99 % precision: no score reaches 99 %' in card
    assert section(html, "threshold").count("<polyline") == 2
    assert "Normalised" not in page
    assert balanced(html)


def test_scores_are_rounded_down() -> None:
    assert [words.score(score) for score in (0.51239, 0.5124, -0.51231, None)] == ["0.5123", "0.5124", "−0.5124", "–"]
    assert [words.about(count) for count in (7, 99, 101, 1234)] == ["7", "99", "110", "1,300"]


def test_an_unreachable_precision_is_reported(experiment: Experiment) -> None:
    experiment.pooled, experiment.threshold = ("",), None
    experiment.targets = {"90": UNVERIFIED.model_copy(update={"seen": None})}
    page = Page(section(experiment.report(), "threshold")).words
    assert "none: no threshold reaches 90 % precision" in page


def test_metrics_with_and_without_normalisation_are_side_by_side(experiment: Experiment) -> None:
    experiment.pooled = ("", "_sn")
    html = experiment.report()
    metrics = Page(section(html, "metrics")).words
    assert "With and without score normalisation" in metrics
    assert "Model µAP normalised µAP, 10 per query normalised Recall at P90 normalised" in metrics
    threshold = Page(section(html, "threshold")).words
    assert threshold.index("Raw scores") < threshold.index("Normalised scores")
    assert "Threshold (normalised score)" in threshold
    meanings = Page(section(html, "made")).words
    assert "µAP, 10 per query, normalised" in meanings
    assert balanced(html)


def test_each_need_has_a_board_with_its_columns(experiment: Experiment) -> None:
    experiment.pooled = ("", "_sn")
    html = experiment.report()
    boards = section(html, "board").split('<div class="board-of"')[1:]
    heads = [re.findall(r'role="columnheader"[^>]*>([^<]+)<', one) for one in boards]
    assert heads == [
        ["Model", "Accuracy@1", "Accuracy@3", "Recall@3", "Images per second", "Bytes per vector", "Verdict "],
        [
            *("Model", "Recall at P90", "µAP", "µAP, 10 per query", "Threshold for 90 %"),
            *("Images per second", "Bytes per vector", "Verdict "),
        ],
        ["Model", "Images per second", "Accuracy@1", "Bytes per vector", "Verdict "],
    ]
    sorted_by = [re.findall(r'data-key="(\w+)" aria-sort="descending"', one) for one in boards]
    assert sorted_by == [["accuracy_at_1"], ["recall_at_p90"], ["speed"]]
    assert ["hidden" in one.partition(">")[0] for one in boards] == [False, False, True]
    assert "MRR" in Page(section(html, "metrics")).words


def test_no_threshold_is_shown_without_its_verdict(experiment: Experiment) -> None:
    experiment.pooled = ("",)
    board = section(experiment.report(), "board")
    assert 'class="value unproven">0.8125</span> <small>unverified: too few queries</small>' in board


def test_the_head_warns_only_where_the_data_are_suspect(experiment: Experiment) -> None:
    experiment.queries = {f"q-{number}": f"ref-{number % 6}" if number else None for number in range(20)}
    experiment.pooled = ("",)
    assert 'class="note warn"' not in head(experiment.report())
    experiment.undecidable = 13
    experiment.queries["q-0"] = "ref-0"
    text = Page(head(experiment.report())).words
    assert "13 queries cannot be decided: the true match has a duplicate" in text
    assert "No queries without a match. Every query has a match here." in text


def head(html: str) -> str:
    return html.partition("<header>")[2].partition("</header>")[0]


def test_all_needs_are_in_the_page_and_two_show_without_scripts(experiment: Experiment) -> None:
    experiment.pooled = ("",)
    shown = head(experiment.report())
    assert re.findall(r'type="radio" name="need" value="(\w+)"( checked)?', shown) == [
        ("someone_looks", " checked"),
        ("acts_alone", ""),
        ("fast", ""),
    ]
    assert re.findall(r'class="verdicts" data-need="(\w+)"( hidden)?', shown) == [
        ("someone_looks", ""),
        ("acts_alone", ""),
        ("fast", " hidden"),
    ]
    assert "The good one embeds 4" in Page(shown.partition('data-need="fast"')[2]).words


def test_the_code_to_copy_is_python(experiment: Experiment) -> None:
    entry = {"family": "transformers", "checkpoint": "owner/vit", "feature": "last_hidden_state", "pooling": "cls"}
    experiment.footer = {"key": json.dumps(entry), "weights": {"source": "hub owner/vit", "revision": "r7"}}
    experiment.costs = dict.fromkeys(experiment.models, cost(512))
    experiment.pooled = ("",)
    use = section(experiment.report(), "use")
    codes = [html_text(code) for code in re.findall(r"<pre><code>(.*?)</code>", use, re.DOTALL)]
    for code in codes:
        compile(code, "card", "exec")
    assert 'la.load_model("good")' in codes[0]
    assert 'checkpoint, revision = "owner/vit", "r7"' in codes[1]
    assert "IndexFlatIP(512)" in codes[1]
    for other in ({"family": "pixels"}, entry | {"size": 448}, entry | {"pooling": "gem"}):
        experiment.footer["key"] = json.dumps(other)
        assert "AutoModel" not in experiment.report(), "this code would make other vectors"


def html_text(text: str) -> str:
    return unescape(re.sub(r"<[^>]*>", "", text))


def case(*queries: str, count: int | None = None) -> Case:
    return Case(count=len(queries) if count is None else count, queries=list(queries))


def test_the_four_cases_are_shown_with_example_images(experiment: Experiment) -> None:
    experiment.cases = [
        Cases(
            index="flat",
            a="good",
            b="fair",
            both=case("q-1"),
            neither=case(),
            only_a=case("q-0", count=1234),
            only_b=case(),
            only_a_b_near=case("q-0", count=1),
            only_b_a_near=None,
        )
    ]
    html = experiment.report()
    pairs = section(html, "pairs")
    page = Page(pairs).words
    assert "Both right 1 Only The good one 1,234 1 Only The fair one 0 Both wrong 0" in page
    shown = [one["aria-label"] for one in Page(pairs).named("span") if "small" in one.get("class", "")]
    assert shown == ["Query q-1", "Query q-0"]
    assert balanced(html)


def test_operations_are_spelled_out() -> None:
    assert words.operations("crop:light + jpeg:heavy") == "lightly cropped, then heavily compressed (JPEG)"
    assert words.operations("flip:medium") == "mirrored"
    assert words.operations("sparkle:medium") == "sparkle:medium"


@pytest.mark.parametrize(
    ("value", "written"), [(0.65333, "65 %"), (0.999, "99.9 %"), (1.0, "100 %"), (0.0004, "0.04 %")]
)
def test_percentages_are_never_rounded_to_0_or_100(value: float, written: str) -> None:
    assert words.percent(value, 0).replace(words.SPACE, " ") == written


def test_each_index_has_its_own_row(experiment: Experiment) -> None:
    experiment.indexes = ["flat", "quick"]
    board = Page(experiment.report().partition('<section id="board"')[2].partition("</section>")[0]).words
    assert board.count("index flat") == board.count("index quick") == 2 * 2  # for two needs
    assert board.count("≈ cannot tell apart") == 2 * 2
    assert "compared with the top model on the same index" in board


def test_twelve_models_with_long_labels_fit(experiment: Experiment) -> None:
    experiment.models = [f"model-{number}" for number in range(12)]
    experiment.labels = {model: f"{model} " + "with a label that never ends " * 8 for model in experiment.models}
    html = experiment.report()
    assert balanced(html)
    assert len(re.findall(r'<td class="self"', html)) == 12


def test_examples_are_varied_and_reproducible() -> None:
    outcome = {f"q{number}": ("disagree", "right", "wrong", "none")[number % 4] for number in range(400)}
    kind = {query: ("crop", "blur")[int(query[1:]) // 4 % 2] for query in outcome}
    chosen = queries.choose(outcome, kind)
    shown = [outcome[query] for query in chosen]
    assert {name: shown.count(name) for name in queries.QUOTAS} == queries.QUOTAS
    assert [kind[query] for query in chosen].count("crop") == 20
    assert queries.choose(dict(reversed(outcome.items())), kind) == chosen


def test_thumbnails_shrink_with_their_number_and_the_rest_is_counted(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment.queries = {f"q-{number}": f"ref-{number % 6}" for number in range(30)}
    whole = inputs_of.read(ReportJob(**experiment.inputs(), out=""))  # type: ignore[arg-type]
    rows = list(range(36))
    assert sprites.make(whole, rows, Guard()).side == max(sprites.SIDES)
    little = sprites.Room(roomy=10_000, most=15_000)
    monkeypatch.setattr(sprites, "PAGE", little)
    bounded = sprites.make(whole, rows, Guard(), little)
    assert bounded.side == min(sprites.SIDES)
    assert 0 < bounded.omitted == 36 - len(bounded.cells)
    assert f"{bounded.omitted} images have no thumbnail" in Page(experiment.report()).words
    assert sum(map(len, bounded.sheets)) < 15_000 * 1.5


def test_a_report_without_pixels_shows_ids(experiment: Experiment) -> None:
    experiment.settings = {"images": False}
    experiment.queries["q-3"] = "ref-3"
    html = experiment.report()
    assert "data:image" not in html
    assert "q-1" in Page(explorer_of(html)).words
    assert "not available" not in explorer_of(html)
    assert explored(html)["cells"] == []


def test_a_footer_without_a_model_is_refused(experiment: Experiment) -> None:
    inputs = experiment.inputs()
    bad = experiment.folder / "good-flat.parquet"
    store.write_table(store.read_table(bad, NEIGHBORS), bad, NEIGHBORS, {})
    with pytest.raises(LookalikeError, match=r"good-flat\.parquet: the footer has no model"):
        write_report(ReportJob(**inputs, out=experiment.folder / "index.html"))  # type: ignore[arg-type]


def test_images_of_another_index_are_refused(experiment: Experiment) -> None:
    experiment.footer = {"shards_sha256": "a", "index_sha256": "b"}
    inputs = experiment.inputs()
    experiment.footer = {"shards_sha256": "other", "index_sha256": "b"}
    experiment._seen("fair", "flat")
    with pytest.raises(
        LookalikeError, match=r"fair-flat\.images\.parquet: belongs to another index .* \(their shards_sha256 differ"
    ):
        write_report(ReportJob(**inputs, out=experiment.folder / "index.html"))  # type: ignore[arg-type]


def test_a_failed_report_leaves_no_partial_file(experiment: Experiment) -> None:
    inputs = experiment.inputs()
    (experiment.folder / "truth.parquet").unlink()
    with pytest.raises(LookalikeError, match=r"truth\.parquet: does not exist"):
        write_report(ReportJob(**inputs, out=experiment.folder / "index.html"))  # type: ignore[arg-type]
    assert not list(experiment.folder.glob("*index.html*"))


def test_the_report_imports_no_models_torch_or_plotly() -> None:
    never = {"torch", "plotly", "faiss", "lookalike.embed.encoders"}
    code = f"import sys, lookalike.report.report; print({never} & set(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="workflow_scripts"
    )
    assert found.stdout.strip() == "set()"


def explorer_of(html: str) -> str:
    return html.partition('<section id="explorer"')[2].partition("</section>")[0]


def explored(html: str) -> dict[str, Any]:
    """The data of the explorer, as a browser unpacks them."""
    packed = html.partition('id="explorer-data">')[2].partition("</script>")[0]
    return dict(json.loads(zlib.decompress(base64.b64decode(packed))))


def test_showcase_images_come_first_without_a_verdict(experiment: Experiment) -> None:
    without = experiment.report()
    experiment.showcase = ["showcase:laptop.jpg", "showcase:broken.jpg"]
    experiment.rejected = {model: {"showcase:broken.jpg": "damaged: no end"} for model in experiment.models}
    experiment.found = {("fair", "showcase:laptop.jpg"): ["ref-4", "ref-2"]}
    html = experiment.report()
    assert balanced(html)
    shown = explorer_of(html)
    rows = re.findall(r'<article class="row( first)?" data-outcome="(\w+)"', shown)
    assert rows[:2] == [(" first", "showcase")] * 2
    assert {outcome for _, outcome in rows[2:]} == {"right", "none"}
    broken, laptop = (one.partition("</article>")[0] for one in shown.split("<article")[1:3])
    assert Page(f"<article{laptop}").words.count("top score 0.90") == len(experiment.models)
    assert "Rank 1: ref-4" in laptop
    assert "right" not in laptop
    assert "match" not in laptop
    assert "This model rejected the image: damaged: no end." in Page(f"<article{broken}").words
    assert "showcase:broken.jpg" in html.partition('<section id="rejected"')[2]
    # they affect no number: the sections before the examples are unchanged, except for the note on rejected images
    for section in ("board", "pairs", "operations", "cost"):
        assert board(html, section).split("No model is penalized")[0].strip() == board(without, section)


def board(html: str, section: str) -> str:
    return Page(html.partition(f'<section id="{section}"')[2].partition("</section>")[0]).words


def test_queries_configured_to_be_shown_come_first_and_once(experiment: Experiment) -> None:
    experiment.shown = ["q-1"]
    shown = explorer_of(experiment.report())
    assert re.findall(r'class="row first" data-outcome="right"', shown)
    assert shown.count("Query q-1") == 1
    assert shown.index("Query q-1") < shown.index("Query q-0")


def test_many_showcase_images_leave_room_for_queries(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookalike.report.examples.MOST_FIRST", 3)
    experiment.showcase = [f"showcase:{number:02}.jpg" for number in range(30)]
    html = experiment.report()
    assert html.count('class="row first"') == 3
    assert len(explored(html)["outcome"]) == 30 + len(experiment.queries)
    assert html.count('<article class="row"') == len(experiment.queries)


def test_sections_with_nothing_to_say_are_absent_and_listed(experiment: Experiment) -> None:
    page = experiment.report()
    present = re.findall(r'<section id="(\w+)"', page)
    assert present == ["use", "board", "explorer", "pairs", "cost", "metrics", "made"]
    line = Page(page.partition('<p class="note absent">')[2].partition("</p>")[0]).words
    assert (
        "Duplicate files (none of the 6 references is byte-identical to another reference, to one of "
        "the 3 queries, or to "
        "a training image)" in line
    )
    left_out = [heading for name, heading in appendix.HEADINGS.items() if name not in present]
    assert re.findall(r"(?:^|; )(?:Not in this report: )?([^(;]+) \(", line) == left_out


def test_duplicates_are_counted_shown_and_explained(experiment: Experiment) -> None:
    experiment.duplicates = {
        "doubled": [("ref-0", "ref-3")],
        "queries_like_match": [("q-1", "ref-1")],
        "queries_like_other": [("q-2", "ref-5")],
        "training_like_reference": [("ref-2", "ref-4")],
    }
    experiment.undecidable = 1
    html = experiment.report()
    assert balanced(html)
    text = board(html, "duplicates")
    for sentence in (
        "2 references of 6 in 1 group of duplicates.",
        "For 1 query, the true match has a duplicate that is not listed as a match.",
        "every model scores a miss",
        "1 query is byte-identical to the true match: a hit that no model can miss.",
        "1 query is byte-identical to a reference that is not listed as a match.",
        "1 training image is byte-identical to a reference",
        "results/reports/trial/duplicates.parquet",
    ):
        assert sentence in text
    shown = [
        one["title"] for one in Page(html.partition('<section id="duplicates"')[2]).named("span") if "title" in one
    ]
    assert shown == ["ref-0", "ref-3", "q-1", "ref-1", "q-2", "ref-5", "ref-2", "ref-4"]
    assert not re.search(r'"pic s\d+ " style="[^"]*" role="img" title="(?!ref|q)', html)


def test_queries_without_a_match_that_a_threshold_accepts_are_counted_and_shown(experiment: Experiment) -> None:
    closest = [HardNegative(query="q-2", reference="ref-3", score=0.91)]
    accepted = HardNegatives(threshold=0.8125, queries=1, above=1, closest=closest)
    experiment.hard_negatives = {"good": {"recall_at_p90": accepted}}
    page = experiment.report()
    section = page.partition('<section id="negatives"')[2].partition("</section>")[0]
    assert "1 of 1\u00a0query without a match (100.0\u00a0%) would be accepted at the threshold 0.812500" in section
    assert section.index("q-2") < section.index("ref-3")
    assert "accepted" in section.partition("0.91")[2]
    assert "not in the sample" not in section


def test_without_such_queries_the_report_has_no_section_about_them(experiment: Experiment) -> None:
    nothing = HardNegatives(threshold=0.8125, queries=0, above=0, closest=[])
    experiment.hard_negatives = {model: {"recall_at_p90": nothing} for model in experiment.models}
    assert '<section id="negatives"' not in experiment.report()
