"""What every mapping of the configuration has in common."""

import os
import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


def _path(value: str) -> str:
    """A local path; ~ is the user's home directory."""
    if re.match(r"\w+://", value):
        raise ValueError(f"'{value}' is a URL. Download the files, and give their local path.")
    if re.match(r"\$\{?\w", value):
        raise ValueError(
            f"'{value}' starts with a variable, and variables are not expanded. Write the path in full, or use ~."
        )
    return os.path.expanduser(value)  # noqa: PTH111  # the string is otherwise kept as written


UserPath = Annotated[str, AfterValidator(_path)]


class Entry(BaseModel):
    """A mapping of the configuration: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
