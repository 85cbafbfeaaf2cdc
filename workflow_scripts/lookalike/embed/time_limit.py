"""A time limit for each chunk of a download, however the connection drags on."""

import _thread
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from lookalike.job.errors import LookalikeError

log = logging.getLogger(__name__)
CHUNK_SECONDS: ContextVar[float] = ContextVar("CHUNK_SECONDS", default=300.0)
GRACE = 15.0  # seconds that a library has to end once it is interrupted


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Set how long one chunk of a download may take: 10 MB from the Hub, 64 kB of other files."""
    token = CHUNK_SECONDS.set(seconds)
    try:
        yield
    finally:
        CHUNK_SECONDS.reset(token)


@contextmanager
def watched(cache: Path, what: str) -> Iterator[None]:
    """Raise LookalikeError when a file that the Hub's library downloads into ``cache`` does not grow for too long.

    The library's own time limit is for the next byte only, so that a byte every two seconds would keep it waiting.
    """
    seconds, over, stalled = CHUNK_SECONDS.get(), threading.Event(), threading.Event()
    message = (
        f"{what}: a download received less than one chunk in {seconds:g} seconds. Run fetch_weights again: it resumes. "
        "For a slow network, raise runtime.download_seconds in the model's entry."
    )

    def watch() -> None:
        begun, sizes, grown = time.time(), dict[Path, int](), time.monotonic()
        while not over.wait(min(1.0, seconds / 4)):
            now = _incomplete(cache, begun)
            if now != sizes or not now:
                sizes, grown = now, time.monotonic()
            if time.monotonic() - grown > seconds:
                stalled.set()
                _thread.interrupt_main()
                if not over.wait(GRACE):
                    log.error("%s", message)
                    os._exit(1)
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    except KeyboardInterrupt:
        if stalled.is_set():
            raise LookalikeError(message) from None
        raise
    finally:
        over.set()


def _incomplete(cache: Path, since: float) -> dict[Path, int]:
    """The sizes of the files that are being downloaded; those of earlier, killed downloads do not count."""
    sizes = {}
    for path in cache.rglob("*.incomplete"):
        with suppress(OSError):
            status = path.stat()
            if status.st_mtime >= since - 1:
                sizes[path] = status.st_size
    return sizes
