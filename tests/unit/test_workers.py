"""Beside a GPU, images are prepared in processes: the same images, vectors and reasons as in threads."""

import logging
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from PIL import Image

from conftest import REPOSITORY, made_image
from lookalike.embed import embed, worker
from lookalike.embed.batches import Embedded
from lookalike.embed.preprocess import Geometry
from lookalike.embed.workers import Workers
from lookalike.io import content_hashes, in_work
from lookalike.io.formats.tables import SHARD
from lookalike.job.errors import LookalikeError
from lookalike.job.usage import peak_memory_mb

HANGS, CRASHES = 41, 43  # heights: tests/faulty


class Card:
    """An encoder with a device of its own; the vector of an image is made of its pixels."""

    geometry = Geometry(24, (16, 16), int(Image.Resampling.BICUBIC))
    overlaps, compute_dtype, device, dimension = True, "float32", "a card", 768
    versions: dict[str, str]

    def __init__(self) -> None:
        self.versions, self.prepared = {}, 0

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        self.prepared += 1  # in this process
        return self.geometry(image)

    def launch(self, prepared: Sequence[NDArray[Any]]) -> Callable[[], Any]:
        vectors = np.stack(prepared).reshape(len(prepared), -1).astype(np.float32)
        return lambda: (vectors, {"forward": 0.0})


class FastCard(Card):
    """The same with `decode: fast`."""

    needs = staticmethod(Card.geometry.needs)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> list[Workers]:
    """Processes for the shortest of shards, and those that were made."""
    made: list[Workers] = []
    make = embed._workers

    def note(*arguments: Any) -> Workers | None:
        workers = make(*arguments)
        made.extend([workers] if workers else [])
        return workers

    monkeypatch.setattr(embed, "STARTING", 0)
    monkeypatch.setattr(embed, "_workers", note)
    return made


def table(folder: Path) -> pa.Table:
    paths = sorted(folder.iterdir())
    columns = {"image_id": [path.name for path in paths], "root": [str(folder)] * len(paths)}
    columns |= {"path": columns["image_id"], "bytes": [path.stat().st_size for path in paths]}
    columns |= {"content_hash": [content_hashes.of_file(path) for path in paths]}
    return pa.table(columns, SHARD.schema())


@pytest.fixture
def rows(tmp_path: Path) -> pa.Table:
    """Images of several kinds, of which some cannot be decoded."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(20):
        made_image(number, (300, 200)).save(folder / f"{number:02d}.jpg", quality=90)
    made_image(20, (700, 40)).convert("LA").save(folder / "grey.png")
    made_image(21, (5000, 4000)).save(folder / "large.bmp")  # waits for memory
    (folder / "text.jpg").write_text("no image")
    (folder / "cut.jpg").write_bytes((folder / "01.jpg").read_bytes()[:-300])
    (folder / "copy.jpg").write_bytes((folder / "02.jpg").read_bytes())
    return table(folder)


def described(done: Embedded) -> tuple[Any, ...]:
    images = [(image.image_id, image.path, image.sha256, image.size, image.profile) for image in done.images]
    rejected = [(image.image_id, image.reason) for image in done.rejected]
    return images, rejected, [image.image_id for image in done.known], done.vectors.tolist()


@pytest.mark.parametrize("card", [Card, FastCard])
def test_processes_prepare_what_threads_prepare(rows: pa.Table, always: list[Workers], card: type[Card]) -> None:
    in_processes, in_threads = card(), card()
    done = embed.embed_rows(rows, in_processes, batch_size=4, threads=3)  # type: ignore[arg-type]
    assert len(always) == 1
    assert not in_processes.prepared
    expected = embed.embed_rows(rows, in_threads, batch_size=4, threads=1)  # type: ignore[arg-type]
    assert len(always) == 1
    assert in_threads.prepared
    assert described(done) == described(expected)
    assert [image.image_id for image in done.rejected] == ["cut.jpg", "text.jpg"]
    assert {stage for stage, seconds in done.seconds.items() if seconds} >= {"read", "decode", "preprocess", "wait"}


def test_no_process_is_left_and_their_memory_counts(rows: pa.Table, always: list[Workers]) -> None:
    before = peak_memory_mb()
    embed.embed_rows(rows, Card(), batch_size=4, threads=3)  # type: ignore[arg-type]
    assert always[0]._all
    assert peak_memory_mb() - before > 20 * len(always[0]._all)  # MB, which they took
    assert all(child.returncode is not None for child in always[0]._all)


def test_images_whose_vectors_are_known_are_not_decoded(rows: pa.Table, always: list[Workers]) -> None:
    first = embed.embed_rows(rows, Card(), batch_size=4, threads=2)  # type: ignore[arg-type]
    known = {image.sha256 for image in first.images[::2]}
    done = embed.embed_rows(rows, Card(), batch_size=4, threads=2, known=known.__contains__)  # type: ignore[arg-type]
    assert {image.sha256 for image in done.known} == known
    assert len(done.known) + len(done.images) == len(first.images)


@pytest.mark.parametrize(
    ("height", "reason"),
    [
        (HANGS, "not decoded: decoding it takes more than 2 s, twice"),
        (CRASHES, "not decoded: decoding it kills the process with SIGSEGV, twice"),
    ],
)
def test_an_image_that_hangs_or_kills_twice_is_rejected_and_the_job_goes_on(
    tmp_path: Path, always: list[Workers], monkeypatch: pytest.MonkeyPatch, height: int, reason: str
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(12):
        made_image(number).save(folder / f"{number:02d}.png")
    made_image(99, (60, height)).save(folder / "05bad.png")
    paths = os.pathsep.join([str(REPOSITORY / "tests/faulty"), str(REPOSITORY / "workflow_scripts")])
    monkeypatch.setenv("PYTHONPATH", paths)
    rows = table(folder)
    with in_work.guarding(tmp_path / "notes.in_work", "0" * 64, 2) as guard:
        done = embed.embed_rows(rows, Card(), batch_size=4, threads=2, guard=guard)  # type: ignore[arg-type]
        assert guard.rejected == 1
    assert [(image.image_id, image.reason) for image in done.rejected] == [("05bad.png", reason)]
    assert [image.image_id for image in done.images] == [f"{number:02d}.png" for number in range(12)]


def test_a_process_that_is_killed_costs_no_image(
    rows: pa.Table, always: list[Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    take = Workers._take

    def and_kill(self: Workers) -> Any:
        child = take(self)
        if len(killed) < 2:
            killed.append(child.pid)
            child.send_signal(signal.SIGKILL)
        return child

    monkeypatch.setattr(Workers, "_take", and_kill)
    done = embed.embed_rows(rows, Card(), batch_size=4, threads=2)  # type: ignore[arg-type]
    assert len(killed) == 2
    expected = embed.embed_rows(rows, Card(), batch_size=4, threads=1)  # type: ignore[arg-type]
    assert described(done) == described(expected)


def test_an_image_that_changed_stops_the_job_as_ever(rows: pa.Table, always: list[Workers]) -> None:
    path = Path(rows["root"][0].as_py()) / "03.jpg"
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(LookalikeError, match=r"03\.jpg: has changed since the data set was sampled"):
        embed.embed_rows(rows, Card(), batch_size=4, threads=2)  # type: ignore[arg-type]


def test_a_mistake_in_a_process_is_not_taken_for_a_bad_image(
    rows: pa.Table, always: list[Workers], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "from lookalike.embed import preprocess\ndef wrong(*_): raise ValueError('a mistake')\n"
        "preprocess.Geometry.__call__ = wrong\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(REPOSITORY / "workflow_scripts")]))
    with pytest.raises(RuntimeError, match="ended with status 1; its message is above"):
        embed.embed_rows(rows, Card(), batch_size=4, threads=2)  # type: ignore[arg-type]


def test_short_shards_and_encoders_of_the_cpu_start_no_process(rows: pa.Table) -> None:
    assert embed._workers(embed._Preparer(Card(), in_work.Guard(), None), 10, 2) is None  # type: ignore[arg-type]
    card = Card()
    card.overlaps = False
    assert embed._workers(embed._Preparer(card, in_work.Guard(), None), 10_000, 2) is None  # type: ignore[arg-type]


def test_large_images_wait_for_memory(rows: pa.Table, always: list[Workers], caplog: pytest.LogCaptureFixture) -> None:
    """The image of 60 MB waits for its share; those of 180 kB do not."""
    requested: list[int] = []
    preparer = embed._Preparer(Card(), in_work.Guard(), None)  # type: ignore[arg-type]
    share = preparer.pixels.share

    def noting() -> Any:
        manager = share()
        enter = type(manager).__enter__

        class Noting:
            def __enter__(self) -> Callable[[int], None]:
                take = enter(manager)
                return lambda size: (requested.append(size), take(size))[1]  # type: ignore[func-returns-value]

            def __exit__(self, *error: Any) -> None:
                manager.__exit__(*error)

        return Noting()

    preparer.pixels.share = noting  # type: ignore[method-assign]
    workers = embed._workers(preparer, rows.num_rows, 2)
    assert workers
    with caplog.at_level(logging.WARNING):
        workers.prepare(rows.to_pylist())
    workers.close()
    assert len(requested) == 1
    assert worker.FREE < 3 * 5000 * 4000 <= requested[0]
