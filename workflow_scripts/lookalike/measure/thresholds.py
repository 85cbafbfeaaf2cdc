"""Score thresholds of one model: the one seen for a precision of 90 %, and the safe ones of ``metrics.targets``."""

import numpy as np

from lookalike.io.formats.records import HeldOut, Threshold
from lookalike.io.formats.thresholds import Target
from lookalike.metrics.evaluation import NORMALISED, Evaluation, matches_of
from lookalike.metrics.pooled import Groups, Predictions, best_cut, held_out
from lookalike.metrics.rates import NOTHING, estimate
from lookalike.metrics.scenes import SCENE
from lookalike.metrics.targets import TARGETS, target


def all_of(evaluation: Evaluation, queries: int) -> dict[str, Threshold | Target]:
    """``thresholds`` of the metrics: those seen for 90 %, raw and normalised, and the targets of raw scores."""
    return {**_thresholds(evaluation), **targets(evaluation, queries)}


def targets(evaluation: Evaluation, queries: int, end: str = "") -> dict[str, Target]:
    """The thresholds for each target precision, of raw or normalised scores, or without junk (``end``).

    Empty without true pairs; those without junk also for a data set that has no junk.
    """
    predictions = evaluation.predictions.get(f"uap{end}")
    if end == SCENE:
        predictions = evaluation.of_scenes if evaluation.has_junk else None
    if predictions is None or not predictions.matches.any():
        return {}
    with_match = len(evaluation.ranking.counted)
    return {str(percent): target(predictions, percent, queries=queries, with_match=with_match) for percent in TARGETS}


def _thresholds(evaluation: Evaluation) -> dict[str, Threshold]:
    """Thresholds of the lists by the DISC21 rule, raw and normalised; empty without true pairs."""
    return {
        f"recall_at_p90{end}": _threshold(evaluation.predictions[f"uap{end}"], evaluation.groups)
        for end in ("", NORMALISED)
        if f"uap{end}" in evaluation.predictions and matches_of(evaluation).any()
    }


def _threshold(predictions: Predictions, groups: Groups) -> Threshold:
    cut = best_cut(predictions)
    return Threshold(
        score=cut and cut.score,
        precision=cut and cut.precision,
        recall=cut and cut.recall,
        held_out=_on_held_out_half(predictions, groups),
    )


def _on_held_out_half(predictions: Predictions, groups: Groups) -> HeldOut:
    """Choose the threshold on one half of the groups and apply it to the other half."""
    held = held_out(groups)
    sizes = np.bincount(groups.code[groups.code >= 0], minlength=len(held))
    cut, test = best_cut(predictions.among(~held)), predictions.among(held)
    precision = recall = NOTHING
    if cut is not None:
        accepted = test.score >= cut.score
        precision = estimate(test.right[accepted].astype(np.float64), test.group[accepted])
        hits = np.bincount(test.group[accepted & test.right], minlength=len(held))
        misses = test.matches - hits
        codes = np.arange(len(held))
        recall = estimate(  # one outcome per true pair
            np.repeat([1.0, 0.0], [hits.sum(), misses.sum()]),
            np.concatenate([np.repeat(codes, hits), np.repeat(codes, misses)]),
        )
    return HeldOut(
        threshold=cut and cut.score,
        chosen_on=int(sizes[~held].sum()),
        queries=int(sizes[held].sum()),
        precision=precision,
        recall=recall,
    )
