"""What a model follows (colors, overlaid text, the foreground), and tests of published claims about it.

Two published comparisons make such claims: A looks at the neighbors of six Flickr30k images under five models, B
compares CLIP (512 dimensions) with DINOv2 (768) on DISC21. ``CLAIMS`` lists their claims, each with the measure that
tests it. All models are measured; a claim is tested on the models of its architecture. See docs/metrics.md.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.io import relevance
from lookalike.io.formats.records import Claim, Estimate, Following
from lookalike.metrics.breakdowns import CHAIN, by_operation
from lookalike.metrics.joining import Bools
from lookalike.metrics.rates import (
    NOTHING,
    Floats,
    Ints,
    contrast,
    difference,
    estimate,
    group_codes,
    holm,
    shuffled,
    sign_flip,
    verdict,
)

AT = 5  # neighbors compared with those of the color histogram, as in the published comparisons
COLORS = "color_histogram"  # the architecture of the color baseline
OVERLAP = "color_overlap"
OPERATIONS = ("color", "grey", "text", "paste")  # operations that reveal what a model follows
AGREEMENT = ("caption_agreement_at_5", "category_overlap_at_5")
ACCURACY = "accuracy_at_1"

# The reason why a claim cannot be tested if its measure is missing.
NEEDS = {
    OVERLAP: f"needs a color histogram among the models and a k of at least {AT}",
    ACCURACY: "needs queries with a match",
    **dict.fromkeys(OPERATIONS, "needs copies made by this operation and by others"),
}


@dataclass(frozen=True)
class Statement:
    """A published claim about an architecture, and how to test it.

    said: the claim
    measures: names of outcomes, in order of preference: OVERLAP, an operation of OPERATIONS (the change in accuracy
        under it), or a metric
    more: whether a higher value than the other models' confirms the claim
    than: architectures of the other models; empty for all other known architectures
    against: the mean of the other models, the best of them, or each one of the same dimension
    """

    article: str
    architecture: str
    said: str
    measures: tuple[str, ...]
    more: bool
    than: tuple[str, ...] = ()
    against: Literal["mean", "best", "same length"] = "mean"


CLAIMS = (
    Statement("A", "cnn", "follows color and texture", (OVERLAP,), more=True),
    Statement("A", "cnn", "follows color and texture", ("color",), more=False),
    Statement("A", "cnn", "follows color and texture", ("grey",), more=False),
    Statement("A", "vit", "is better than the CNN", (*AGREEMENT, ACCURACY), more=True, than=("cnn",)),
    Statement("A", "vit", "still follows pixels", (OVERLAP,), more=True, than=("dinov2", "clip", "blip2")),
    Statement("A", "dinov2", "follows foreground objects", ("paste",), more=True),
    Statement("A", "clip", "follows meaning", AGREEMENT, more=True),
    Statement("A", "clip", "is drawn to written text", ("text",), more=False),
    Statement("A", "blip2", "follows the situation", AGREEMENT, more=True),
    Statement("A", "blip2", "is the best", (*AGREEMENT, ACCURACY), more=True, against="best"),
    Statement(
        "B", "dinov2", "finds more than CLIP", (ACCURACY, *AGREEMENT), True, than=("clip",), against="same length"
    ),
)


@dataclass(frozen=True)
class Outcomes:
    """One value per query, in the same order for every model.

    values: (q,) float64 in [0, 1]
    groups: (q,) int64, see ``rates.group_codes``
    """

    values: Floats
    groups: Ints


@dataclass(frozen=True)
class Model:
    """The results of one model with one index.

    architecture: as in the catalogue; "" if not given
    dimension: of the searched vectors; None if unknown
    outcomes: metric or OVERLAP -> outcomes
    """

    name: str
    architecture: str
    dimension: int | None
    outcomes: Mapping[str, Outcomes]


def overlaps(neighbors: pa.Table, colors: pa.Table, truth: pa.Table, images: pa.Table) -> Outcomes:
    """The share of each query's first AT neighbors that are also among the color histogram's first AT.

    neighbors, colors: NEIGHBORS tables of the model and of the color histogram
    truth, images: TRUTH and IMAGES tables

    True matches are excluded from both, since finding the match does not imply following its colors. If fewer than AT
    neighbors remain, the share is of these. A query rejected by one of the two scores 0.
    """
    ids = images["image_id"].combine_chunks()
    pairs = pa.concat_tables(table.select(["query_id", "reference_id"]) for table in (neighbors, colors))
    true = _pairs(relevance.right_among(pairs, truth, images), ids)
    first = _first(neighbors, ids, true)
    common = np.intersect1d(first, _first(colors, ids, true))
    counted = np.flatnonzero(images["query"].to_numpy())
    shared, remaining = (np.bincount(pairs // len(ids), minlength=len(ids))[counted] for pairs in (common, first))
    shares = shared / np.maximum(remaining, 1)
    return Outcomes(np.asarray(shares, dtype=np.float64), group_codes(images["group"].take(counted).to_pylist()))


def single_operations(queries: pa.Table) -> dict[str, Bools]:
    """Operation -> (q,) bool: the copies made by this operation alone; empty if there are no copies."""
    operations = by_operation(queries).get("operations", {})
    return {name: copies for name, copies in operations.items() if name != CHAIN}


def follow(index: str, models: Sequence[Model], operations: Mapping[str, Bools]) -> list[Following]:
    """What each model follows: OVERLAP, and the change in accuracy under each operation of OPERATIONS.

    operations: ``single_operations`` of the queries with a match

    The change is the accuracy on copies made by the operation minus that on copies made by any other single one.
    """
    rows = []
    for model in models:
        evidence = {}
        if (overlap := model.outcomes.get(OVERLAP)) is not None:
            evidence[OVERLAP] = estimate(overlap.values, overlap.groups)
        if (correct := model.outcomes.get(ACCURACY)) is not None:
            for name in OPERATIONS:
                if split := _split(name, operations):
                    sides = [estimate(correct.values[side], correct.groups[side]) for side in split]
                    evidence[name] = contrast(*sides)
        rows.append(Following(index=index, model=model.name, evidence=evidence))
    return rows


def judge(models: Mapping[str, Sequence[Model]], operations: Mapping[str, Bools]) -> list[Claim]:
    """Test every claim on every model of its architecture: confirmed, refuted or undecided.

    models: by index, the experiment's first index first; claims are tested with the first index, those about models of
        the same dimension with every index
    operations: ``single_operations`` of the queries with a match

    A claim is confirmed or refuted if it is significant at 5 % after Holm's correction over all tests of the
    experiment and its 95 % interval excludes zero. A claim that cannot be tested is undecided, with a reason.
    """
    claims = [
        claim
        for number, (index, searched) in enumerate(models.items())
        for statement in CLAIMS
        if number == 0 or statement.against == "same length"
        for model in searched
        if model.architecture == statement.architecture
        for claim in _test(statement, model, searched, index, operations)
    ]
    corrected = iter(holm([claim.p for claim in claims if not claim.reason]))
    return [claim if claim.reason else _decide(claim, next(corrected)) for claim in claims]


def _decide(claim: Claim, p_holm: float) -> Claim:
    direction = verdict(claim.difference, p_holm)
    low, high = claim.difference.low or 0.0, claim.difference.high or 0.0
    if direction == "cannot tell" or low <= 0 <= high:
        return claim.model_copy(update={"p_holm": p_holm})
    decision = "confirmed" if (direction == "better") == claim.more else "refuted"
    return claim.model_copy(update={"p_holm": p_holm, "verdict": decision})


def _test(
    statement: Statement, model: Model, models: Sequence[Model], index: str, operations: Mapping[str, Bools]
) -> Iterator[Claim]:
    """The tests of one claim on one model, with uncorrected p values."""

    def claim(against: Sequence[Model], measure: str, gap: Estimate, p: float, reason: str = "") -> Claim:
        return Claim(
            article=statement.article,
            said=statement.said,
            model=model.name,
            against=[other.name for other in against],
            by=statement.against,
            index=index,
            measure=measure,
            more=statement.more,
            difference=gap,
            p=p,
            p_holm=p,
            verdict="undecided",
            reason=reason,
        )

    others = [other for other in models if other.architecture not in ("", COLORS, model.architecture)]
    others = [other for other in others if not statement.than or other.architecture in statement.than]
    reason = "" if others else "no model to compare it with"
    if others and statement.against == "same length":
        others = [other for other in others if other.dimension and other.dimension == model.dimension]
        reason = "" if others else "no such model of the same dimension"
    measure = next((name for name in statement.measures if _has(model, name, operations)), statement.measures[0])
    if not reason and not _has(model, measure, operations):
        reason = NEEDS.get(measure, "needs captions or categories")
    if reason:
        yield claim(others, measure, NOTHING, 1.0, reason)
        return

    compare = _comparer(measure, operations)
    if statement.against == "best":
        # The best of several may be so by chance, so the p value is multiplied by their number.
        best = max(others, key=lambda other: float(_outcomes(other, measure).values.mean()))
        gap, p = compare(model, [best])
        yield claim([best], measure, gap, min(1.0, p * len(others)))
    elif statement.against == "mean":
        yield claim(others, measure, *compare(model, others))
    else:
        for other in others:
            yield claim([other], measure, *compare(model, [other]))


def _has(model: Model, measure: str, operations: Mapping[str, Bools]) -> bool:
    if measure in OPERATIONS:
        return ACCURACY in model.outcomes and _split(measure, operations) is not None
    return measure in model.outcomes


def _outcomes(model: Model, measure: str) -> Outcomes:
    return model.outcomes[ACCURACY if measure in OPERATIONS else measure]


def _comparer(
    measure: str, operations: Mapping[str, Bools]
) -> Callable[[Model, Sequence[Model]], tuple[Estimate, float]]:
    """A function that compares one model with the mean of others on the same queries: the difference and its p value.

    For an operation it is a difference in differences: how much more accuracy the model loses under it than the
    others. An operation that is hard for all models cancels out.
    """
    split = _split(measure, operations)

    def compare(model: Model, others: Sequence[Model]) -> tuple[Estimate, float]:
        a, groups = _outcomes(model, measure).values, _outcomes(model, measure).groups
        b = np.mean([_outcomes(other, measure).values for other in others], axis=0)
        if split is None:
            return difference(a, b, groups), sign_flip(a, b, groups)
        sides = [difference(a[side], b[side], groups[side]) for side in split]
        single = split[0] | split[1]
        return contrast(*sides), shuffled((a - b)[single], split[0][single])

    return compare


def _split(measure: str, operations: Mapping[str, Bools]) -> tuple[Bools, Bools] | None:
    """Copies made by the operation, and by any other single operation; None unless there are both."""
    others = [copies for name, copies in operations.items() if name != measure]
    if measure not in OPERATIONS or measure not in operations or not others:
        return None
    return operations[measure], np.logical_or.reduce(others)


def _first(neighbors: pa.Table, ids: pa.Array, true: Ints) -> Ints:
    """(p,) int64: codes (see ``_pairs``) of each query's first AT neighbors that are not true matches."""
    pairs = _pairs(neighbors, ids)
    wrong = ~np.isin(pairs, true)
    pairs, rank = pairs[wrong], neighbors["rank"].to_numpy()[wrong]
    pairs = pairs[np.lexsort((rank, pairs // len(ids)))]
    rows = np.bincount(pairs // len(ids), minlength=len(ids))
    place = np.arange(len(pairs)) - (np.cumsum(rows) - rows)[pairs // len(ids)]
    return np.asarray(pairs[place < AT], dtype=np.int64)


def _pairs(table: pa.Table, ids: pa.Array) -> Ints:
    """(p,) int64: one code per pair, the row of the query times the number of images plus that of the reference."""
    query, reference = (pc.index_in(table[name], value_set=ids).to_numpy() for name in ("query_id", "reference_id"))
    return np.asarray(query.astype(np.int64) * len(ids) + reference, dtype=np.int64)
