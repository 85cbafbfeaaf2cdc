"""Configurations of earlier versions mean what they meant: the same keys, and the same copies byte for byte."""

import hashlib
from pathlib import Path

import pytest
from test_copies import make, packed, queries, sources

from lookalike.config.datasets import Copies
from lookalike.plan.keys import key

# By name; what these had before operations were added is FROZEN below.
ENTRIES = {
    "defaults": {},
    "without_match": {"queries": 25, "without_match": 5, "seed": 3},
    "some": {"operations": ["paste", "crop", "text"], "strengths": ["heavy"], "chains": 0.5, "queries": 12},
    "chains": {"queries": 40, "chains": 1.0, "max_side": 48},
}


def made(entry: dict) -> str:
    rows = queries(make(sources(20), **entry))
    digest = hashlib.sha256()
    for row in sorted(rows, key=lambda row: row["image_id"]):
        digest.update(row["parameters"].encode() + packed("results/copies/images")[row["image_id"]])
    return digest.hexdigest()[:32]


# With the versions in constraints.txt: another Pillow may encode JPEG differently.
FROZEN = {
    "defaults": ('{"kind": "copies", "of": "photos"}', "8fdbc90ecd7dbd4b9e497412b35f7f0b"),
    "without_match": (
        '{"kind": "copies", "of": "photos", "queries": 25, "seed": 3, "without_match": 5}',
        "fdc70c8bfe6c40bf3772084c131e1880",
    ),
    "some": (
        '{"chains": 0.5, "kind": "copies", "of": "photos", "operations": ["paste", "crop", "text"], "queries": 12, '
        '"strengths": ["heavy"]}',
        "5b636d481326425cdbc2445a3c3cb67e",
    ),
    "chains": (
        '{"chains": 1.0, "kind": "copies", "max_side": 48, "of": "photos", "queries": 40}',
        "2b745800e9cfd38d430b93e9307104dc",
    ),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_an_old_entry_has_its_key_and_its_copies(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (key(Copies(kind="copies", of="photos", **ENTRIES[name])), made(ENTRIES[name])) == FROZEN[name]
