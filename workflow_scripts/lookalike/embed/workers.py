"""Processes that read, decode and resize images for a GPU.

Python runs one thread at a time. Beside a GPU, 16 threads prepare hardly more images than 8, and 16 processes three
times as many (docs/benchmarks.md). Each process (``embed/worker.py``) gets rows of a shard from a thread of the job and
tells what it made of each. One that hangs or dies takes nothing with it: its image is tried once more, in a process of
its own (``io/alone.py``), and then rejected.
"""

import fcntl
import hashlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any, Protocol

import numpy as np

from lookalike.embed.batches import ShardImage
from lookalike.embed.worker import Row, Settings
from lookalike.io import alone, images, in_work
from lookalike.job import memory
from lookalike.job.errors import LookalikeError
from lookalike.job.usage import note_helper

PIPE = 1 << 20  # bytes that a process can be ahead; as many as Linux allows without privileges
SET_PIPE_SIZE = 1031  # of Linux's fcntl.h


class Budgets(Protocol):
    """The memory that threads share."""

    @property
    def files(self) -> memory.Budget:
        """Of files."""

    @property
    def pixels(self) -> memory.Budget:
        """Of decoded images."""


class Workers:
    """One process for each thread that calls ``prepare``, started when it is first needed."""

    def __init__(
        self, settings: Settings, guard: in_work.Guard, budgets: Budgets, known: Callable[[str], bool] | None
    ) -> None:
        self._settings, self._guard, self._budgets, self._known = settings, guard, budgets, known
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        self._all: list[subprocess.Popen[bytes]] = []
        self._closed = False
        self._starting = Lock()

    def prepare(self, rows: list[Row]) -> list[ShardImage]:
        """Prepare the images of some rows, in order. Called from several threads."""
        with self._budgets.files.share() as take:
            take(sum(row["bytes"] for row in rows))
            return list(self._prepare(rows))

    def close(self) -> None:
        """End all processes, whatever they are doing."""
        with self._starting:  # none is started after this
            self._closed = True
        for child in self._all:
            note_helper(child.pid)
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                with suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]

    def _prepare(self, rows: list[Row]) -> Iterator[ShardImage]:
        while rows:
            child = self._take()
            done = 0
            try:
                _send(child, rows)
                for row in rows:
                    yield self._result(child, row)
                    done += 1
            except (EOFError, BrokenPipeError, pickle.UnpicklingError):  # the last: it died while it was writing
                yield self._again(rows[done], child.wait())
                rows = rows[done + 1 :]
            else:
                self._idle.put(child)
                return

    def _take(self) -> "subprocess.Popen[bytes]":
        with suppress(Empty):
            return self._idle.get_nowait()
        with self._starting:
            if self._closed:
                raise LookalikeError("the job is ending")  # in a thread whose result nobody reads any more
            library = str(Path(__file__).parents[2])
            paths = os.pathsep.join(filter(None, [library, os.environ.get("PYTHONPATH")]))
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "lookalike.embed.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
            self._all.append(child)
        assert child.stdout
        with suppress(OSError):
            fcntl.fcntl(child.stdout, SET_PIPE_SIZE, PIPE)
        _send(child, self._settings)
        return child

    def _result(self, child: "subprocess.Popen[bytes]", row: Row) -> ShardImage:
        """Read what a process made of an image, and answer its questions."""
        assert child.stdout
        with self._budgets.pixels.share() as take:
            while True:
                kind, value = pickle.load(child.stdout)
                if kind == "known?":
                    assert self._known
                    _send(child, self._known(value))
                elif kind == "memory":
                    take(value)
                    _send(child, None)
                elif kind == "out of memory":
                    raise out_of_memory(row, value)
                elif kind == "error":
                    raise LookalikeError(value)
                else:
                    break
        image = ShardImage(row["image_id"], row["path"], **{key: part for key, part in value.items() if key != "shape"})
        if kind == "prepared":
            image.prepared = np.empty(value["shape"], np.uint8)
            pixels: Any = memoryview(image.prepared).cast("B")  # type: ignore[arg-type]
            if child.stdout.readinto(pixels) < len(pixels):  # type: ignore[attr-defined]
                raise EOFError
        return image

    def _again(self, row: Row, status: int) -> ShardImage:
        """Prepare the image at which a process ended, in a process of its own."""
        if self._closed or status in (-signal.SIGINT, -signal.SIGTERM):
            raise LookalikeError("interrupted while images were decoded. Run again.")
        if status >= 0:
            raise RuntimeError(f"a process that prepares images ended with status {status}; its message is above")
        settings = self._settings
        needs = settings.geometry.needs if settings.shrinks else None
        try:
            data = self._guard.read(row)
            image, size = alone.decode(data, needs, settings.seconds, settings.icc, self._all.append)
        except images.BadImage as bad:
            return ShardImage(row["image_id"], row["path"], reason=str(bad))
        except alone.FatalError as error:
            self._guard.rejected += 1
            return ShardImage(row["image_id"], row["path"], reason=f"{in_work.NOT_DECODED}{error}, twice")
        except MemoryError as error:
            raise out_of_memory(row, error) from error
        sha256 = hashlib.sha256(data).hexdigest()
        prepared, profile = settings.geometry(image), image.info.get("profile", "")
        return ShardImage(row["image_id"], row["path"], sha256, size, prepared, profile=profile)


def out_of_memory(row: Row, error: object) -> LookalikeError:
    """Not the image's fault: rejecting it would depend on what else was in memory."""
    return LookalikeError(
        f"{row['root']}/{row['path']}: out of memory while reading it ({error}). Run on a machine with more "
        "memory, raise runtime.mem_mb on a cluster, lower runtime.threads, or remove the image from the data set."
    )


def _send(child: "subprocess.Popen[bytes]", message: Any) -> None:
    assert child.stdin
    pickle.dump(message, child.stdin)
    child.stdin.flush()
