"""How many images a data set is expected to have: checked before anything is embedded."""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from lookalike.io import relevance
from lookalike.job.errors import LookalikeError

ROLES = {"references": "reference", "queries": "query", "training": "training"}  # part -> column of the images table


def count(images: pa.Table, truth: pa.Table) -> dict[str, int]:
    """The numbers of references, queries and training images of a sample, and of the pairs of its truth."""
    roles = {role: int(pc.sum(images[column]).as_py() or 0) for role, column in ROLES.items()}
    return {**roles, "pairs": int(relevance.matches(truth, images).sum())}


def differences(expect: Mapping[str, int], counts: Mapping[str, int]) -> list[str]:
    """One phrase for each count that differs from what is expected."""
    return [
        f"{number:,} {role} were expected, and {counts[role]:,} found"
        for role, number in expect.items()
        if counts[role] != number
    ]


def check(entry: str, expect: Mapping[str, int], counts: Mapping[str, int], remedy: str) -> None:
    """Raise LookalikeError where a count differs from what is expected; ``entry`` is ``datasets.NAME``."""
    if wrong := differences(expect, counts):
        raise LookalikeError(f"{entry}.expect: {'; '.join(wrong)}. {remedy}")
