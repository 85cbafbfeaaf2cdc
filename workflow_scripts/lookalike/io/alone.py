"""Decode one image in a process of its own, which may hang or die without ending the job.

The child, ``python -m lookalike.io.alone SECONDS``, reads pickled messages from its parent and writes pickled ones:
the bytes of the file come in, the pixels go out. Where the model may decode at a smaller size, the child asks its
parent, which has the model.
"""

import ctypes
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from lookalike.io import images
from lookalike.io.color_profiles import Icc
from lookalike.job.errors import LookalikeError

Size = tuple[int, int]  # width, height
Needs = Callable[[Size], Size]
PR_SET_PDEATHSIG = 1  # of Linux's prctl.h


class FatalError(Exception):
    """The process hung or died; the message says how."""


def decode(
    data: bytes,
    needs: Needs | None,
    seconds: float,
    icc: Icc = "ignore",
    started: "Callable[[subprocess.Popen[bytes]], None]" = lambda _: None,
) -> tuple[Image.Image, Size]:
    """Decode an image in a child process: the image, and its full size (``images.full_size``).

    ``started`` is given the child. Raises BadImage and MemoryError as ``images.decode`` does, and FatalError if the
    child hangs or dies.
    """
    library = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, [library, os.environ.get("PYTHONPATH")]))
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "lookalike.io.alone", str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
    )
    started(child)
    try:
        answer = _converse(child, data, needs, icc)
    finally:
        child.kill()  # it has answered, or died, or this job is being interrupted
        status = child.wait()
        for pipe in (child.stdin, child.stdout):
            with suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
    if answer is None:
        raise _died(status, seconds)
    if isinstance(answer, Exception):
        raise answer
    mode, size, pixels, info, full = answer
    image = Image.frombytes(mode, size, pixels)
    image.info = info
    return image, full


def _converse(child: "subprocess.Popen[bytes]", data: bytes, needs: Needs | None, icc: Icc) -> Any:
    """Send the file and answer questions about sizes; return the child's result, or None if it ends without one."""
    assert child.stdin
    assert child.stdout
    try:
        pickle.dump((data, needs is not None, icc), child.stdin)
        child.stdin.flush()
        while True:
            kind, value = pickle.load(child.stdout)
            if kind == "result":
                return value
            assert needs
            pickle.dump(needs(value), child.stdin)
            child.stdin.flush()
    except (EOFError, BrokenPipeError, pickle.UnpicklingError):  # the last: it died while it was writing
        child.wait()
        return None


def _died(status: int, seconds: float) -> Exception:
    if status in (-signal.SIGINT, -signal.SIGTERM):
        return LookalikeError("interrupted while an image was decoded in its own process. Run again.")
    if status >= 0:
        return RuntimeError(f"the process that decodes one image ended with status {status}; its message is above")
    if status == -signal.SIGALRM:
        return FatalError(f"decoding it takes more than {seconds:g} s")
    why = " (out of memory?)" if status == -signal.SIGKILL else ""
    return FatalError(f"decoding it kills the process with {signal.Signals(-status).name}{why}")


def main() -> None:
    """Decode the image that the parent sends, and end."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with suppress(OSError, AttributeError):  # Linux: end with the parent, and be what the memory killer chooses
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        Path("/proc/self/oom_score_adj").write_text("1000")
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a decoder's own prints must not get between the messages

    def send(kind: str, value: Any) -> None:
        pickle.dump((kind, value), sink)
        sink.flush()

    def ask(size: Size) -> Size:
        send("needs", size)
        smallest: Size = pickle.load(source)
        return smallest

    data, may_shrink, icc = pickle.load(source)
    signal.setitimer(signal.ITIMER_REAL, float(sys.argv[1]))  # its signal ends the process, whatever that is doing
    try:
        image = images.decode(data, ask if may_shrink else None, icc=icc)
        full = images.full_size(data, image) if may_shrink else image.size
        signal.setitimer(signal.ITIMER_REAL, 0)
        send("result", (image.mode, image.size, image.tobytes(), image.info, full))
    except (images.BadImage, MemoryError) as error:
        signal.setitimer(signal.ITIMER_REAL, 0)
        send("result", error)


if __name__ == "__main__":
    main()
