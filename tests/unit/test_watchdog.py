"""A decoder that hangs or crashes ends an attempt; the next one rejects the image, and the shard continues."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from conftest import REPOSITORY, made_image
from lookalike.io import content_hashes, in_work, store
from lookalike.io.formats.records import Weights
from lookalike.io.formats.tables import EMBEDDINGS, REJECTED, SHARD
from lookalike.job import watchdog

JOB = """
import sys
from lookalike.embed.embed import EmbedJob, embed_shard
from lookalike.job.log import job
with job("embed some", "shard.log"):
    embed_shard(EmbedJob("shard.parquet", "weights.json", "out.parquet", "rejected.parquet", "shard.json", "pixels",
                '{"family": "pixels", "size": 4}', "c0de", 4, 2, False, float(sys.argv[1])))
"""
HANGS, HANGS_LOCKED, CRASHES, KILLED, CRASHES_AMONG_THREADS = 41, 42, 43, 44, 45  # heights: tests/faulty


class Job:
    """An embed job over a folder of good images and some whose decoder misbehaves."""

    def __init__(self, folder: Path, *heights: int) -> None:
        self.folder = folder
        paths = [folder / f"{number}.png" for number in range(8)]
        for number, path in enumerate(paths):
            made_image(number).save(path)
        for height in heights:
            paths.insert(4, folder / f"bad{height}.png")
            made_image(99, (60, height)).save(paths[4])
        names = [path.name for path in paths]
        rows = {"image_id": names, "root": [str(folder)] * len(names), "path": names}
        rows["bytes"] = [path.stat().st_size for path in paths]
        rows["content_hash"] = [content_hashes.of_file(path) for path in paths]
        store.write_table(pa.table(rows, SHARD.schema()), folder / "shard.parquet", SHARD, {})
        store.write_json(Weights(source="none", revision="", files={}), folder / "weights.json")

    def start(self, seconds: float = 2) -> "subprocess.Popen[str]":
        paths = os.pathsep.join([str(REPOSITORY / "tests/faulty"), str(REPOSITORY / "workflow_scripts")])
        return subprocess.Popen(
            [sys.executable, "-c", JOB, str(seconds)],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": paths},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, seconds: float = 2) -> tuple[int, str]:
        process = self.start(seconds)
        _, output = process.communicate(timeout=120)
        return process.returncode, output

    @property
    def results(self) -> tuple[list[str], dict[str, str]]:
        """Ids of the embedded images, and the reasons of the rejected ones."""
        rejected = store.read_table(self.folder / "rejected.parquet", REJECTED).to_pylist()
        embedded = store.read_table(self.folder / "out.parquet", EMBEDDINGS)["image_id"].to_pylist()
        return embedded, {row["image_id"]: row["reason"] for row in rejected}


GOOD = [f"{number}.png" for number in range(8)]


@pytest.mark.parametrize(
    ("height", "first", "reason"),
    [
        (HANGS, "decoding bad41.png has taken more than 2 s", "not decoded: decoding it takes more than 2 s, twice"),
        # no other thread can finish its image either
        (HANGS_LOCKED, r"decoding (\d\.png, )?bad42.png(, \d\.png)? has taken", "takes more than 2 s, twice"),
        (
            CRASHES,
            "the process died while it decoded",
            "not decoded: decoding it kills the process with SIGSEGV, twice",
        ),
        (KILLED, "the process died while it decoded", "kills the process with SIGKILL (out of memory?), twice"),
    ],
)
def test_an_image_that_hangs_or_kills_twice_is_rejected_with_that_reason(
    tmp_path: Path, height: int, first: str, reason: str
) -> None:
    job = Job(tmp_path, height)
    status, output = job.run()
    assert status < 0
    assert re.search(f"embed some: {first}", output)
    assert f"bad{height}.png" in output
    assert re.search(first, (tmp_path / "shard.log").read_text())
    status, output = job.run()
    assert status == 0, output
    assert "8 embedded + 1 rejected = 9 in the shard" in output
    assert "1 of the rejected images hung or killed their decoder" in output
    embedded, rejected = job.results
    assert embedded == GOOD
    assert list(rejected) == [f"bad{height}.png"]
    assert reason in rejected[f"bad{height}.png"]
    assert not list(tmp_path.glob("*.in_work")) + list(tmp_path.glob("*suspects*"))


def test_a_suspect_that_can_be_decoded_alone_is_embedded_as_ever(tmp_path: Path) -> None:
    job = Job(tmp_path, CRASHES_AMONG_THREADS)
    assert job.run()[0] < 0
    status, output = job.run()
    assert status == 0, output
    assert job.results == ([*GOOD[:4], "bad45.png", *GOOD[4:]], {})


def test_several_bad_images_in_one_shard_end_one_attempt_each_at_most(tmp_path: Path) -> None:
    job = Job(tmp_path, HANGS, CRASHES, KILLED)
    statuses = []
    while not statuses or statuses[-1]:
        statuses.append(job.run()[0])
        assert len(statuses) <= 4
    embedded, rejected = job.results
    assert embedded == GOOD
    assert set(rejected) == {"bad41.png", "bad43.png", "bad44.png"}


@pytest.mark.parametrize("height", [HANGS, HANGS_LOCKED])
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("attempt", [1, 2])
def test_an_interrupt_ends_a_job_that_hangs_in_seconds(tmp_path: Path, height: int, sent: int, attempt: int) -> None:
    job = Job(tmp_path, height)
    if attempt == 2:
        assert job.run()[0] < 0
    process = job.start(seconds=600)  # so that only the interrupt can end it in the next minutes
    _wait_until(lambda: any(image["path"] == f"bad{height}.png" for image in watchdog.read(tmp_path / "shard.in_work")))
    os.killpg(process.pid, sent)  # as the terminal does
    process.communicate(timeout=120)
    assert process.returncode != 0
    assert not (tmp_path / "out.parquet").exists()


def _wait_until(condition: "object", seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_image_is_not_blamed_for_one_interrupt_while_it_was_decoded_alone(tmp_path: Path) -> None:
    """Twice is what counts: the job may have been stopped by a person, or by a time limit."""
    row, needs = {"image_id": "a", "path": "a.png"}, None
    data = (Job(tmp_path).folder / "0.png").read_bytes()
    for deaths in range(3):
        notes = in_work.Notes(tmp_path / "x.in_work", "hash", 60)
        assert notes.suspects == (("a",) if deaths else ())
        notes._note(1, row, **({"alone": True} if deaths else {}))
    notes = in_work.Notes(tmp_path / "x.in_work", "hash", 60)
    with pytest.raises(Exception, match=r"the job died 3 times while it decoded this image"):
        notes.alone(row, data, needs)
    assert in_work.Notes(tmp_path / "x.in_work", "another sample", 60).suspects == ()


def test_a_stopped_job_does_not_count_as_hanging() -> None:
    clock = watchdog.Clock()
    images = [{"count": 1, "path": "a"}]
    clock.tick(images)
    clock.last -= 1000
    clock.tick(images)
    assert clock.ages[1] <= 4 * watchdog.TICK
    clock.tick([{"count": 2, "path": "b"}, {"count": 3, "path": "c", "alone": True}])
    assert clock.ages.keys() == {2}


def test_an_error_ends_a_job_in_which_an_image_hangs(tmp_path: Path) -> None:
    job = Job(tmp_path, HANGS)
    (tmp_path / "0.png").write_bytes(b"changed since it was sampled")
    status, output = job.run(seconds=600)  # so that it is not the image's time that is over
    assert status != 0
    assert "0.png: has changed since the data set was sampled" in output
