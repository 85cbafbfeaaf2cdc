"""The pages of real runs in Chromium: the demo, a phone folder, and a data set that has captions only."""

import json
import os
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

import phone_folder
import published
from browser.conftest import Browser
from browser.test_head import BROKEN, SIZES, choose, visible
from conftest import REPOSITORY
from workflow.conftest import REPORTS, Tree, keep_report

DATASETS = {"demo": "photo-tiles-copies", "phone": "phone", "scenes": "my-flickr30k"}
NEEDS = ("someone_looks", "acts_alone")


def make(folder: Path) -> None:
    """Run what no other test has run before."""
    tree = Tree.new(Path(tempfile.mkdtemp(dir=folder)) / "tree", {})
    published.flickr30k(tree.folder / "data/flickr30k", zipped=True)
    phone = {**phone_folder.make(tree.folder / "photos", scenes=12).entry(), "k": 5}
    tree.configure(
        {
            "datasets": {
                "phone": phone,
                "my-flickr30k": {"kind": "flickr30k", "root": "data/flickr30k", "sample": 10, "k": 5},
            },
            "experiments": {
                "phone": {"dataset": "phone", "models": ["efficientnet-lite0", "pixels"]},
                "scenes": {"dataset": "my-flickr30k", "models": ["color-histogram"]},
            },
        }
    )
    experiments = [name for name in DATASETS if not (folder / name).exists()]
    tree.run(*experiments, options=("--cores", "2"))
    for name in experiments:
        keep_report(tree, name, DATASETS[name], folder)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ.get(REPORTS) or tmp_path_factory.mktemp("reports"))
    if not all((folder / name).exists() for name in DATASETS):
        make(folder)
    return folder


@pytest.fixture(params=DATASETS)
def report(request: pytest.FixtureRequest, reports: Path) -> Path:
    return reports / str(request.param)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_opens_without_a_request_and_every_query_can_be_reached(
    browser: Browser, report: Path, size: str, scheme: str
) -> None:
    width, height = SIZES[size]
    browser.media(prefers_color_scheme=scheme)
    browser.open(report / "index.html", width=width, height=height)
    console, requested = browser.logs()
    assert console == []
    assert requested == [(report / "index.html").as_uri()]
    images = pq.read_table(report / "images.parquet").to_pylist()
    shown = [image for image in images if image["query"] or image.get("showcase")]
    assert browser.run("window.lookalike.queries") == len({image["image_id"] for image in shown})
    assert browser.run("document.documentElement.scrollWidth") <= width


def test_no_word_is_broken_on_paper(browser: Browser, report: Path) -> None:
    browser.open(report / "index.html", width=703)  # A4 without its margins
    browser.media(media="print")
    assert browser.run(BROKEN) == []
    assert browser.run("document.documentElement.scrollWidth") <= 703


def test_headline_and_star_agree_with_the_comparisons(browser: Browser, report: Path) -> None:
    compared = json.loads((report / "comparisons.json").read_text())
    browser.open(report / "index.html")
    labels = yaml.safe_load((REPOSITORY / "config.yaml").read_text())["models"]
    answers = compared["answers"]
    assert answers
    offered = [need for need in NEEDS if need in answers]  # captions have no threshold to act by
    for need in offered:
        if len(offered) > 1:  # a single answer needs no switch
            choose(browser, need)
        best = labels[answers[need]["best"][0]]["label"]
        assert best in visible(browser, ".answer")[0]
        assert visible(browser, "#use .card > h3 bdi") == [best]
        assert all(best in row for row in visible(browser, ".bar-row") if "★" in row)
