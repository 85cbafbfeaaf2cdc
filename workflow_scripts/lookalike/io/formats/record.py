"""The base of all records that are written as JSON."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """The contents of a JSON file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)
