"""One of the processes that read, decode and resize images for a GPU: ``python -m lookalike.embed.worker``.

It reads pickled messages from its parent (``embed/workers.py``): its Settings, then rows of a shard. For each row it
writes a pickled message and the pixels as plain bytes.
"""

import ctypes
import hashlib
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike.embed.preprocess import Geometry
from lookalike.io import images, made_images
from lookalike.io.color_profiles import Icc
from lookalike.job import memory
from lookalike.job.errors import LookalikeError

Row = dict[str, Any]  # of a SHARD table
FREE = memory.AT_ONCE >> 6  # bytes of pixels that a process decodes without asking for memory
PR_SET_PDEATHSIG = 1  # of Linux's prctl.h


@dataclass(frozen=True)
class Settings:
    """How the processes prepare images."""

    geometry: Geometry
    shrinks: bool  # decode: fast
    icc: Icc
    seconds: float  # that decoding one image may take
    asks: bool  # whether to ask, by a file's SHA-256, if its vector is known
    made: dict[str, str]  # where the images are that a run made (``made_images``)


def main() -> None:
    """Prepare the images of the rows that the parent sends, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal, for the job: which ends this process
    with suppress(OSError, AttributeError):  # Linux: end with the parent
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb", buffering=1 << 18)
    os.dup2(2, 1)  # a decoder's own prints must not get between the messages
    settings: Settings = pickle.load(source)
    made_images.remember(settings.made)

    def send(kind: str, value: Any, pixels: NDArray[np.uint8] | None = None) -> None:
        pickle.dump((kind, value), sink)
        if pixels is not None:
            sink.write(np.ascontiguousarray(pixels).data.cast("B"))
        sink.flush()

    def ask(kind: str, value: Any) -> Any:
        send(kind, value)
        return pickle.load(source)

    with suppress(EOFError):
        while True:
            for row in pickle.load(source):
                try:
                    _prepare(row, settings, send, ask)
                except images.BadImage as bad:
                    send("rejected", {"reason": str(bad)})
                except LookalikeError as error:
                    send("error", str(error))
                except MemoryError as error:
                    send("out of memory", str(error))


def _prepare(row: Row, settings: Settings, send: Callable[..., None], ask: Callable[[str, Any], Any]) -> None:
    started = time.perf_counter()
    data = images.read_row(row)
    read = time.perf_counter()
    sha256 = hashlib.sha256(data).hexdigest()
    if settings.asks and ask("known?", sha256):
        send("known", {"sha256": sha256})
        return
    needs = settings.geometry.needs if settings.shrinks else None
    limit = [settings.seconds]

    def reserve(size: int) -> None:
        if size > FREE:  # waiting does not count as decoding
            limit[0] = signal.setitimer(signal.ITIMER_REAL, 0)[0] or settings.seconds
            ask("memory", size)
            signal.setitimer(signal.ITIMER_REAL, limit[0])

    decoding = time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, settings.seconds)  # its signal ends the process, whatever that is doing
    try:
        image = images.decode(data, needs, reserve, settings.icc)
        size = images.full_size(data, image) if needs else image.size
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    decoded = time.perf_counter()
    pixels = settings.geometry(image)
    seconds = {"read": read - started, "decode": decoded - decoding, "preprocess": time.perf_counter() - decoded}
    profile = image.info.get("profile", "")
    told = {"sha256": sha256, "size": size, "seconds": seconds, "profile": profile, "shape": pixels.shape}
    send("prepared", told, pixels)


if __name__ == "__main__":
    main()
