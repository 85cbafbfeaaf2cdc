"""A limit on the memory of decoded images, so that large ones wait for each other instead of ending a job."""

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np

AT_ONCE = 1 << 30  # bytes of decoded images; one that needs more is decoded alone
FILES_AT_ONCE = 1 << 28  # bytes of the images' files
LARGE = 1 << 23  # bytes; Pillow stores an image in blocks of up to 16 MB
M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1  # of glibc's malloc.h
Take = Callable[[int], None]


class Budget:
    """Bytes that threads share. A thread that needs more than all of them runs alone."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._taken = 0
        self._changed = threading.Condition()
        self._queue = threading.Lock()  # first come, first served: small images never starve a large one

    @contextmanager
    def share(self) -> Iterator[Take]:
        """Yield a function that takes bytes, released at the end; calling it again for no more changes nothing.

        Take a share in one call: two threads that each hold some and wait for more would deadlock.
        """
        held = 0

        def take(size: int) -> None:
            nonlocal held
            if size <= held:
                return
            with self._queue, self._changed:
                self._changed.wait_for(lambda: self._taken == held or self._taken - held + size <= self.total)
                self._taken += size - held
                held = size

        try:
            yield take
        finally:
            with self._changed:
                self._taken -= held
                self._changed.notify_all()


def return_large_blocks() -> None:
    """Make glibc return freed large blocks to the system at once; on other systems, do nothing.

    It would keep them for the thread that freed them: four threads that decode one image after the other would hold
    four images, whatever the budget. Smaller blocks are kept, since requesting them again takes time.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGE)
        libc.mallopt(M_TRIM_THRESHOLD, 4 * LARGE)


def is_short() -> bool:
    """Whether the process cannot allocate as much memory now as images may take at once.

    That much, and not only what the last image needed: another thread may have freed its memory since. Where memory is
    limited other than by ``ulimit -v``, the system ends the process before this is called.
    """
    try:
        np.empty(AT_ONCE, np.uint8)  # never written, so only address space is allocated
    except MemoryError:
        return True
    return False
