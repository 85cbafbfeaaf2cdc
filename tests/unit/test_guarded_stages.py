"""Every stage that decodes images gets past one that hangs or kills its decoder: the second attempt leaves it out."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_report import Experiment

from conftest import REPOSITORY, made_image
from lookalike.config.datasets import Folder
from lookalike.io import identity, store
from lookalike.io.formats.audit import UNREADABLE
from lookalike.io.formats.tables import AUDIT, IMAGES, MANIFEST, NEAR_DUPLICATES, NEIGHBORS, SHARD, TRUTH
from lookalike.io.in_work import Guard
from lookalike.report import evidence, sprites
from lookalike.report.evidence import ReportJob
from lookalike.sample import folder, hashing
from tables import neighbors_table

STAGE = """
import importlib, json, sys
from lookalike.job.log import job
module, function, name, arguments = sys.argv[1:]
module = importlib.import_module(f"lookalike.{module}")
with job(function, "log"):
    getattr(module, function)(getattr(module, name)(**json.loads(arguments), image_seconds=2, notes="log.in_work"))
"""
HANGS, CRASHES, KILLED = 41, 43, 44  # heights: tests/faulty


def attempt(folder: Path, module: str, function: str, name: str, **arguments: Any) -> tuple[int, str]:
    """Run a stage in a process with the faulty decoders: its status, and what it says."""
    paths = os.pathsep.join([str(REPOSITORY / "tests/faulty"), str(REPOSITORY / "workflow_scripts")])
    program = [sys.executable, "-c", STAGE, module, function, name, json.dumps(arguments)]
    environment = {**os.environ, "PYTHONPATH": paths}
    ended = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stderr


def twice(folder: Path, bad: str, module: str, function: str, name: str, **arguments: Any) -> str:
    """What the second attempt says, after the first has died of the bad image."""
    status, output = attempt(folder, module, function, name, **arguments)
    assert status < 0, output
    assert re.search(rf"{function}: (decoding|the process died while it decoded) .*{bad}", output), output
    assert bad in (folder / "log").read_text()
    status, output = attempt(folder, module, function, name, **arguments)
    assert status == 0, output
    assert not list(folder.glob("*.in_work")) + list(folder.glob("*suspects*"))
    return output


class Sample:
    """Six good images and one whose decoder misbehaves, which is the match of the only query."""

    def __init__(self, path: Path, height: int) -> None:
        self.folder, self.bad = path, f"bad{height}.png"
        (path / "photos").mkdir()
        (path / "queries").mkdir()
        for number in range(6):
            made_image(number).save(path / f"photos/{number}.png")
        made_image(9).save(path / "queries/q.png")
        made_image(7, (60, height)).save(path / "photos" / self.bad)
        (path / "truth.csv").write_text(f"query_id,reference_id\nq.png,{self.bad}\n")
        names = {"root": "photos", "queries": "queries", "truth": "truth.csv"}
        entry = {"kind": "folder"} | {key: str(path / name) for key, name in names.items()}
        listed, truth = folder.sample(Folder.model_validate(entry), "datasets.photos")
        listed = hashing.fill(listed)
        self.made = {identity.SAMPLE: identity.hash_sample(listed, truth)}
        store.write_table(listed, path / "images.parquet", IMAGES, self.made)
        store.write_table(truth, path / "truth.parquet", TRUTH, self.made)


REASONS = {
    HANGS: "not decoded: decoding it takes more than 2 s, twice",
    CRASHES: "not decoded: decoding it kills the process with SIGSEGV, twice",
    KILLED: "not decoded: decoding it kills the process with SIGKILL (out of memory?), twice",
}


@pytest.mark.parametrize("height", [HANGS, KILLED])
def test_an_audit_says_that_such_an_image_is_unreadable(tmp_path: Path, height: int) -> None:
    searched, reason = Sample(tmp_path, height), REASONS[height]
    found = neighbors_table({"q.png": [("0.png", 0.9), ("1.png", 0.8)]})
    store.write_table(found, searched.folder / "n.parquet", NEIGHBORS, searched.made)
    store.write_table(neighbors_table({}), searched.folder / "c.parquet", NEIGHBORS, searched.made)
    files = {
        "neighbors": "n.parquet",
        "candidates": "c.parquet",
        "images": "images.parquet",
        "truth": "truth.parquet",
        "out": "audit.parquet",
    }
    output = twice(searched.folder, searched.bad, "measure.audit.audit", "audit", "AuditJob", **files, k=2, threads=2)
    assert f"{searched.bad}: {reason}" in output
    verdicts = store.read_table(searched.folder / "audit.parquet", AUDIT)["verdict"].to_pylist()
    assert verdicts == [UNREADABLE] * 2


def test_copies_are_made_of_the_next_image(tmp_path: Path) -> None:
    searched, reason = Sample(tmp_path, CRASHES), REASONS[CRASHES]
    key = json.dumps({"kind": "copies", "of": "photos", "queries": 6})
    files = {"sources": "images.parquet", "archives_out": ["made/queries-00000.zip"], "manifest_out": "made/m.parquet"}
    output = twice(
        searched.folder,
        searched.bad,
        "sample.make_images",
        "make_images",
        "MakeImagesJob",
        dataset="c",
        key=key,
        **files,
    )
    assert f"{searched.bad} is not copied, the next image is used instead: {reason}" in output
    rows = store.read_table(searched.folder / "made/m.parquet", MANIFEST).to_pylist()
    assert len([row for row in rows if row["query"]]) == 6
    assert searched.bad not in {row["source"] for row in rows}


def test_near_duplicates_are_found_without_it(tmp_path: Path) -> None:
    searched, reason = Sample(tmp_path, HANGS), REASONS[HANGS]
    rows = store.read_table(searched.folder / "images.parquet", IMAGES).select([*SHARD.columns])
    store.write_table(rows, searched.folder / "shard.parquet", SHARD, {})
    job = {"shards": ["shard.parquet"], "out": "near.parquet", "threads": 2}
    output = twice(
        searched.folder, searched.bad, "sample.near_duplicates.find", "find_near_duplicates", "NearDuplicatesJob", **job
    )
    assert f"{searched.bad}: {reason}" in output
    store.read_table(searched.folder / "near.parquet", NEAR_DUPLICATES)
    assert store.read_provenance(searched.folder / "near.parquet")["rejected"] == 1


def test_a_report_gives_the_reason_in_place_of_the_image(tmp_path: Path) -> None:
    made_image(1, (60, CRASHES)).save(tmp_path / "1.png")
    inputs = Experiment(tmp_path).inputs() | {"out": "index.html"}
    del inputs["notes"]
    arguments = json.loads(json.dumps(inputs, default=str))
    twice(tmp_path, "1.png", "report.report", "write_report", "ReportJob", **arguments)
    assert REASONS[CRASHES] in (tmp_path / "index.html").read_text()


def test_a_report_does_not_decode_what_hung_or_killed_an_embed_job(tmp_path: Path) -> None:
    rejected = {model: {"q-2": REASONS[HANGS], "q-1": "damaged"} for model in ("good", "fair")}
    experiment = Experiment(tmp_path, rejected=rejected)
    read = evidence.read(ReportJob(**experiment.inputs(), out=""))  # type: ignore[arg-type]
    rows = [read.images["image_id"].to_pylist().index(name) for name in ("q-0", "q-1", "q-2")]
    assert sprites.make(read, rows, Guard()).reasons == {rows[2]: REASONS[HANGS]}
