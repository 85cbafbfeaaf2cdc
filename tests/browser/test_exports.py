"""Charts and tables are saved by the page itself, without any other program."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from browser.conftest import Browser

SAVED = """
const done = arguments[0], kind = %r, made = [];
const make = URL.createObjectURL; HTMLAnchorElement.prototype.click = function () { names.push(this.download); };
const names = []; document.querySelectorAll('details').forEach((one) => { one.open = true; });
URL.createObjectURL = (blob) => { made.push(blob.text()); return 'about:blank'; };
for (const one of document.querySelectorAll('.save button'))
  if (one.offsetParent && one.textContent === kind) one.click();
URL.createObjectURL = make;
Promise.all(made).then((texts) => done(texts.map((text, at) => [names[at], text])));
"""


def saved(browser: Browser, kind: str) -> list[Any]:
    return list(browser.driver.execute_async_script(SAVED % kind))


def test_every_chart_is_saved_as_an_svg_that_needs_no_style_sheet(browser: Browser, page: Path) -> None:
    browser.open(page)
    charts = saved(browser, "SVG")
    assert len(charts) >= 3
    assert len({name for name, _ in charts}) == len(charts)
    for name, text in charts:
        root = ElementTree.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg", name
        assert float(root.get("width", "0")) > 100, name
        assert "class=" not in text.partition("</defs>")[2], name
        assert "var(" not in text, name
    drawn = charts[0][1]
    assert "Model 1 of 3" in drawn
    assert drawn.count("<use") >= 3


def test_every_table_is_saved_as_csv_and_latex(browser: Browser, page: Path) -> None:
    browser.open(page)
    tables, tex = saved(browser, "CSV"), saved(browser, "LaTeX")
    assert len(tables) == len(tex) > 3
    shown = "[...document.querySelectorAll('main table')].filter((one) => one.offsetParent && !one.closest('noscript'))"
    assert browser.run(f"{shown}.length") == len(tables)
    for _, text in tables:
        assert len({line.count(",") for line in text.splitlines() if '"' not in line}) <= 1
    for _, text in tex:
        assert text.count("\\begin{tabular}") == text.count("\\end{tabular}") == 1
    assert any("Model 1 of 3" in text for _, text in tables)
    assert browser.logs()[0] == []
