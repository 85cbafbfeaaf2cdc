"""`lookalike models`: the models of the catalogue, and which of them are available locally."""

from pathlib import Path
from typing import Any

from lookalike.cli import runs
from lookalike.cli.options import ConfigFiles, Json, Results
from lookalike.cli.output import print_json, print_table
from lookalike.config.embed_base import EmbedBase
from lookalike.config.models import Checkpoint, Onnx
from lookalike.embed import checkpoints
from lookalike.embed.catalogue import Catalogue
from lookalike.io import store
from lookalike.plan import cost


def models(configfile: ConfigFiles = None, results: Results = Path("results"), as_json: Json = False) -> None:
    """List the catalogue's models, the dimension of their vectors, and the state of their weights.

    \b
    local     the weights are on this machine
    recorded  a run has recorded which weights it used
    engine    what a run chose for embedding on a CPU
    images/s  speed of the last runs on this machine, here or of a comparison
    pinned    the revision is a commit of the Hub; those of a branch, such as main, can change
    gated     the Hub requires that you accept terms before the download
    about     size, licence and training data, as the catalogue states them

    \b
    Example:
      lookalike models --configfile mine.yaml
    """
    catalogue = Catalogue.open(configfile, results)
    settings = catalogue.plan.config.models
    rows = [_row(catalogue, name) for name in catalogue.model_names]
    if as_json:
        print_json({"models": rows})
        return
    print_table(
        "Models of the catalogue",
        [
            "model",
            "label",
            "family",
            "dimensions",
            "local",
            "recorded",
            "engine",
            "images/s",
            "pinned",
            "gated",
            "about",
        ],
        [
            [
                *(row[column] for column in ("model", "label", "family")),
                "?" if row["dimensions"] is None else row["dimensions"],
                *("yes" if row[column] else "no" for column in ("local", "recorded")),
                row["engine"] or "-",
                "not measured" if row["images_per_second"] is None else f"{row['images_per_second']:.3g}",
                {True: "yes", False: "not pinned", None: "-"}[row["pinned"]],
                "yes" if row["gated"] else "-",
                settings[row["model"]].about.summary,
            ]
            for row in rows
        ],
    )


def _row(catalogue: Catalogue, model: str) -> dict[str, Any]:
    settings = catalogue.plan.config.models[model]
    entry = settings.embed
    missing = catalogue.why_missing(model)
    engine, why_torch = catalogue.engine(model)
    places = dict.fromkeys((catalogue.results.parent, runs.home()))  # of results
    speed = next((speed for place in places if (speed := cost.measured(catalogue.plan, model, place))), None)
    return {
        "model": model,
        "label": catalogue.plan.label(model),
        "family": entry.family,
        "dimensions": entry.dimension or _embedded_dimension(catalogue, model) or settings.dimension,
        "local": missing is None,
        "recorded": catalogue.recorded(model).exists(),
        "weights": str(catalogue.recorded(model)),
        "engine": engine,
        "why_torch": why_torch,
        "images_per_second": speed.images_per_second if speed else None,
        "device": speed.device if speed else None,
        "pinned": _pinned(entry),
        "gated": settings.about.gated,
        "about": {name: value for name, value in settings.about.model_dump().items() if value},
        "requires": settings.requires,
        "missing": missing,
    }


def _pinned(entry: EmbedBase) -> bool | None:
    """Whether the weights cannot change; None if they have no revision."""
    if isinstance(entry, Onnx) and entry.sha256:
        return True
    checkpoint = entry.checkpoint if isinstance(entry, Checkpoint | Onnx) else None
    return checkpoints.pinned(checkpoint, entry.revision) if checkpoint else None  # type: ignore[attr-defined]


def _embedded_dimension(catalogue: Catalogue, model: str) -> int | None:
    """The dimension of vectors that a run computed with a model's present settings."""
    for path in sorted(catalogue.results.glob(f"*/embeddings/{model}/*.parquet")):
        if store.read_provenance(path).get("key") == catalogue.plan.embedding_key(model):
            return int(store.read_schema(path).field("embedding").type.list_size)
    return None
