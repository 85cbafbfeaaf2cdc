"""Which models to use: for someone who looks at the results, for a system that acts alone, and where speed counts.

Who finds the match first and who can be trusted without a look are two questions, and models trade places between
them. Each need has a metric of its own that decides, and others that may contradict it; what is significant among all
of these is corrected for together (``pairwise.corrected``). Where speed counts, it is the fastest of the models that
are not shown to be worse for someone who looks.
"""

from collections.abc import Mapping, Sequence

from lookalike.io.formats.answers import Answer, Contradiction, Rival
from lookalike.io.formats.records import Comparison, Estimate, Metrics
from lookalike.metrics.rates import NOTHING, TOO_FEW
from lookalike.metrics.scenes import SCENE

LOOKS, ACTS, FAST = "someone_looks", "acts_alone", "fast"
NEEDS = {  # the first decides; the last two are those of labelled collections
    LOOKS: ("accuracy_at_1", "accuracy_at_3", "r_precision", "map_at_r"),
    ACTS: ("recall_at_p90", "uap"),
}


def headline_metrics(records: Sequence[Metrics]) -> list[str]:
    """All metrics that an answer may speak of, as far as they were measured."""
    names = [name for metrics in NEEDS.values() for metric in metrics for name in (metric, metric + SCENE)]
    return [name for name in (*names, *_agreement(records)) if any(name in record.metrics for record in records)]


def answers(records: Sequence[Metrics], comparisons: Sequence[Comparison]) -> dict[str, Answer]:
    """Need -> answer; without a need that nothing was measured for."""
    found = {need: _answer(need, metrics, records, comparisons) for need, metrics in NEEDS.items()}
    if agreement := _agreement(records):
        found = {LOOKS: _answer(LOOKS, (agreement[0],), records, comparisons)}
    fast = _fast(records, found[LOOKS])
    return found | {FAST: fast} if fast else found


def _fast(records: Sequence[Metrics], looks: Answer) -> Answer | None:
    """The fastest of the models that are not shown to be worse; None where no speed is known."""
    timings = {record.model: record.timing.get("embed") or {} for record in records if record.index == looks.index}
    timed = {model: timing for model, timing in timings.items() if timing.get("images") and timing.get("seconds")}
    if not timed or not looks.best:
        return None
    speeds = {model: timing["images"] / timing["seconds"] for model, timing in timed.items()}
    good = sorted((model for model in speeds if model in looks.best), key=lambda model: -speeds[model])
    chosen = good if len({timing.get("device") for timing in timed.values()}) == 1 else []
    estimates = {record.model: record.metrics[looks.metric] for record in records if record.index == looks.index}
    return Answer(
        need=FAST,
        metric=looks.metric,
        index=looks.index,
        verdict="fastest" if chosen else "different devices" if good else "speed unknown",
        best=chosen,
        worse=looks.worse,
        estimate=estimates[chosen[0]] if chosen else NOTHING,
        speeds=speeds,
    )


def _agreement(records: Sequence[Metrics]) -> list[str]:
    """The metric that decides where no query has a match but images have text; none elsewhere."""
    return [next(iter(record.baselines)) for record in records[:1] if record.baselines and not record.groups]


def _answer(need: str, metrics: Sequence[str], records: Sequence[Metrics], comparisons: Sequence[Comparison]) -> Answer:
    metric = _deciding(metrics[0], records)
    measured = [record for record in records if (estimate := record.metrics.get(metric)) and estimate.value is not None]
    if not measured:
        return Answer(need=need, metric=metric, index=records[0].index, verdict="not measured", estimate=NOTHING)
    top = max(measured, key=lambda record: record.metrics[metric].value or 0.0)  # the first at ties
    about = _about(top, comparisons)
    end = SCENE if metric.endswith(SCENE) else ""
    others = [record.model for record in records if record.index == top.index and record.model != top.model]
    rivals = [_rival(model, about.get((metric, model))) for model in others]
    verdicts = {rival.model: rival.verdict for rival in rivals}
    worse = [model for model in others if verdicts[model] == "better"]
    return Answer(
        need=need,
        metric=metric,
        index=top.index,
        verdict=_verdict(list(verdicts.values())),
        best=[top.model, *(model for model in others if model not in worse)],
        worse=worse,
        estimate=top.metrics[metric],
        strict=top.metrics[metrics[0]] if metric != metrics[0] else None,
        threshold=target.verdict if need == ACTS and (target := top.targets(end).get("90")) else "",
        rivals=rivals,
        contradictions=[
            Contradiction(metric=name, model=model, difference=_turned(pair.difference), p_holm=pair.p_holm)
            for other in metrics
            for name in (other, other + SCENE)
            for model in others
            if name != metric
            and (pair := about.get((name, model)))
            and (pair.verdict == "worse" or (pair.verdict == "better" and verdicts[model] == "cannot tell"))
        ],
    )


def _deciding(metric: str, records: Sequence[Metrics]) -> str:
    """The metric that decides: without images of the same scene, if all models have it and it changes any number."""
    pairs = [(record.metrics.get(metric), record.metrics.get(metric + SCENE)) for record in records]
    known = all(strict and scene and scene.value is not None for strict, scene in pairs)
    changed = any(strict and scene and strict.value != scene.value for strict, scene in pairs)
    return metric + SCENE if known and changed else metric


def _verdict(verdicts: Sequence[str]) -> str:
    """On the top model: from the verdicts on each rival."""
    if not verdicts:
        return "only"
    if all(verdict == "better" for verdict in verdicts):
        return "best"
    if "better" in verdicts:
        return "not worse"
    return next((verdict for verdict in ("cannot tell", TOO_FEW) if verdict in verdicts), "not compared")


def _about(top: Metrics, comparisons: Sequence[Comparison]) -> Mapping[tuple[str, str], Comparison]:
    """(metric, other model) -> the comparison of the top model with it, from the top model's side."""
    found = {}
    for pair in comparisons:
        if pair.index == top.index and pair.difference.value is not None:
            if pair.a == top.model:
                found[pair.metric, pair.b] = pair
            elif pair.b == top.model:
                found[pair.metric, pair.a] = turned(pair)
    return found


def turned(pair: Comparison) -> Comparison:
    """The same comparison from the side of ``b``."""
    verdict = {"better": "worse", "worse": "better"}.get(pair.verdict, pair.verdict)
    return pair.model_copy(
        update={"a": pair.b, "b": pair.a, "difference": _turned(pair.difference), "verdict": verdict}
    )


def _turned(difference: Estimate) -> Estimate:
    value, low, high = difference.value, difference.low, difference.high
    return Estimate(
        value=None if value is None else -value,
        low=None if high is None else -high,
        high=None if low is None else -low,
        n=difference.n,
    )


def _rival(model: str, pair: Comparison | None) -> Rival:
    if pair is None:
        return Rival(model=model, difference=NOTHING, p_holm=1.0, verdict="not compared", queries_needed=None)
    return Rival(
        model=model,
        difference=pair.difference,
        p_holm=pair.p_holm,
        verdict=pair.verdict,
        queries_needed=pair.queries_needed,
    )
