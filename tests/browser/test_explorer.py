"""The report in Chromium, opened from a file as a reader does: every promise of its explorer."""

import base64
import csv
import io
import re
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from browser.conftest import Browser
from browser.pages import experiment

Keeps = Callable[[dict[str, str]], bool]
SHOWN = "document.querySelector('.showing').textContent"
IDS = "[...document.querySelectorAll('.list .row .id')].map((one) => one.title)"
VISIBLE = "[...document.querySelectorAll('.list .page:not([hidden]) .row')]"


def field(label: str) -> str:
    """A filter by its label."""
    return (
        "[...document.querySelectorAll('.filters label')].find((one) => one.textContent.trim().startsWith("
        f"{label!r})).querySelector('select, input')"
    )


def choose(browser: Browser, label: str, value: str) -> None:
    event = "input" if label.startswith(("Search", "Margin")) else "change"
    browser.driver.execute_script(
        f"const one = {field(label)}; if (one.type === 'checkbox') one.checked = true; else one.value = arguments[0];"
        f"one.dispatchEvent(new Event('{event}', {{bubbles: true}}));",
        value,
    )


def count(browser: Browser) -> int:
    return int(re.match(r"[\d,]+|None", browser.run(SHOWN))[0].replace(",", "").replace("None", "0"))  # type: ignore[index]


def shown(browser: Browser) -> list[dict[str, str]]:
    """The rows of the list as CSV, caught before Chromium asks whether the page may download several files."""
    text = browser.driver.execute_async_script(
        "const done = arguments[0], make = URL.createObjectURL; HTMLAnchorElement.prototype.click = () => {};"
        "URL.createObjectURL = (blob) => { URL.createObjectURL = make; blob.text().then(done); return 'about:blank'; };"
        "document.querySelector('.csv').click();"
    )
    return list(csv.DictReader(io.StringIO(text)))


def missed(row: dict[str, str], model: int) -> bool:
    """Whether a model's first neighbor is wrong."""
    return row[f"model-{model}.rank"] != "1" and bool(row[f"model-{model}.first"])


def test_the_page_logs_no_error_and_requests_nothing(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.driver.execute_script(
        "document.querySelector('.show-all').click(); scrollTo(0, document.body.scrollHeight)"
    )
    browser.wait("document.querySelectorAll('.list .row').length > 12")
    console, requested = browser.logs()
    assert console == []
    assert requested == [page.as_uri()]


def test_the_filtered_list_is_downloaded_as_csv(browser: Browser, page: Path) -> None:
    browser.open(page, "#explorer?kind=crop")
    browser.driver.find_element("css selector", ".csv").click()
    end = time.monotonic() + 60
    while not (files := list(browser.downloads.glob("*.csv"))):
        assert time.monotonic() < end, "no download"
        time.sleep(0.05)
    assert files[0].name == "trial-queries.csv"
    rows = list(csv.DictReader(io.StringIO(files[0].read_text(encoding="utf-8"))))
    assert len(rows) == count(browser) > 0
    assert {row["operations"] for row in rows} == {"lightly cropped"}
    assert rows == shown(browser)


def test_all_queries_can_be_reached(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.run("window.lookalike.queries") == 60
    assert browser.run(SHOWN) == "61 of 61 queries and showcase images"
    names = [row["query_id"] for row in shown(browser)]
    assert len(names) == len(set(names)) == 61
    for name in names[::20]:
        browser.open(page, f"#explorer?query={quote(name)}")
        assert browser.run("document.querySelector('.row.current .id').title") == name
        assert browser.run("document.activeElement.classList.contains('row')")


def test_showcase_images_come_first_then_the_most_confident_mistakes(browser: Browser, page: Path) -> None:
    browser.open(page)
    rows = shown(browser)
    assert rows[0]["outcome"] == "showcase"
    assert rows[0]["query_id"] == browser.run(f"{IDS}[0]") == "showcase/laptop.jpg"
    mistaken = [any(missed(row, n) for n in range(3)) for row in rows[1:]]
    assert mistaken == sorted(mistaken, reverse=True)
    assert rows[-1]["outcome"] == "right"


@pytest.mark.parametrize(
    ("label", "value", "keeps"),
    [
        ("Search", "COPY-0001", lambda row: "copy-0001" in row["query_id"]),
        ("Search", "mirrored", lambda row: row["operations"] == "mirrored"),
        ("Search", "LAKE 7:", lambda row: "7:" in row["caption"]),
        ("Operation", "crop", lambda row: row["operations"] == "lightly cropped"),
        ("Operation", "chain", lambda row: ", then " in row["operations"]),
        ("camera", "phone", lambda row: row["by_camera"] == "phone"),
        ("Model A", "model-0", lambda row: row["model-0.verdict"] == "right"),
        ("and model B", "model-2", lambda row: row["outcome"] in ("wrong", "disagree") and row["model-2.rank"] != "1"),
        ("Rank of", "1", lambda row: any(row[f"model-{n}.rank"] == "1" for n in range(3))),
        ("Rank of", "2-3", lambda row: any(row[f"model-{n}.rank"] in ("2", "3") for n in range(3))),
        (
            "Rank of",
            "beyond",
            lambda row: any(row[f"model-{n}.verdict"] == "wrong" and not row[f"model-{n}.rank"] for n in range(3)),
        ),
        ("Rejected", "", lambda row: row["model-1.verdict"] == "rejected"),
        (
            "Wrong above",
            "",
            lambda row: any(
                row["outcome"] != "showcase" and missed(row, n) and float(row[f"model-{n}.score"] or 0) >= 0.8126
                for n in range(3)
            ),
        ),
    ],
)
def test_filters_keep_exactly_what_they_name(
    browser: Browser, page: Path, label: str, value: str, keeps: Keeps
) -> None:
    browser.open(page)
    expected = {row["query_id"] for row in shown(browser) if keeps(row)}
    assert 0 < len(expected) < 61
    choose(browser, label, value)
    assert {row["query_id"] for row in shown(browser)} == expected
    assert count(browser) == len(expected)
    address = browser.run("location.hash")
    assert address.startswith("#explorer?")
    browser.open(page, address)
    assert count(browser) == len(expected), "the address brings the filter back"
    browser.driver.execute_script("document.querySelector('.clear').click()")
    assert count(browser) == 61


def test_a_right_and_b_wrong_and_each_models_outcome_agree(browser: Browser, page: Path) -> None:
    browser.open(page, "#explorer?a=model-0&b=model-1")
    pair = {row["query_id"] for row in shown(browser)}
    assert pair
    browser.open(page, "#explorer?is.model-0=right&is.model-1=wrong")
    assert {row["query_id"] for row in shown(browser)} == pair


def test_a_small_margin_is_a_close_call_of_the_model(browser: Browser, page: Path) -> None:
    browser.open(page)
    counts = []
    for most in ("1", "0.2", "0.05"):
        choose(browser, "Margin", most)
        counts.append(count(browser))
    assert counts == sorted(counts, reverse=True)
    assert 0 < counts[-1] < counts[0]
    choose(browser, "Model", "model-0")
    assert count(browser) <= counts[-1]


def test_outcome_buttons_count_all_queries_whatever_is_filtered(browser: Browser, page: Path) -> None:
    browser.open(page)
    labels = "[...document.querySelectorAll('.filters [data-outcome]')].map((one) => one.textContent)"
    before = browser.run(labels)
    choose(browser, "Search", "mirrored")
    assert browser.run(labels) == before
    browser.driver.execute_script("document.querySelector('.filters [data-outcome=none]').click()")
    assert {row["outcome"] for row in shown(browser)} == {"none"}
    assert browser.run("document.querySelector('.filters [data-outcome=none]').getAttribute('aria-pressed')") == "true"


@pytest.mark.parametrize("sort", ["close", "misses", "id"])
def test_every_order_lists_the_same_queries(browser: Browser, page: Path, sort: str) -> None:
    browser.open(page)
    default = [row["query_id"] for row in shown(browser)]
    choose(browser, "Sort", sort)
    rows = shown(browser)
    names = [row["query_id"] for row in rows]
    assert names != default
    assert sorted(names) == sorted(default)
    if sort == "id":
        assert names[1:] == sorted(names[1:])
    if sort == "misses":
        wrong = [sum(missed(row, n) for n in range(3)) for row in rows[1:]]
        assert wrong == sorted(wrong, reverse=True)


def test_keys_move_select_models_and_enlarge(browser: Browser, page: Path) -> None:
    browser.open(page)
    current = "document.querySelector('.row.current .id')?.title ?? null"
    order = [row["query_id"] for row in shown(browser)]
    browser.press("jjj")
    assert browser.run(current) == order[2]
    browser.press("k")
    assert browser.run(current) == order[1]
    browser.press("d")
    assert browser.run("document.querySelector('.row.current').dataset.outcome") == "disagree"
    for _ in range(15):
        browser.press("j")
    assert browser.run(current) == order[order.index(browser.run(current))]
    assert order.index(browser.run(current)) >= 16, "the list grows as one moves on"
    browser.press("2")
    assert browser.run(f"{field('Model')}.value || ''") is not None
    assert "model=model-1" in browser.run("location.hash")
    browser.press("2")
    assert "model=" not in browser.run("location.hash")
    browser.press("/")
    assert browser.run("document.activeElement.id") == "explorer-search"
    browser.press("j\ue00c")  # a letter in the search field is text; Escape leaves the field
    assert browser.run("document.querySelector('#explorer-search').value") in ("j", "")
    browser.press("?")
    assert browser.run("document.querySelector('dialog.help').open")


def test_enlarging_shows_query_and_neighbor_and_flickers(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.press("jj\ue007")
    stage = "document.querySelector('.enlarge .stage')"
    assert browser.run("document.querySelector('dialog.enlarge').open")
    assert browser.run(f"{stage}.querySelectorAll('figure .pic.huge').length") == 2
    title, note = (
        browser.run(f"document.querySelector('.enlarge {part}').textContent") for part in ("h3", "[role=status]")
    )
    browser.press("\ue014")  # right
    assert browser.run("document.querySelector('.enlarge [role=status]').textContent") != note
    browser.press("2")
    assert browser.run("document.querySelector('.enlarge h3').textContent") != title
    browser.press("f")
    browser.wait(f"{stage}.classList.contains('second')")
    browser.wait(f"!{stage}.classList.contains('second')")
    visible = f"[...{stage}.children].filter((one) => getComputedStyle(one).visibility === 'visible').length"
    assert browser.run(visible) == 1
    browser.press("\ue00c")
    assert not browser.run("document.querySelector('dialog.enlarge').open")


def test_a_click_on_a_neighbor_enlarges_that_one(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.driver.execute_script("document.querySelectorAll('.list .row')[1].querySelectorAll('.hit')[2].click()")
    assert browser.run("document.querySelector('.enlarge [role=status]').textContent").startswith("Neighbor 3 of 5")


def test_captions_are_on_the_cards(browser: Browser, page: Path) -> None:
    browser.open(page, "#explorer?query=photo/copy-00007.jpg")
    assert (
        browser.run("document.querySelector('.row.current .caption').textContent")
        == "Photograph 7: a temple at the lake"
    )


def test_thumbnails_are_drawn(browser: Browser, page: Path) -> None:
    browser.open(page)
    boxes = browser.run(
        "[...document.querySelectorAll('.list .page:first-child .pic:not(.broken)')].map((one) =>"
        " [one.clientWidth, one.clientHeight, getComputedStyle(one).backgroundImage.slice(0, 20)])"
    )
    assert len(boxes) > 50
    assert all(width > 30 and height > 30 and "data:image" in image for width, height, image in boxes)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_the_page_without_sideways_scrolling_or_broken_words(
    browser: Browser, page: Path, scheme: str
) -> None:
    browser.open(page, width=390, height=844)
    browser.media(prefers_color_scheme=scheme)
    browser.driver.execute_script("document.querySelector('.more').open = true")
    assert browser.run("document.documentElement.scrollWidth") <= 390
    wide = browser.run(
        "[...document.querySelectorAll('#explorer *')].filter((one) => one.getBoundingClientRect().right > 391"
        " && !one.closest('.sr')).map((one) => one.className)"
    )
    assert wide == []
    broken = browser.run(
        "[...document.querySelectorAll('.filters button, .filters label > span, .badge, .strip-head bdi, summary')]"
        ".filter((one) => one.offsetParent && getComputedStyle(one).wordBreak !== 'normal').length"
    )
    assert broken == 0
    dark = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (dark == "rgb(19, 21, 25)") == (scheme == "dark")


def test_names_of_models_keep_their_case_in_the_filters(browser: Browser, page: Path) -> None:
    browser.open(page)
    style = "getComputedStyle(document.querySelector('.filters {} label > span'), '::first-letter').textTransform"
    assert browser.run(style.format(".each")) == "none"
    assert browser.run(style.format("")) == "uppercase"


def test_paper_shows_twelve_cases(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.driver.execute_script("document.querySelector('.show-all').click()")
    browser.media(media="print")
    assert browser.run("[...document.querySelectorAll('.list .row')].filter((one) => one.offsetHeight).length") == 12
    assert not browser.run("document.querySelector('.filters').offsetHeight")
    assert browser.run("document.querySelector('.list .row .pic.large').clientWidth") > 40
    overlap = browser.run(
        "[...document.querySelectorAll('.list .row .right')].filter((hit) => hit.offsetParent).map((hit) => {"
        " const range = new Range(),"
        " pic = hit.querySelector('.pic'), style = getComputedStyle(pic), score = hit.querySelector('small').lastChild;"
        " range.selectNode(score); return range.getBoundingClientRect().top - pic.getBoundingClientRect().bottom"
        " - parseFloat(style.outlineWidth) - parseFloat(style.outlineOffset); })"
    )
    assert overlap, "queries have true matches among the neighbors"
    assert min(overlap) >= 0, "the outline of a true match leaves its score readable"
    printed = browser.driver.execute_cdp_cmd("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69})
    assert base64.b64decode(printed["data"]).startswith(b"%PDF")


def test_without_scripts_forty_cases_remain(browser: Browser, page: Path) -> None:
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.driver.get(page.as_uri())
        rows = browser.driver.find_elements("css selector", "#explorer .static .row")
        assert len(rows) == 41  # with the showcase image
        assert rows[-1].rect["height"] > 100
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_a_browser_that_cannot_unpack_the_data_shows_what_pages_without_scripts_show(
    browser: Browser, page: Path
) -> None:
    source = {"source": "delete window.DecompressionStream"}
    added = browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", source)
    try:
        browser.driver.get(page.as_uri())
        browser.wait("document.querySelectorAll('#explorer .static .row').length === 41")
        assert browser.run("document.querySelector('#explorer .static .row').offsetHeight") > 100
    finally:
        browser.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_a_page_without_pixels_has_the_same_queries(browser: Browser, tmp_path: Path) -> None:
    blank = experiment(tmp_path, queries=20, references=20, models=2)
    blank.settings = {"images": False}
    blank.report()
    browser.open(tmp_path / "index.html", "#explorer?")
    assert browser.run("window.lookalike.queries") == 20
    assert browser.run("document.querySelector('.list .row .pic').textContent").startswith("photo/copy-")
    assert "data:image" not in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert browser.logs()[0] == []


def test_screen_readers_hear_what_is_shown(browser: Browser, page: Path) -> None:
    browser.open(page)
    unnamed = browser.run(
        "[...document.querySelectorAll('.list .pic, #explorer :is(button, select, input)')]"
        ".filter((one) => !one.hidden &&"
        " !(one.getAttribute('aria-label') || one.textContent.trim() || one.closest('label')"
        " || one.querySelector('[aria-label]'))).length"
    )
    assert unnamed == 0
    assert browser.run("document.querySelector('.showing').getAttribute('role')") == "status"
    names = browser.run("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(names) == len(set(names))


def test_1448_queries_and_six_models_are_small_and_fast(browser: Browser, large_page: Path) -> None:
    assert large_page.stat().st_size < 5_000_000
    browser.driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    browser.open(large_page)
    assert browser.run("window.lookalike.queries") == 1448
    browser.driver.execute_script("document.querySelector('.filters [data-outcome=disagree]').click()")
    assert 0 < count(browser) < 1448
    assert browser.busy() < 0.5
    assert browser.run("document.querySelectorAll('.list .row').length") <= 24


def test_a_long_list_keeps_few_cards_in_the_document(browser: Browser, large_page: Path) -> None:
    browser.open(large_page)
    browser.driver.execute_script("document.querySelector('.show-all').click()")
    for part in (0.2, 0.5, 0.9):
        browser.driver.execute_script(
            "const list = document.querySelector('.list');"
            f"scrollTo({{top: list.offsetTop + list.offsetHeight * {part}, behavior: 'instant'}})"
        )
        browser.wait(
            "[...document.querySelectorAll('.list .row')].some((one) => { const box = one.getBoundingClientRect();"
            " return box.bottom > 0 && box.top < innerHeight; })"
        )
        browser.wait("document.querySelectorAll('.list .row').length < 150")
    assert browser.logs()[0] == []
