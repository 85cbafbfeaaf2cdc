"""What a job need not do: a run of small stages is hundreds of processes that start and end."""

import atexit
import gc
import sys
from collections.abc import Sequence
from types import ModuleType

import pyarrow as pa


class _NoPandas:
    """Finds no pandas."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name, name=name)


def leave_pandas_out() -> None:
    """Let pyarrow look for pandas now and not find it: with the first array that it makes, it would import it.

    For processes of our own only: until something converts to pandas, pyarrow does not recognise its objects as input.
    `to_pandas` imports it as always.
    """
    if "pandas" in sys.modules:
        return
    sys.meta_path.insert(0, _NoPandas)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(_NoPandas)


def end_quickly() -> None:
    """Let Python not look through all objects again when the process ends: the system takes them back anyway.

    That is a tenth of the CPU time of a small job. Handlers of other modules for the end of the process still run.
    """
    atexit.register(gc.freeze)
