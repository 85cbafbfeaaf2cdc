"""`lookalike schema`: the JSON Schema of a configuration, for editors."""

from lookalike.cli.output import print_json
from lookalike.config.schema import schema as generate


def schema() -> None:
    """Print the JSON Schema of a configuration, with which an editor completes and explains keys and marks mistakes.

    \b
    Example:
      lookalike schema > lookalike.schema.json
    """
    print_json(generate())
