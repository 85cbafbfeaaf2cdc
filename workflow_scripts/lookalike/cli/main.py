"""The command line: models and indexes asked about single pictures, data sets checked. One module a command."""

from typing import Any

import typer
from typer.core import TyperGroup

from lookalike.cli import check, models, pair, schema, search, try_folder
from lookalike.job.errors import LookalikeError
from lookalike.job.log import fault_of_the_machine


class Commands(TyperGroup):
    """What a user can fix ends with its message alone and status 1; typer gives a wrong command line status 2."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except LookalikeError as error:
            typer.echo(f"lookalike: {error}", err=True)
            raise typer.Exit(1) from None
        except (OSError, MemoryError, RuntimeError, ImportError) as error:
            if said := fault_of_the_machine(error):
                typer.echo(f"lookalike: {said}", err=True)
                raise typer.Exit(1) from None
            raise


app = typer.Typer(
    cls=Commands,
    name="lookalike",
    help="Which image embedding finds your pictures? Ask the models of config.yaml about pictures of yours.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # what is left is a mistake of ours, and its plain traceback is what we need
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (pair.pair, search.search, models.models, check.check, schema.schema):
    app.command()(command)
app.command("try")(try_folder.try_folder)  # `try` is a word of Python's own


def main() -> None:
    """The entry point `lookalike`."""
    app()
