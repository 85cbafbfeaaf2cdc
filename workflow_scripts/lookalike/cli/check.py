"""`lookalike check`: whether a published data set that a user has fetched is complete."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from lookalike.cli.catalogue import Catalogue
from lookalike.cli.options import ConfigFiles, Json
from lookalike.cli.output import print_json, print_table
from lookalike.job.errors import LookalikeError, did_you_mean
from lookalike.plan import cost
from lookalike.sample import sample
from lookalike.sample.found import shortened
from lookalike.sample.sample import Check


def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The data set, by its name in the configuration.")],
    configfile: ConfigFiles = None,
    as_json: Json = False,
) -> None:
    """Look at a published data set (disc21, flickr30k, coco): what is complete, what is missing, what is not expected.

    It looks as a run does, and writes nothing. The status is 0 where a run would go on, 1 where something is missing.

    \b
    Example:
      lookalike check disc21
    """
    plan = Catalogue.open(configfile, Path("results")).plan
    known = plan.config.datasets
    if name not in known:
        raise LookalikeError(f"datasets: there is no data set '{name}'.{did_you_mean(name, known)}")
    checked = sample.check(name, known[name])
    costs = cost.estimate(plan, cost.missing_jobs(plan, name), roles={name: checked.counts})
    if as_json:
        print_json(_as_json(name, checked, known[name].expect, costs))
    else:
        _print(name, checked, known[name].expect)
        for line in costs:
            typer.echo(f"cost: {line}")
    if not checked.complete:
        raise typer.Exit(1)


def _as_json(name: str, checked: Check, expect: dict[str, int], costs: list[cost.Cost]) -> dict[str, Any]:
    found = checked.found
    return {
        "dataset": name,
        "root": found.root,
        "complete": checked.complete,
        "parts": [
            {
                key: getattr(part, key)
                for key in ("name", "unit", "found", "wanted", "published", "missing", "places", "absent", "remarks")
            }
            for part in found.parts
        ],
        "counts": checked.counts,
        "expect": expect,
        "differences": checked.differences,
        "how_to_get": found.how_to_get(),
        "cost": [asdict(model) for line in costs for model in line.models],
    }


def _print(name: str, checked: Check, expect: dict[str, int]) -> None:
    found = checked.found
    print_table(
        f"{found.source.title} in {found.root}, as '{name}' uses it",
        ["part", "there", "taken", "found in", ""],
        [
            [
                part.name,
                f"{part.found:,}{f' of {part.published:,}' if part.published else ''} {part.unit}",
                part.wanted,
                shortened(part.places) or "-",
                "MISSING" if part.missing else "ok",
            ]
            for part in found.parts
        ],
    )
    for part in found.parts:
        for line in part.notes:
            typer.echo(f"note: {part.name}: {line}")
    for line in found.missing:
        typer.echo(f"missing: {line}")
    for role, number in checked.counts.items():
        expected = f" (expected: {expect[role]:,})" if role in expect else ""
        if number or expected:
            words = {"pairs": "true pairs", "training": "training pictures"}
            typer.echo(f"a run takes {number:,} {words.get(role, role)}{expected}")
    for line in checked.differences:
        typer.echo(f"not as expected: {line}")
    if found.missing:
        typer.echo("\n".join(found.how_to_get()))
    elif checked.differences:
        typer.echo(found.remedy(name))
    else:
        typer.echo("Complete.")
