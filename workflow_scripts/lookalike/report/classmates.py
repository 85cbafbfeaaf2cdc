"""The true matches of a labelled collection: the images of a query's class, as sequences that share their rows."""

from collections.abc import Sequence
from typing import overload

import numpy as np
import pyarrow as pa

from lookalike.io import relevance


class Classmates(Sequence[int]):
    """The rows of a class, sorted by id, without the query's own: a list for each query would take gigabytes."""

    def __init__(self, members: list[int], own: int) -> None:
        self.members, self.own = members, own

    def __len__(self) -> int:
        return len(self.members) - 1

    @overload
    def __getitem__(self, place: int) -> int: ...

    @overload
    def __getitem__(self, place: slice) -> list[int]: ...

    def __getitem__(self, place: int | slice) -> int | list[int]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        place %= len(self)
        return self.members[place + (place >= self.own)]


def of(images: pa.Table) -> dict[int, Classmates]:
    """The matches of each query that has any, by its row; every image of a class is a reference."""
    code = relevance.classes(images)
    ids = images["image_id"].to_pylist()
    members: dict[int, list[int]] = {}
    for row in sorted(np.flatnonzero(code >= 0).tolist(), key=ids.__getitem__):
        members.setdefault(int(code[row]), []).append(row)
    return {
        row: Classmates(rows, place) for rows in members.values() if len(rows) > 1 for place, row in enumerate(rows)
    }
