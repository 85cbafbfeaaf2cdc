"""`lookalike schema`: the JSON Schema of a configuration, for editors."""

from lookalike.cli.output import print_json
from lookalike.config.schema import schema as generate


def schema() -> None:
    """Print the JSON Schema of the configuration, for completion, explanations and error marks in an editor.

    \b
    Example:
      lookalike schema > lookalike.schema.json
    """
    print_json(generate())
