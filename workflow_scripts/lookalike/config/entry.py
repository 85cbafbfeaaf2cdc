"""What every mapping of the configuration has in common."""

import os
import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


def _path(value: str) -> str:
    """A path on this machine; ~ is the user's home."""
    if re.match(r"\w+://", value):
        raise ValueError(f"'{value}' is an address. Fetch what is there, and name the path on this machine.")
    if re.match(r"\$\{?\w", value):
        raise ValueError(
            f"'{value}' begins with a variable, and variables are not filled in. Write the path out, or use ~."
        )
    return os.path.expanduser(value)  # noqa: PTH111  # a string stays as it is written


UserPath = Annotated[str, AfterValidator(_path)]


class Entry(BaseModel):
    """A mapping of the configuration: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)
