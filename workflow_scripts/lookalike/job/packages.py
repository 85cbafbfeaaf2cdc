"""Packages that come with an extra of Lookalike, and how to install what is missing."""

import importlib.util
from collections.abc import Iterable

EXTRAS = {
    **dict.fromkeys(("faiss", "onnxruntime"), "cpu"),
    **dict.fromkeys(("torch", "transformers", "onnx", "onnxscript"), "hub"),
    "efficientnet_lite_pytorch": "demo",
    **dict.fromkeys(("starlette", "uvicorn"), "serve"),
}


def missing(names: Iterable[str]) -> list[str]:
    """Which of these modules cannot be imported, as far as can be told without importing them."""
    return [name for name in names if importlib.util.find_spec(name) is None]


def why_missing(names: Iterable[str]) -> str:
    """``torch and transformers are not installed. Run: pip install 'lookalike[hub]'``, for modules of ``EXTRAS``."""
    names = [*names]
    extras = ",".join(dict.fromkeys(EXTRAS[name] for name in names))
    verb = "is" if len(names) == 1 else "are"
    listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    gpu = " ('gpu' instead of 'cpu' for an NVIDIA GPU)" if "cpu" in extras else ""
    return f"{listed} {verb} not installed. Run: pip install 'lookalike[{extras}]'{gpu}"


def missing_import(error: BaseException) -> str | None:
    """``why_missing`` for an import that failed; None for any other error, and for packages of no extra."""
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    return why_missing([name]) if name in EXTRAS else None
