"""Setup and checks when Snakemake starts, before anything is planned or run."""

import gc
import inspect
import os
import re
import signal
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from lookalike.job.errors import ConfigError, writing
from lookalike.plan.code import IN_WHEEL, LIBRARY, WORKFLOW


def why_not_writable(folder: str) -> str | None:
    """Why a run cannot write its results, and what to do; None where it can.

    Checked before the first job, since Snakemake itself fails on a read-only disk with a traceback.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        path = Path(folder).absolute()
        dangling = path.is_symlink() and not path.exists()
        reason = f"a link to {path.readlink()}, which does not exist" if dangling else error.strerror
        return (
            f"{path}: cannot be written ({reason}), so nothing was run. Mount the disk writable, give yourself the "
            "rights, or run in another folder (--directory)."
        )


def check_same_copy(workflow: str) -> None:
    """Raise ConfigError for a Snakefile of another copy of Lookalike than this library: its scripts may not fit."""
    if Path(workflow).resolve() != WORKFLOW.resolve():
        raise ConfigError(
            f"{workflow}/Snakefile: this Python imports the library of another copy of Lookalike ({LIBRARY}). Run the "
            f"`snakemake` that was installed with this Snakefile, or that copy's: -s {WORKFLOW}/Snakefile"
        )


def share_library(*, own_environment: bool) -> None:
    """Make the scripts, which run in processes of their own, find this copy of the library before any other.

    ``own_environment``: they run in conda environments. An installed library is beside the packages of this Python,
    which must not get there, so it is found through a link.
    """
    folder = LIBRARY.parent
    if IN_WHEEL:
        if not own_environment:
            return  # they run in this Python
        folder = Path(".snakemake/library").absolute()
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            temporary = folder / f"link-{os.getpid()}"
            temporary.symlink_to(LIBRARY, target_is_directory=True)
            temporary.replace(folder / LIBRARY.name)
    paths = [str(folder), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, paths)))


def collect_all_garbage_rarely() -> None:
    """Make Python look through all objects a hundred times less often: new garbage is still collected as it comes.

    Snakemake keeps its jobs and files until it ends. Looking through them again and again is a tenth of the CPU time
    that planning thousands of jobs takes, and frees nothing.
    """
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, 1000)


def remember_parameters(rules: Iterable[Any]) -> None:
    """Make Python look up the parameters of each function in the rules once, not two dozen times a job.

    Snakemake asks `inspect` for them whenever it calls one, unless the function has this attribute: a sixth of the CPU
    time that planning takes.
    """
    for rule in rules:
        for value in (*rule.input, *rule.params, *rule.resources.values()):
            inner = [getattr(value, name, None) for name in ("callable", "_evaluator")]  # of an input, of a resource
            for function in (value, *inner, getattr(type(value), "evaluate", None)):
                if inspect.isfunction(function) and not hasattr(function, "_overwrite_params"):
                    function._overwrite_params = inspect.signature(function).parameters  # type: ignore[attr-defined]


def remember_scripts(sources: Any) -> None:
    """Make Snakemake look up its copy of each script once, not three times a job.

    It parses the path as that of a remote file each time: a tenth of the CPU time that planning takes. It makes no
    other copy while it runs.
    """
    look_up, copies = sources._cache, {}

    def remembered(file: Any) -> Any:
        path = file.get_path_or_uri(secret_free=True)
        if path not in copies:
            copies[path] = look_up(file)
        return copies[path]

    sources._cache = remembered


def remember_producers(outputs: Any) -> None:
    """Make Snakemake match each file with the outputs of all rules once, not once for each job that reads it.

    ``outputs``: its class that does, in newer versions; a twentieth of the CPU time that planning takes.
    """
    if hasattr(outputs, "match_producers"):
        outputs.match_producers = cache(outputs.match_producers)


def check_working_directory() -> None:
    """Raise ConfigError for a working directory in which Snakemake cannot find its locks.

    It looks for them with a pattern that begins with the directory, so that braces in its name are wildcards.
    """
    here = str(Path.cwd())
    for name, constraint in re.findall(r"\{\s*([.\w]+)\s*(,[^{}]*)?\}", here):
        if constraint or name == "n" or not name.isidentifier():
            raise ConfigError(
                f"{here}: Snakemake takes the braces in the name of this folder for a wildcard, and cannot work in it. "
                "Rename it, or run in another folder with --directory."
            )


def end_all_jobs_on_a_signal(grace: float = 5.0) -> None:
    """Make SIGTERM end a run as Ctrl-C does, and both end jobs that do not end on their own.

    Snakemake waits for its running jobs: on SIGTERM until they are done, after Ctrl-C until they have ended. The
    terminal sends Ctrl-C to the jobs too; otherwise they do not know.
    """

    def end(*_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # while it ends: `kill` twice must not leave the lock
        threading.Thread(target=_end_descendants, args=(grace,), daemon=True).start()
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    signal.signal(signal.SIGURG, lambda *_: None)
    source, sink = os.pipe()
    os.set_blocking(sink, False)
    signal.set_wakeup_fd(sink, warn_on_full_buffer=False)
    threading.Thread(target=_pass_on, args=(source, threading.get_ident()), daemon=True).start()


def _pass_on(source: int, main_thread: int) -> None:
    """Pass signals on to the main thread, which runs their handlers but sleeps if another thread received them."""
    while numbers := os.read(source, 1):
        if numbers[0] in (signal.SIGINT, signal.SIGTERM):
            time.sleep(0.1)
            signal.pthread_kill(main_thread, signal.SIGURG)  # ignored, but for waking the thread


def _end_descendants(grace: float) -> None:
    """Wait for the jobs of this process to end, then ask them to, then force them."""
    import psutil  # a package that Snakemake needs; takes a while to import

    for number in (signal.SIGTERM, signal.SIGKILL):
        _, running = psutil.wait_procs(psutil.Process().children(recursive=True), timeout=grace)
        for process in running:
            with suppress(psutil.Error):
                process.send_signal(number)
