"""Where the code of ``factory: module:function`` is, found without running any of it."""

import sys
from pathlib import Path


def module_file(factory: str) -> Path | None:
    """The file of the module, looked for as Python does: first where the workflow was started, then on the path."""
    inside = Path(*factory.partition(":")[0].split("."))
    for folder in (Path.cwd(), *map(Path, sys.path)):
        for path in (folder / inside / "__init__.py", folder / inside.with_suffix(".py")):
            if path.is_file():
                return path
    return None
