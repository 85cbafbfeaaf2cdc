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
    """Another metric of the same need by which ``model`` is significantly better than the top one (``difference``)."""

    metric: str
    model: str
    difference: Estimate
    p_holm: float


class Answer(Record):
    """Which models to use for one need, by its ``metric``.

    best: the model with the highest value, then those that are not shown to be worse
    worse: models that are significantly worse
    verdict: `best` (better than all others), `not worse` (better than some), `cannot tell` (than none), `too few
        groups`, `only` (no other model), `not measured`
    strict: the estimate before images of the same scene are ignored, if ``metric`` ignores them
    threshold: where a model acts alone, whether its threshold for 90 % `holds` (``thresholds.Target.verdict``)
    contradictions: to be said with the answer; empty if no other metric of the need contradicts it
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
