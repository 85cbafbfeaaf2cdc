"""FAISS factory strings: whether FAISS builds an index from one that compares unit vectors by inner product."""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from lookalike.job.errors import did_you_mean

# Prefixes of the steps of a factory string, for suggestions where FAISS rejects one.
STEPS = (
    *("Flat", "HNSW", "IVF", "ITQ", "L2norm", "LSQ", "NSG", "OPQ", "PCA", "PCAR", "PCAW", "PCAWR", "PLSQ", "PQ"),
    *("PRQ", "Pad", "RFlat", "RQ", "RR", "RaBitQ", "Refine", "SQ"),
)
DIMENSIONS = (768, 1280, 5040)  # most numbers of sub-quantizers divide one of these
PARTS = ("index", "quantizer", "storage", "base_index", "refine_index")  # indexes inside an index


def make(factory: str, dimension: int) -> Any:
    """An empty index that compares by inner product. Raises ValueError with the reason if FAISS cannot build one."""
    import faiss

    if number := re.search(r"\d{8,}", factory):  # FAISS would allocate that many clusters at once
        raise ValueError(f"{number[0]} is too large for any parameter of an index")
    try:
        index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except (RuntimeError, MemoryError) as error:
        raise ValueError(reason(error)) from None
    for part in parts(index):
        kind = type(part).__name__
        if part.metric_type != faiss.METRIC_INNER_PRODUCT and not isinstance(part, faiss.IndexPreTransform):
            raise ValueError(
                f"FAISS builds an {kind} that compares by L2 distance, not inner product, so its scores would rank "
                "backwards. To combine a graph with codes, use HNSW32_SQ8 or IVF256_HNSW32,PQ16"
            )
        if isinstance(part, faiss.IndexIDMap | faiss.IndexIDMap2):
            raise ValueError(f"an {kind} stores its own ids, but Lookalike keeps them in a file. Omit the IDMap")
    return index


def parts(index: Any) -> Iterator[Any]:
    """An index and all indexes inside it."""
    import faiss

    index = faiss.downcast_index(index)
    yield index
    for name in PARTS:
        if (part := getattr(index, name, None)) is not None:
            yield from parts(part)


def why_rejected(factory: str, dimensions: tuple[int, ...] = DIMENSIONS) -> str | None:
    """Why FAISS cannot build a factory's index for any of these dimensions; None if it can for at least one.

    Also None without FAISS, as in an environment that only submits jobs: the job reports it then.
    """
    try:
        import faiss  # noqa: F401
    except ImportError:
        return None
    why = ""
    for dimension in dimensions:
        try:
            make(factory, dimension)
        except ValueError as error:
            why = why or str(error)
        else:
            return None
    return why


def likely_mistakes(factory: str) -> Iterator[str]:
    """Likely mistakes in a factory that FAISS rejects, each with its fix."""
    if factory.count("(") != factory.count(")"):
        yield f"'{factory}' has unbalanced parentheses. Add or remove one."
        return
    if factory != (plain := "".join(factory.split())):
        yield f"'{factory}' contains spaces, which FAISS does not accept. Write '{plain}'."
        return
    for step in re.split(r",(?![^(]*\))", factory):
        word = re.match(r"[A-Za-z]*", step)[0]  # type: ignore[index]  # always matches
        known = any(word.startswith(prefix) for prefix in STEPS)
        if not known and (not word or get_close_matches(word, STEPS, n=1, cutoff=0.6)):
            yield f"'{step}' in '{factory}' is not a valid step of a FAISS factory.{did_you_mean(word, STEPS)}"


def reason(error: Exception) -> str:
    """The message of a FAISS error without its source location."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^.*\.cpp:\d+: ", "", lines[-1]).split("Error: ")[-1].split(" failed: ")[-1].rstrip(".")
