"""The map in Chromium: it shows queries, filters the explorer, and can be used with a keyboard alone."""

from pathlib import Path

import numpy as np
import pytest

from browser.conftest import Browser
from browser.pages import experiment
from browser.test_explorer import SHOWN, count, shown

CANVAS = "document.querySelector('.map canvas')"
SAID = "document.querySelector('.map [role=status]').textContent"
PANEL = "[...document.querySelectorAll('.map-panel figcaption')].map((one) => one.textContent)"
CHIP = "document.querySelector('.filters .area')"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Queries on a circle, references on a smaller one, mirrored for the second model."""
    folder = tmp_path_factory.mktemp("map")
    small = experiment(folder, queries=60, references=80, models=2)
    angles = {name: 2 * np.pi * place / 60 for place, name in enumerate(small.queries)}
    circle = {name: (float(np.cos(angle)), float(np.sin(angle))) for name, angle in angles.items()}
    inner = {name: (x / 2, y / 2) for name, (x, y) in zip(small.references, circle.values(), strict=False)}
    small.maps = {
        "model-0": circle | inner,
        "model-1": {name: (-x, y * 0.9) for name, (x, y) in (circle | inner).items()},
    }
    first = next(query for query, found in small.queries.items() if found and small.found["model-1", query][0] != found)
    small.scenes = {("model-1", first): small.found["model-1", first][0]}
    small.report()
    return folder / "index.html"


def drag(browser: Browser, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag over the map between two places, as fractions of its size."""
    box = browser.run(
        f"(() => {{ {CANVAS}.scrollIntoView({{block: 'center', behavior: 'instant'}});"
        f" const box = {CANVAS}.getBoundingClientRect(); return [box.left, box.top, box.width, box.height]; }})()"
    )
    places = [(box[0] + x * box[2], box[1] + y * box[3]) for x, y in (start, end)]
    for kind, (x, y), buttons in (
        ("mousePressed", places[0], 1),
        ("mouseMoved", places[1], 1),
        ("mouseReleased", places[1], 0),
    ):
        browser.driver.execute_cdp_cmd(
            "Input.dispatchMouseEvent",
            {"type": kind, "x": x, "y": y, "button": "left", "buttons": buttons, "clickCount": 1},
        )


def colors(browser: Browser) -> int:
    """How many different colors the map has."""
    return int(
        browser.run(
            f"(() => {{ const one = {CANVAS}, copy = document.createElement('canvas');"
            " [copy.width, copy.height] = [one.width, one.height];"
            " const pen = copy.getContext('2d', {willReadFrequently: true}); pen.drawImage(one, 0, 0);"
            " return new Set(new Uint32Array(pen.getImageData(0, 0, one.width, one.height).data.buffer)).size; })()"
        )
    )


def test_the_map_is_drawn_in_light_and_dark_and_requests_nothing(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.wait(f"{CANVAS}.width > 300")
    assert colors(browser) > 20
    browser.media(prefers_color_scheme="dark")
    browser.wait("getComputedStyle(document.body).backgroundColor === 'rgb(19, 21, 25)'")
    assert colors(browser) > 20
    console, requested = browser.logs()
    assert (console, requested) == ([], [page.as_uri()])


def test_an_area_filters_the_list_is_counted_and_is_in_the_address(browser: Browser, page: Path) -> None:
    browser.open(page, height=1200)
    drag(browser, (0.01, 0.01), (0.5, 0.5))
    assert 10 < count(browser) < 20, "a quarter of the circle"
    assert f"({count(browser)})" in browser.run(f"{CHIP}.textContent")
    fragment = browser.run("location.hash")
    assert "area=" in fragment
    names = sorted(row["query_id"] for row in shown(browser))
    browser.open(page, fragment)
    assert sorted(row["query_id"] for row in shown(browser)) == names
    browser.driver.execute_script(f"{CHIP}.click()")
    assert browser.run(SHOWN) == "60 of 60 queries"
    assert browser.run(f"{CHIP}.hidden")
    assert "area=" not in browser.run("location.hash")


def test_pointing_at_a_query_shows_it_and_a_click_leads_to_its_card(browser: Browser, page: Path) -> None:
    browser.open(page, height=1200)
    drag(browser, (0.985, 0.5), (0.985, 0.5))  # a click at the right end of the circle, where the first query is
    assert browser.run(PANEL)[:2] == ["query", "true match"]
    assert browser.run(f"{SAID}").startswith("photo/copy-00000.jpg: ")
    assert browser.run("document.querySelector('.row.current .id').title") == "photo/copy-00000.jpg"
    assert "query=photo%2Fcopy-00000.jpg" in browser.run("location.hash")


def test_arrows_move_between_queries_and_space_chooses_an_area(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.driver.execute_script(f"{CANVAS}.focus()")
    browser.press("\ue014")
    first = browser.run(SAID)
    browser.press("\ue015\ue015\ue015")
    assert browser.run(SAID) != first
    browser.press(" \ue015\ue015 ")
    assert 2 <= count(browser) < 20
    assert "area=" in browser.run("location.hash")
    browser.press("\ue00c")
    assert browser.run(SHOWN) == "60 of 60 queries"
    browser.press("\ue007")
    assert browser.run("document.activeElement.classList.contains('row')")


def test_another_model_has_another_map_and_its_filter_is_about_that(browser: Browser, page: Path) -> None:
    browser.open(page, "#explorer?map=model-1&area=0-0-400-1000")
    of_second = {row["query_id"] for row in shown(browser)}
    assert browser.run("document.querySelector('.map select').value") == "model-1"
    assert "60 of 60 queries and 60 references" in browser.run("document.querySelector('.map-about').textContent")
    assert "Distances on the map are not scores" in browser.run("document.querySelector('.map-about').textContent")
    browser.driver.execute_script(
        "const one = document.querySelector('.map select');"
        "one.value = 'model-0'; one.dispatchEvent(new Event('change'))"
    )
    assert browser.run(SHOWN) == "60 of 60 queries", "places of one map say nothing on another"
    assert 0 < len(of_second) < 60


def test_the_filter_of_scenes_keeps_what_the_audit_saw_and_the_card_marks_it(browser: Browser, page: Path) -> None:
    browser.open(page, "#explorer?scene=1")
    assert count(browser) == 1
    assert browser.run("document.querySelectorAll('.list .row abbr').length") == 1
    assert "scene of a true match" in browser.run("document.querySelector('.list .row abbr').title")


def test_the_map_is_saved_as_svg(browser: Browser, page: Path) -> None:
    browser.open(page)
    text = browser.driver.execute_async_script(
        "const done = arguments[0], make = URL.createObjectURL; HTMLAnchorElement.prototype.click = () => {};"
        "URL.createObjectURL = (blob) => { URL.createObjectURL = make; blob.text().then(done); return 'about:blank'; };"
        "[...document.querySelectorAll('.map button')].find((one) => one.textContent === 'Save as SVG').click();"
    )
    assert text.startswith("<svg ")
    assert text.count("<circle") >= 120


@pytest.mark.parametrize("width", [1400, 390])
def test_the_map_fits_the_screen(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width=width, height=900)
    browser.wait(f"{CANVAS}.clientWidth > 250")
    assert browser.run("document.documentElement.scrollWidth") <= width
    edge = f"{CANVAS}.getBoundingClientRect().right"
    assert browser.run(edge) <= width


def test_only_what_is_on_the_map_is_explained_and_counted(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("alone")
    small = experiment(folder, queries=9, references=20, models=1)  # every tenth query has no match
    small.maps = {"model-0": {name: (float(place), float(place % 4)) for place, name in enumerate(small.queries)}}
    small.report()
    browser.open(folder / "index.html")
    assert "9 of 9 queries and no other images." in browser.run("document.querySelector('.map-about').textContent")
    key = browser.run("[...document.querySelectorAll('.map-key li')].map((one) => one.textContent)")
    assert "query without a match" not in key
    assert {"miss", "right"} <= set(key)
