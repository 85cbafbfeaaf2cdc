"""Progress of long work as lines that suit both a log file and a terminal."""

import logging
import time

log = logging.getLogger(__name__)


class Progress:
    """Counts work and logs from time to time how far it is: ``embedded 512 of 10,000 images, 43.1/s, 3 min left``."""

    def __init__(self, verb: str, total: int, things: str, every: float = 10.0) -> None:
        """``every`` is the time between two lines, in seconds."""
        self.verb, self.total, self.things, self.every = verb, total, things, every
        self.done = 0
        self.started = self.last_logged = time.monotonic()

    def advance(self, count: int = 1) -> None:
        """Count ``count`` more as done."""
        self.done += count
        now = time.monotonic()
        if now - self.last_logged >= self.every or self.done == self.total:
            self.last_logged = now
            seconds = max(now - self.started, 1e-9)
            speed = self.done / seconds
            remaining = (self.total - self.done) / speed
            tail = f"{_duration(remaining)} left" if self.done < self.total else f"in {_duration(seconds)}"
            log.info(
                "%s %s of %s %s, %.1f/s, %s", self.verb, f"{self.done:,}", f"{self.total:,}", self.things, speed, tail
            )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
