"""`lookalike use`: the model, threshold, settings and code that a program needs to decide alone."""

import json
import shlex
from typing import Annotated, Any

import typer

from lookalike.cli import runs
from lookalike.cli.options import ConfigFiles, Json, ModelName, Precision, Results
from lookalike.cli.output import print_json
from lookalike.cli.runs import ACTS, RESULTS, Finished
from lookalike.io import store
from lookalike.io.formats.thresholds import Target
from lookalike.job.errors import LookalikeError

HOLDS, FEW = "holds", "too few queries"


def use(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A comparison, or an experiment that has been run; the last by default."),
    ] = None,
    *,
    precision: Precision = 95,
    model: ModelName = None,
    configfile: ConfigFiles = None,
    results: Results = RESULTS,
    as_json: Json = False,
) -> None:
    """Show which model to use, and from which score two images are the same.

    The threshold holds if your queries show that this share of the accepted
    pairs is correct. Exits with status 1 where no threshold holds.

    \b
    Example:
      lookalike use my-pictures --precision 95
    """
    precision = runs.measured(precision)
    finished = runs.finished(name, configfile, results)
    if model:
        finished.check_model(model)
    models = [pair for pair in finished.order(ACTS) if model in (None, pair[0])]
    targets = {pair: target for pair in models if (target := finished.target(*pair, precision))}
    if not targets:
        raise LookalikeError(
            f"experiment '{finished.experiment}' has no thresholds, which need queries with known matches. Compare "
            "models on copies of your images: lookalike compare FOLDER"
        )
    holding = [pair for pair, target in targets.items() if target.safe and target.verdict == HOLDS]
    best = next(iter(holding or targets))
    facts = _facts(finished, *best, targets[best], precision)
    if as_json:
        print_json(facts)
    else:
        _print(facts, targets[best])
    if not holding:
        raise LookalikeError(_remedy(finished, models, best, precision))


def _facts(finished: Finished, model: str, index: str, target: Target, precision: int) -> dict[str, Any]:
    from lookalike.report import tables, useit  # take a while to import
    from lookalike.report.evidence import Run

    plan, metrics = finished.catalogue.plan, finished.metrics(model, index)
    neighbors = finished.catalogue.results / finished.entry.dataset / "neighbors" / model / f"{index}.parquet"
    provenance = store.read_provenance(neighbors)
    settings = tables.settings(provenance.get("key", ""))
    run = Run(0, model, plan.label(model), index, metrics, neighbors, provenance)
    about = plan.config.models[model].about.summary
    safe = target.safe if target.verdict == HOLDS else None
    step = useit.step(str(precision), target)
    arguments = json.dumps(model)
    if finished.folder is not None:  # with the weights that the run recorded
        arguments += f", results={json.dumps(str(finished.catalogue.results))}"
    files = [str(path.resolve()) for path in finished.catalogue.configfiles]
    if files and model not in type(finished.catalogue).open(None, RESULTS).plan.config.models:
        arguments += f", config={json.dumps(files)}"
    return {
        "experiment": finished.experiment,
        "model": model,
        "label": plan.label(model),
        "index": index,
        "precision": precision,
        "verdict": target.verdict,
        "threshold": safe.score if safe else None,
        "recall": safe.recall if safe else None,
        "queries_needed": target.queries_needed,
        "share_with_match": target.share_with_match,
        "settings": dict(useit.facts(run, about, settings if isinstance(settings, dict) else {})),
        "code": useit.OURS.format(model=arguments) + (f"{step.code}\naccepted = scores >= threshold\n" if safe else ""),
        "report": str(finished.report),
    }


def _print(facts: dict[str, Any], target: Target) -> None:
    typer.echo(f"model: {facts['model']} ({facts['label']})")
    safe = target.safe
    if facts["threshold"] is not None and safe:
        typer.echo(f"threshold: {facts['threshold']:.4f}")
        typer.echo(
            f"verdict: holds. Of the pairs with at least this score, {safe.precision:.1%} are correct, and at least "
            f"{safe.bound:.1%} with 95 % confidence; {safe.recall:.1%} of the matches are found."
        )
        typer.echo(
            f"for: collections where {target.share_with_match:.0%} of the queries have a match, as in the comparison. "
            "Where fewer have one, precision is lower."
        )
    else:
        typer.echo(f"verdict: no threshold for {facts['precision']} % precision: {facts['verdict']}")
    for name, value in [*facts["settings"].items()][1:]:  # the first is the model
        typer.echo(f"{name.lower()}: {value}")
    typer.echo(f"report: {typer.format_filename(facts['report'])}")
    typer.echo(f"\n{facts['code']}", nl=False)


def _remedy(finished: Finished, models: list[tuple[str, str]], best: tuple[str, str], precision: int) -> str:
    """Why the threshold of the best of ``models`` does not hold, and what would help."""
    target = finished.target(*best, precision)
    assert target
    why = f"no threshold of {best[0]} for {precision} % precision holds: {target.verdict}."
    if target.queries_needed and finished.folder:
        more = shlex.join(["lookalike", "compare", finished.folder, "--queries", str(target.queries_needed)])
        return f"{why} About {target.queries_needed:,} queries are needed: {more}"
    for lower in sorted((value for value in runs.PRECISIONS if value < precision), reverse=True):
        for model, index in models:
            found = finished.target(model, index, lower)
            if found and found.safe and found.verdict == HOLDS:
                command = ["lookalike", "use", finished.experiment, "--precision", str(lower)]
                command += ["--model", model] if len(models) == 1 else []
                return f"{why} That of {model} for {lower} % holds: {shlex.join(command)}"
    if target.verdict == FEW and finished.folder:
        queries = finished.metrics(*best).queries
        more = shlex.join(["lookalike", "compare", finished.folder, "--queries", str(max(200, 2 * queries))])
        return f"{why} Add images to the folder, or at least compare with more copies: {more}"
    others = shlex.join(["lookalike", "compare", finished.folder or "FOLDER", "--models", "A,B"])
    return f"{why} Compare other models (`lookalike models` lists them): {others}"
