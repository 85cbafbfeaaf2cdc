"""What every job of the workflow shares: its log, and errors that people can read."""

import logging
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lookalike.errors import LookalikeError

log = logging.getLogger("lookalike")


@contextmanager
def job(name: str, log_file: str) -> Iterator[None]:
    """Log to ``log_file`` and, under the job's name, to the terminal; the file ends with what the job cost.

    A LookalikeError ends the process with its message alone; anything else is a mistake of ours and keeps its
    traceback.
    """
    Path(log_file).parent.mkdir(parents=True, exist_ok=True)
    to_file = logging.FileHandler(log_file, mode="w", encoding="utf-8")
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
    except MemoryError as error:
        log.error("out of memory: %s. Run on a machine with more memory, or ask a cluster for more.", error)
        sys.exit(1)
    except Exception:
        log.exception("an error that should not happen; please report it with this log")
        sys.exit(1)
    finally:
        used = resource.getrusage(resource.RUSAGE_SELF)
        peak = used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
        log.debug("took %.2f s of CPU and at most %.0f MB of memory", used.ru_utime + used.ru_stime, peak)
