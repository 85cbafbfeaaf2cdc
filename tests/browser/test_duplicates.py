"""The page of duplicates works from a disk, alone: ticks, the download, no request, narrow and dark."""

import csv
import io
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from browser.conftest import Browser
from lookalike.cli.main import app
from unit.test_duplicates_command import photograph

SAVED = """
const done = arguments[0];
const make = URL.createObjectURL;
HTMLAnchorElement.prototype.click = function () { window.saved = this.download; };
URL.createObjectURL = (blob) => { blob.text().then(done); return 'about:blank'; };
document.querySelector('#download').click();
URL.createObjectURL = make;
"""
ODD = "<b>odd & \"name\", 'ü'.jpg"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a folder")
    photos = folder / "photos"
    photos.mkdir()
    for number in range(3):
        image = photograph(number)
        image.save(photos / f"{number}.png")
        image.save(photos / f"{number}.jpg", quality=80)
    photograph(0).resize((200, 150), Image.Resampling.LANCZOS).save(photos / ODD, "JPEG")
    out = folder / "found"
    ran = CliRunner().invoke(app, ["duplicates", str(photos), "--model", "phash-256", "--out", str(out)])
    assert ran.exit_code == 0, ran.output
    return out / "index.html"


def test_ticks_decide_what_keep_csv_says(browser: Browser, page: Path) -> None:
    browser.driver.get("about:blank")
    browser.logs()
    browser.driver.get(page.as_uri())
    assert browser.run("document.querySelectorAll('section').length") == 3
    assert browser.run("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    assert "3 to keep, 4 others" in browser.run("document.querySelector('#state').textContent")
    assert browser.run("document.querySelectorAll('main b').length") == 0  # names are text
    browser.driver.execute_script("document.querySelectorAll('input')[1].click()")
    assert "4 to keep, 3 others" in browser.run("document.querySelector('#state').textContent")
    rows = list(csv.DictReader(io.StringIO(browser.driver.execute_async_script(SAVED), newline="")))
    written = list(csv.DictReader(io.StringIO((page.parent / "keep.csv").read_bytes().decode(), newline="")))
    assert browser.run("window.saved") == "keep.csv"
    assert [row["keep"] for row in written] != [row["keep"] for row in rows]
    assert [row["image"] for row in written] == [row["image"] for row in rows]
    assert any(row["image"].endswith(ODD) for row in rows)
    assert sum(row["keep"] == "yes" for row in rows) == 4
    console, requested = browser.logs()
    assert console == []
    assert requested == [page.as_uri()]


def test_a_phone_and_a_dark_screen_show_all_of_it(browser: Browser, page: Path) -> None:
    browser.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    )
    browser.media(prefers_color_scheme="dark")
    browser.driver.get(page.as_uri())
    assert browser.run("document.documentElement.scrollWidth") <= 360
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(19, 21, 25)"
    browser.media()
