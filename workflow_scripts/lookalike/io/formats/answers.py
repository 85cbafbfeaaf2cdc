"""The answers of an experiment, which the first sentence of its report is made from."""

from lookalike.io.formats.base import Estimate, Record


class Rival(Record):
    """Another model with the same index, compared with the top one; ``difference`` is the top one minus this one.

    ``verdict`` is on the top one: `better`, `cannot tell`, `too few groups`, or `not compared`.
    """

    model: str
    difference: Estimate
    p_holm: float
    verdict: str
    queries_needed: int | None


class Contradiction(Record):
    """What another metric of the same need says significantly about ``model``; ``difference`` is to the top one.

    It is better than the top one, or worse although the deciding metric cannot tell.
    """

    metric: str
    model: str
    difference: Estimate
    p_holm: float


class Answer(Record):
    """Which models to use for one need, by its ``metric``.

    best: the model with the highest value, then those that are not shown to be worse
    worse: models that are significantly worse
    verdict: `best` (better than all others), `not worse` (better than some), `cannot tell` (than none), `too few
        groups`, `only` (no other model), `not measured`. Of the need `fast`: `fastest` (of those not shown to be worse;
        ``best`` is sorted by speed), `different devices` (speeds cannot be compared), `speed unknown`
    strict: the estimate before images of the same scene are ignored, if ``metric`` ignores them
    threshold: where a model acts alone, whether its threshold for 90 % `holds` (``thresholds.Target.verdict``)
    contradictions: to be said with the answer; empty if no other metric of the need contradicts it
    speeds: for the need `fast`, images per second of each model whose speed is known
    """

    need: str
    metric: str
    index: str
    verdict: str
    best: list[str] = []
    worse: list[str] = []
    estimate: Estimate
    strict: Estimate | None = None
    threshold: str = ""
    rivals: list[Rival] = []
    contradictions: list[Contradiction] = []
    speeds: dict[str, float] = {}
