"""A report with a folder of cases beside it, opened from a disk."""

import shutil
from pathlib import Path

import pytest

from browser.conftest import Browser
from browser.pages import experiment
from browser.test_explorer import count
from lookalike.report.cases import Limits

LOADED = (
    "[...document.styleSheets[0].cssRules].filter((rule) => /^\\.s\\d+$/.test(rule.selectorText))"
    ".map((rule) => getComputedStyle(document.querySelector('.list .pic.s0')).backgroundImage)[0]"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More queries than the page may hold, in a folder whose name has a space."""
    folder = tmp_path_factory.mktemp("a folder")
    many = experiment(folder, queries=60, references=80, models=2)
    many.limits = Limits(queries=50)
    many.report()
    return folder / "index.html"


def test_the_page_reads_its_folder_and_nothing_else(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.run("window.lookalike.queries") == 60
    browser.driver.execute_script("document.querySelector('.filters [data-outcome=disagree]').click()")
    assert 0 < count(browser) < 60
    loaded = browser.driver.execute_async_script(
        "const done = arguments[0], image = new Image();"
        "image.onload = () => done(image.naturalWidth); image.onerror = () => done(0);"
        f"image.src = {LOADED}.slice(5, -2);"
    )
    assert loaded > 300
    console, requested = browser.logs()
    assert console == []
    assert {url.rpartition("/")[0] for url in requested} == {page.parent.as_uri(), (page.parent / "cases").as_uri()}
    assert any(url.endswith(".webp") for url in requested)


def test_a_page_without_its_folder_says_so_and_shows_some_queries(browser: Browser, page: Path, tmp_path: Path) -> None:
    alone = shutil.copy(page, tmp_path / "index.html")
    browser.driver.get(Path(alone).as_uri())
    browser.wait("document.querySelectorAll('#explorer .static .row').length === 40")
    assert browser.run("document.querySelector('#cases-missing').offsetHeight") > 20
    assert "Copy the folder along" in browser.run("document.querySelector('#cases-missing').textContent")
