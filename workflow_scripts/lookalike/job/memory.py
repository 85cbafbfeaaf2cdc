"""How much memory decoded images take at once, so that large ones wait for each other instead of ending a job."""

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np

AT_ONCE = 1 << 30  # bytes of decoded images; one that needs more is decoded alone
FILES_AT_ONCE = 1 << 28  # bytes of their files
LARGE = 1 << 23  # bytes: Pillow keeps an image in blocks of up to 16 MB
M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1  # of glibc's malloc.h
Take = Callable[[int], None]


class Budget:
    """Bytes that threads share. Whoever wants more than all of them is served alone."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._taken = 0
        self._changed = threading.Condition()
        self._queue = threading.Lock()  # first come, first served: small images never pass a large one for ever

    @contextmanager
    def share(self) -> Iterator[Take]:
        """What is taken within stays taken until its end; asking again for no more than that changes nothing.

        A share is to be taken in one go: two that each hold something and wait for more would wait for ever.
        """
        mine = 0

        def take(wanted: int) -> None:
            nonlocal mine
            if wanted <= mine:
                return
            with self._queue, self._changed:
                self._changed.wait_for(lambda: self._taken == mine or self._taken - mine + wanted <= self.total)
                self._taken += wanted - mine
                mine = wanted

        try:
            yield take
        finally:
            with self._changed:
                self._taken -= mine
                self._changed.notify_all()


def return_large_blocks() -> None:
    """Have glibc give freed large blocks back to the system at once; elsewhere nothing changes.

    It would keep them for the thread that had them: four threads that decode one image after the other would hold four
    images, whatever the budget. Smaller blocks stay where they are, since asking the system again takes time.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGE)
        libc.mallopt(M_TRIM_THRESHOLD, 4 * LARGE)


def is_short() -> bool:
    """Whether the process could not get as much memory now as images may take at once.

    So much, and not only what the last image needed: another thread may have freed its own since. Where memory is
    limited otherwise than by ``ulimit -v``, the system ends the process, and nobody asks.
    """
    try:
        np.empty(AT_ONCE, np.uint8)  # never touched, and so never really had
    except MemoryError:
        return True
    return False
