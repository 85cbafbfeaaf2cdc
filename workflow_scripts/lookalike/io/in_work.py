"""Which images a job is decoding, noted so that one that hangs or kills the process can be found and left out.

Beside the log are, while a job runs or after it died: ``{log}.in_work``, in which each thread has a line, and
``{log}.suspects.json``, the images that were in work when earlier attempts died. A suspect is decoded in a process of
its own (``alone.py``); one that hangs or dies there too is rejected. Both files are removed when the job succeeds.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from PIL import Image

from lookalike.io import alone, images
from lookalike.io.color_profiles import Icc
from lookalike.io.image_refusals import BadImage
from lookalike.job import watchdog
from lookalike.job.errors import LookalikeError, writing

log = logging.getLogger(__name__)
Size = tuple[int, int]  # width, height
Row = dict[str, Any]  # of a SHARD table
Take = Callable[[int], None]
Needs = Callable[[Size], Size]
NOT_DECODED = "not decoded: "  # begins the reason of an image that hung or killed its decoder
DEATHS_ALONE = 2  # of the whole job while one image was decoded alone: an interrupt alone must not reject it


class Guard:
    """Reads images and notes those in work. This one, of a program that a user watches, notes nothing."""

    suspects: tuple[str, ...] = ()  # ids
    rejected = 0  # images that hung or killed a decoder
    reads_files = True  # and nothing else, so that another process can read them, too
    seconds: float = 300  # to decode one image

    def read(self, row: Row) -> bytes:
        """The bytes of an image. Raises BadImage."""
        return images.read_row(row)

    def decode(
        self, row: Row, data: bytes, needs: Needs | None = None, reserve: Take | None = None, icc: Icc = "ignore"
    ) -> tuple[Image.Image, Size]:
        """The image of a row (``image_id``, ``path``) and its full size, as ``images.decode``; a suspect's alone."""
        if row["image_id"] in self.suspects:
            return self.alone(row, data, needs, icc)
        with self.decoding(row, reserve) as take:
            image = images.decode(data, needs, take, icc)
            return image, images.full_size(data, image) if needs else image.size

    @contextmanager
    def decoding(self, row: Row, reserve: Take | None) -> Iterator[Take | None]:
        """Note that an image is decoded; yields a ``reserve`` whose waiting does not count as decoding."""
        yield reserve

    def alone(self, row: Row, data: bytes, needs: Needs | None, icc: Icc = "ignore") -> tuple[Image.Image, Size]:
        """Decode a suspect in a process of its own: the image, and its full size. Raises BadImage, MemoryError."""
        raise NotImplementedError


class Notes(Guard):
    """The notes of one job about the images of ``sha256``, a shard or sample: those about others are ignored."""

    def __init__(self, path: Path, sha256: str, seconds: float) -> None:
        self.path, self.seconds = path, seconds
        self._suspects_file = path.with_suffix(".suspects.json")
        self._known = self._earlier(sha256)
        self.suspects = tuple(sorted(self._known))
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write_suspects(sha256)
            path.write_bytes(json.dumps(sha256).encode().ljust(watchdog.SLOT, b"\n"))
            self._file = os.open(path, os.O_WRONLY)
        self._lock = threading.Lock()
        self._free: list[int] = []
        self._slots = self._count = 0
        self._ending = False

    def _earlier(self, sha256: str) -> dict[str, int]:
        """Suspects of earlier attempts: id -> how often the whole job died while it was decoded alone."""
        known: dict[str, int] = {}
        try:
            noted = json.loads(self._suspects_file.read_bytes())
            if noted["images_of"] == sha256:
                known = {str(image): int(deaths) for image, deaths in noted["images"].items()}
        except (OSError, ValueError, KeyError, AttributeError, TypeError):  # missing, or cut short by a full disk
            pass
        try:
            with self.path.open("rb") as file:
                same = file.read(watchdog.SLOT).strip() == json.dumps(sha256).encode()
        except OSError:
            return known
        for image in watchdog.read(self.path) if same else ():
            known[image["id"]] = known.get(image["id"], 0) + bool(image.get("alone"))
            log.warning("an earlier attempt ended while it decoded %s: decoding it in its own process", image["path"])
        return known

    def _write_suspects(self, sha256: str) -> None:
        if self._known:
            temporary = self._suspects_file.with_suffix(".tmp")
            temporary.write_text(json.dumps({"images_of": sha256, "images": self._known}))
            temporary.replace(self._suspects_file)
        else:
            self._suspects_file.unlink(missing_ok=True)

    @contextmanager
    def decoding(self, row: Row, reserve: Take | None) -> Iterator[Take | None]:
        """Note that an image is decoded; yields a ``reserve`` whose waiting does not count as decoding."""
        with self._slot() as slot:
            self._note(slot, row)

            def waiting(size: int) -> None:
                assert reserve
                self._clear(slot)
                reserve(size)
                self._note(slot, row)

            yield waiting if reserve else None

    def alone(self, row: Row, data: bytes, needs: Needs | None, icc: Icc = "ignore") -> tuple[Image.Image, Size]:
        """Decode a suspect in a process of its own: the image, and its full size. Raises BadImage, MemoryError."""
        if (deaths := self._known[row["image_id"]]) >= DEATHS_ALONE:
            self.rejected += 1
            raise BadImage(f"{NOT_DECODED}the job died {1 + deaths} times while it decoded this image")
        with self._slot() as slot:
            self._note(slot, row, alone=True)
            try:
                return alone.decode(data, needs, self.seconds, icc)
            except alone.FatalError as error:
                self.rejected += 1
                raise BadImage(f"{NOT_DECODED}{error}, twice") from None

    @contextmanager
    def _slot(self) -> Iterator[int]:
        with self._lock:
            if self._ending:
                raise LookalikeError("the job is ending")  # in a thread whose result nobody reads any more
            if not self._free:
                self._slots += 1
                self._free.append(self._slots)
            slot = self._free.pop()
        try:
            yield slot
        finally:
            self._clear(slot)
            self._free.append(slot)

    def _note(self, slot: int, row: Row, **more: Any) -> None:
        with self._lock:
            self._count += 1
            line = json.dumps({"id": row["image_id"], "path": row["path"][:500], "count": self._count, **more})
            os.pwrite(self._file, f"{line}\n".encode(), slot * watchdog.SLOT)

    def _clear(self, slot: int) -> None:
        os.pwrite(self._file, b"\n", slot * watchdog.SLOT)

    def end(self) -> bool:
        """Let no more images be decoded; wait a little for those in work. False where one of them may hang."""
        self._ending = True
        deadline = time.monotonic() + watchdog.GRACE
        while len(self._free) < self._slots and time.monotonic() < deadline:
            time.sleep(0.02)
        return len(self._free) == self._slots

    def remove(self) -> None:
        """Remove the notes, after success."""
        os.close(self._file)
        self.path.unlink(missing_ok=True)
        self._suspects_file.unlink(missing_ok=True)


@contextmanager
def guarding(path: str | Path, sha256: str, seconds: float) -> Iterator[Guard]:
    """Note the images in work in the file ``path``, under a watchdog that ends a job of which one hangs.

    ``seconds``: how long decoding one image may take.
    """
    notes = Notes(Path(path), sha256, seconds)
    name, log_file = _of_the_log()
    program = [sys.executable, "-I", "-S", watchdog.__file__, str(os.getpid()), str(path), str(seconds), name, log_file]
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, watchdog.ENDING)  # until it handles them, it would die of them
    dog = subprocess.Popen(program, stdin=subprocess.PIPE)
    signal.pthread_sigmask(signal.SIG_SETMASK, earlier)
    assert dog.stdin
    try:
        yield notes
    except BaseException:
        if notes.end():
            _dismiss(dog)
        else:  # a thread that hangs keeps the process from ending: the watchdog ends it
            os.write(dog.stdin.fileno(), watchdog.FAILED)
            _left_running.append(dog)
        raise
    _dismiss(dog)
    notes.remove()


_left_running: list["subprocess.Popen[bytes]"] = []  # until the process ends


def _dismiss(dog: "subprocess.Popen[bytes]") -> None:
    with suppress(OSError):
        dog.communicate(watchdog.DONE)


def _of_the_log() -> tuple[str, str]:
    """The job's name, and the file that it logs to; that of the command, and no file, outside of a workflow."""
    file = next((one for one in logging.getLogger("lookalike").handlers if isinstance(one, logging.FileHandler)), None)
    return (file.get_name() or "job", file.baseFilename) if file else ("lookalike", "")
