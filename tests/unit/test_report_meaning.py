"""The report's sections on semantic agreement and on what each model relies on."""

import html
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from lookalike.compare.compare import CompareJob, compare
from lookalike.io import store
from lookalike.io.formats.records import Duplicates
from lookalike.io.formats.tables import IMAGES, INDEX_IMAGES, TRUTH
from lookalike.measure.measure import MeasureJob, measure
from lookalike.metrics.evaluation import Results
from lookalike.report.evidence import ReportJob
from lookalike.report.report import write_report
from tables import MADE, images_table, seen_table, truth_table, write_search

NAMES = [f"p{number:02d}" for number in range(40)]
KINDS = {"mine": "", "net": "cnn", "clip": "clip", "colors": "color_histogram"}


@pytest.fixture
def page(tmp_path: Path):
    """Write a report on images of four topics that the models know to different degrees; return its HTML."""

    def page(*, captions: bool = True, models: tuple[str, ...] = ("mine", "net", "clip", "colors")) -> str:
        images = images_table(NAMES, NAMES)
        for name in NAMES:
            Image.new("RGB", (20, 20)).save(tmp_path / f"{name}.png")
        files = {"root": [str(tmp_path)] * len(NAMES), "path": [f"{name}.png" for name in NAMES]}
        for column, values in files.items():
            images = images.set_column(images.column_names.index(column), column, pa.array(values))
        if captions:
            captions_of = [[f"a topic{number % 4}"] if number else None for number in range(len(NAMES))]
            images = images.append_column("captions", pa.array(captions_of, pa.list_(pa.string())))
        store.write_table(images, tmp_path / "images.parquet", IMAGES, MADE)
        store.write_table(truth_table([]), tmp_path / "truth.parquet", TRUTH, MADE)
        results = [search(tmp_path, model) for model in models]
        sample = {"truth": tmp_path / "truth.parquet", "images": tmp_path / "images.parquet"}
        metrics = [tmp_path / f"{model}.json" for model in models]
        counts = {name for name, field in Duplicates.model_fields.items() if field.annotation is int}
        nothing = dict.fromkeys(counts, 0)
        hashes = {name: MADE[name] for name in ("sample_sha256", "shards_sha256")}
        store.write_json(Duplicates(examples={}, **nothing, **hashes), tmp_path / "duplicates.json")
        compare(
            CompareJob(
                experiment="mine",
                **sample,
                metrics=metrics,
                results=results,
                models=models,
                architectures={model: KINDS[model] for model in models if KINDS[model]},
                leaderboard_out=tmp_path / "leaderboard.csv",
                comparisons_out=tmp_path / "comparisons.json",
            )
        )
        labels = {model: f"The {model} one" for model in models}
        write_report(
            ReportJob(
                key=json.dumps({"experiment": "mine", "title": "", "dataset": "photos", "labels": labels, "k": 5}),
                **sample,
                metrics=metrics,
                neighbors=[tmp_path / f"{model}.parquet" for model in models],
                showcase=[],
                duplicates=tmp_path / "duplicates.json",
                comparisons=tmp_path / "comparisons.json",
                seen=[tmp_path / f"{model}.images.parquet" for model in models],
                out=tmp_path / "index.html",
                notes=tmp_path / "report.in_work",
            )
        )
        return (tmp_path / "index.html").read_text(encoding="utf-8")

    return page


def search(folder: Path, model: str) -> Results:
    """Better models find more neighbors of the query's topic; ``net`` finds exactly what ``colors`` finds."""
    random = np.random.default_rng(list(KINDS).index(model))
    found = {}
    for number, query in enumerate(NAMES):
        same = [name for place, name in enumerate(NAMES) if place % 4 == number % 4 and name != query]
        others = [name for place, name in enumerate(NAMES) if place % 4 != number % 4]
        known = {"mine": 5, "clip": 3, "net": 0, "colors": 0}[model]
        rest = others if known == 0 else list(random.permutation(others))
        found[query] = [(name, 1 - place / 20) for place, name in enumerate([*same[:known], *rest][:6])]
    footer = {"model": model, "index": "flat", "k": 5}
    results = write_search(folder / f"{model}.parquet", found, len(NAMES), footer)
    store.write_table(seen_table(), folder / f"{model}.images.parquet", INDEX_IMAGES, MADE)
    measure(
        MeasureJob(
            results=results,
            truth=folder / "truth.parquet",
            images=folder / "images.parquet",
            seen=folder / f"{model}.images.parquet",
            timings=[],
            search_timing=folder / "none.json",
            out=folder / f"{model}.json",
            dataset="photos",
            model=model,
            index="flat",
            k=5,
        )
    )
    return results


def section(page: str, name: str) -> str:
    """The text of a section."""
    (inside,) = re.findall(rf'<section id="{name}".*?</section>', page, re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", inside)).split())


def test_without_matches_the_headline_is_by_agreement(page) -> None:
    text = page()
    answer = text.partition('<p class="answer">')[2].partition("</p>")[0]
    assert answer.startswith("The mine one has the highest Caption agreement@5: ")
    assert "The mine one is significantly better than all 3 other models" in text
    board = section(text, "board")
    assert "Caption agreement@5" in board
    assert "Accuracy@1" not in board
    assert board.index("The mine one") < board.index("The clip one") < board.index("The net one")
    assert "▲ better" in section(text, "pairs")


def test_every_model_is_placed_between_chance_and_the_text_ceiling(page) -> None:
    text = section(page(), "agreement")
    assert re.search(r"Chance \d+\.\d %, text ceiling \d+\.\d %", text)
    assert "39 queries (1 more excluded: they have no text to compare" in text
    for model in ("mine", "clip", "net", "colors"):
        assert re.search(rf"The {model} one \d+\.\d+ % \([\d.]+–[\d.]+ %\) −?\d+(\.\d+)? % of the way", text), model


def test_a_data_set_without_text_has_no_section_on_agreement(page) -> None:
    text = page(captions=False)
    assert 'id="agreement"' not in text
    assert "None of the 40" in text


def test_claims_are_tested_or_give_the_reason_why_not(page) -> None:
    text = section(page(), "follows")
    # net finds exactly what colors finds; mine, of no known architecture, is measured but no claim is about it
    assert re.search(r"The net one 100\.0 %", text)
    assert re.search(r"The mine one \d", text)
    assert (
        "Five models on Flickr30k The net one follows color and texture overlap with the color histogram’s neighbors, "
        "vs. The clip one" in text
    )
    assert "✓ confirmed" in text
    assert "? undecided needs copies made by this operation and by others" in text
    assert "The mine one follows" not in text


def test_without_a_color_histogram_the_report_says_what_is_missing(page) -> None:
    assert "What does each model rely on? (it needs the model color-histogram" in page(models=("mine",))
