"""`lookalike models`: the catalogue, and which of its models are at hand."""

from pathlib import Path
from typing import Any

from lookalike.cli.catalogue import Catalogue
from lookalike.cli.options import ConfigFiles, Json, Results
from lookalike.cli.output import print_json, print_table
from lookalike.config.models import Checkpoint
from lookalike.embed import checkpoints
from lookalike.io import store


def models(configfile: ConfigFiles = None, results: Results = Path("results"), as_json: Json = False) -> None:
    """List the catalogue's models: how long their vectors are, and whether their weights are at hand.

    "at hand" means found on this machine, without a network; "recorded" that a run wrote down which weights it used;
    "pinned" that the revision is a commit of the hub: a branch, such as main, may have other weights tomorrow.

    \b
    Example:
      lookalike models --configfile mine.yaml
    """
    catalogue = Catalogue.open(configfile, results)
    rows = [_row(catalogue, name) for name in catalogue.model_names]
    if as_json:
        print_json({"models": rows})
        return
    print_table(
        "Models of the catalogue",
        ["model", "label", "family", "dimensions", "at hand", "recorded", "pinned"],
        [
            [
                *(row[column] for column in ("model", "label", "family")),
                "?" if row["dimensions"] is None else row["dimensions"],
                *("yes" if row[column] else "no" for column in ("at_hand", "recorded")),
                {True: "yes", False: "not pinned", None: "-"}[row["pinned"]],
            ]
            for row in rows
        ],
    )


def _row(catalogue: Catalogue, model: str) -> dict[str, Any]:
    described = catalogue.plan.config.models[model]
    entry = described.embed
    missing = catalogue.why_missing(model)
    return {
        "model": model,
        "label": catalogue.plan.label(model),
        "family": entry.family,
        "dimensions": entry.dimension or _embedded_dimension(catalogue, model) or described.dimension,
        "at_hand": missing is None,
        "recorded": catalogue.recorded(model).exists(),
        "weights": str(catalogue.recorded(model)),
        "pinned": checkpoints.pinned(entry.checkpoint, entry.revision) if isinstance(entry, Checkpoint) else None,
        "missing": missing,
    }


def _embedded_dimension(catalogue: Catalogue, model: str) -> int | None:
    """The length of the vectors that a run made with a model's present entry."""
    for path in sorted(catalogue.results.glob(f"*/embeddings/{model}/*.parquet")):
        if store.read_provenance(path).get("key") == catalogue.plan.embedding_key(model):
            return int(store.read_schema(path).field("embedding").type.list_size)
    return None
