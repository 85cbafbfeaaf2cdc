"""One model's search results joined with the truth, the starting point of measuring and comparing.

The pooled metrics use up to four lists of predictions, named after their metric: ``uap`` (the DISC21 rule: the best
pairs over all queries), ``uap_k10`` (the first ten of each query), and both after score normalisation, ``uap_sn`` and
``uap_k10_sn``. ``uap_scene`` is the first without junk (``metrics.scenes``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from lookalike.config.indexes import Normalise
from lookalike.io import identity, relevance, store
from lookalike.io.formats.audit import Audit
from lookalike.io.formats.tables import CLASS_RANKS, NEIGHBORS
from lookalike.job.errors import LookalikeError
from lookalike.metrics.class_ranks import by_class
from lookalike.metrics.jackknife import ROUGH_DF, Pooled, influences
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
from lookalike.metrics.scenes import SCENE, count_misses, outcomes_of_scenes, predictions_of_scenes, read_scenes
from lookalike.metrics.targets import safe_threshold

PER_QUERY = 10  # predictions per query of the usual, easier rule
NORMALISED = "_sn"
NO_INFLUENCE = np.zeros((1, 0))  # without true pairs


@dataclass(frozen=True)
class Results:
    """The output files of one search.

    ``training`` and ``candidates_sn`` are marked absent if the data set has no training images, ``classes`` if its
    images have no classes; None is the same. Also, what scenes are judged by: the search's ``audit``, without which
    there are no metrics of scenes, and the data set's ``near_duplicates``, None where its entry leaves them out.
    """

    neighbors: str | Path
    candidates: str | Path
    training: str | Path
    candidates_sn: str | Path
    audit: str | Path | None = None
    near_duplicates: str | Path | None = None
    classes: str | Path | None = None

    @property
    def files(self) -> list[str | Path]:
        """The files of the search."""
        files = [self.neighbors, self.candidates, self.training, self.candidates_sn]
        return files if self.classes is None else [*files, self.classes]

    def identities(self) -> dict[str, str]:
        """Name -> content identity of each file, recorded as the inputs of the metrics."""
        return {name: store.identity(file) for name, file in vars(self).items() if file is not None}


def results_of(
    *,
    neighbors: Sequence[str],
    candidates: Sequence[str],
    training: Sequence[str],
    candidates_sn: Sequence[str],
    audit: Sequence[str],
    near_duplicates: Sequence[str],
    classes: Sequence[str],
) -> list[Results]:
    """The files of several searches of one data set, from one list per kind; ``near_duplicates`` is one file or none.

    Raises LookalikeError if the lists differ in length.
    """
    lists = (neighbors, candidates, training, candidates_sn, audit, classes)
    near = next(iter(near_duplicates), None)
    try:
        return [
            Results(nearest, best, near_training, best_sn, audited, near, of_classes)
            for nearest, best, near_training, best_sn, audited, of_classes in zip(*lists, strict=True)
        ]
    except ValueError:
        lengths = [len(files) for files in lists]
        raise LookalikeError(f"expected one file of each kind per search, got {lengths}.") from None


@dataclass(frozen=True)
class Evaluation:
    """Outcomes of the queries with a match, and the pooled predictions of all queries.

    outcomes: metric -> (q,) float64 parallel to ``ranking.counted``; None if there are too few references
    predictions: metric -> its list of predictions; none where they could not hold most true pairs
    matches: (g,) int64, the number of true pairs of each group
    audit: what the misses found; None without an audit
    of_scenes: the list of ``uap`` without junk; None if the audit is not complete
    """

    ranking: Ranking
    outcomes: dict[str, Floats | None]
    groups: Groups
    predictions: dict[str, Predictions]
    matches: Ints
    audit: Audit | None = None
    of_scenes: Predictions | None = None

    @property
    def has_junk(self) -> bool:
        """Whether ``of_scenes`` differs from the list of ``uap``."""
        if self.of_scenes is None:
            return False
        strict, left = self.predictions["uap"], self.of_scenes
        return not (np.array_equal(strict.right, left.right) and np.array_equal(strict.matches, left.matches))


def evaluate(results: Results, truth: pa.Table, images: pa.Table, *, searched: int, k: int) -> Evaluation:
    """Read the results of one model and index and join them with the truth.

    searched: number of references in the index
    k: number of requested neighbors, one fewer than the file has

    Raises LookalikeError if a file is missing or does not belong to the sample.
    """
    identity.check_search(*results.files)
    neighbors = store.read_table(results.neighbors, NEIGHBORS)
    ranking = rank(neighbors, truth, images, searched=searched, kept=k + 1, where=results.neighbors)
    groups = groups_of(images)
    matches = np.bincount(groups.code[ranking.counted], ranking.matches, len(groups.names)).astype(np.int64)
    outcomes, labelled = at_k(ranking, k), relevance.is_labelled(images)
    if labelled and results.classes is not None:
        outcomes = by_class(ranking, store.read_table(results.classes, CLASS_RANKS), images, k, results.classes)
    scenes = None
    if results.audit is not None and (results.near_duplicates or not labelled):
        scenes = read_scenes(results.audit, results.near_duplicates, results.neighbors, results.candidates, images)
        outcomes |= outcomes_of_scenes(
            neighbors, truth, images, scenes, strict=outcomes, ranking=ranking, searched=searched
        )
    if labelled and results.classes is not None and matches.sum() > PER_QUERY * np.count_nonzero(images["query"]):
        # 10,000 images of 10 classes: the best 100,000 pairs hold at most 1 % of the true ones
        return Evaluation(ranking, outcomes, groups, {}, matches)
    best = f"uap_k{min(k, PER_QUERY)}"
    lists = {
        "uap": (store.read_table(results.candidates, NEIGHBORS), results.candidates),
        best: (first_of_each(neighbors, min(k, PER_QUERY)), results.neighbors),
    }
    if not identity.is_absent(results.candidates_sn):
        near = store.read_table(results.training, NEIGHBORS)
        settings = Normalise.model_validate(store.read_provenance(results.candidates_sn).get("normalise", {}))
        lists |= {
            f"uap{NORMALISED}": (store.read_table(results.candidates_sn, NEIGHBORS), results.candidates_sn),
            f"{best}{NORMALISED}": (normalise(lists[best][0], near, settings, results.training), results.neighbors),
        }
    predictions = {name: predictions_of(pairs, truth, images, groups, where) for name, (pairs, where) in lists.items()}
    misses = of_scenes = None
    if scenes and not labelled:
        misses = count_misses(neighbors, truth, images, scenes, ranking)
        of_scenes = predictions_of_scenes(lists["uap"][0], truth, images, groups, scenes)
    return Evaluation(ranking, outcomes, groups, predictions, matches, misses, of_scenes)


def matches_of(evaluation: Evaluation) -> Ints:
    """(g,) int64: the number of true pairs of each group."""
    return evaluation.matches


def pooled(evaluation: Evaluation) -> dict[str, Pooled]:
    """The pooled metrics: name -> value and the influence of groups on it; without a value if it is not known."""
    metrics: dict[str, Pooled] = {}
    for end in ("", NORMALISED):
        found: dict[str, Pooled] = {}
        for name, predictions in evaluation.predictions.items():
            if name.endswith(NORMALISED) == bool(end):
                found |= _named(name, end, predictions)
        metrics |= dict(sorted(found.items(), key=lambda item: item[0].startswith("recall")))
    if evaluation.audit is not None:
        if evaluation.of_scenes is None:
            metrics |= dict.fromkeys((f"uap{SCENE}", f"recall_at_p90{SCENE}"), Pooled(None, NO_INFLUENCE))
        elif evaluation.has_junk:
            metrics |= _named(f"uap{SCENE}", SCENE, evaluation.of_scenes)
        else:
            metrics |= {f"{name}{SCENE}": metrics[name] for name in ("uap", "recall_at_p90")}
    return metrics


def _named(name: str, end: str, predictions: Predictions) -> dict[str, Pooled]:
    """uAP of one list and, of the list by DISC21's rule, recall at a precision of 90 %."""
    average, recall = pooled_of(predictions)
    return {name: average} | ({f"recall_at_p90{end}": recall} if name == f"uap{end}" else {})


def pooled_of(predictions: Predictions) -> tuple[Pooled, Pooled]:
    """uAP and recall at a precision of 90 % of one list."""
    if not predictions.matches.any():
        return Pooled(None, NO_INFLUENCE), Pooled(None, NO_INFLUENCE)
    average, recall, optimism = influences(predictions.right, predictions.group, predictions.matches)
    return (
        Pooled(micro_average_precision(predictions), average, optimism=optimism),
        Pooled(
            recall_at(best_cut(predictions), predictions),
            recall,
            ROUGH_DF,
            positive=safe_threshold(predictions, 90) is not None,
        ),
    )
