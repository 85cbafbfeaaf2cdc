"""What every record is made of."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """The contents of a JSON file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Estimate(Record):
    """A value with its 95 % confidence interval; ``n`` is the number of queries averaged over.

    All are None, and ``n`` is 0, if the value is undefined: no queries, or too few references to be wrong.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
