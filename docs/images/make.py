"""Take the images of the docs from a finished demo: head, explorer and map, on a screen and on a phone.

    python docs/images/make.py                # reads results/reports/demo/index.html, writes docs/images/*.webp

Needs Chromium and its driver, and the extra `browser`. Fonts are those of the machine that it runs on.
"""

import argparse
import base64
import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

FOLDER = Path(__file__).parent
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)
SCREENS = {"": (1400, 900), "-phone": (390, 844)}
# What is done on the page before each image is taken, which begins where the page is scrolled to.
STEPS = {
    "report": "scrollTo({top: 0, behavior: 'instant'});",
    "explorer": "show(document.querySelector('.filters'));",
    "map": """
        const canvas = document.querySelector('.map canvas');
        show(canvas.closest('.map'));
        canvas.focus({preventScroll: true});
        const keys = ['ArrowRight', 'ArrowRight', 'ArrowDown', 'ArrowRight', 'ArrowUp'];
        const missed = () => document.querySelector('.map-panel').textContent.includes('found first');
        for (let at = 0; at < 100 && !missed(); at++)  // to a miss
            canvas.dispatchEvent(new KeyboardEvent('keydown', {key: keys[at % keys.length], bubbles: true}));
        canvas.blur();
    """,
}
PREPARE = """
    document.documentElement.style.scrollBehavior = 'auto';
    const bar = document.querySelector('.filters');
    const top = (place) => place.getBoundingClientRect().top + scrollY - above(place);
    const show = (place) => scrollTo({top: top(place), behavior: 'instant'});
    const above = (place) => place === bar || getComputedStyle(bar).position !== 'sticky' ? 0 : bar.offsetHeight;
    if (%r === 'explorer') document.querySelector('.map').open = false;
"""
READY = """
    const done = arguments[0], end = Date.now() + 60000;
    (function look() {
        if (window.lookalike || Date.now() > end) done(Boolean(window.lookalike));
        else setTimeout(look, 50);
    })();
"""
DRAWN = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done(true)));"


def main() -> None:
    """Write an image for each of STEPS and each screen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("page", nargs="?", type=Path, default=Path("results/reports/demo/index.html"))
    parser.add_argument("--out", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    if not arguments.page.exists():
        sys.exit(f"{arguments.page}: is missing. Make it with: snakemake --cores 2 demo")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        sys.exit("Chromium or its driver is missing. On Debian: apt-get install chromium chromium-driver")
    options = Options()
    options.binary_location = chromium
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        browser = webdriver.Chrome(options, Service(executable_path=driver))
        try:
            for name, step in STEPS.items():
                for end, screen in SCREENS.items():
                    path = arguments.out / f"{name}{end}.webp"
                    take(browser, arguments.page, PREPARE % name + step, *screen).save(
                        path, "WEBP", quality=82, method=6
                    )
                    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
        finally:
            browser.quit()


def take(browser: webdriver.Chrome, page: Path, script: str, width: int, height: int) -> Image.Image:
    """The page after a script, as much of it as a screen shows."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get("about:blank")
    browser.get(page.resolve().as_uri())
    if not browser.execute_async_script(READY):
        sys.exit(f"{page}: its explorer does not start in this browser.")
    browser.execute_script(script)
    browser.execute_async_script(DRAWN)
    taken = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
    return Image.open(io.BytesIO(base64.b64decode(taken))).convert("RGB")


if __name__ == "__main__":
    main()
