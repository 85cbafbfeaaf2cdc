"""What every job of the workflow shares: its log, and errors that people can read."""

import errno
import logging
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lookalike.job.devices import out_of_memory
from lookalike.job.errors import LookalikeError, writing
from lookalike.job.telemetry import switch_off_telemetry

log = logging.getLogger("lookalike")

NO_SPACE = "Free some space, or raise the quota or limit (ulimit -f)."
NO_RIGHTS = "Give yourself the rights, or mount that disk writable."
NO_DISK = "See that the disk, or the network's file system, is mounted and works."
REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), NO_SPACE),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), NO_RIGHTS),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENOTCONN, errno.ETIMEDOUT), NO_DISK),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "Raise the limit of open files (ulimit -n)."),
}


@contextmanager
def job(name: str, log_file: str) -> Iterator[None]:
    """Log to ``log_file`` and, under the job's name, to the terminal; the file ends with what the job cost.

    A LookalikeError ends the process with its message alone, and so does what the machine does not give, such as memory
    or space; anything else is a mistake of ours and keeps its traceback.
    """
    switch_off_telemetry()
    try:
        with writing(log_file):
            Path(log_file).parent.mkdir(parents=True, exist_ok=True)
            to_file = _LogFile(log_file, mode="w", encoding="utf-8")
    except LookalikeError as error:
        sys.exit(f"{name}: {error}")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    to_terminal = logging.StreamHandler(sys.stderr)
    to_terminal.setFormatter(logging.Formatter(f"{name}: %(message)s"))
    to_terminal.setLevel(logging.INFO)
    log.handlers = [to_file, to_terminal]
    log.setLevel(logging.DEBUG)
    log.propagate = False
    try:
        yield
    except LookalikeError as error:
        log.error("%s", error)
        sys.exit(1)
    except KeyboardInterrupt:
        log.warning("interrupted")
        sys.exit(130)
    except Exception as error:
        if said := fault_of_the_machine(error):
            log.error("%s", said)
            log.debug("this happened here:", exc_info=True)
            sys.exit(1)
        log.exception("an error that should not happen; please report it with this log")
        sys.exit(1)
    finally:
        used = resource.getrusage(resource.RUSAGE_SELF)
        peak = used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
        log.debug("took %.2f s of CPU and at most %.0f MB of memory", used.ru_utime + used.ru_stime, peak)


def fault_of_the_machine(error: Exception) -> str | None:
    """What the machine did not give (memory, space, rights), and what to do, in a sentence; None for any other."""
    if out_of_memory(error):
        reason = f" ({str(error).strip().splitlines()[0]})" if str(error).strip() else ""
        return (
            f"out of memory{reason}. Raise the limit of this job (runtime.mem_mb on a cluster, ulimit -v), let fewer "
            "jobs run at once (--cores, --jobs), or use a machine with more memory."
        )
    if isinstance(error, OSError) and (remedy := REMEDIES.get(error.errno or 0)):
        return f"{error.filename or 'a file'}: {error.strerror}. {remedy}"
    return None


class _LogFile(logging.FileHandler):
    """A log that says once that it cannot be written, and never with a traceback: the terminal has all lines too."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        self.setLevel(logging.CRITICAL + 1)
        error = sys.exception()
        print(f"{self.baseFilename}: cannot be written ({getattr(error, 'strerror', error)})", file=sys.stderr)
