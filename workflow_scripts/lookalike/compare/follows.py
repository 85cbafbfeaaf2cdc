"""What a model follows: colors, text laid over a picture, or what stands before the background.

Article A looks at six pictures and says what each kind of model follows; article B compares CLIP with DINOv2, though
one gives 512 numbers and the other 768. ``CLAIMS`` holds their sentences, each with what would show it. Every model
gets the numbers, also one that no article speaks of; a sentence is tested on the models of its kind.
docs/metrics.md explains both tables in plain words.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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

AT = 5  # neighbors of which the overlap with the color histogram's is taken: as many as the articles show
COLORS = "color_histogram"  # the kind of the model that knows colors only
OVERLAP = "color_overlap"
CHANGES = ("color", "grey", "text", "paste")  # operations that tell what a model follows
AGREEMENT = ("caption_agreement_at_5", "category_overlap_at_5")
ACCURACY = "accuracy_at_1"


# Why a sentence cannot be tested where its measure is not known.
NEEDS = {
    OVERLAP: f"needs a color histogram among the models, and a k of at least {AT}",
    ACCURACY: "needs queries with a match",
    **dict.fromkeys(CHANGES, "needs copies made by this operation and by others"),
}


@dataclass(frozen=True)
class Sentence:
    """One thing that an article says of a kind of model, and the number that would show it.

    measures: names of outcomes, the first that is known is used: OVERLAP, an operation of CHANGES (the change of
        accuracy under it), or a metric
    more: whether the sentence is confirmed by a higher number than the other models'
    than: the kinds of the other models; empty for all other kinds that the articles speak of
    against: the mean of the others, the best of them, or each one that gives vectors of the same length
    """

    article: str
    kind: str
    said: str
    measures: tuple[str, ...]
    more: bool
    than: tuple[str, ...] = ()
    against: Literal["mean", "best", "same length"] = "mean"


CLAIMS = (
    Sentence("A", "cnn", "follows color and texture", (OVERLAP,), more=True),
    Sentence("A", "cnn", "follows color and texture", ("color",), more=False),
    Sentence("A", "cnn", "follows color and texture", ("grey",), more=False),
    Sentence("A", "vit", "is better than the CNN", (*AGREEMENT, ACCURACY), more=True, than=("cnn",)),
    Sentence("A", "vit", "still follows pixels", (OVERLAP,), more=True, than=("dinov2", "clip", "blip2")),
    Sentence("A", "dinov2", "follows foreground objects", ("paste",), more=True),
    Sentence("A", "clip", "follows meaning", AGREEMENT, more=True),
    Sentence("A", "clip", "is drawn to written text", ("text",), more=False),
    Sentence("A", "blip2", "follows the situation", AGREEMENT, more=True),
    Sentence("A", "blip2", "is the best", (*AGREEMENT, ACCURACY), more=True, against="best"),
    Sentence(
        "B", "dinov2", "finds more than CLIP", (ACCURACY, *AGREEMENT), True, than=("clip",), against="same length"
    ),
)


@dataclass(frozen=True)
class Outcomes:
    """One number per query, in the same order for every model.

    values: (q,) float64 in [0, 1]
    groups: (q,) int64, see ``rates.group_codes``
    """

    values: Floats
    groups: Ints


@dataclass(frozen=True)
class Seen:
    """What is known of one model with one index.

    kind: what the catalogue says that it is; "" where it says nothing
    dimensions: length of the vectors that were searched; None where it is not known
    outcomes: by name of the metric, and OVERLAP
    """

    model: str
    kind: str
    dimensions: int | None
    outcomes: Mapping[str, Outcomes]


def overlaps(neighbors: pa.Table, colors: pa.Table, truth: pa.Table, images: pa.Table) -> Outcomes:
    """For every query, the share of its first AT neighbors that are among the color histogram's first AT too.

    True matches are left out on both sides: to find the right picture is not to follow its colors. Where this leaves a
    query fewer than AT of the neighbors that were kept, the share is of these. A query that one of the two could not
    use has 0. Neighbors come in the order of their ranks.
    """
    ids = images["image_id"].combine_chunks()
    true = _pairs(truth, ids)
    first = _first(neighbors, ids, true)
    common = np.intersect1d(first, _first(colors, ids, true))
    counted = np.flatnonzero(images["query"].to_numpy())
    shared, left = (np.bincount(pairs // len(ids), minlength=len(ids))[counted] for pairs in (common, first))
    shares = shared / np.maximum(left, 1)
    return Outcomes(np.asarray(shares, dtype=np.float64), group_codes(images["group"].take(counted).to_pylist()))


def single_operations(queries: pa.Table) -> dict[str, Bools]:
    """Operation -> (q,) bool, the copies that were made by it and nothing else; empty where there are no copies."""
    made_by = by_operation(queries).get("operations", {})
    return {name: copies for name, copies in made_by.items() if name != CHAIN}


def follow(index: str, seen: Sequence[Seen], operations: Mapping[str, Bools]) -> list[Following]:
    """What each model follows, in numbers: OVERLAP, and the change of accuracy under each operation of CHANGES.

    operations: ``single_operations`` of the queries that accuracy counts. A change is the accuracy on copies made by
    one operation less that on copies made by any other single one.
    """
    rows = []
    for one in seen:
        evidence = {}
        if OVERLAP in one.outcomes:
            evidence[OVERLAP] = estimate(one.outcomes[OVERLAP].values, one.outcomes[OVERLAP].groups)
        if (correct := one.outcomes.get(ACCURACY)) is not None:
            for name in CHANGES:
                if split := _split(name, operations):
                    sides = [estimate(correct.values[side], correct.groups[side]) for side in split]
                    evidence[name] = contrast(*sides)
        rows.append(Following(index=index, model=one.model, evidence=evidence))
    return rows


def judge(seen: Mapping[str, Sequence[Seen]], operations: Mapping[str, Bools]) -> list[Claim]:
    """Test every sentence on every model of its kind: confirmed, refuted or undecided.

    seen: the models by index, the experiment's first index first. Sentences are tested with the first index; those on
    vectors of the same length with each.

    Confirmed or refuted is what Holm's correction over all tests of the experiment leaves below 5 %, and whose 95 %
    interval lies on one side of zero as well. A sentence that cannot be tested here is undecided, with the reason.
    """
    tested = [
        claim
        for number, (index, models) in enumerate(seen.items())
        for sentence in CLAIMS
        if number == 0 or sentence.against == "same length"
        for one in models
        if one.kind == sentence.kind
        for claim in _test(sentence, one, models, index, operations)
    ]
    known = [claim for claim in tested if not claim.reason]
    corrected = iter(holm([claim.p for claim in known]))
    return [claim if claim.reason else _decide(claim, next(corrected)) for claim in tested]


def _decide(claim: Claim, p_holm: float) -> Claim:
    found = verdict(claim.difference, p_holm)
    low, high = claim.difference.low or 0.0, claim.difference.high or 0.0
    if found == "cannot tell" or low <= 0 <= high:
        return claim.model_copy(update={"p_holm": p_holm})
    so = "confirmed" if (found == "better") == claim.more else "refuted"
    return claim.model_copy(update={"p_holm": p_holm, "verdict": so})


def _test(
    sentence: Sentence, one: Seen, models: Sequence[Seen], index: str, operations: Mapping[str, Bools]
) -> Iterator[Claim]:
    """The tests of one sentence on one model; without p values that are corrected for each other."""

    def claim(against: Sequence[Seen], measure: str, gap: Estimate, p: float, reason: str = "") -> Claim:
        return Claim(
            article=sentence.article,
            said=sentence.said,
            model=one.model,
            against=[other.model for other in against],
            by=sentence.against,
            index=index,
            measure=measure,
            more=sentence.more,
            difference=gap,
            p=p,
            p_holm=p,
            verdict="undecided",
            reason=reason,
        )

    others = [other for other in models if other.kind not in ("", COLORS, one.kind)]
    others = [other for other in others if not sentence.than or other.kind in sentence.than]
    reason = "" if others else "no model to compare it with"
    if others and sentence.against == "same length":
        others = [other for other in others if other.dimensions and other.dimensions == one.dimensions]
        reason = "" if others else "no such model with vectors of the same length"
    measure = next((name for name in sentence.measures if _knows(one, name, operations)), sentence.measures[0])
    if not reason and not _knows(one, measure, operations):
        reason = NEEDS.get(measure, "needs captions or categories")
    if reason:
        yield claim(others, measure, NOTHING, 1.0, reason)
        return

    compare = _comparer(measure, operations)
    if sentence.against == "best":
        # Chosen for its number, it may owe that to chance: the p value pays for the choice.
        best = max(others, key=lambda other: float(_values(other, measure).values.mean()))
        gap, p = compare(one, [best])
        yield claim([best], measure, gap, min(1.0, p * len(others)))
    elif sentence.against == "mean":
        yield claim(others, measure, *compare(one, others))
    else:
        for other in others:
            yield claim([other], measure, *compare(one, [other]))


def _knows(one: Seen, measure: str, operations: Mapping[str, Bools]) -> bool:
    if measure in CHANGES:
        return ACCURACY in one.outcomes and _split(measure, operations) is not None
    return measure in one.outcomes


def _values(one: Seen, measure: str) -> Outcomes:
    return one.outcomes[ACCURACY if measure in CHANGES else measure]


def _comparer(
    measure: str, operations: Mapping[str, Bools]
) -> Callable[[Seen, Sequence[Seen]], tuple[Estimate, float]]:
    """One model against the mean of others on the same queries: the difference and its p value.

    For an operation it is a difference of differences: how much more accuracy the operation takes from the model than
    from the others. An operation that is hard for all of them cancels out.
    """
    split = _split(measure, operations)

    def compare(one: Seen, others: Sequence[Seen]) -> tuple[Estimate, float]:
        a, groups = _values(one, measure).values, _values(one, measure).groups
        b = np.mean([_values(other, measure).values for other in others], axis=0)
        if split is None:
            return difference(a, b, groups), sign_flip(a, b, groups)
        sides = [difference(a[side], b[side], groups[side]) for side in split]
        single = split[0] | split[1]
        return contrast(*sides), shuffled((a - b)[single], split[0][single])

    return compare


def _split(measure: str, operations: Mapping[str, Bools]) -> tuple[Bools, Bools] | None:
    """Copies made by an operation, and by any other single one; None where there are not both."""
    others = [made_by for name, made_by in operations.items() if name != measure]
    if measure not in CHANGES or measure not in operations or not others:
        return None
    return operations[measure], np.logical_or.reduce(others)


def _first(neighbors: pa.Table, ids: pa.Array, true: Ints) -> Ints:
    """(pairs,) int64: query and reference of each query's first AT neighbors that are no true matches."""
    pairs = _pairs(neighbors, ids)
    wrong = ~np.isin(pairs, true)
    pairs, rank = pairs[wrong], neighbors["rank"].to_numpy()[wrong]
    pairs = pairs[np.lexsort((rank, pairs // len(ids)))]
    rows = np.bincount(pairs // len(ids), minlength=len(ids))
    place = np.arange(len(pairs)) - (np.cumsum(rows) - rows)[pairs // len(ids)]
    return np.asarray(pairs[place < AT], dtype=np.int64)


def _pairs(table: pa.Table, ids: pa.Array) -> Ints:
    query, reference = (pc.index_in(table[name], value_set=ids).to_numpy() for name in ("query_id", "reference_id"))
    return np.asarray(query.astype(np.int64) * len(ids) + reference, dtype=np.int64)
