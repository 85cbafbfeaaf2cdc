"""Chromium without a window, and the pages that the tests open in it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from browser.pages import experiment

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *(
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--force-device-scale-factor=1",
    ),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.browser)


class Browser:
    """A page in Chromium, what it logged, and what it requested."""

    def __init__(self, driver: "Chrome", downloads: Path) -> None:
        self.driver = driver
        self.downloads = downloads

    def open(self, page: Path, fragment: str = "", *, width: int = 1400, height: int = 900) -> None:
        """Load a page anew and wait for its explorer."""
        self.media()
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        self.driver.get("about:blank")
        self.logs()
        self.driver.get(page.as_uri() + fragment)
        self.wait("window.lookalike")

    def media(self, **features: str) -> None:
        """Emulate media features, or a medium: ``media(media="print")``."""
        medium = features.pop("media", "")
        pairs = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": medium, "features": pairs})

    def run(self, script: str, *arguments: object) -> Any:
        """The value of a JavaScript expression."""
        return self.driver.execute_script(f"return {script}", *arguments)

    def wait(self, condition: str) -> None:
        """Wait at most a minute until an expression is true."""
        found = self.driver.execute_async_script(
            "const done = arguments[0], end = Date.now() + 60000;"
            f"(function look() {{ if ({condition}) done(true); else if (Date.now() > end) done(false);"
            " else setTimeout(look, 20); })();"
        )
        assert found, f"not within a minute: {condition}"

    def press(self, keys: str) -> None:
        """Type keys where the focus is."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(keys).perform()

    def busy(self) -> float:
        """Processor seconds of the page's main thread since it was opened, however busy the machine is."""
        metrics = self.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        return float(next(entry["value"] for entry in metrics if entry["name"] == "TaskDuration"))

    def logs(self) -> tuple[list[str], list[str]]:
        """The console's warnings and errors, and what was requested from files or the network, since the last call."""
        console = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] != "INFO"]
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return console, [url for url in sent if not url.startswith(("data:", "blob:", "about:"))]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert chromium, "needs Chromium; on Debian: apt-get install chromium chromium-driver"
    assert driver, "needs the driver of Chromium; on Debian: apt-get install chromium-driver"
    downloads = tmp_path_factory.mktemp("downloads")
    options = Options()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options, Service(executable_path=driver))
    started.set_script_timeout(120)
    try:
        yield Browser(started, downloads)
    finally:
        started.quit()


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with captions, a showcase image, and a query that a model rejected."""
    folder = tmp_path_factory.mktemp("small")
    small = experiment(folder, queries=60, references=80, models=3, showcase=["showcase/laptop.jpg"])
    names = list(small.queries)
    small.rejected = {"model-1": {names[3]: "damaged: no end"}}
    small.captions = {name: f"Photograph {number}: a temple at the lake" for number, name in enumerate(names)}
    small.report()
    return folder / "index.html"


@pytest.fixture(scope="session")
def large_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,448 queries and six models, with maps."""
    folder = tmp_path_factory.mktemp("large")
    large = experiment(folder, queries=1448, references=1600, models=6)
    draw = np.random.default_rng(2)
    names = [*large.queries, *large.references]
    large.maps = {
        model: {
            name: (float(x), float(y)) for name, (x, y) in zip(names, draw.uniform(-1, 1, (len(names), 2)), strict=True)
        }
        for model in large.models
    }
    large.report()
    return folder / "index.html"
