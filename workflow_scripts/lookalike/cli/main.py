"""The command line, one module per command."""

from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from lookalike import __version__
from lookalike.cli import (
    check,
    compare,
    doctor,
    duplicates,
    export,
    fetch,
    find,
    fuse,
    models,
    pair,
    schema,
    serve,
    use,
    workflow,
)
from lookalike.job.errors import LookalikeError
from lookalike.job.lean import leave_pandas_out
from lookalike.job.log import fault_of_the_machine
from lookalike.job.telemetry import switch_off_telemetry


def _without_type_of_flags(parameters: Any) -> Any:
    """The parameters of a command; help shows no type of options that take no value."""
    for option in parameters:
        if getattr(option, "is_flag", False):
            option.metavar = ""
    return parameters


class Commands(TyperGroup):
    """Shows errors that a user can fix as a message with status 1; typer gives a wrong command line status 2."""

    def get_params(self, ctx: Any) -> Any:
        """The options."""
        return _without_type_of_flags(super().get_params(ctx))

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("lookalike: interrupted", err=True)
            raise typer.Exit(130) from None
        except LookalikeError as error:
            typer.echo(f"lookalike: {error}", err=True)
            raise typer.Exit(1) from None
        except (OSError, MemoryError, RuntimeError, ImportError) as error:
            if message := fault_of_the_machine(error):
                typer.echo(f"lookalike: {message}", err=True)
                raise typer.Exit(1) from None
            raise


class Command(TyperCommand):
    """One of the commands."""

    def get_params(self, ctx: Any) -> Any:
        """The options and arguments."""
        return _without_type_of_flags(super().get_params(ctx))


app = typer.Typer(
    cls=Commands,
    name="lookalike",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # any other error is a bug, for which a plain traceback is best
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(cls=Command)(compare.compare)
app.command(cls=Command)(find.find)
app.command(cls=Command)(duplicates.duplicates)
app.command(cls=Command)(use.use)
app.command(cls=Command)(serve.serve)
app.command("search", cls=Command, hidden=True)(find.search)
app.command("try", cls=Command, hidden=True)(compare.try_folder)  # `try` is a Python keyword
for command in (
    *(pair.pair, models.models, fetch.fetch, check.check, doctor.doctor, schema.schema),
    *(export.export, fuse.fuse, workflow.workflow),
):
    app.command(cls=Command)(command)


def _version(requested: bool) -> None:
    if requested:
        typer.echo(f"lookalike {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Which image embedding finds your images? Compare models on them, and search with the results."""


def main() -> None:
    """Run the command line."""
    switch_off_telemetry()
    leave_pandas_out()
    app()
