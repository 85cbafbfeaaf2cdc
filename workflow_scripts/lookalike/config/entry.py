"""What every mapping of the configuration has in common."""

import os
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

UserPath = Annotated[str, AfterValidator(os.path.expanduser)]  # ~ is the user's home


class Entry(BaseModel):
    """A mapping of the configuration: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)
