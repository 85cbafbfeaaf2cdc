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

from lookalike import formats, metrics, statistics, store
from lookalike.errors import LookalikeError
from lookalike.formats import Comparison, Comparisons, Cost, Effect, Estimate, Metrics
from lookalike.report import gallery, headline, pareto, words, write_report

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
    costs: dict[str, Cost] = field(default_factory=dict)
    effects: list[Effect] = field(default_factory=list)

    def report(self) -> str:
        """Write the files and the report; return its text."""
        write_report(**self.inputs(), out=self.folder / "index.html")
        return (self.folder / "index.html").read_text(encoding="utf-8")

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
            "rejected": [self._rejected(model) for model in self.models],
            "comparisons": self._comparisons(),
        }

    def _images(self) -> Path:
        ids = [*self.references, *self.queries]
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
        schema = formats.IMAGES.schema()
        if self.operations is not None:
            columns["operations"] = [self.operations.get(one) for one in ids]
            schema = formats.IMAGES.schema("operations")
        return self._table("images", columns, formats.IMAGES, schema, {})

    def _truth(self) -> Path:
        matched = {query: match for query, match in self.queries.items() if match}
        columns = {"query_id": list(matched), "reference_id": list(matched.values())}
        return self._table("truth", columns, formats.TRUTH, formats.TRUTH.schema(), {})

    def _neighbors(self, model: str, index: str) -> Path:
        rows: list[tuple[str, int, str, float]] = []
        for query, match in self.queries.items():
            if query in self.rejected.get(model, {}):
                continue
            default = [match] if match else []
            order = self.found.get((model, query), [*default, *(one for one in self.references if one != match)][:4])
            scores = self.scores.get((model, query), [0.9 - 0.1 * place for place in range(len(order))])
            rows += [(query, rank, *pair) for rank, pair in enumerate(zip(order, scores, strict=True), 1)]
        columns = dict(zip(formats.NEIGHBORS.columns, map(list, zip(*rows, strict=True)), strict=True))
        made = {
            "model": model,
            "index": index,
            "key": '{"family": "pixels"}',
            "weights": {"source": "w", "revision": "r7"},
            "embed_versions": {"torch": "2.9.1", "pillow": "11.3.0 / 12.0.0"},
            "versions": {"faiss-cpu": "1.13.0"},
        }
        return self._table(f"{model}-{index}", columns, formats.NEIGHBORS, formats.NEIGHBORS.schema(), made)

    def _rejected(self, model: str) -> Path:
        bad = self.rejected.get(model, {})
        columns = {"image_id": list(bad), "path": [f"{one}.path" for one in bad], "reason": list(bad.values())}
        return self._table(f"{model}.rejected", columns, formats.REJECTED, formats.REJECTED.schema(), {"model": model})

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
            metrics={name: statistics.NOTHING if name in self.too_easy else estimate for name in names},
            breakdowns=self.breakdowns,
            timing=self.timing.get(model, CPU),
            cost=self.costs.get(model),
        )
        path = self.folder / f"{model}-{index}.json"
        store.write_json(record, path)
        return path

    def _comparisons(self) -> Path:
        gap = Estimate(value=0.5, low=0.1, high=0.9, n=2)
        found = [
            Comparison(
                index=index, metric="accuracy_at_1", a=a, b=b, difference=gap, p=0.01, p_holm=0.02, verdict=self.verdict
            )
            if metric not in self.too_easy
            else Comparison(
                index=index,
                metric=metric,
                a=a,
                b=b,
                difference=statistics.NOTHING,
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
        store.write_json(Comparisons(experiment="trial", comparisons=found, effects=self.effects), path)
        return path

    def _table(
        self,
        name: str,
        columns: dict[str, list[object]],
        kind: formats.Format,
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
    assert headline.FEW_GROUPS == statistics.FEW_GROUPS
    undecided, decided = np.arange(headline.DECIDABLE - 1), np.arange(headline.DECIDABLE)
    for groups, significant in ((undecided, False), (decided, True)):
        p = statistics.sign_flip(np.ones(len(groups)), np.zeros(len(groups)), groups)
        assert (p < statistics.SIGNIFICANCE) == significant


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
    return {"embed": {"images": 8, "seconds": seconds, "load_seconds": 0.0, "device": "CPU", "stages": stages}}


def section(page: str, name: str) -> str:
    return Page(page.partition(f'<section id="{name}"')[2].partition("</section>")[0]).words


def test_costs_are_told_with_their_breakdown(experiment: Experiment) -> None:
    experiment.costs = {"good": cost(512), "fair": cost(16)}
    experiment.timing = {
        "good": timed(4, read=0.2, forward=1.6) | {"search": {"queries": 3, "seconds": 0.1, "index_bytes": 12288}},
        "fair": timed(16, read=0.2, forward=0.1),
    }
    found = section(experiment.report(), "cost")
    assert "The good one flat 512 1,024 float16 2,048 12.3 kB 4 30" in found
    assert "The fair one flat 16 32 float16 64 384 bytes 16 unknown" in found
    assert "Model Read Forward The good one 25.00 200.00 The fair one 25.00 12.50" in found


def test_the_front_names_who_is_on_it_and_claims_no_more_than_the_tests(experiment: Experiment) -> None:
    experiment.costs = {"good": cost(16), "fair": cost(512)}
    experiment.timing = {"good": timed(4), "fair": timed(16)}
    found = section(experiment.report(), "cost")
    assert "On the front: The good one and The fair one." in found  # the one more accurate, the other faster
    assert "Behind it by number, but these queries do not decide it: The fair one." in found  # larger and less accurate
    experiment.verdict = "better"
    found = section(experiment.report(), "cost")
    assert "On the front: The good one. Beaten by one that costs no more: The fair one (by The good one)." in found


def test_of_two_indexes_only_intervals_that_do_not_meet_decide(experiment: Experiment) -> None:
    experiment.indexes, experiment.models = ["flat", "small"], ["good"]
    experiment.costs = {"good": cost(16)}
    found = section(experiment.report(), "cost")
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
    assert "no front is drawn" in section(page, "cost")
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
    found = section(experiment.report(), "choices")
    assert "The good one , with other settings" in found
    assert "pooling: cls the model’s own: what the others are compared with" in found
    assert "pooling: mean ▼ −25.0 −35.0 to −15.0; worse −30.0 to +10.0 by combination × 2.50 × 0.0312" in found
    assert "pooling: gem ≈ 0.0 −10.0 to +10.0; cannot tell × 2.50" in found
    experiment.timing["fair"] = {"embed": {**CPU["embed"], "device": "NVIDIA H100"}}
    assert "worse −30.0 to +10.0 by combination unknown × 0.0312" in section(experiment.report(), "choices")


def test_without_a_varied_model_there_is_no_section_of_choices(experiment: Experiment) -> None:
    assert "What each choice does" not in experiment.report()


def test_every_rejected_picture_is_in_the_page_once_with_its_models(experiment: Experiment) -> None:
    experiment.rejected = {"good": {"q-0": "damaged", "ref-5": "empty"}, "fair": {"q-0": "damaged"}}
    page = Page(experiment.report().partition('<section id="rejected"')[2].partition("</section>")[0]).words
    assert "q-0 q-0.path damaged all models" in page
    assert "ref-5 ref-5.path empty The good one" in page
    assert page.count("q-0.path") == 1


def test_counts_add_up_for_every_model(experiment: Experiment) -> None:
    experiment.rejected = {"good": {"q-0": "damaged", "ref-5": "empty"}, "fair": {"q-0": "damaged"}}
    page = Page(experiment.report()).words
    assert "The good one 6 = 5 embedded + 1 rejected 3 = 2 embedded + 1 rejected" in page
    assert "The fair one 6 = 6 embedded + 0 rejected 3 = 2 embedded + 1 rejected" in page
    assert "with a match 2 without a match 1" in page


def test_counts_that_contradict_the_metrics_stop_the_report(experiment: Experiment) -> None:
    inputs = experiment.inputs()
    experiment.rejected = {"good": {"q-0": "damaged"}}
    experiment._rejected("good")
    with pytest.raises(LookalikeError, match=r"'good'.*rejected queries is 0 there.* hold 1\."):
        write_report(**inputs, out=experiment.folder / "index.html")  # type: ignore[arg-type]


def test_groups_that_contradict_the_metrics_stop_the_report(experiment: Experiment) -> None:
    inputs = experiment.inputs()
    experiment.groups = {"q-0": "dune", "q-1": "dune"}
    experiment._images()
    with pytest.raises(LookalikeError, match=r"'good'.*groups is 2 there.* hold 1\."):
        write_report(**inputs, out=experiment.folder / "index.html")  # type: ignore[arg-type]


def test_many_rejected_pictures_are_cut_with_a_pointer_to_the_rest(experiment: Experiment) -> None:
    experiment.references = [f"ref-{number:03d}" for number in range(130)]
    experiment.queries = {"q-0": "ref-129"}
    experiment.models = ["good"]
    experiment.rejected = {"good": dict.fromkeys(experiment.references[:120], "damaged")}
    page = Page(experiment.report()).words
    assert "ref-099.path" in page
    assert "ref-100.path" not in page
    assert "and 20 more in" in page
    assert "good.rejected.parquet" in page


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
            (inputs["neighbors"][0], formats.NEIGHBORS),  # type: ignore[index]
            (inputs["truth"], formats.TRUTH),
            (inputs["images"], formats.IMAGES),
        )
    )
    ranking = metrics.rank(neighbors, truth, images, searched=6, kept=4, where="here")
    counted = images.take(ranking.counted)["image_id"].to_pylist()
    right = {query for query, correct in zip(counted, ranking.correct_at(1), strict=True) if correct}
    assert gallery.right_queries(neighbors, truth) == right == {"q-1"}
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
    assert "True match ref-0; cannot be shown: not a picture in a known format" in labels


def test_a_rejected_query_says_so_in_the_gallery(experiment: Experiment) -> None:
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
    assert board.count("index flat") == board.count("index quick") == 2
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
    chosen = gallery.choose(outcome, kind)
    shown = [outcome[query] for query in chosen]
    assert {name: shown.count(name) for name in gallery.QUOTAS} == gallery.QUOTAS
    assert [kind[query] for query in chosen].count("crop") == 20
    assert gallery.choose(dict(reversed(outcome.items())), kind) == chosen


def test_the_pictures_of_a_page_are_bounded(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "MOST_PICTURES", 5)
    experiment.queries = {f"q-{number}": f"ref-{number % 6}" for number in range(30)}
    assert len(re.findall(r"url\(", Page(experiment.report()).style)) <= 5


def test_a_file_without_its_model_is_named(experiment: Experiment) -> None:
    inputs = experiment.inputs()
    bad = experiment.folder / "good.rejected.parquet"
    store.write_table(store.read_table(bad, formats.REJECTED), bad, formats.REJECTED, {})
    with pytest.raises(LookalikeError, match=r"good\.rejected\.parquet: its footer does not name its model"):
        write_report(**inputs, out=experiment.folder / "index.html")  # type: ignore[arg-type]


def test_a_failed_report_leaves_no_half_page(experiment: Experiment) -> None:
    inputs = experiment.inputs()
    (experiment.folder / "truth.parquet").unlink()
    with pytest.raises(LookalikeError, match=r"truth\.parquet: does not exist"):
        write_report(**inputs, out=experiment.folder / "index.html")  # type: ignore[arg-type]
    assert not list(experiment.folder.glob("*index.html*"))


def test_the_report_never_reaches_models_torch_or_plotly() -> None:
    code = "import sys, lookalike.report; print({'torch', 'plotly', 'lookalike.models', 'faiss'} & set(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="workflow_scripts"
    )
    assert found.stdout.strip() == "set()"
