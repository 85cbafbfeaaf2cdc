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

from lookalike.config.indexes import Normalise
from lookalike.io import identity, store
from lookalike.io.formats.tables import NEIGHBORS
from lookalike.job.errors import LookalikeError
from lookalike.metrics.draws import Draws, Pooled, draw_pools
from lookalike.metrics.joining import Floats, Ints
from lookalike.metrics.pooled import (
    Groups,
    Predictions,
    best_cut,
    first_of_each,
    groups_of,
    micro_average_precision,
    normalise,
    predictions_of,
    recall_at,
)
from lookalike.metrics.ranking import Ranking, at_k, rank

A_QUERY = 10  # predictions that the usual, easier policy takes of each query
NORMALISED = "_sn"


@dataclass(frozen=True)
class Results:
    """The files of a search that are measured; the last two are absent where the data set has no training images."""

    neighbors: str | Path
    candidates: str | Path
    training: str | Path
    candidates_sn: str | Path

    @property
    def files(self) -> list[str | Path]:
        """All of them."""
        return list(vars(self).values())

    def identities(self) -> dict[str, str]:
        """What tells these files from all others, by their name here: metrics say what they were made from."""
        return {name: store.identity(file) for name, file in vars(self).items()}


def results_of(
    *, neighbors: Sequence[str], candidates: Sequence[str], training: Sequence[str], candidates_sn: Sequence[str]
) -> list[Results]:
    """The files of several searches from one list of each. Raises LookalikeError where they differ in length."""
    try:
        return [Results(*of_one) for of_one in zip(neighbors, candidates, training, candidates_sn, strict=True)]
    except ValueError:
        lengths = [len(files) for files in (neighbors, candidates, training, candidates_sn)]
        raise LookalikeError(f"every search has one file of each kind, got {lengths}.") from None


@dataclass(frozen=True)
class Evaluation:
    """Outcomes of the queries that have a match, and lists of the predictions of all queries.

    outcomes: metric -> (q,) float64, in the order of ``ranking.counted``; None where nothing can be said
    predictions: metric of the list -> list
    """

    ranking: Ranking
    outcomes: dict[str, Floats | None]
    groups: Groups
    predictions: dict[str, Predictions]


def evaluate(results: Results, truth: pa.Table, images: pa.Table, *, searched: int, k: int) -> Evaluation:
    """Read the results of one model and index, and match them with the truth.

    ``searched`` is the number of references in the index; ``k`` the neighbors that were asked for, one fewer than are
    in the file. Raises LookalikeError where a file is missing or does not fit the sample.
    """
    identity.check_search(*results.files)
    neighbors = store.read_table(results.neighbors, NEIGHBORS)
    ranking = rank(neighbors, truth, images, searched=searched, kept=k + 1, where=results.neighbors)
    groups = groups_of(images)
    best = f"uap_k{min(k, A_QUERY)}"
    lists = {
        "uap": (store.read_table(results.candidates, NEIGHBORS), results.candidates),
        best: (first_of_each(neighbors, min(k, A_QUERY)), results.neighbors),
    }
    if not identity.is_absent(results.candidates_sn):
        near = store.read_table(results.training, NEIGHBORS)
        settings = Normalise.model_validate(store.read_provenance(results.candidates_sn).get("normalise", {}))
        lists |= {
            f"uap{NORMALISED}": (store.read_table(results.candidates_sn, NEIGHBORS), results.candidates_sn),
            f"{best}{NORMALISED}": (normalise(lists[best][0], near, settings, results.training), results.neighbors),
        }
    predictions = {name: predictions_of(pairs, truth, images, groups, where) for name, (pairs, where) in lists.items()}
    return Evaluation(ranking, at_k(ranking, k), groups, predictions)


def matches_of(evaluation: Evaluation) -> Ints:
    """(g,) int64: the true pairs of every group."""
    return evaluation.predictions["uap"].matches


def pooled(evaluation: Evaluation) -> dict[str, Pooled]:
    """Metric -> its value, and its values when groups are drawn again, for the metrics of the pooled lists."""
    lists = evaluation.predictions
    drawn = dict(zip(lists, _draws(list(lists.values())), strict=True))
    found: dict[str, Pooled] = {}
    for end in ("", NORMALISED):
        for name in (name for name in lists if name.endswith(NORMALISED) == bool(end)):
            found[name] = Pooled(micro_average_precision(lists[name]), drawn[name].average_precision)
        if f"uap{end}" in lists:
            cut = best_cut(lists[f"uap{end}"])
            found[f"recall_at_p90{end}"] = Pooled(recall_at(cut, lists[f"uap{end}"]), drawn[f"uap{end}"].recall)
    return found


def _draws(lists: list[Predictions]) -> list[Draws]:
    matches = lists[0].matches
    if not matches.any():
        return [Draws(np.empty(0), np.empty(0)) for _ in lists]
    return draw_pools([(one.right, one.group) for one in lists], matches)
