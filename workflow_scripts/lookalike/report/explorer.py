"""The data of the explorer, which holds every listed query, compressed into the page."""

import base64
import json
import math
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from lookalike.io.formats.tables import BY
from lookalike.report import figures, words
from lookalike.report.evidence import LOOKS
from lookalike.report.examples import captions_of
from lookalike.report.maps import Map
from lookalike.report.queries import MOST_MATCHES, OUTCOMES, SHOWN, Found, Queries
from lookalike.report.sprites import ACROSS, Thumbnails

SCORE = 10_000  # scores and margins are integers in units of 1 / SCORE


@dataclass(frozen=True)
class Explorer:
    """``data``: base64 of the compressed JSON. ``listed`` and ``total`` count the queries, without showcase images."""

    data: str
    listed: int
    total: int


def make(queries: Queries, thumbnails: Thumbnails | None) -> Explorer:
    """Pack what scripts/data.js unpacks."""
    text = json.dumps(_content(queries, thumbnails), ensure_ascii=False, separators=(",", ":"))
    packed = base64.b64encode(zlib.compress(text.encode("utf-8", "surrogatepass"), 9)).decode()
    outside = queries.outcome.count("showcase")
    return Explorer(packed, len(queries.images) - outside, queries.evidence.queries.num_rows)


def _content(queries: Queries, thumbnails: Thumbnails | None) -> dict[str, Any]:
    """Images are numbered by their first use, so that query i is image i. See the type Data in scripts/data.js."""
    rows = list(dict.fromkeys([*queries.images.tolist(), *queries.shown_images.tolist()]))
    number = np.full(len(queries.ids) + 1, -1, np.int64)  # the last stays -1, for "none"
    number[rows] = np.arange(len(rows))
    captions = captions_of(queries, rows)
    kinds = [words.operation_kind(steps) for steps in queries.operations]
    cells, reasons = (thumbnails.cells, thumbnails.reasons) if thumbnails else ({}, {})
    evidence = queries.evidence
    return {
        "experiment": evidence.experiment,
        "k": evidence.k,
        "shown": SHOWN,
        "across": ACROSS,
        "side": thumbnails.side if thumbnails else 0,
        "known": bool(evidence.matched),
        "outcomes": words.outcomes(one_model=len(evidence.models) == 1, known=bool(evidence.matched)),
        "ids": [queries.ids[row] for row in rows],
        "cells": [cells.get(row, -1) for row in rows] if thumbnails else [],
        "reasons": {place: reasons[row] for place, row in enumerate(rows) if row in reasons},
        "captions": captions if any(captions) else [],
        "outcome": [OUTCOMES.index(name) for name in queries.outcome],
        "operations": _coded([words.operations(steps) for steps in queries.operations]),
        "kinds": _coded(kinds, words.operation),
        "columns": [
            {"name": name, "label": name.removeprefix(BY).replace("_", " "), **_coded(queries.column(name))}
            for name in evidence.images.column_names
            if name.startswith(BY)
        ],
        "matches": [number[matches[:MOST_MATCHES]].tolist() for matches in queries.matches],
        "more": [max(0, len(matches) - MOST_MATCHES) for matches in queries.matches],
        "models": [_model(found, number) for found in queries.found],
        "maps": [_map(queries, one, number) for one in queries.maps],
    }


def _model(found: Found, number: np.ndarray[Any, np.dtype[np.int64]]) -> dict[str, Any]:
    run = found.run
    return {
        "model": run.model,
        "label": run.label,
        "color": run.number % figures.COLORS,
        "shape": figures.SHAPES[run.number % len(figures.SHAPES)],
        "threshold": found.threshold,
        "rank": found.rank.tolist(),
        "tied": np.flatnonzero(found.tied).tolist(),
        "accepted": np.flatnonzero(found.accepted).tolist(),
        "margin": _scaled(found.margin),
        "hits": number[found.hits].ravel().tolist(),
        "scores": _scaled(found.scores),
        "right": (found.right @ (1 << np.arange(SHOWN))).tolist(),
        "scene": (found.scene @ (1 << np.arange(SHOWN))).tolist() if found.scene.any() else [],
        "reasons": found.reasons,
    }


def _map(queries: Queries, one: Map, number: np.ndarray[Any, np.dtype[np.int64]]) -> dict[str, Any]:
    """Places of images; queries that are not listed are left out, since the page knows nothing of them."""
    unlisted = queries.evidence.images["query"].to_numpy()[one.rows] & (number[one.rows] >= len(queries.images))
    kept = ~unlisted & (number[one.rows] >= 0)
    places = one.on_page[kept]
    return {
        "model": [found.run.model for found in queries.found].index(one.run.model),
        "images": number[one.rows[kept]].tolist(),
        "x": places[:, 0].tolist(),
        "y": places[:, 1].tolist(),
        "about": _about(one),
        "leads": one.run.model in queries.evidence.answers[LOOKS].best[:1],
    }


def _about(one: Map) -> str:
    """How a map was made, and how far it can be trusted."""
    kept = (
        "" if one.kept is None else f" Of the ten nearest images of an image, {100 * one.kept:.0f} % are among the ten "
    )
    return f"{one.method}.{kept}" + ("nearest on the map." if kept else "")


def _scaled(values: np.ndarray[Any, np.dtype[np.float64]]) -> list[int | None]:
    return [None if math.isnan(value) else round(value * SCORE) for value in values.ravel().tolist()]


def _coded(values: list[str | None] | list[str], label: Any = None) -> dict[str, Any]:
    """Values as numbers into the sorted list of the different ones; -1 for none."""
    different = sorted({value for value in values if value}, key=lambda value: (value == "chain", value))
    code = {value: place for place, value in enumerate(different)}
    named = {"labels": [label(value) for value in different]} if label else {}
    return {"values": different, **named, "of": [code.get(value or "", -1) for value in values]}
