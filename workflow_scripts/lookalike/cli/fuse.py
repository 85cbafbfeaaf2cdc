"""`lookalike fuse`: do two models together find more than each alone, and at what cost?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import typer

from lookalike.cli import runs
from lookalike.cli.fusion import WAYS
from lookalike.cli.fusion import fuse as fused
from lookalike.cli.options import ConfigFiles, Json, Results
from lookalike.cli.output import print_json, print_table
from lookalike.embed.catalogue import Catalogue, entry_of
from lookalike.io import identity, relevance, store
from lookalike.io.formats.records import Metrics
from lookalike.io.formats.tables import IMAGES, NEIGHBORS, TRUTH
from lookalike.job.errors import LookalikeError
from lookalike.metrics.ranking import Ranking, at_k, rank
from lookalike.metrics.rates import Floats, difference, estimate, group_codes, holm, sign_flip, verdict

BY = "accuracy_at_1"


def fuse(
    experiment: Annotated[str, typer.Argument(metavar="NAME", help="A comparison or experiment that has been run.")],
    models: Annotated[list[str], typer.Argument(metavar="MODEL", help="Two or more of its models.")],
    *,
    index_name: Annotated[
        str | None, typer.Option("--index", help="One of the experiment's indexes; the first by default.")
    ] = None,
    configfile: ConfigFiles = None,
    results: Results = Path("results"),
    as_json: Json = False,
) -> None:
    """Fuse the neighbors that several models found, and compare the result with each model alone.

    Two methods are tried: the sum of scaled scores (CombSUM) and of reciprocal
    ranks (reciprocal rank fusion). Nothing is embedded or searched again; only the
    neighbors that the run kept are used.

    \b
    Example:
      lookalike fuse demo efficientnet-lite0 efficientnet-lite2
    """
    catalogue = runs.catalogue_of(experiment, configfile, results)
    entry = catalogue.experiment(experiment)
    models = [name for text in models for name in text.split(",")]
    if len(set(models)) < max(2, len(models)):
        raise typer.BadParameter("MODEL: choose two or more different models.")
    for model in models:
        entry_of(dict.fromkeys(entry.models), f"model of '{experiment}'", model)
    index = index_name or entry.indexes[0]
    entry_of(dict.fromkeys(entry.indexes), f"index of '{experiment}'", index)
    rows = _rows(catalogue, experiment, models, index)
    facts = {"experiment": experiment, "index": index, "models": models, "rows": rows}
    if as_json:
        print_json(facts)
        return
    names = [name for name in rows[0]["metrics"] if rows[0]["metrics"][name] is not None]
    if not names:
        raise LookalikeError(
            f"experiment '{experiment}': no query has a true match, so fusion cannot be compared. Choose another."
        )
    print_table(
        f"{experiment}, index {index}: {' + '.join(models)}, {rows[0]['n']} queries with a match",
        ["ranking", *names, f"{BY} compared", "dimension", "bytes per vector", "images/s"],
        [
            [row["name"], *(f"{row['metrics'][name]:.1%}" for name in names), _against(row), *map(_number, _costs(row))]
            for row in rows
        ],
    )


def _costs(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["dimension"], row["bytes_per_vector"], row["images_per_second"]


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _against(row: Mapping[str, Any]) -> str:
    """``better than dinov2-base, cannot tell from clip-vit-b32``."""
    words = {"better": "better than", "worse": "worse than", "cannot tell": "cannot tell from"}
    return ", ".join(f"{words.get(one['verdict'], one['verdict'] + ':')} {one['model']}" for one in row["against"])


def _rows(catalogue: Catalogue, experiment: str, models: list[str], index: str) -> list[dict[str, Any]]:
    """A row per model and per way of fusing, with metrics, verdicts on accuracy against each model, and costs."""
    folder = catalogue.results / catalogue.plan.dataset_of(experiment)
    sample, truths = folder / "sample" / "images.parquet", folder / "sample" / "truth.parquet"
    searches = [folder / "neighbors" / model / f"{index}.parquet" for model in models]
    measured = [folder / "metrics" / model / f"{index}.json" for model in models]
    if missing := next((path for path in (sample, truths, *searches, *measured) if not path.exists()), None):
        raise LookalikeError(f"{missing}: is missing. {catalogue.how_to_run(experiment)}")
    records = [store.read_json(path, Metrics) for path in measured]
    hashes: dict[str | Path, str] = {path: record.sample_sha256 for path, record in zip(measured, records, strict=True)}
    identity.check_sample(sample, truths, *searches, records=hashes)
    k = int(store.read_provenance(searches[0])["k"])
    images, truth = store.read_table(sample, IMAGES), store.read_table(truths, TRUTH)
    tables = [store.read_table(path, NEIGHBORS) for path in searches]
    lists = dict(zip(models, tables, strict=True)) | {f"fused: {way}": fused(tables, images, way) for way in WAYS}
    searched = max(record.references - record.rejected_references for record in records)
    ranking, outcomes = None, dict[str, dict[str, Floats | None]]()
    for name, table in lists.items():
        ranking = rank(table, truth, images, searched=searched, kept=k + 1, where=name)
        outcomes[name] = _outcomes(ranking, k, labelled=relevance.is_labelled(images))
    assert ranking is not None
    groups = group_codes(images["group"].take(pa.array(ranking.counted)).to_pylist())
    against = _verdicts(outcomes, models, groups)
    costs = dict(zip(models, (_cost(record) for record in records), strict=True))
    return [
        {
            "name": name,
            "n": len(ranking.counted),
            "metrics": {
                metric: None if values is None else estimate(values, groups).value for metric, values in of_list.items()
            },
            "against": against.get(name, []),
            **(costs.get(name) or _together(list(costs.values()))),
        }
        for name, of_list in outcomes.items()
    ]


def _outcomes(ranking: Ranking, k: int, *, labelled: bool) -> dict[str, Floats | None]:
    """Metrics of the first k; of a labelled collection accuracy only, since its classes are larger than k."""
    return {name: values for name, values in at_k(ranking, k).items() if not labelled or name.startswith("accuracy")}


def _verdicts(
    outcomes: Mapping[str, Mapping[str, Floats | None]], models: list[str], groups: Any
) -> dict[str, list[dict[str, Any]]]:
    """For each fused list and model the difference in accuracy, with Holm's correction over all of them."""
    pairs = [
        (name, model, ours, theirs)
        for name in outcomes
        if name not in models
        for model in models
        if (ours := outcomes[name][BY]) is not None and (theirs := outcomes[model][BY]) is not None
    ]
    corrected = holm([sign_flip(ours, theirs, groups) for _, _, ours, theirs in pairs])
    found: dict[str, list[dict[str, Any]]] = {}
    for (name, model, ours, theirs), p_holm in zip(pairs, corrected, strict=True):
        gap = difference(ours, theirs, groups)
        row = {"model": model, "difference": gap.model_dump(), "p_holm": p_holm, "verdict": verdict(gap, p_holm)}
        found.setdefault(name, []).append(row)
    return found


def _cost(record: Metrics) -> dict[str, float | None]:
    embed = record.timing.get("embed") or {}
    return {
        "dimension": record.cost.dimension if record.cost else None,
        "bytes_per_vector": record.cost.vector_bytes if record.cost else None,
        "images_per_second": embed.get("images_per_second"),
    }


def _together(costs: list[dict[str, float | None]]) -> dict[str, float | None]:
    """What all models cost together: numbers and bytes add up, and so do the seconds per image."""
    columns = {name: [cost[name] for cost in costs] for name in costs[0]}
    known = {name: [value for value in values if value] for name, values in columns.items()}
    complete = {name for name, values in known.items() if len(values) == len(costs)}
    return {
        name: None
        if name not in complete
        else 1 / sum(1 / value for value in known[name])
        if name == "images_per_second"
        else sum(known[name])
        for name in columns
    }
