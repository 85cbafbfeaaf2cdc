"""`benchmarks/calibration.py` writes the tables of docs/calibration.md, and those keep the promise above them."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from conftest import REPOSITORY
from lookalike.report.figures import optimism

PAGE = (REPOSITORY / "docs" / "calibration.md").read_text(encoding="utf-8")
NOISE = 1.0  # percentage points: the worst of many cells is worse than their truth by about this much


@pytest.fixture
def calibration(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("calibration", REPOSITORY / "benchmarks" / "calibration.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "calibration", module)  # dataclasses look it up there
    spec.loader.exec_module(module)
    return module


def rows(heading: str) -> list[list[str]]:
    """The rows of the table below a bold heading, without its first column."""
    _, _, below = PAGE.partition(f"**{heading}")
    table = re.search(r"^\| ---.*\n((?:\|.*\n)+)", below, re.MULTILINE)
    assert table, heading
    return [[cell.strip() for cell in line.strip("|\n").split("|")][1:] for line in table[1].splitlines()]


@pytest.mark.parametrize("which", ["strict metrics", "metrics with `_scene`"])
def test_every_interval_covers_at_least_93_percent(which: str) -> None:
    cells = [
        float(number) for row in rows(f"Coverage of 95 % intervals, {which}") for cell in row for number in both(cell)
    ]
    assert len(cells) == 13 * 4 * 2
    assert min(cells) >= 93 - NOISE


def both(cell: str) -> tuple[float, float]:
    """The two numbers of a cell, such as strict and ``_scene``."""
    first, second = (float(number) for number in cell.split(" (", maxsplit=1)[0].split(" / "))
    return first, second


def test_at_most_6_percent_of_reports_on_equal_models_name_a_winner() -> None:
    found = rows("False verdicts")
    assert len(found) == 13
    assert max(float(row[4]) for row in found) <= 6  # all together
    assert max(number for row in found for number in both(row[5])) <= 5 + NOISE  # thresholds
    assert {number for cell in found[0][:4] for number in both(cell)} == {0}  # five groups: too few groups


def test_the_report_says_how_optimistic_pooled_metrics_are_in_small_samples() -> None:
    sizes = [
        int(number)
        for number in re.findall(r"^\| (\d+) (?:x|independent)", PAGE.partition("**Bias**")[2], re.MULTILINE)
    ]
    measured = [tuple(max(both(cell)) for cell in row[2:]) for row in rows("Bias")]  # recall at P90, uAP
    assert len(sizes) == len(measured) == 13
    for groups, biases in zip(sizes, measured, strict=True):
        for bias, said in zip(biases, optimism(groups), strict=True):
            assert bias <= said + 0.5, f"{groups} groups"
    assert [optimism(groups) for groups in (30, 50, 150, 600)] == [
        tuple(round(bias) for bias in biases) for biases in measured[-4:]
    ]


def test_the_command_replaces_the_tables_of_a_page(
    calibration: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "SIZES", ((6, 3), (20, 1)))
    monkeypatch.setattr(calibration, "POPULATIONS", calibration.POPULATIONS[:1])
    monkeypatch.setattr(calibration, "TRUTH_GROUPS", 2000)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{calibration.START}\nOUTDATED\n{calibration.END}\nafter\n")
    monkeypatch.setattr(sys, "argv", ["calibration", "--samples", "3", "--processes", "1", "--write", str(page)])
    calibration.main()
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith(f"{calibration.END}\nafter\n")
    assert "OUTDATED" not in text
    assert len(re.findall(r"^\| 6 x 3 \|", text, re.MULTILINE)) == 4
    assert len(re.findall(r"^\| 20 independent \|", text, re.MULTILINE)) == 4


def test_four_models_of_a_population_are_equal_and_share_what_is_hard(calibration: ModuleType) -> None:
    import numpy as np

    sample = calibration.draw(calibration.POPULATIONS[0], 4000, 2, 4, np.random.default_rng(0))
    outcomes = np.array([sample.outcomes(model, 1) for model in range(4)])
    assert np.ptp(outcomes.mean(axis=1)) < 0.02
    assert np.corrcoef(outcomes)[0, 1] > 0.2
