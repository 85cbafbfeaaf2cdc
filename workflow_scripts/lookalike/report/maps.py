"""Maps: each model's images on a plane, turned so that the maps of two models can be compared by eye."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.io import identity, store
from lookalike.io.formats.tables import MAP
from lookalike.job.errors import LookalikeError
from lookalike.report.evidence import Evidence, Run, StrPath

SIDE = 1000  # of a map on the page

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Map:
    """One model's map. ``rows``: (n,) of the images table; ``places``: (n, 2), y downwards.

    ``kept``: share of each image's ten nearest images that are among its ten nearest on the map, if known.
    """

    run: Run
    rows: Ints
    places: npt.NDArray[np.float64]
    method: str
    kept: float | None
    queries: int
    references: int

    @property
    def on_page(self) -> Ints:
        """(n, 2) ``places`` as the page draws them: integers from 0 to SIDE that fill both axes."""
        low, high = (edge(self.places, axis=0, initial=0) for edge in (np.min, np.max))
        return np.asarray(np.rint((self.places - low) / np.maximum(high - low, 1e-12) * SIDE), np.int64)


def read(evidence: Evidence) -> list[Map]:
    """The maps of an experiment's models, each turned towards the first one.

    Raises LookalikeError for a map of other vectors than those that were searched, and for two of one model.
    """
    runs = {run.model: run for run in evidence.models}
    ids = evidence.images["image_id"].combine_chunks()
    maps: list[Map] = []
    path_of: dict[str, StrPath] = {}
    for path in evidence.maps:
        made = _read(path, runs, ids)
        model = made.run.model
        if (other := path_of.setdefault(model, path)) != path:
            raise LookalikeError(
                f"{path}: is a map of {model}, as is {other}. Make both again: --forcerun {path} {other}"
            )
        maps.append(_turned(made, maps[0]) if maps else made)
    return maps


def _read(path: StrPath, runs: dict[str, Run], ids: pa.Array) -> Map:
    table, footer = store.read_table(path, MAP), store.read_provenance(path)
    run = runs.get(str(footer.get("model")))
    if run is None or any(footer.get(name) != run.provenance.get(name) for name in identity.BUILT):
        raise LookalikeError(
            f"{path}: is the map of other vectors than those searched. Make it again: --forcerun {path}"
        )
    rows = rows_of(table["image_id"], ids)
    places = np.column_stack([table["x"].to_numpy(), -table["y"].to_numpy()]).astype(np.float64)
    return Map(run, rows, places, footer["method"], footer["kept_neighbors"], footer["query"], footer["reference"])


def _turned(made: Map, like: Map) -> Map:
    """A map rotated, and mirrored where that helps, so that images are near where they are on another map.

    Distances stay; what turns a projection is chance.
    """
    _, own, others = np.intersect1d(made.rows, like.rows, return_indices=True)
    if len(own) < 3:
        return made
    a, b = (places - places.mean(axis=0) for places in (made.places[own], like.places[others]))
    left, _, right = np.linalg.svd(a.T @ b)
    turned = made.places @ (left @ right)
    return replace(made, places=turned)


def rows_of(column: pa.ChunkedArray, ids: pa.Array) -> Ints:
    """The row of each of n image ids among the sample's, (n,); -1 where the sample lacks it."""
    rows = pc.fill_null(pc.index_in(column.combine_chunks(), value_set=ids), -1)
    return np.asarray(rows.to_numpy(zero_copy_only=False), np.int64)


def all_rows(maps: Sequence[Map]) -> Ints:
    """The rows of the images on any map."""
    return np.unique(np.concatenate([one.rows for one in maps])) if maps else np.empty(0, np.int64)
