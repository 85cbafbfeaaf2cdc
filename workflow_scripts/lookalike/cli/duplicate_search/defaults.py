"""The thresholds that the package ships, and the model to use where the user names none.

Above what ``python benchmarks/duplicates.py --calibrate --side 320`` measures on altered copies of tiles of the
photographs that scikit-image and scikit-learn carry (docs/duplicates.md has the table). ``candidates``: the cosine from
which on pixels are compared. ``threshold``: the cosine that decides where pixels cannot tell. For comparison, SSCD's
authors use 0.75 (Pizzi et al., "A Self-Supervised Descriptor for Image Copy Detection", CVPR 2022, for a precision of
90 % on DISC21).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from lookalike.job.errors import LookalikeError

PREFERRED = ("sscd-int8", "efficientnet-lite0", "phash-256")  # the first that is available locally is used


@dataclass(frozen=True)
class Default:
    """Of one model."""

    candidates: float
    threshold: float


DEFAULTS = {
    "sscd-int8": Default(candidates=0.35, threshold=0.75),
    "efficientnet-lite0": Default(candidates=0.70, threshold=0.95),
    "phash-256": Default(candidates=0.25, threshold=0.75),
}


def of(model: str) -> Default:
    """A model's shipped thresholds. Raises LookalikeError for any other model."""
    if model not in DEFAULTS:
        raise LookalikeError(
            f"--model {model}: has no shipped threshold (those of {', '.join(DEFAULTS)} are). Choose one: --threshold T"
        )
    return DEFAULTS[model]


def preferred(available: Iterable[str]) -> str:
    """The best of the locally available models."""
    names = set(available)
    return next(name for name in PREFERRED if name in names)
