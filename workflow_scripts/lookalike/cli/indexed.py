"""The nearest neighbors of one image in the index of a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import typer

from lookalike.embed import embed
from lookalike.embed.catalogue import Catalogue
from lookalike.embed.encoders import Encoder
from lookalike.io import identity, store, vectors
from lookalike.io.checks import check_index, check_same
from lookalike.io.formats.tables import IMAGES
from lookalike.job.errors import LookalikeError, did_you_mean
from lookalike.search.loading import load
from lookalike.search.searcher import Searcher

USED = ("image_id", "root", "path", "bytes", "content_hash")  # columns of the sample


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


class Loaded:
    """An index and the model that made it, ready to search with any number of images, one at a time.

    ``rows`` has a row of the sample for each reference. Raises LookalikeError for files that do not fit together, or
    the configuration.
    """

    def __init__(self, catalogue: Catalogue, stored: Stored, threads: int) -> None:
        footer = check(catalogue, stored)
        self.stored, self.folder = stored, catalogue.results.parent  # to which relative roots refer
        self.key = catalogue.plan.embedding_key(stored.model)
        self.encoder = _encoder(catalogue, stored, footer, threads)
        self.ids = vectors.whole(store.read_columns(stored.ids, "image_id")["image_id"])
        settings = catalogue.plan.config.indexes[stored.index].search
        self.searcher = Searcher(load(str(stored.faiss), str(stored.ids), self.ids, settings))
        sample = store.read_table(stored.images, IMAGES)
        self.rows = sample.select([name for name in USED if name in sample.column_names])

    def find(self, data: bytes, name: str, k: int) -> list[Neighbor]:
        """The k nearest references of an image file's bytes, nearest first; all if there are fewer."""
        vector = vectors.unit(embed.embed_image(data, name, self.encoder, self.key)[None])
        found, _ = self.searcher.search(vector, min(k, len(self.ids)), np.array([-1]))
        hits = [(row, float(score)) for row, score in zip(found.rows[0], found.scores[0], strict=True) if row >= 0]
        return [
            Neighbor(rank, image_id, score, str(self.folder / row["root"] / row["path"]))
            for rank, (number, score) in enumerate(hits, start=1)
            if (image_id := str(self.ids[number])) and (row := self.row(image_id))
        ]

    def number(self, image_id: str) -> int:
        """The row of the index that an image has; -1 if it is not in it."""
        return int(pc.index(self.ids, pa.scalar(image_id, self.ids.type)).as_py())

    def row(self, image_id: str) -> dict[str, Any]:
        """The sample's row of an image. Raises LookalikeError for an id that it does not have."""
        at = pc.index(self.rows["image_id"], pa.scalar(image_id, pa.string())).as_py()
        if at < 0:
            raise LookalikeError(
                f"{self.stored.images}: has no image '{image_id}', but {self.stored.faiss} does, so the index is of "
                "another sample. Run the experiment again."
            )
        return dict(self.rows.slice(at, 1).to_pylist()[0])


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


def _encoder(catalogue: Catalogue, stored: Stored, footer: dict[str, Any], threads: int) -> Encoder:
    """The model with the weights of the index."""
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
    return encoder
