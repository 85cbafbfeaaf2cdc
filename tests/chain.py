"""A data set of vectors, from its embedding shards to a search: made, indexed and searched by the stages."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lookalike.index.build import IndexJob, build
from lookalike.io import store
from lookalike.io.formats.tables import EMBEDDINGS, IMAGES, NEIGHBORS, REJECTED
from lookalike.search.search import SearchJob, search
from tables import MADE

Floats = NDArray[np.float32]


KEY = '{"family": "pixels"}'


CODE = "c0de"


FOOTER = {
    "shard_sha256": "one shard",
    "key": KEY,
    "code": CODE,
    "weights": {"source": "none"},
    "weights_sha256": "w",
    "dtypes": {"compute": "float32", "stored": "float32"},
    "versions": {"numpy": "2"},
}


class Chain:
    """Embedding shards on disk, and the index and search stages on them."""

    def __init__(
        self, folder: Path, references: int = 40, queries: int = 7, dimension: int = 8, training: int = 0
    ) -> None:
        rng = np.random.default_rng(0)
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.contents: dict[str, str] = {}  # id -> stand-in for the file's hash, by default the id
        self.vectors = {f"r{n}": rng.normal(size=dimension).astype(np.float32) for n in range(references)}
        self.vectors |= {f"q{n}": rng.normal(size=dimension).astype(np.float32) for n in range(queries)}
        self.vectors |= {f"t{n}": rng.normal(size=dimension).astype(np.float32) for n in range(training)}
        self.sample({name: name[0] for name in self.vectors})
        if training:
            self.shard("training", [name for name in self.vectors if name[0] == "t"])
        if references:
            self.shard("references", [name for name in self.vectors if name[0] == "r"])
        self.shard("queries", [name for name in self.vectors if name[0] == "q"])
        self.rejected = self.reject([])

    def sample(self, roles: dict[str, str]) -> None:
        names = list(roles)
        columns = {
            "image_id": names,
            "reference": ["r" in role for role in roles.values()],
            "query": ["q" in role for role in roles.values()],
            "training": ["t" in role for role in roles.values()],
            "root": ["x"] * len(names),
            "path": names,
            "bytes": [1] * len(names),
            "group": pa.nulls(len(names), pa.string()),
        }
        store.write_table(pa.table(columns, IMAGES.schema()), self.folder / "images.parquet", IMAGES, MADE)

    def shard(self, name: str, ids: list[str], **footer: Any) -> None:
        values = np.concatenate([self.vectors[image_id] for image_id in ids])
        table = pa.table(
            {
                "image_id": ids,
                "sha256": [self.contents.get(image_id, image_id) for image_id in ids],
                "embedding": pa.FixedSizeListArray.from_arrays(pa.array(values), len(values) // len(ids)),
            }
        )
        store.write_table(table, self.folder / f"{name}.parquet", EMBEDDINGS, FOOTER | footer)

    def reject(self, rows: list[dict[str, str]]) -> Path:
        path = self.folder / "rejected.parquet"
        store.write_table(pa.Table.from_pylist(rows, REJECTED.schema()), path, REJECTED, FOOTER)
        return path

    @property
    def shards(self) -> list[str]:
        names = ("training", "references", "queries")
        return [str(self.folder / f"{name}.parquet") for name in names if (self.folder / f"{name}.parquet").exists()]

    def build(
        self,
        factory: str = "Flat",
        on_bad_image: str = "reject",
        key: str | None = None,
        *,
        threads: int = 1,
        gpu: bool = False,
    ) -> None:
        build(
            IndexJob(
                embeddings=self.shards,
                rejected=[str(self.rejected)],
                images=str(self.folder / "images.parquet"),
                out=str(self.folder / "flat.faiss"),
                ids_out=str(self.folder / "flat.ids.parquet"),
                images_out=str(self.folder / "flat.images.parquet"),
                key=key or json.dumps({"factory": factory}),
                embedding_key=KEY,
                embedding_code=CODE,
                on_bad_image=on_bad_image,
                threads=threads,
                gpu=gpu,
            )
        )

    def search(
        self, k: int = 5, key: str | None = None, training: bool = False, build_key: str = "", gpu: bool = False
    ) -> pa.Table:
        search(
            SearchJob(
                index=str(self.folder / "flat.faiss"),
                ids=str(self.folder / "flat.ids.parquet"),
                embeddings=self.shards,
                images=str(self.folder / "images.parquet"),
                out=str(self.folder / "neighbors.parquet"),
                candidates_out=str(self.folder / "candidates.parquet"),
                showcase_out=str(self.folder / "showcase.parquet"),
                timing_out=str(self.folder / "timing.json"),
                key='{"factory": "Flat"}' if key is None else key,
                build_key=build_key or ('{"factory": "Flat"}' if key is None else key),
                training_out=str(self.folder / "training_found.parquet"),
                candidates_sn_out=str(self.folder / "candidates_sn.parquet"),
                classes_out=str(self.folder / "classes.parquet"),
                parts=("training", "showcase") if training else ("showcase",),
                embedding_key=KEY,
                embedding_code=CODE,
                model="pixels",
                index_name="flat",
                k=k,
                gpu=gpu,
            )
        )
        return store.read_table(self.folder / "neighbors.parquet", NEIGHBORS)

    def rows(self, name: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = store.read_table(self.folder / f"{name}.parquet", NEIGHBORS).to_pylist()
        return rows

    def unit(self, role: str) -> tuple[list[str], Floats]:
        """Names and unit vectors of the images with a role."""
        names = [name for name in self.vectors if name[0] == role]
        vectors = np.stack([self.vectors[name] for name in names])
        return names, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
