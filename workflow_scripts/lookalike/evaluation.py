"""One model's search results against the truth: what both measuring and comparing begin with.

The pooled metrics come from up to four lists of predictions, each kept under the metric that it is made for:
``uap`` (DISC21's rule: the best pairs over all queries together), ``uap_k10`` (the first ten of each query), and
both again after score normalisation, ``uap_sn`` and ``uap_k10_sn``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from lookalike import formats, identity, store
from lookalike.config import Normalise
from lookalike.errors import LookalikeError
from lookalike.metrics import (
    Floats,
    Groups,
    Ints,
    Pool,
    Ranking,
    at_k,
    best_cut,
    first_of_each,
    groups_of,
    micro_average_precision,
    normalise,
    pool,
    rank,
    recall_at,
)
from lookalike.statistics import Draws, Pooled, draw_pools

A_QUERY = 10  # predictions that the usual, easier policy takes of each query
NORMALISED = "_sn"


@dataclass(frozen=True)
class Results:
    """The files that a search wrote; the last two only where the data set has training images."""

    neighbors: str | Path
    pool: str | Path
    training: str | Path | None = None
    pool_sn: str | Path | None = None

    @property
    def files(self) -> list[str | Path]:
        """All of them that there are."""
        return [file for file in (self.neighbors, self.pool, self.training, self.pool_sn) if file is not None]

    def identities(self) -> dict[str, str]:
        """What tells these files from all others, by their name here: metrics say what they were made from."""
        return {name: store.identity(file) for name, file in vars(self).items() if file is not None}


def results_of(
    *, neighbors: Sequence[str], pools: Sequence[str], trainings: Sequence[str], pools_sn: Sequence[str]
) -> list[Results]:
    """The files of several searches from one list of each; the last two are empty where there are no training images.

    Raises LookalikeError where the lists are of different lengths.
    """
    none: list[str | None] = [None] * len(neighbors)
    try:
        return [Results(*of_one) for of_one in zip(neighbors, pools, trainings or none, pools_sn or none, strict=True)]
    except ValueError:
        lengths = [len(files) for files in (neighbors, pools, trainings, pools_sn)]
        raise LookalikeError(f"every search has one file of each kind, got {lengths}.") from None


@dataclass(frozen=True)
class Evaluation:
    """Outcomes of the queries that have a match, and lists of the predictions of all queries.

    outcomes: metric -> (q,) float64, in the order of ``ranking.counted``; None where nothing can be said
    pools: metric of the list -> list
    """

    ranking: Ranking
    outcomes: dict[str, Floats | None]
    groups: Groups
    pools: dict[str, Pool]


def evaluate(results: Results, truth: pa.Table, images: pa.Table, *, searched: int, k: int) -> Evaluation:
    """Read the results of one model and index, and match them with the truth.

    ``searched`` is the number of references in the index; ``k`` the neighbors that were asked for, one fewer than are
    in the file. Raises LookalikeError where a file is missing or does not fit the sample.
    """
    identity.check_search(*results.files)
    neighbors = store.read_table(results.neighbors, formats.NEIGHBORS)
    ranking = rank(neighbors, truth, images, searched=searched, kept=k + 1, where=results.neighbors)
    groups = groups_of(images)
    best = f"uap_k{min(k, A_QUERY)}"
    lists = {
        "uap": (store.read_table(results.pool, formats.NEIGHBORS), results.pool),
        best: (first_of_each(neighbors, min(k, A_QUERY)), results.neighbors),
    }
    if results.training and results.pool_sn:
        near = store.read_table(results.training, formats.NEIGHBORS)
        settings = Normalise.model_validate(store.read_provenance(results.pool_sn).get("normalise", {}))
        lists |= {
            f"uap{NORMALISED}": (store.read_table(results.pool_sn, formats.NEIGHBORS), results.pool_sn),
            f"{best}{NORMALISED}": (normalise(lists[best][0], near, settings, results.training), results.neighbors),
        }
    pools = {name: pool(pairs, truth, images, groups, where) for name, (pairs, where) in lists.items()}
    return Evaluation(ranking, at_k(ranking, k), groups, pools)


def matches_of(evaluation: Evaluation) -> Ints:
    """(g,) int64: the true pairs of every group."""
    return evaluation.pools["uap"].matches


def pooled(evaluation: Evaluation) -> dict[str, Pooled]:
    """Metric -> its value, and its values when groups are drawn again, for the metrics of the pooled lists."""
    lists = evaluation.pools
    drawn = dict(zip(lists, _draws(list(lists.values())), strict=True))
    found: dict[str, Pooled] = {}
    for end in ("", NORMALISED):
        for name in (name for name in lists if name.endswith(NORMALISED) == bool(end)):
            found[name] = Pooled(micro_average_precision(lists[name]), drawn[name].average_precision)
        if f"uap{end}" in lists:
            cut = best_cut(lists[f"uap{end}"])
            found[f"recall_at_p90{end}"] = Pooled(recall_at(cut, lists[f"uap{end}"]), drawn[f"uap{end}"].recall)
    return found


def _draws(lists: list[Pool]) -> list[Draws]:
    matches = lists[0].matches
    if not matches.any():
        return [Draws(np.empty(0), np.empty(0)) for _ in lists]
    return draw_pools([(one.right, one.group) for one in lists], matches)
