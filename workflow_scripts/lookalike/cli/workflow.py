"""`lookalike workflow`: where the Snakefile is."""

import typer

from lookalike.plan.code import WORKFLOW


def workflow() -> None:
    """Print the path of the Snakefile, for `snakemake -s`. Its catalogue, profiles and documentation are beside it.

    \b
    Example:
      snakemake -s "$(lookalike workflow)" --cores 2 --configfile mine.yaml -- mine
    """
    typer.echo(WORKFLOW / "Snakefile")
