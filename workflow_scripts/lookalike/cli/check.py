"""`lookalike check`: whether a published data set that a user has downloaded is complete, and what a run costs."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from lookalike.cli.options import ConfigFiles, Json
from lookalike.cli.output import print_json, print_table
from lookalike.embed.catalogue import Catalogue
from lookalike.plan import cost, requirements
from lookalike.sample import sample
from lookalike.sample.found import shortened
from lookalike.sample.sample import Check


def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the data set in the configuration.")],
    configfile: ConfigFiles = None,
    as_json: Json = False,
) -> None:
    """Check that a downloaded data set (disc21, flickr30k, coco) is complete, and estimate what a run costs.

    Makes the same checks as a run, Python packages included, and writes nothing.
    Exits with status 1 if something is missing, otherwise with 0.

    \b
    Example:
      lookalike check disc21
    """
    catalogue = Catalogue.open(configfile, Path("results"))
    plan, entry = catalogue.plan, catalogue.dataset(name)
    checked = sample.check(name, entry)
    jobs = cost.missing_jobs(plan, name)
    costs = cost.estimate(plan, jobs, roles={name: checked.counts})
    needed: list[tuple[str, dict[str, str]]] = [("embed", {"model": model}) for _, model, _ in jobs]
    lacking = requirements.report(plan, [*needed, *((rule, {}) for rule in requirements.WITH_FAISS)])
    if as_json:
        print_json({**_as_json(name, checked, entry.expect, costs), "packages": lacking})
    else:
        _print(name, checked, entry.expect)
        for line in costs:
            typer.echo(f"cost: {line}")
        for reason in lacking:
            typer.echo(f"missing: {reason}")
    if lacking or not checked.complete:
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
        ["part", "found", "used", "found in", ""],
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
            words = {"pairs": "true pairs", "training": "training images"}
            typer.echo(f"a run uses {number:,} {words.get(role, role)}{expected}")
    for line in checked.differences:
        typer.echo(f"unexpected: {line}")
    if found.missing:
        typer.echo("\n".join(found.how_to_get()))
    elif checked.differences:
        typer.echo(found.remedy(name))
    else:
        typer.echo("Complete.")
