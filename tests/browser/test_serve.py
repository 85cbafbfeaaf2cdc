"""The page of `lookalike serve`: drop an image in, and its neighbors appear."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from browser.conftest import Browser
from conftest import made_image
from lookalike.cli.server import application
from unit.test_cli import run_experiment
from unit.test_serve import served


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A running server of a small experiment."""
    run_experiment(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results/reports/mine").mkdir(parents=True)
    (tmp_path / "results/reports/mine/index.html").write_text("<!doctype html><title>Report</title><p>the report")
    server = uvicorn.Server(uvicorn.Config(application(served(tmp_path)), log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        server.should_exit = True
        thread.join(60)


def test_a_chosen_image_finds_its_neighbors(browser: Browser, address: str, tmp_path: Path) -> None:
    made_image(5).save(tmp_path / "query.png")
    browser.driver.get(address)
    browser.wait("document.body.dataset.ready")
    assert browser.run("document.getElementById('status').textContent") == "8 images can be found."
    browser.driver.find_element("id", "file").send_keys(str(tmp_path / "query.png"))
    browser.wait("document.querySelectorAll('#found li').length === 5")
    assert browser.run("document.querySelector('#found figcaption').textContent") == "1. p5.png (1.0000)"
    browser.wait("[...document.querySelectorAll('img')].every((image) => image.naturalWidth > 0)")
    (tmp_path / "broken.png").write_bytes(b"no image")
    browser.driver.find_element("id", "file").send_keys(str(tmp_path / "broken.png"))
    browser.wait("document.getElementById('status').textContent.includes('is text, not an image')")
    assert browser.run("document.querySelectorAll('#found li').length") == 0
    browser.driver.find_element("link text", "Report and explorer").click()
    browser.wait("document.title === 'Report'")
    problems = [line["message"] for line in browser.driver.get_log("browser") if "favicon" not in line["message"]]
    assert [line for line in problems if "422" not in line and "ERR_INVALID" not in line] == []


def test_another_page_of_the_browser_can_read_nothing(browser: Browser, address: str, tmp_path: Path) -> None:
    other = tmp_path / "other.html"
    other.write_text("<!doctype html><title>Other</title>")
    browser.driver.get(other.as_uri())
    outcome = browser.driver.execute_async_script(
        "const [address, done] = arguments, image = new Image();"
        "const sent = [['facts', 'GET'], ['search', 'POST']].map(([path, method]) =>"
        " fetch(address + path, {method}).then(() => 'read', () => 'refused'));"
        "const shown = new Promise((tell) => {"
        " image.onload = () => tell('read'); image.onerror = () => tell('refused');"
        " image.src = address + 'image/0'; });"
        "Promise.all([...sent, shown]).then(done);",
        address,
    )
    assert outcome == ["refused"] * 3
