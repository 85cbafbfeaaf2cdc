"""The log of a job of the workflow, and how its errors are shown."""

import errno
import logging
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lookalike.job import packages
from lookalike.job.devices import out_of_memory
from lookalike.job.errors import LookalikeError, writing
from lookalike.job.lean import end_quickly, leave_pandas_out
from lookalike.job.telemetry import switch_off_telemetry
from lookalike.job.usage import peak_memory_mb

log = logging.getLogger("lookalike")

NO_SPACE = "Free some space, or raise the quota or limit (ulimit -f)."
NO_PERMISSION = "Give yourself permission, or mount that disk writable."
NO_DISK = "Check that the disk or network file system is mounted and works."
REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), NO_SPACE),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), NO_PERMISSION),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENOTCONN, errno.ETIMEDOUT), NO_DISK),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "Raise the limit on open files (ulimit -n)."),
}


@contextmanager
def job(name: str, log_file: str) -> Iterator[None]:
    """Log to ``log_file`` and, prefixed with the job's name, to the terminal; the file ends with what the job cost.

    A LookalikeError ends the process with only its message, and so does a lack of memory, space or permission; anything
    else is a bug and keeps its traceback.
    """
    switch_off_telemetry()
    leave_pandas_out()
    end_quickly()
    try:
        with writing(log_file):
            Path(log_file).parent.mkdir(parents=True, exist_ok=True)
            to_file = _LogFile(log_file, mode="w", encoding="utf-8")
    except LookalikeError as error:
        sys.exit(f"{name}: {error}")
    to_file.set_name(name)
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
        if message := fault_of_the_machine(error):
            log.error("%s", message)
            log.debug("traceback:", exc_info=True)
            sys.exit(1)
        log.exception("unexpected error; please report it with this log")
        sys.exit(1)
    finally:
        used = resource.getrusage(resource.RUSAGE_SELF)
        cpu = used.ru_utime + used.ru_stime
        log.debug("took %.2f s of CPU and at most %.0f MB of memory", cpu, peak_memory_mb())


def fault_of_the_machine(error: Exception) -> str | None:
    """What the machine lacks (memory, space, permission, a package) and what to do; None for any other error."""
    if message := packages.missing_import(error):
        return message
    if out_of_memory(error):
        reason = f" ({str(error).strip().splitlines()[0]})" if str(error).strip() else ""
        return (
            f"out of memory{reason}. Raise the limit of this job (runtime.mem_mb on a cluster, ulimit -v), run fewer "
            "jobs at once (--cores, --jobs), or use a machine with more memory."
        )
    if isinstance(error, OSError) and (remedy := REMEDIES.get(error.errno or 0)):
        return f"{error.filename or 'a file'}: {error.strerror}. {remedy}"
    return None


class _LogFile(logging.FileHandler):
    """A log that reports once, without a traceback, that it cannot be written: the terminal shows all lines too."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        self.setLevel(logging.CRITICAL + 1)
        error = sys.exception()
        print(f"{self.baseFilename}: cannot be written ({getattr(error, 'strerror', error)})", file=sys.stderr)
