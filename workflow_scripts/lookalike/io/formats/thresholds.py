"""Score thresholds: what was seen, what is safe, and how they transfer to other queries."""

from lookalike.io.formats.base import Estimate, Record


class Seen(Record):
    """The lowest score at which accepted pairs reached the target precision, with precision and recall there."""

    score: float
    precision: float
    recall: float


class Safe(Record):
    """The lowest score at which the precision is shown to reach the target.

    ``bound`` is the one-sided 95 % lower bound of the precision, at least the target. ``precision`` and ``recall`` are
    those of these queries, ``groups`` the number of independent groups among the accepted pairs.
    """

    score: float
    precision: float
    bound: float
    recall: float
    groups: int


class Transfer(Record):
    """Thresholds chosen on random halves of the groups, each applied to the other half.

    ``precision`` is over all accepted pairs; ``recall`` is the mean. ``without`` is the share of halves on which no
    score reached the target; they accept nothing. ``halves`` is the number of halves that a threshold was chosen on.
    """

    precision: Estimate
    recall: float
    without: float
    halves: int


class Target(Record):
    """``thresholds.{90,95,99}`` in the metrics: the score from which pairs may be accepted for a target precision.

    verdict: `holds` if there is a safe threshold. `does not hold` if there are enough groups, but the target was not
        reached where enough of them are accepted, or not by thresholds of other halves. Otherwise `too few queries`
    queries_needed: about how many queries a verdict needs at least; None if it `holds` or nothing can be said
    false_matches_per_query: wrong pairs accepted per query at the safe threshold, or the one seen if that is missing
    share_with_match: the share of queries that have a match. With fewer, precision is lower.
    """

    seen: Seen | None
    safe: Safe | None
    transfer: Transfer
    verdict: str
    queries_needed: int | None
    false_matches_per_query: float | None
    share_with_match: float
