"""The watchdog of a job: a small process that ends the job when decoding one image takes too long.

A thread that hangs in a decoder cannot be ended, and may even keep Python from running any other thread; only ending
the process helps. ``in_work`` starts this file as a program. It imports nothing but the standard library, so that it
starts in milliseconds and takes little memory.
"""

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SLOT = 1 << 15  # bytes that each thread has in the file of images in work
TICK = 0.5  # seconds between two looks at that file
ENDING = (signal.SIGINT, signal.SIGTERM)  # what a person or a cluster ends jobs with
GRACE = 3.0  # seconds that a job has to end after an interrupt or an error
DONE = b"done\n"  # what the job says before it ends the watchdog; any other end is a death
FAILED = b"failed\n"  # the job wants to end with an error, and a thread that hangs keeps it from that


def read(path: str | Path) -> list[dict[str, Any]]:
    """The images in work that a file lists: ``id``, ``path``, ``count``, and whether it is ``alone``."""
    try:
        data = Path(path).read_bytes()
    except OSError:
        return []
    lines = (data[at : at + SLOT].split(b"\n")[0].strip(b"\0") for at in range(SLOT, len(data), SLOT))
    found = []
    for line in filter(None, lines):
        try:
            found.append(json.loads(line))
        except ValueError:  # read while it was being written
            continue
    return found


class Clock:
    """How long each image has been in work. Time in which the whole job was stopped (Ctrl-Z) does not count."""

    def __init__(self) -> None:
        self.ages: dict[int, float] = {}
        self.last = time.monotonic()

    def tick(self, images: list[dict[str, Any]]) -> None:
        """Advance, and forget the images that are done."""
        now = time.monotonic()
        passed, self.last = min(now - self.last, 4 * TICK), now
        timed = [image["count"] for image in images if not image.get("alone")]
        self.ages = {count: self.ages.get(count, -passed) + passed for count in timed}


def watch(job: int, path: str, seconds: float, tell: Callable[[str], None], again: str) -> None:
    """Watch the process ``job`` until it ends; ``again`` says how to start it another time."""
    ending: list[float] = []
    for number in ENDING:
        signal.signal(number, lambda *_: ending.append(time.monotonic()))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)  # the job has started it with these blocked
    clock = Clock()
    while True:
        ready, _, _ = select.select([sys.stdin], [], [], TICK)
        message = os.read(0, 100) if ready else b"."
        if message.endswith(DONE):
            return
        if message.endswith(FAILED):
            time.sleep(1)  # to log its error
            _kill(job)
            return
        if not message:  # it is dead
            if not ending and (images := read(path)):
                tell(f"the process died while it decoded {_names(images)}. {again}: {_NEXT}")
            return
        if ending and time.monotonic() - ending[0] > GRACE:
            _kill(job)
            return
        images = read(path)
        clock.tick(images)
        if late := [image for image in images if clock.ages.get(image["count"], 0) > seconds]:
            tell(f"decoding {_names(late)} has taken more than {seconds:g} s: ending this job. {again}: {_NEXT}")
            _kill(job)
            return


_NEXT = (
    "the next attempt decodes each image that was in work in a process of its own, and rejects those that cannot be "
    "decoded there."
)


def _names(images: list[dict[str, Any]]) -> str:
    return ", ".join(image["path"] for image in images)


def _kill(job: int) -> None:
    if os.getppid() == job:  # else it has ended, and its number may be another process's
        os.kill(job, signal.SIGKILL)


def main() -> None:
    """``python watchdog.py PID FILE SECONDS NAME LOG``: messages go to the log and, with the name, to the terminal."""
    job, path, seconds, name, log = sys.argv[1:]

    def tell(message: str) -> None:
        print(f"{name}: {message}", file=sys.stderr, flush=True)
        if log:
            with Path(log).open("a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')},000 ERROR {message}\n")

    watch(int(job), path, float(seconds), tell, "Run again, or use --retries 1" if log else "Run the command again")


if __name__ == "__main__":
    main()
