"""Files of a data set that show the same image: counts, and some groups to show."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from lookalike.io import store
from lookalike.io.formats.tables import NEAR_DUPLICATES

MOST_GROUPS = 8  # groups that are shown
MOST_MEMBERS = 4  # images of each


@dataclass(frozen=True)
class NearDuplicates:
    """The near-duplicates of a data set: counts, and the ids of some groups' images."""

    images: int
    groups: int
    rejected: int
    flat: int
    capped: bool
    shown: list[list[str]]


def read(path: str | Path | None) -> NearDuplicates | None:
    """Read the groups of a data set; None where its entry leaves them out."""
    if path is None:
        return None
    table, footer = store.read_table(path, NEAR_DUPLICATES), store.read_provenance(path)
    groups: dict[str, list[str]] = {}
    for group, image_id in zip(table["group"].to_pylist(), table["image_id"].to_pylist(), strict=True):
        groups.setdefault(group, []).append(image_id)
    chosen = sorted(groups, key=lambda group: hashlib.sha256(group.encode()).digest())[:MOST_GROUPS]
    return NearDuplicates(
        images=table.num_rows,
        groups=len(groups),
        rejected=footer["rejected"],
        flat=footer["flat"],
        capped=footer["capped"],
        shown=[groups[group][:MOST_MEMBERS] for group in sorted(chosen)],
    )
