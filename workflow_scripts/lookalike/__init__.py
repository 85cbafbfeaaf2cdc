"""Which image embedding finds your images? The library behind the workflow; it knows nothing of Snakemake.

``import lookalike as la`` imports nothing else: each name below is loaded when it is first used. docs/library.md shows
how to use them, and says which names are stable.
"""

import sys
from types import ModuleType

TYPE_CHECKING = False  # type checkers take it for True; importing typing takes most of the time
if TYPE_CHECKING:
    from lookalike.cli.library import find_duplicates
    from lookalike.embed.library import Model, load_model, models
    from lookalike.io.library import Embeddings, read_embeddings
    from lookalike.job.errors import LookalikeError
    from lookalike.search.library import Neighbors, search

__version__ = "0.1.0"
__all__ = [
    "Embeddings",
    "LookalikeError",
    "Model",
    "Neighbors",
    "__version__",
    "find_duplicates",
    "load_model",
    "models",
    "read_embeddings",
    "search",
]

_MODULES = {
    "Embeddings": "io.library",
    "LookalikeError": "job.errors",
    "Model": "embed.library",
    "Neighbors": "search.library",
    "find_duplicates": "cli.library",
    "load_model": "embed.library",
    "models": "embed.library",
    "read_embeddings": "io.library",
    "search": "search.library",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'lookalike' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"lookalike.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__


class _Library(ModuleType):
    """A module of which a function may have the name of a folder: importing ``search/`` does not hide ``search``."""

    def __setattr__(self, name: str, value: object) -> None:
        if name not in _MODULES:
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Library
