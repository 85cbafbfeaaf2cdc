"""FAISS factory strings: what FAISS makes of one, and why that is no index to compare unit vectors with."""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from lookalike.errors import did_you_mean

# How a step of a factory string begins: for a suggestion where FAISS refuses one.
STEPS = (
    *("Flat", "HNSW", "IVF", "ITQ", "L2norm", "LSQ", "NSG", "OPQ", "PCA", "PCAR", "PCAW", "PCAWR", "PLSQ", "PQ"),
    *("PRQ", "Pad", "RFlat", "RQ", "RR", "RaBitQ", "Refine", "SQ"),
)
DIMENSIONS = (768, 1280, 5040)  # between them they have most numbers of codes as a divisor
PARTS = ("index", "quantizer", "storage", "base_index", "refine_index")  # indexes inside an index


def make(factory: str, dimension: int) -> Any:
    """An empty index that compares by inner product. Raises ValueError with the reason where FAISS makes none."""
    import faiss

    if number := re.search(r"\d{8,}", factory):  # FAISS would take the memory for as many clusters at once
        raise ValueError(f"{number[0]} is more than an index can have of anything")
    try:
        index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except (RuntimeError, MemoryError) as error:
        raise ValueError(reason(error)) from None
    for part in parts(index):
        kind = type(part).__name__
        if part.metric_type != faiss.METRIC_INNER_PRODUCT and not isinstance(part, faiss.IndexPreTransform):
            raise ValueError(
                f"asked for inner product, FAISS makes an {kind} that compares by L2 distance, whose scores would rank "
                "backwards. A graph and codes go together as HNSW32_SQ8 or IVF256_HNSW32,PQ16"
            )
        if isinstance(part, faiss.IndexIDMap | faiss.IndexIDMap2):
            raise ValueError(f"an {kind} has ids of its own, and here the ids file has them. Leave the IDMap out")
    return index


def parts(index: Any) -> Iterator[Any]:
    """An index and all indexes that it asks."""
    import faiss

    index = faiss.downcast_index(index)
    yield index
    for name in PARTS:
        if (part := getattr(index, name, None)) is not None:
            yield from parts(part)


def refused(factory: str, dimensions: tuple[int, ...] = DIMENSIONS) -> str | None:
    """Why FAISS makes no index of a factory for vectors of any of these dimensions; None where it does for one.

    None too where there is no FAISS, as in an environment that only starts jobs: the job says it then.
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


def slips(factory: str) -> Iterator[str]:
    """What is likely wrong with a factory that FAISS refuses, each with what to do."""
    if factory.count("(") != factory.count(")"):
        yield f"a parenthesis is open or closed once too often in '{factory}'."
        return
    if factory != (plain := "".join(factory.split())):
        yield f"'{factory}' has spaces, which FAISS does not take. Write '{plain}'."
        return
    for step in re.split(r",(?![^(]*\))", factory):
        word = re.match(r"[A-Za-z]*", step)[0]  # type: ignore[index]  # it matches at least nothing
        known = any(word.startswith(one) for one in STEPS)
        if not known and (not word or get_close_matches(word, STEPS, n=1, cutoff=0.6)):
            yield f"'{step}' in '{factory}' is no step of a FAISS factory.{did_you_mean(word, STEPS)}"


def reason(error: Exception) -> str:
    """The sentence in a FAISS error."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^.*\.cpp:\d+: ", "", lines[-1]).split("Error: ")[-1].split(" failed: ")[-1].rstrip(".")
