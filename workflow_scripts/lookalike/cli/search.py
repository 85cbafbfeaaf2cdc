"""`lookalike search`: the nearest neighbors of one image in the index of a run."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import typer
from numpy.typing import NDArray

from lookalike.cli import sheet as contact_sheet
from lookalike.cli.options import THREADS, ConfigFiles, Json, Results, Threads
from lookalike.cli.output import print_json, print_table
from lookalike.embed import embed
from lookalike.embed.catalogue import Catalogue, read_image
from lookalike.io import identity, store
from lookalike.io.checks import check_index, check_same
from lookalike.io.formats.tables import IMAGES
from lookalike.io.vectors import unit
from lookalike.job.errors import LookalikeError, did_you_mean
from lookalike.search.search import nearest


@dataclass(frozen=True)
class Neighbor:
    """A retrieved reference; ``path`` is its file, relative to the working directory."""

    rank: int
    image_id: str
    score: float
    path: str


@dataclass(frozen=True)
class Stored:
    """The files of a model's index in an experiment."""

    experiment: str
    dataset: str
    model: str
    index: str
    folder: Path  # of the data set

    @property
    def faiss(self) -> Path:
        """The index."""
        return self.folder / "indexes" / self.model / f"{self.index}.faiss"

    @property
    def ids(self) -> Path:
        """The image ids of its rows."""
        return self.folder / "indexes" / self.model / f"{self.index}.ids.parquet"

    @property
    def images(self) -> Path:
        """The sample."""
        return self.folder / "sample" / "images.parquet"


def search(
    photo: Annotated[
        Path, typer.Argument(metavar="PHOTO", exists=True, dir_okay=False, help="The image to search for.")
    ],
    *,
    experiment: Annotated[str, typer.Option("--experiment", help="The experiment whose references are searched.")],
    model: Annotated[str, typer.Option("--model", help="One of the experiment's models.")],
    index_name: Annotated[
        str | None, typer.Option("--index", help="One of the experiment's indexes; the first by default.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Number of neighbors; fewer if the index has fewer.")] = 5,
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--sheet",
            dir_okay=False,
            help="File for the contact sheet; PHOTO-MODEL.png by default.",
        ),
    ] = None,
    no_sheet: Annotated[bool, typer.Option("--no-sheet", help="Draw no contact sheet.")] = False,
    configfile: ConfigFiles = None,
    results: Results = Path("results"),
    threads: Threads = THREADS,
    as_json: Json = False,
) -> None:
    """Find an image's nearest references in the index of a run, and draw them on a contact sheet.

    The image is embedded exactly as the run embedded its own. The score is cosine similarity: higher is nearer.

    \b
    Example:
      lookalike search photo.jpg --experiment demo --model efficientnet-lite0 -k 5
    """
    out = None if no_sheet else _sheet_path(photo, sheet or Path(f"{photo.stem}-{model}.png"))
    if no_sheet and sheet:
        raise typer.BadParameter("--sheet and --no-sheet contradict each other.")
    catalogue = Catalogue.open(configfile, results)
    stored = _stored(catalogue, experiment, model, index_name)
    footer = _check(catalogue, stored)
    vector = _vector(catalogue, stored, footer, photo, threads)
    settings = catalogue.plan.config.indexes[stored.index].search
    hits = nearest(index=str(stored.faiss), ids=str(stored.ids), vector=vector, k=k, settings=settings)
    neighbors = _neighbors(stored, hits, results.parent)
    title = f"{photo}: {len(neighbors)} nearest in {stored.dataset} by {catalogue.plan.label(model)} ({stored.index})"
    if out:
        contact_sheet.draw(title, photo, [(hit.rank, hit.score, hit.image_id, hit.path) for hit in neighbors], out)

    if as_json:
        print_json(
            {
                "photo": str(photo),
                "experiment": experiment,
                "dataset": stored.dataset,
                "model": model,
                "index": stored.index,
                "neighbors": [asdict(neighbor) for neighbor in neighbors],
                "sheet": str(out) if out else None,
            }
        )
        return
    print_table(title, ["rank", "id", "score", "path"], [asdict(neighbor).values() for neighbor in neighbors])
    if out:
        typer.echo(f"contact sheet: {typer.format_filename(out)}")


def _sheet_path(photo: Path, out: Path) -> Path:
    if out.suffix.lower() not in contact_sheet.FORMATS:
        raise typer.BadParameter(f"--sheet {out}: should end with one of {', '.join(contact_sheet.FORMATS)}.")
    if out.resolve() == photo.resolve():
        raise typer.BadParameter(f"--sheet {out}: is the image to search for. Choose another file.")
    return out


def _stored(catalogue: Catalogue, experiment: str, model: str, index_name: str | None) -> Stored:
    """The files of an index. Raises LookalikeError for an unknown name, or if a run has not made them yet."""
    entry = catalogue.experiment(experiment)
    catalogue.check_models([model])
    name = index_name or entry.indexes[0]
    for key, chosen in (("models", model), ("indexes", name)):
        known = getattr(entry, key)
        if chosen not in known:
            raise LookalikeError(f"experiments.{experiment}.{key}: has no '{chosen}'.{did_you_mean(chosen, known)}")
    stored = Stored(experiment, entry.dataset, model, name, catalogue.results / entry.dataset)
    for path in (stored.faiss, stored.ids, stored.images):
        if not path.exists():
            raise LookalikeError(
                f"{path}: does not exist, so experiment '{experiment}' has not been run, or not completely. "
                f"{catalogue.how_to_run(experiment)} {path.relative_to(catalogue.results.parent)}"
            )
    return stored


def _check(catalogue: Catalogue, stored: Stored) -> dict[str, Any]:
    """The footer of an index. One that is damaged or was made with another configuration is rejected."""
    expected = {
        "index_key": catalogue.plan.build_key(stored.index),
        "key": catalogue.plan.embedding_key(stored.model),
        "code": catalogue.plan.code("embed", model=stored.model),  # the photo is embedded by this code
    }
    footer = check_index(str(stored.faiss), str(stored.ids), expected)
    identity.check_sample(stored.images, stored.ids)
    return footer


def _vector(
    catalogue: Catalogue, stored: Stored, footer: dict[str, Any], photo: Path, threads: int
) -> NDArray[np.float32]:
    """The photo's unit vector (d,), computed with the weights of the index."""
    data = read_image(photo)
    weights = catalogue.weights(stored.model)
    check_same(str(stored.ids), footer, {"weights_sha256": embed.weights_sha256(weights)})
    encoder = catalogue.encoder(stored.model, weights, threads)
    computed = footer["dtypes"]["compute"]
    if encoder.compute_dtype != computed:  # the index may come from a GPU: other rounding, not another model
        typer.echo(
            f"{stored.ids}: was computed in {computed}, but this image in {encoder.compute_dtype}: "
            "scores may differ slightly.",
            err=True,
        )
    key = catalogue.plan.embedding_key(stored.model)
    vector: NDArray[np.float32] = unit(embed.embed_image(data, str(photo), encoder, key)[None])[0]
    return vector


def _neighbors(stored: Stored, hits: list[tuple[str, float]], folder: Path) -> list[Neighbor]:
    """Hits with their files. ``folder`` is the one that Snakemake ran in, to which relative roots refer."""
    sample = store.read_table(stored.images, IMAGES).select(["image_id", "root", "path"])
    rows = sample.filter(pc.is_in(sample["image_id"], pa.array([image_id for image_id, _ in hits], pa.string())))
    files = {row["image_id"]: folder / row["root"] / row["path"] for row in rows.to_pylist()}
    for image_id, _ in hits:
        if image_id not in files:
            raise LookalikeError(
                f"{stored.images}: has no image '{image_id}', but {stored.faiss} does, so the index is of another "
                "sample. Run the experiment again."
            )
    return [
        Neighbor(rank, image_id, score, str(files[image_id])) for rank, (image_id, score) in enumerate(hits, start=1)
    ]
