"""The data behind the explorer: every query, what each model found, and how the page unpacks it."""

import base64
import json
import re
import shutil
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lookalike.io import store
from lookalike.io.formats.records import Case, Cases
from lookalike.io.formats.tables import IMAGES, MAP, NEIGHBORS, TRUTH
from lookalike.job.errors import LookalikeError
from lookalike.metrics.ranking import rank
from lookalike.report import evidence, page_scripts, queries
from lookalike.report.cases import Limits
from lookalike.report.evidence import ReportJob
from unit.test_report import HOSTILE, Experiment, Page, explored, section


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return Experiment(tmp_path)


def test_every_query_is_in_the_page_with_its_outcome(experiment: Experiment) -> None:
    experiment.queries = {f"q-{number:03}": f"ref-{number % 6}" if number % 3 else None for number in range(90)}
    experiment.found = {("fair", "q-001"): ["ref-5", "ref-1"]}
    data = explored(experiment.report())
    assert sorted(data["ids"][: len(data["outcome"])]) == sorted(experiment.queries)
    named = {data["ids"][place]: queries.OUTCOMES[code] for place, code in enumerate(data["outcome"])}
    assert named["q-001"] == "disagree"
    assert named["q-002"] == "right"
    assert named["q-003"] == "none"


def test_hits_scores_ranks_and_margins_are_those_of_the_tables(experiment: Experiment) -> None:
    experiment.found = {("fair", "q-0"): ["ref-3", "ref-0", "ref-2"]}
    experiment.scores = {("fair", "q-0"): [0.75, 0.5, 0.25]}
    data = explored(experiment.report())
    query, fair = data["ids"].index("q-0"), data["models"][1]
    at = slice(query * data["shown"], (query + 1) * data["shown"])
    assert [data["ids"][row] for row in fair["hits"][at] if row >= 0] == ["ref-3", "ref-0", "ref-2"]
    assert fair["scores"][at] == [7500, 5000, 2500, None, None]
    assert fair["right"][query] == 0b00010
    assert fair["rank"][query] == 2
    assert fair["margin"][query] == -2500


def test_ranks_agree_with_the_metrics_on_ties_and_truncated_lists(experiment: Experiment) -> None:
    draw = np.random.default_rng(5)
    experiment.models = ["good"]
    experiment.references = [f"ref-{number}" for number in range(9)]
    experiment.queries = {f"q-{number}": f"ref-{number % 9}" for number in range(200)}
    for query in experiment.queries:
        experiment.found["good", query] = [f"ref-{number}" for number in draw.permutation(9)[:4]]
        experiment.scores["good", query] = sorted(draw.choice([0.5, 0.25, 0.125], 4).tolist(), reverse=True)
    inputs = experiment.inputs()
    neighbors, truth, images = (
        store.read_table(path, kind)
        for path, kind in (
            (inputs["neighbors"][0], NEIGHBORS),  # type: ignore[index]
            (inputs["truth"], TRUTH),
            (inputs["images"], IMAGES),
        )
    )
    expected = rank(neighbors, truth, images, searched=9, kept=4)
    places = {
        images["image_id"][row].as_py(): int(place)
        for row, place in zip(expected.counted[expected.query], expected.places, strict=True)
        if place <= 3
    }
    listed = queries.listed(evidence.read(ReportJob(**inputs, out="")))  # type: ignore[arg-type]
    ids = images["image_id"].take(listed.images).to_pylist()
    found = {query: int(place) for query, place in zip(ids, listed.found[0].rank, strict=True) if place > 0}
    assert found == places
    assert len(set(found.values())) == 3


def test_mistakes_above_the_threshold_are_marked(experiment: Experiment) -> None:
    experiment.pooled = ("",)
    experiment.found = {("fair", "q-0"): ["ref-3", "ref-0"], ("fair", "q-1"): ["ref-3", "ref-1"]}
    experiment.scores = {("fair", "q-0"): [0.9, 0.5], ("fair", "q-1"): [0.8, 0.5]}
    data = explored(experiment.report())
    accepted = {data["ids"][query] for query in data["models"][1]["accepted"]}
    assert "q-0" in accepted
    assert "q-1" not in accepted


def test_a_rejected_query_has_its_reason(experiment: Experiment) -> None:
    experiment.rejected = {"fair": {"q-0": "damaged: no end"}}
    data = explored(experiment.report())
    query = data["ids"].index("q-0")
    assert data["models"][1]["rank"][query] == queries.REJECTED
    assert data["models"][1]["reasons"] == {str(query): "damaged: no end"}
    assert data["models"][0]["reasons"] == {}


def test_captions_and_columns_travel(experiment: Experiment) -> None:
    experiment.captions = {"q-0": "a red bus", "ref-0": "a bus"}
    experiment.columns = {"by_camera": {"q-0": "old", "q-1": "new"}}
    html = experiment.report()
    data = explored(html)
    query = data["ids"].index("q-0")
    assert data["captions"][query] == "a red bus"
    (column,) = data["columns"]
    assert (column["name"], column["label"], column["values"]) == ("by_camera", "camera", ["new", "old"])
    assert column["values"][column["of"][query]] == "old"
    assert "a red bus" in Page(section(html, "explorer")).words


def test_a_data_set_without_truth_has_no_known_answers(experiment: Experiment) -> None:
    experiment.queries = {"q-0": None, "q-1": None}
    html = experiment.report()
    assert not explored(html)["known"]
    assert explored(html)["outcomes"]["none"][1] == "No known answer"
    assert "No match among the references" not in section(html, "explorer")


def test_a_query_that_is_also_shown_first_is_listed_once(experiment: Experiment) -> None:
    experiment.shown, experiment.showcase = ["q-1"], ["showcase:a.jpg"]
    data = explored(experiment.report())
    assert data["ids"][:2] == ["q-1", "showcase:a.jpg"]
    assert len(data["outcome"]) == len(experiment.queries) + 1


def test_queries_beyond_the_limit_are_counted(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "MOST_QUERIES", 2)
    html = experiment.report()
    assert len(explored(html)["outcome"]) == 2
    assert "2 of 3 queries are listed here" in Page(html).words


def test_the_four_cases_lead_to_their_queries(experiment: Experiment) -> None:
    some = Case(count=1, queries=[HOSTILE])
    none = Case(count=0, queries=[])
    experiment.queries[HOSTILE] = "ref-0"
    fields = dict.fromkeys(("both", "neither", "only_a_b_near", "only_b_a_near", "only_b"), none)
    experiment.cases = [Cases(index="flat", a="good", b="fair", only_a=some, **fields)]
    links = [one["href"] for one in Page(section(experiment.report(), "pairs")).named("a")]
    assert "#explorer?is.good=right&is.fair=wrong" in links
    assert any(link.startswith("#explorer?query=%22%3E%3Cscript%3E") for link in links)


def test_a_wrong_neighbor_that_shows_the_scene_of_the_match_is_marked(experiment: Experiment) -> None:
    experiment.found = {("fair", "q-0"): ["ref-3", "ref-0"], ("fair", "q-1"): ["ref-4", "ref-1"]}
    experiment.scenes = {("fair", "q-0"): "ref-3", ("fair", "q-1"): "ref-5"}
    data = explored(experiment.report())
    scenes = {data["ids"][query]: bits for query, bits in enumerate(data["models"][1]["scene"])}
    assert (scenes["q-0"], scenes["q-1"]) == (0b1, 0), "the audit judged pairs, not queries"
    assert data["models"][0]["scene"] == []


def test_an_audit_of_other_neighbors_is_refused(experiment: Experiment) -> None:
    experiment.scenes = {("fair", "q-0"): "ref-3"}
    inputs = experiment.inputs()
    inputs["audit"] = inputs["audit"][::-1]  # type: ignore[index]
    with pytest.raises(LookalikeError, match="is the audit of other neighbors"):
        queries.listed(evidence.read(ReportJob(**inputs, out="")))  # type: ignore[arg-type]


def test_maps_place_images_and_leave_out_queries_that_are_not_listed(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "MOST_QUERIES", 2)
    experiment.maps = {"fair": {"q-0": (-1, 0.5), "q-1": (1, 0.5), "q-2": (0, -0.5), "ref-5": (0, 0)}}
    data = explored(experiment.report())
    (one,) = data["maps"]
    assert data["models"][one["model"]]["model"] == "fair"
    listed = set(data["ids"][: len(data["outcome"])])
    named = [data["ids"][image] for image in one["images"]]
    assert set(named) == listed | {"ref-5"}
    places = dict(zip(named, zip(one["x"], one["y"], strict=True), strict=True))
    assert places["ref-5"] == (500, 500)
    assert {y for name, (_, y) in places.items() if name in ("q-0", "q-1")} == {0}, "y grows downwards"
    assert "62 % are among the ten nearest" in one["about"]


def test_a_map_is_turned_so_that_it_lies_like_the_first_one(experiment: Experiment) -> None:
    places = {"q-0": (-1.0, 0.5), "q-1": (1.0, 0.25), "q-2": (0.0, -0.5), "ref-5": (0.25, 0.0)}
    turned = {name: (-y, x) for name, (x, y) in places.items()}
    mirrored = {name: (-x, y) for name, (x, y) in places.items()}
    experiment.models = ["good", "fair", "other"]
    experiment.maps = {"good": places, "fair": turned, "other": mirrored}
    first, *others = explored(experiment.report())["maps"]
    for one in others:
        for axis in ("x", "y"):
            np.testing.assert_allclose(one[axis], first[axis], atol=2)


def test_two_maps_of_one_model_are_refused(experiment: Experiment) -> None:
    experiment.models = ["good", "fair"]
    experiment.maps = {"good": {"q-0": (0, 0)}, "fair": {"q-0": (1, 1)}}
    inputs = experiment.inputs()
    good, fair = inputs["maps"]  # type: ignore[misc]
    shutil.copy(good, fair)
    with pytest.raises(LookalikeError, match=f"is a map of good, as is {good}. Make both again: --forcerun"):
        queries.listed(evidence.read(ReportJob(**inputs, out="")))  # type: ignore[arg-type]


def test_a_map_of_other_vectors_is_refused(experiment: Experiment) -> None:
    experiment.maps = {"good": {"q-0": (0, 0)}}
    inputs = experiment.inputs()
    path = inputs["maps"][0]  # type: ignore[index]
    table, footer = store.read_table(path, MAP), store.read_provenance(path)
    store.write_table(table, path, MAP, footer | {"shards_sha256": "other shards"})
    with pytest.raises(LookalikeError, match="is the map of other vectors"):
        queries.listed(evidence.read(ReportJob(**inputs, out="")))  # type: ignore[arg-type]


@pytest.mark.parametrize("limits", [Limits(queries=2), Limits(bytes=100)])
def test_a_page_that_would_be_too_large_has_a_folder_beside_it(experiment: Experiment, limits: Limits) -> None:
    whole = explored(experiment.report())
    assert list((experiment.folder / "cases").iterdir()) == []
    experiment.limits = limits
    html = experiment.report()
    (script,) = [one["src"] for one in Page(html).named("script") if "src" in one]
    text = (experiment.folder / script).read_text()
    assert text.startswith('window.lookalikeCases = "')
    assert json.loads(zlib.decompress(base64.b64decode(text.split('"')[1]))) == whole
    sheets = re.findall(r"url\((.*?)\)", Page(html).style)
    assert sheets
    assert all((experiment.folder / sheet).read_bytes().startswith(b"RIFF") for sheet in sheets)
    assert "data:image" not in html
    assert "keep them together" in Page(html).words


def test_files_of_an_older_page_are_removed_and_others_stay(experiment: Experiment) -> None:
    experiment.limits = Limits(queries=2)
    experiment.report()
    before = {path.name for path in (experiment.folder / "cases").iterdir()}
    (experiment.folder / "cases/notes.txt").write_text("mine")
    experiment.queries["q-3"] = None
    experiment.report()
    after = {path.name for path in (experiment.folder / "cases").iterdir()}
    assert len(after) == len(before) + 1
    assert before & after == set()
    assert "notes.txt" in after


def test_scripts_are_joined_with_each_module_once_and_after_its_imports() -> None:
    script = page_scripts.bundle()
    modules = sorted(page_scripts.SCRIPTS.glob("*.js"))
    assert len(modules) > 5
    assert "import {" not in script
    assert "\nexport " not in script
    assert "</script" not in script
    assert script.count("function unpack(") == script.count("function startExplorer(") == 1
    assert script.index("function unpack(") < script.index("function startExplorer(")


def test_names_at_the_top_of_scripts_are_distinct_since_they_are_joined() -> None:
    names = re.findall(r"^(?:async )?(?:function|const|let|class) (\w+)", page_scripts.bundle(), re.MULTILINE)
    assert len(names) > 50
    assert [name for name, count in Counter(names).items() if count > 1] == []
