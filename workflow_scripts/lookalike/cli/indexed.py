"""The nearest neighbors of one image in the index of a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import typer
from numpy.typing import NDArray

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
    """The files of a model's index of a data set."""

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


def find(catalogue: Catalogue, stored: Stored, photo: Path, k: int, threads: int) -> list[Neighbor]:
    """The k nearest references of a photo. Raises LookalikeError for an index that does not fit the configuration."""
    footer = check(catalogue, stored)
    vector = _vector(catalogue, stored, footer, photo, threads)
    settings = catalogue.plan.config.indexes[stored.index].search
    hits = nearest(index=str(stored.faiss), ids=str(stored.ids), vector=vector, k=k, settings=settings)
    return _neighbors(stored, hits, catalogue.results.parent)


def of_experiment(catalogue: Catalogue, experiment: str, model: str, index_name: str | None) -> Stored:
    """The files of an index. Raises LookalikeError for an unknown name, or if a run has not made them yet."""
    entry = catalogue.experiment(experiment)
    catalogue.check_models([model])
    name = index_name or entry.indexes[0]
    for key, chosen in (("models", model), ("indexes", name)):
        known = getattr(entry, key)
        if chosen not in known:
            raise LookalikeError(f"experiments.{experiment}.{key}: has no '{chosen}'.{did_you_mean(chosen, known)}")
    stored = Stored(entry.dataset, model, name, catalogue.results / entry.dataset)
    for path in (stored.faiss, stored.ids, stored.images):
        if not path.exists():
            raise LookalikeError(
                f"{path}: does not exist, so experiment '{experiment}' has not been run, or not completely. "
                f"{catalogue.how_to_run(experiment)} {path.relative_to(catalogue.results.parent)}"
            )
    return stored


def check(catalogue: Catalogue, stored: Stored) -> dict[str, Any]:
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
