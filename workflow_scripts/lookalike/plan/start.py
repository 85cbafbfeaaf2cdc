"""Setup and checks when Snakemake starts, before anything is planned or run."""

import gc
import os
import re
import tempfile
from pathlib import Path

from lookalike.job.errors import ConfigError
from lookalike.plan.code import LIBRARY


def why_not_writable(folder: str) -> str | None:
    """Why a run cannot write its results, and what to do; None where it can.

    Checked before the first job, since Snakemake itself fails on a read-only disk with a traceback.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return (
            f"{Path(folder).absolute()}: cannot be written ({error.strerror}), so nothing was run. Mount the disk "
            "writable, give yourself the rights, or run in another folder (--directory)."
        )


def share_library() -> None:
    """Make the scripts, which run in processes of their own, find this copy of the library before any installed one."""
    paths = [str(LIBRARY.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))


def collect_all_garbage_rarely() -> None:
    """Make Python look through all objects a hundred times less often: new garbage is still collected as it comes.

    Snakemake keeps its jobs and files until it ends. Looking through them again and again is a tenth of the CPU time
    that planning thousands of jobs takes, and frees nothing.
    """
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, 1000)


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
