"""What a data set is expected to hold: checked where it is sampled, and again before anything is embedded."""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from lookalike.job.errors import LookalikeError

ROLES = {"references": "reference", "queries": "query", "training": "training"}  # part -> column of the images table


def count(images: pa.Table, truth: pa.Table) -> dict[str, int]:
    """How many references, queries and training pictures a sample has, and how many pairs its truth."""
    roles = {role: int(pc.sum(images[column]).as_py() or 0) for role, column in ROLES.items()}
    return {**roles, "pairs": truth.num_rows}


def differences(expect: Mapping[str, int], found: Mapping[str, int]) -> list[str]:
    """One phrase for each count that is other than expected."""
    return [
        f"{number:,} {role} were expected, and {found[role]:,} found"
        for role, number in expect.items()
        if found[role] != number
    ]


def check(where: str, expect: Mapping[str, int], found: Mapping[str, int], remedy: str) -> None:
    """Raise LookalikeError where a count is other than expected; ``where`` is ``datasets.NAME``."""
    if wrong := differences(expect, found):
        raise LookalikeError(f"{where}.expect: {'; '.join(wrong)}. {remedy}")
