import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from lookalike.io import store
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
from lookalike.io.formats.tables import IMAGES, INDEX_IMAGES, NEIGHBORS, TRUTH, Format
from lookalike.job.errors import LookalikeError
from lookalike.metrics.ranking import rank
from lookalike.metrics.rates import FEW_GROUPS, NOTHING, SIGNIFICANCE, sign_flip
from lookalike.report import examples, headline, pareto, words
from lookalike.report.evidence import ReportJob
from lookalike.report.report import write_report
from tables import MADE

HOSTILE = "\"><script>alert('x')</script>\n<img src=https://evil.example/a.png> 図 \u202e.png"
CPU = {
    "embed": {"images": 8, "seconds": 2.0, "images_per_second": 4.0, "load_seconds": 1.0, "device": "CPU (2 threads)"}
}


@dataclass
class Experiment:
    """A small experiment on disk: six references, and queries whose neighbors are told model by model."""

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
    rejected: dict[str, dict[str, str]] = field(default_factory=dict)  # model -> picture -> reason
    accuracy: dict[str, float] = field(default_factory=lambda: {"good": 1.0, "fair": 0.5})
    breakdowns: dict[str, dict[str, dict[str, Estimate]]] = field(default_factory=dict)
    verdict: str = "cannot tell"
    timing: dict[str, dict[str, object]] = field(default_factory=dict)
    too_easy: set[str] = field(default_factory=set)  # metrics without a value, since any order is right
    indexes: list[str] = field(default_factory=lambda: ["flat"])
    groups: dict[str, str] = field(default_factory=dict)
    pooled: tuple[str, ...] = ()  # ends of the metrics of pooled lists: "" for scores as they are, "_sn"
    threshold: float | None = 0.8125
    cases: list[Cases] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)  # pictures that are in no role, to be shown first
    shown: list[str] = field(default_factory=list)  # queries to be shown first
    doubles: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # kind -> pairs
    undecidable: int = 0
    costs: dict[str, Cost] = field(default_factory=dict)
    effects: list[Effect] = field(default_factory=list)
    approximations: list[Approximation] = field(default_factory=list)
    footer: dict[str, object] = field(default_factory=dict)  # of the neighbors, besides what all have

    def report(self) -> str:
        """Write the files and the report; return its text."""
        write_report(ReportJob(**self.inputs(), out=self.folder / "index.html"))
        return (self.folder / "index.html").read_text(encoding="utf-8")

    left_out: list[dict[str, object]] = field(default_factory=list)  # of the data set's folders

    def inputs(self) -> dict[str, object]:
        pairs = [(model, index) for model in self.models for index in self.indexes]
        labels = {model: self.labels.get(model, f"The {model} one") for model in self.models}
        key = {"experiment": "trial", "title": self.title, "dataset": "tiles", "labels": labels, "k": 3}
        key |= {"varied": "The good one"} if self.effects else {}
        return {
            "key": json.dumps(key),
            "images": self._images(),
            "truth": self._truth(),
            "metrics": [self._metrics(model, index) for model, index in pairs],
            "neighbors": [self._neighbors(model, index) for model, index in pairs],
            "showcase": [self._showcase(*pair) for pair in pairs if self.outside],
            "seen": [self._seen(*pair) for pair in pairs],
            "comparisons": self._comparisons(),
            "duplicates": self._duplicates(),
        }

    def _images(self) -> Path:
        ids = [*self.references, *self.queries, *self.outside]
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
        if self.outside or self.shown:
            columns["showcase"] = [one in self.outside or one in self.shown for one in ids]
            optional.append("showcase")
        schema = IMAGES.schema(*optional)
        return self._table("images", columns, IMAGES, schema, MADE | {"left_out": self.left_out})

    def _truth(self) -> Path:
        matched = {query: match for query, match in self.queries.items() if match}
        columns = {"query_id": list(matched), "reference_id": list(matched.values())}
        return self._table("truth", columns, TRUTH, TRUTH.schema(), MADE)

    def _showcase(self, model: str, index: str) -> Path:
        return self._neighbors(model, index, f"{model}-{index}.showcase", dict.fromkeys(self.outside))

    def _neighbors(self, model: str, index: str, name: str = "", asked: dict[str, str | None] | None = None) -> Path:
        rows: list[tuple[str, int, str, float]] = []
        for query, match in (self.queries if asked is None else asked).items():
            if query in self.rejected.get(model, {}):
                continue
            default = [match] if match else []
            order = self.found.get((model, query), [*default, *(one for one in self.references if one != match)][:4])
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

    def _duplicates(self) -> Path:
        kinds = ("queries_like_match", "queries_like_other", "training_like_reference")
        record = Duplicates(
            references=len(self.references),
            queries=len(self.queries),
            doubled=2 * len(self.doubles.get("doubled", [])),
            groups=len(self.doubles.get("doubled", [])),
            undecidable=self.undecidable,
            examples={kind: self.doubles.get(kind, []) for kind in ("doubled", *kinds)},
            **{kind: len(self.doubles.get(kind, [])) for kind in kinds},
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
            metrics={name: NOTHING if name in self.too_easy else estimate for name in names}
            | {"mrr": estimate}
            | {f"{name}{end}": estimate for end in self.pooled for name in ("uap", "uap_k10", "recall_at_p90")},
            thresholds={f"recall_at_p90{end}": self._threshold(estimate) for end in self.pooled if matched},
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
        told = {"cases": self.cases, "effects": self.effects, "approximations": self.approximations}
        metrics = {
            f"{model}/{index}": store.checksum(store.read_json(self._metrics(model, index), Metrics))
            for model in self.models
            for index in self.indexes
        }
        compared = Comparisons(
            experiment="trial", comparisons=found, metrics=metrics, sample_sha256=MADE["sample_sha256"], **told
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
    """Tags with their attributes, and the text that a person reads."""

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
    """Whether every element that is opened is closed, in order."""

    class Stack(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []
            self.wrong = False

        def handle_starttag(self, tag: str, attributes: object) -> None:
            if tag not in ("meta", "br", "hr"):
                self.open = [*self.open, tag]

        def handle_startendtag(self, tag: str, attributes: object) -> None:
            pass

        def handle_endtag(self, tag: str) -> None:
            self.wrong = self.wrong or self.open[-1:] != [tag]
            self.open = self.open[:-1]

    stack = Stack()
    stack.feed(html)
    return not stack.open and not stack.wrong


def test_the_page_opens_without_a_network(experiment: Experiment) -> None:
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


def test_every_tag_is_closed_and_every_link_leads_somewhere(experiment: Experiment) -> None:
    experiment.rejected = {"good": {"q-0": "damaged"}}
    html = experiment.report()
    assert balanced(html)
    page = Page(html)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {attributes["href"][1:] for _, attributes in page.tags if "href" in attributes} <= set(ids)


def test_the_same_input_gives_the_same_bytes(experiment: Experiment) -> None:
    assert experiment.report() == experiment.report()


def test_the_headline_says_who_cannot_be_told_apart(experiment: Experiment) -> None:
    assert (
        "The good one found the right picture first for 100 % of 2 queries; The fair one cannot be told apart from it."
        in Page(experiment.report()).words
    )


def test_the_headline_says_who_is_beaten(experiment: Experiment) -> None:
    experiment.models = ["fair", "good"]
    experiment.verdict = "worse"  # of the first, fair
    page = Page(experiment.report()).words
    assert "The good one found the right picture first" in page
    assert "it beats the other model" in page
    assert "cannot be told apart" not in page


def test_the_matrix_shows_both_sides_of_a_comparison(experiment: Experiment) -> None:
    experiment.verdict = "better"
    html = experiment.report()
    assert html.count('<td class="better"') == html.count('<td class="worse"') == 1
    page = Page(html).words
    assert "▲ better +50.0 points, p = 0.020" in page
    assert "▼ worse −50.0 points, p = 0.020" in page


def test_the_leaderboard_is_sorted_by_accuracy_and_says_who_is_behind(experiment: Experiment) -> None:
    experiment.models = ["fair", "good"]
    experiment.verdict = "worse"
    board = Page(experiment.report().partition('<section id="leaderboard"')[2].partition("</section>")[0]).words
    assert board.index("The good one") < board.index("The fair one")
    assert "★ best" in board
    assert "▼ behind" in board
    assert "50.0 % 25.0–50.0 %" in board


def test_nobody_is_best_who_is_better_than_nobody(experiment: Experiment) -> None:
    board = Page(experiment.report().partition('<section id="leaderboard"')[2].partition("</section>")[0]).words
    assert "% highest 4 " in board
    assert "≈ cannot tell apart" in board
    assert "★ best" not in board


def test_one_model_is_not_measured_against_itself(experiment: Experiment) -> None:
    experiment.models = ["good"]
    board = Page(experiment.report().partition('<section id="leaderboard"')[2].partition("</section>")[0]).words
    assert not re.search("highest|best|★", board)


def test_the_head_says_how_many_pictures_the_queries_come_from(experiment: Experiment) -> None:
    experiment.queries = {f"q-{number}": f"ref-{number % 6}" for number in range(30)}
    experiment.groups = {query: f"picture-{number % 3}" for number, query in enumerate(experiment.queries)}
    page = Page(experiment.report()).words
    assert "with a match 30 without a match 0 independent groups 3 models 2" in page
    assert (
        "These 30 queries were made from only 3 pictures: what comes from one is found or missed together, so this is "
        "no more than 3 observations. The intervals are wide for that reason. With fewer than 6, no test can tell "
        "models apart. Add pictures, not copies of the same ones." in page
    )
    assert "are one independent group: they are found or missed together" in page
    experiment.operations = None
    assert "These 30 queries come from only 3 independent groups" in Page(experiment.report()).words


def test_few_queries_are_said_and_ten_groups_are_not_few(experiment: Experiment) -> None:
    page = Page(experiment.report()).words
    assert "There are only 2 queries with a match: others could be found quite differently." in page
    assert "one independent group" not in page
    experiment.queries = {f"q-{number}": "ref-0" for number in range(10)}
    page = Page(experiment.report()).words
    assert "independent groups 10" in page
    assert "Few observations" not in page


def test_few_means_the_same_in_the_report_as_in_the_intervals() -> None:
    assert headline.FEW_GROUPS == FEW_GROUPS
    undecided, decided = np.arange(headline.DECIDABLE - 1), np.arange(headline.DECIDABLE)
    for groups, significant in ((undecided, False), (decided, True)):
        p = sign_flip(np.ones(len(groups)), np.zeros(len(groups)), groups)
        assert (p < SIGNIFICANCE) == significant


def test_a_metric_that_any_order_satisfies_says_so_and_is_not_compared(experiment: Experiment) -> None:
    experiment.too_easy = {"recall_at_3"}
    html = experiment.report()
    page = Page(html).words
    assert page.count("any order is right, with so few references") == 2
    assert "nothing to count" not in page
    assert "No table for Recall@3: with so few references any order of them is right, whatever the model." in page
    assert html.count('<table class="matrix') == 1
    assert "p = 1.000" not in page


def test_a_single_reference_is_no_competition(experiment: Experiment) -> None:
    experiment.too_easy = {"accuracy_at_1", "accuracy_at_3", "recall_at_3"}
    html = experiment.report()
    page = Page(html).words
    assert "With so few references any order of them is right, so accuracy cannot be measured." in page
    assert "No table for Accuracy@1, Accuracy@3 and Recall@3" in page
    assert "has a known match" not in page
    assert "No query has a match" not in page
    assert balanced(html)


def test_what_was_left_out_of_the_folders_is_counted_by_reason(experiment: Experiment) -> None:
    assert "Left out of the folders" not in section_words(experiment.report(), "rejected")
    experiment.left_out = [
        {"folder": "my <pictures>", "reason": ".nef files, which are camera raw", "count": 1030, "examples": ["a.NEF"]},
        {"folder": "asked", "reason": "thumbnails (@eaDir)", "count": 2, "examples": ["@eaDir/", "b/@eaDir/"]},
    ]
    page = experiment.report()
    assert "my &lt;pictures&gt;" in page
    assert ".nef files, which are camera raw 1,030 my <pictures> a.NEF" in section_words(page, "rejected")
    assert "thumbnails (@eaDir) 2 asked @eaDir/ , b/@eaDir/" in section_words(page, "rejected")


def test_a_rejected_reference_that_nobody_asks_for_counts_against_nobody(experiment: Experiment) -> None:
    experiment.rejected = {model: {"ref-4": "empty", "ref-5": "empty"} for model in experiment.models}
    page = Page(experiment.report()).words
    assert "references searched, of 6 4 queries 3 with" in page
    assert page.count("The 2 rejected pictures count against no model: no query with a match needs them.") == 2
    assert "pictures rejected 2" in page


def test_it_is_said_which_rejected_pictures_count(experiment: Experiment) -> None:
    experiment.rejected = {"good": {"q-0": "damaged", "ref-5": "empty"}, "fair": {"ref-1": "damaged", "ref-5": "bad"}}
    page = Page(experiment.report()).words
    assert "references searched, of 6 4–5 queries, 0–1 of them rejected 3 with" in page
    assert (
        "2 rejected pictures count against the models that rejected them, as a query or as its match. "
        "The other rejected picture counts against no model." in page
    )
    experiment.rejected = {"good": {"q-0": "damaged"}}
    page = Page(experiment.report()).words
    assert "The rejected picture counts against the models that rejected it, as a query or as its match." in page
    assert "references 6 queries, 0–1 of them rejected 3" in page


def test_speed_that_is_not_known_is_said(experiment: Experiment) -> None:
    experiment.timing = {"fair": {}}
    page = Page(experiment.report()).words
    assert "Speed unknown for The fair one" in page
    assert "Measured on CPU (2 threads)" in page
    assert "never compare across machines" in page


def test_speeds_of_two_devices_come_with_a_warning(experiment: Experiment) -> None:
    experiment.timing = {"fair": {"embed": {**CPU["embed"], "device": "NVIDIA H100"}}}
    assert (
        "Devices differ. The good one: measured on CPU (2 threads). The fair one: measured on NVIDIA H100."
        in Page(experiment.report()).words
    )


def test_where_the_time_of_embedding_went_is_told_model_by_model(experiment: Experiment) -> None:
    stages = {"read": 0.008, "decode": 0.4, "preprocess": 0.2, "transfer": 0.0, "forward": 1.6, "write": 0.004}
    told = {"stages": stages, "bottleneck": "forward", "precision": "float32", "threads": "2", "batch_size": "16 + 8"}
    experiment.timing = {"fair": {"embed": {**CPU["embed"], **told}}}
    page = Page(experiment.report()).words
    assert "Where the time of embedding went" in page
    assert "Computed in The fair one 1 50 25 0 200 0.5 forward 2 16 + 8 float32" in page
    experiment.timing = {}
    assert "Where the time of embedding went" not in Page(experiment.report()).words


# --- costs ---


def cost(dimension: int, index_bytes: int = 0) -> Cost:
    """Of float16 vectors in an index of six."""
    return Cost(
        dimension=dimension,
        stored_dtype="float16",
        vector_bytes=2 * dimension,
        vectors=6,
        index_bytes=index_bytes or 24 * dimension,
    )


def timed(images_per_second: float, **stages: float) -> dict[str, object]:
    seconds = 8 / images_per_second
    told = {"stages": stages, "bottleneck": "forward", "precision": "float32", "threads": "2", "batch_size": "4"}
    return {"embed": {"images": 8, "seconds": seconds, "load_seconds": 0.0, "device": "CPU", **told}}


def section_words(page: str, name: str) -> str:
    return Page(page.partition(f'<section id="{name}"')[2].partition("</section>")[0]).words


def test_costs_are_told_with_their_breakdown(experiment: Experiment) -> None:
    experiment.costs = {"good": cost(512), "fair": cost(16)}
    experiment.timing = {
        "good": timed(4, read=0.2, forward=1.6) | {"search": {"queries": 3, "seconds": 0.1}},
        "fair": timed(16, read=0.2, forward=0.1),
    }
    found = section_words(experiment.report(), "cost")
    assert "The good one flat 512 1,024 float16 2,048 12.3 kB 4 30" in found
    assert "The fair one flat 16 32 float16 64 384 bytes 16 unknown" in found


def test_the_front_names_who_is_on_it_and_claims_no_more_than_the_tests(experiment: Experiment) -> None:
    experiment.costs = {"good": cost(16), "fair": cost(512)}
    experiment.timing = {"good": timed(4), "fair": timed(16)}
    found = section_words(experiment.report(), "cost")
    assert "On the front: The good one and The fair one." in found  # the one more accurate, the other faster
    assert "Behind it by number, but these queries do not decide it: The fair one." in found  # larger and less accurate
    experiment.verdict = "better"
    found = section_words(experiment.report(), "cost")
    assert "On the front: The good one. Beaten by one that costs no more: The fair one (by The good one)." in found


def test_of_two_indexes_only_intervals_that_do_not_meet_decide(experiment: Experiment) -> None:
    experiment.indexes, experiment.models = ["flat", "small"], ["good"]
    experiment.costs = {"good": cost(16)}
    found = section_words(experiment.report(), "cost")
    assert "On the front: The good one, flat and The good one, small." in found  # alike in both
    a, b, c = (run_of(accuracy, low, high) for accuracy, low, high in ((0.9, 0.8, 1), (0.7, 0.6, 0.8), (0.6, 0.5, 0.7)))
    nothing_tested = SimpleNamespace(verdict=lambda *_: None)
    assert not pareto.better(nothing_tested, a, b)
    assert pareto.better(nothing_tested, a, c)
    assert [one.state for one in pareto.standings(nothing_tested, [(a, 2), (b, 3), (c, 1)])] == [
        "front",
        "open",
        "front",
    ]
    assert [one.state for one in pareto.standings(nothing_tested, [(a, 2), (b, 1), (c, 2)])] == [
        "front",
        "front",
        "beaten",
    ]


def run_of(value: float, low: float, high: float) -> Any:
    return SimpleNamespace(estimate=lambda _: Estimate(value=value, low=low, high=high, n=9))


def test_across_machines_there_is_no_front_by_speed(experiment: Experiment) -> None:
    experiment.timing = {"good": timed(4), "fair": {"embed": {**CPU["embed"], "device": "NVIDIA H100"}}}
    page = experiment.report()
    assert "no front is drawn" in section_words(page, "cost")
    assert "On the front" not in page
    assert 'class="front"' not in page


def test_the_fronts_steps_stand_between_its_models(experiment: Experiment) -> None:
    experiment.timing = {"good": timed(4), "fair": timed(16)}
    lines = [one for one in Page(experiment.report()).named("line") if one.get("class") == "front"]
    assert len(lines) == 4  # across and down, at each of two
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


def test_what_each_choice_does_is_told_with_intervals_verdict_and_cost(experiment: Experiment) -> None:
    experiment.effects = [effect("mean", -0.25, "worse", least=-0.3, most=0.1), effect("gem", 0.0, "cannot tell")]
    experiment.costs = {"good": cost(512), "fair": cost(16)}
    experiment.timing = {"good": timed(4), "fair": timed(10)}
    found = section_words(experiment.report(), "choices")
    assert "The good one , with other settings" in found
    assert "pooling: cls the model’s own: what the others are compared with" in found
    assert "pooling: mean ▼ −25.0 −35.0 to −15.0; worse −30.0 to +10.0 by combination × 2.50 × 0.0312" in found
    assert "pooling: gem ≈ 0.0 −10.0 to +10.0; cannot tell × 2.50" in found
    experiment.timing["fair"] = {"embed": {**CPU["embed"], "device": "NVIDIA H100"}}
    assert "worse −30.0 to +10.0 by combination unknown × 0.0312" in section_words(experiment.report(), "choices")


def test_what_an_approximate_index_costs_is_told_beside_the_exact_one(experiment: Experiment) -> None:
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


def test_without_a_varied_model_there_is_no_section_of_choices(experiment: Experiment) -> None:
    assert "What each choice does" not in experiment.report()


def test_every_rejected_picture_is_in_the_page_once_with_its_models(experiment: Experiment) -> None:
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
    with pytest.raises(LookalikeError, match=r"'good'.*rejected queries is 0 there.* hold 1\."):
        write_report(ReportJob(**inputs, out=experiment.folder / "index.html"))  # type: ignore[arg-type]


def test_groups_that_contradict_the_metrics_stop_the_report(experiment: Experiment) -> None:
    inputs = experiment.inputs()
    experiment.groups = {"q-0": "dune", "q-1": "dune"}
    experiment._images()
    with pytest.raises(LookalikeError, match=r"'good'.*groups is 2 there.* hold 1\."):
        write_report(ReportJob(**inputs, out=experiment.folder / "index.html"))  # type: ignore[arg-type]


def test_many_rejected_pictures_are_cut_with_a_pointer_to_the_rest(experiment: Experiment) -> None:
    experiment.references = [f"ref-{number:03d}" for number in range(130)]
    experiment.queries = {"q-0": "ref-129"}
    experiment.models = ["good"]
    experiment.rejected = {"good": dict.fromkeys(experiment.references[:120], "damaged")}
    page = Page(experiment.report()).words
    assert "99.png" in page
    assert "100.png" not in page
    assert "and 20 more in" in page
    assert "good-flat.images.parquet" in page


def test_no_rejected_pictures_is_one_sentence(experiment: Experiment) -> None:
    assert "No picture was rejected: every model could read all 9 pictures." in Page(experiment.report()).words


def test_the_right_neighbor_is_marked_for_eyes_and_ears(experiment: Experiment) -> None:
    experiment.found = {("fair", "q-0"): ["ref-3", "ref-0", "ref-2", "ref-4"], ("fair", "q-1"): ["ref-3", "ref-4"]}
    html = experiment.report()
    page = Page(html)
    marked = [one["aria-label"] for one in page.named("span") if "the right one" in one.get("aria-label", "")]
    assert sorted(marked) == [
        "Rank 1: ref-0, the right one",
        "Rank 1: ref-1, the right one",
        "Rank 2: ref-0, the right one",
    ]
    assert html.count('<li class="right">') == len(marked)
    assert page.words.count("right, 0.") == len(marked)  # what a screen reader says; the check mark is for the eyes
    for status in ("✓ found first", "found at rank 2", "not in the first 3"):
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
    ranking = rank(neighbors, truth, images, searched=6, kept=4, where="here")
    counted = images.take(ranking.counted)["image_id"].to_pylist()
    right = {query for query, correct in zip(counted, ranking.correct_at(1), strict=True) if correct}
    assert examples.right_queries(neighbors, truth) == right == {"q-1"}
    assert "found at rank 2, tied" in Page(experiment.report()).words


def test_each_picture_is_embedded_once(experiment: Experiment) -> None:
    page = Page(experiment.report())
    data = re.findall(r"url\(([^)]*)", page.style)
    assert len(data) == len(set(data))
    classes = {one["class"].split()[1] for one in page.named("span") if re.match(r"pic p\d", one.get("class", ""))}
    shown = {one["title"] for one in page.named("span") if one.get("role") == "img" and "title" in one}
    assert len(data) == len(classes) == len(shown)


def test_a_picture_that_cannot_be_decoded_shows_why(experiment: Experiment) -> None:
    experiment._images()
    (experiment.folder / "0.png").write_bytes(b"nothing")
    page = Page(experiment.report())
    labels = [one.get("aria-label", "") for one in page.named("span")]
    assert "True match ref-0; cannot be shown: is text, not an image" in labels


def test_a_rejected_query_says_so_among_the_examples(experiment: Experiment) -> None:
    experiment.rejected = {"fair": {"q-0": "damaged: no end"}}
    assert "This model was not shown the query: damaged: no end." in Page(experiment.report()).words


def test_hostile_text_stays_text(experiment: Experiment) -> None:
    experiment.queries[HOSTILE] = "ref-0"
    experiment.references[1] = experiment.queries["q-1"] = f"reference {HOSTILE}"
    experiment.operations = {HOSTILE: HOSTILE}
    experiment.labels = {"good": HOSTILE}
    experiment.title = HOSTILE
    experiment.rejected = {"fair": {HOSTILE: HOSTILE}}
    html = experiment.report()
    page = Page(html)
    assert len(page.named("script")) == 1
    assert not page.named("img")
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert balanced(html)
    assert HOSTILE in {one.get("title") for one in page.named("p")}
    assert "alert('x')" in page.words


def test_the_libraries_that_made_the_vectors_are_named(experiment: Experiment) -> None:
    page = Page(experiment.report()).words
    assert "w, r7 Embedded with pillow 11.3.0 / 12.0.0, torch 2.9.1 Everything recorded" in page


@pytest.mark.parametrize(
    ("source", "revision", "said"),
    [
        ("hub owner/vit", None, "hub owner/vit, r7 (not pinned: main may be another commit tomorrow)"),
        ("hub owner/vit", "v1", "hub owner/vit, r7 (not pinned: v1 may be another commit tomorrow)"),
        ("hub owner/vit", "a" * 40, "hub owner/vit, r7 Embedded with"),
        ("folder vit", None, "folder vit, r7 Embedded with"),
    ],
)
def test_weights_of_a_branch_are_said_to_be_not_pinned(
    source: str, revision: str | None, said: str, experiment: Experiment
) -> None:
    key = {"family": "transformers", "checkpoint": "owner/vit"} | ({"revision": revision} if revision else {})
    experiment.footer = {"key": json.dumps(key), "weights": {"source": source, "revision": "r7"}}
    assert said in Page(experiment.report()).words


def test_one_model_needs_no_rival(experiment: Experiment) -> None:
    experiment.models = ["good"]
    page = Page(experiment.report()).words
    assert "The good one found the right picture first for 100 % of 2 queries (95 % interval 50–100 %)." in page
    assert "There is only one model" in page
    assert "Models disagree" not in page


def test_no_query_with_a_match_is_said_and_shown(experiment: Experiment) -> None:
    experiment.queries = {"q-0": None, "q-1": None}
    page = Page(experiment.report()).words
    assert "None of the 2 queries has a known match, so accuracy cannot be measured." in page
    assert "No query has a match, so nothing says which score is high enough." in page
    assert "No query has a match, so there is nothing to compare the models by." in page
    assert "nothing to count" in page
    assert "∅ No match" in page


def test_no_operations_means_no_breakdown_and_says_so(experiment: Experiment) -> None:
    experiment.operations = None
    assert "The data set does not say what was done to its queries" in Page(experiment.report()).words


def test_breakdowns_show_every_model_with_its_interval(experiment: Experiment) -> None:
    estimate = Estimate(value=0.5, low=0.25, high=0.75, n=4)
    nothing = Estimate(value=None, low=None, high=None, n=0)
    experiment.breakdowns = {
        "operations": {"crop": {"accuracy_at_1": estimate}, "flip": {"accuracy_at_1": nothing}},
        "strength": {value: {"accuracy_at_1": estimate} for value in ("heavy", "light", "medium")},
    }
    labels = [one["aria-label"] for one in Page(experiment.report()).named("svg") if "aria-label" in one]
    found = [label.replace(words.SPACE, " ") for label in labels if "interval" in label]
    assert found[0] == "Crop: The good one 50.0 %, interval 25.0–75.0 %; The fair one 50.0 %, interval 25.0–75.0 %"
    assert [label.partition(":")[0] for label in found] == ["Crop", "Light", "Medium", "Heavy"]


def section(html: str, name: str) -> str:
    return html.partition(f'<section id="{name}"')[2].partition("</section>")[0]


def test_breakdowns_by_size_and_the_data_sets_own_columns_are_drawn(experiment: Experiment) -> None:
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
    assert "only one" not in page, "a part that holds all queries sets nothing apart"


def test_the_threshold_to_copy_is_in_the_page_with_how_it_holds(experiment: Experiment) -> None:
    experiment.pooled = ("",)
    html = experiment.report()
    page = Page(section(html, "threshold")).words
    assert "The good one 0.812500 90.0 % 45.0 % 0.750000 2 queries 87.5 % 50.0–95.0 % 25.0 % 12.5–50.0 %" in page
    assert section(html, "threshold").count("<polyline") == 2
    assert "Normalised" not in page
    assert balanced(html)


def test_a_precision_that_is_never_reached_is_said(experiment: Experiment) -> None:
    experiment.pooled, experiment.threshold = ("",), None
    page = Page(section(experiment.report(), "threshold")).words
    assert "The good one none: no threshold is that precise none on that half (2 queries)" in page


def test_scores_with_and_without_normalisation_stand_side_by_side(experiment: Experiment) -> None:
    experiment.pooled = ("", "_sn")
    html = experiment.report()
    board = Page(section(html, "leaderboard")).words
    assert "With and without score normalisation" in board
    assert "Model µAP normalised µAP, 10 a query normalised Recall at P90 normalised" in board
    threshold = Page(section(html, "threshold")).words
    assert threshold.index("Scores as they are") < threshold.index("Normalised scores")
    assert "Accept normalised scores from" in threshold
    meanings = Page(section(html, "made")).words
    assert "µAP, 10 a query, normalised" in meanings
    assert balanced(html)


def test_the_first_table_has_few_columns_and_the_second_the_others(experiment: Experiment) -> None:
    experiment.pooled = ("", "_sn")
    board = section(experiment.report(), "leaderboard")
    first, _, others = board.partition("More metrics")
    heads = re.findall(r'role="columnheader"[^>]*>([^<]+)<', first)
    assert heads == [
        *("Model", "Accuracy@1", "Accuracy@3", "Recall@3", "µAP", "µAP, 10 a query", "Recall at P90"),
        *("Against the highest", "Images a second"),
    ]
    assert "MRR" in others
    assert "MRR" not in first


def test_the_four_cases_are_shown_with_some_of_their_pictures(experiment: Experiment) -> None:
    def case(*queries: str, count: int | None = None) -> Case:
        return Case(count=len(queries) if count is None else count, queries=list(queries))

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


def test_operations_are_told_in_words() -> None:
    assert words.operations("crop:light + jpeg:heavy") == "lightly cropped, then heavily compressed (JPEG)"
    assert words.operations("flip:medium") == "mirrored"
    assert words.operations("sparkle:medium") == "sparkle:medium"


@pytest.mark.parametrize(
    ("value", "written"), [(0.65333, "65 %"), (0.999, "99.9 %"), (1.0, "100 %"), (0.0004, "0.04 %")]
)
def test_percentages_are_never_rounded_to_all_or_nothing(value: float, written: str) -> None:
    assert words.percent(value, 0).replace(words.SPACE, " ") == written


def test_several_indexes_get_a_row_each(experiment: Experiment) -> None:
    experiment.indexes = ["flat", "quick"]
    board = Page(experiment.report().partition('<section id="leaderboard"')[2].partition("</section>")[0]).words
    assert board.partition("More metrics")[0].count("index flat") == board.count("index quick") / 2 == 2
    assert board.count("≈ cannot tell apart") == 2
    assert "compared with the one that has the highest Accuracy@1 with the same index" in board


def test_twelve_models_with_long_labels(experiment: Experiment) -> None:
    experiment.models = [f"model-{number}" for number in range(12)]
    experiment.labels = {model: f"{model} " + "with a label that goes on " * 8 for model in experiment.models}
    html = experiment.report()
    assert balanced(html)
    assert len(re.findall(r'<td class="self"', html)) == 12


def test_rows_are_chosen_for_variety_and_by_a_fixed_rule() -> None:
    outcome = {f"q{number}": ("disagree", "right", "wrong", "none")[number % 4] for number in range(400)}
    kind = {query: ("crop", "blur")[int(query[1:]) // 4 % 2] for query in outcome}
    chosen = examples.choose(outcome, kind)
    shown = [outcome[query] for query in chosen]
    assert {name: shown.count(name) for name in examples.QUOTAS} == examples.QUOTAS
    assert [kind[query] for query in chosen].count("crop") == 20
    assert examples.choose(dict(reversed(outcome.items())), kind) == chosen


def test_the_pictures_of_a_page_are_bounded(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "MOST_PICTURES", 5)
    experiment.queries = {f"q-{number}": f"ref-{number % 6}" for number in range(30)}
    assert len(re.findall(r"url\(", Page(experiment.report()).style)) <= 5


def test_a_file_without_its_model_is_named(experiment: Experiment) -> None:
    inputs = experiment.inputs()
    bad = experiment.folder / "good-flat.parquet"
    store.write_table(store.read_table(bad, NEIGHBORS), bad, NEIGHBORS, {})
    with pytest.raises(LookalikeError, match=r"good-flat\.parquet: its footer does not name its model"):
        write_report(ReportJob(**inputs, out=experiment.folder / "index.html"))  # type: ignore[arg-type]


def test_images_that_another_index_was_built_from_are_refused(experiment: Experiment) -> None:
    experiment.footer = {"shards_sha256": "a", "index_sha256": "b"}
    inputs = experiment.inputs()
    experiment.footer = {"shards_sha256": "other", "index_sha256": "b"}
    experiment._seen("fair", "flat")
    with pytest.raises(
        LookalikeError, match=r"fair-flat\.images\.parquet: is not of the index .* \(its shards_sha256 is"
    ):
        write_report(ReportJob(**inputs, out=experiment.folder / "index.html"))  # type: ignore[arg-type]


def test_a_failed_report_leaves_no_half_page(experiment: Experiment) -> None:
    inputs = experiment.inputs()
    (experiment.folder / "truth.parquet").unlink()
    with pytest.raises(LookalikeError, match=r"truth\.parquet: does not exist"):
        write_report(ReportJob(**inputs, out=experiment.folder / "index.html"))  # type: ignore[arg-type]
    assert not list(experiment.folder.glob("*index.html*"))


def test_the_report_never_reaches_models_torch_or_plotly() -> None:
    never = {"torch", "plotly", "faiss", "lookalike.embed.encoders"}
    code = f"import sys, lookalike.report.report; print({never} & set(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="workflow_scripts"
    )
    assert found.stdout.strip() == "set()"


def examples_of(html: str) -> str:
    return html.partition('<section id="examples"')[2].partition("</section>")[0]


def test_outside_pictures_are_shown_first_without_right_or_wrong(experiment: Experiment) -> None:
    without = experiment.report()
    experiment.outside = ["showcase:laptop.jpg", "showcase:broken.jpg"]
    experiment.rejected = {model: {"showcase:broken.jpg": "damaged: no end"} for model in experiment.models}
    experiment.found = {("fair", "showcase:laptop.jpg"): ["ref-4", "ref-2"]}
    html = experiment.report()
    assert balanced(html)
    shown = examples_of(html)
    rows = re.findall(r'<article class="row( first)?" data-outcome="(\w+)"', shown)
    assert rows[:2] == [(" first", "outside")] * 2
    assert {outcome for _, outcome in rows[2:]} == {"right", "none"}
    broken, laptop = (one.partition("</article>")[0] for one in shown.split("<article")[1:3])
    assert Page(f"<article{laptop}").words.count("nearest at 0.90") == len(experiment.models)
    assert "Rank 1: ref-4" in laptop
    assert "right" not in laptop
    assert "match" not in laptop
    assert "This model was not shown the picture: damaged: no end." in Page(f"<article{broken}").words
    assert "showcase:broken.jpg" in html.partition('<section id="rejected"')[2]
    # they count nowhere: all that stands before the pictures is as it was, but for the rejected one
    for section in ("leaderboard", "pairs", "operations", "speed"):
        assert board(html, section).split("The rejected picture counts")[0].strip() == board(without, section)


def board(html: str, section: str) -> str:
    return Page(html.partition(f'<section id="{section}"')[2].partition("</section>")[0]).words


def test_queries_that_are_to_be_shown_come_first_and_once(experiment: Experiment) -> None:
    experiment.shown = ["q-1"]
    shown = examples_of(experiment.report())
    assert re.findall(r'class="row first" data-outcome="right"', shown)
    assert shown.count("Query q-1") == 1
    assert shown.index("Query q-1") < shown.index("Query q-0")


def test_many_outside_pictures_leave_room_for_queries(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "MOST_FIRST", 3)
    experiment.outside = [f"showcase:{number:02}.jpg" for number in range(30)]
    html = experiment.report()
    assert html.count('class="row first"') == 3
    assert "and 27 more" in Page(html).words
    assert html.count('<article class="row"') == len(experiment.queries)


def test_nothing_doubled_is_one_line(experiment: Experiment) -> None:
    assert board(experiment.report(), "duplicates") == (
        'aria-labelledby="duplicates-heading"> Identical pictures No file is there twice: of 6 references and 3 '
        "queries, no reference has the bytes of another, of a query, or of a training picture."
    )


def test_doubles_are_counted_shown_and_explained(experiment: Experiment) -> None:
    experiment.doubles = {
        "doubled": [("ref-0", "ref-3")],
        "queries_like_match": [("q-1", "ref-1")],
        "queries_like_other": [("q-2", "ref-5")],
        "training_like_reference": [("ref-2", "ref-4")],
    }
    experiment.undecidable = 1
    html = experiment.report()
    assert balanced(html)
    said = board(html, "duplicates")
    for words_of_it in (
        "2 references of 6 in 1 group of identical files.",
        "For 1 query the true match has such a double that does not count as right",
        "it counts as a miss for every model",
        "1 query is the very file that should be found: a hit that no model can miss.",
        "1 query is the same file as a reference that does not count as right.",
        "1 training picture is also among the references",
        "results/reports/trial/duplicates.parquet",
    ):
        assert words_of_it in said
    shown = [
        one["title"] for one in Page(html.partition('<section id="duplicates"')[2]).named("span") if "title" in one
    ]
    assert shown == ["ref-0", "ref-3", "q-1", "ref-1", "q-2", "ref-5", "ref-2", "ref-4"]
    assert not re.search(r'"pic p\d+ " role="img" title="(?!ref|q)', html)
