"""Files with the same bytes have the same vector, even if they were embedded in different shards."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from chain import CODE, Chain
from conftest import ImageFolder
from lookalike.embed.embed import EmbedJob, embed_shard
from lookalike.embed.fetch_weights import fetch_weights
from lookalike.index.build import IndexJob, build
from lookalike.io import content_hashes, store, vectors
from lookalike.io.formats.tables import EMBEDDINGS, IMAGES, NEIGHBORS, SHARD
from lookalike.io.vectors import unit
from lookalike.job.errors import LookalikeError
from lookalike.plan.paths import SEARCHED
from lookalike.search.search import SearchJob, search
from tables import MADE

LITE0 = '{"family": "efficientnet_lite", "variant": "lite0"}'


def embed(folder: Path, root: Path, shards: list[list[str]]) -> list[str]:
    """Embed images of a folder in shards, in batches of 16; all are references except the last, a query."""
    fetch_weights(LITE0, folder / "weights.json")
    names = [name for shard in shards for name in shard]
    rows = {"image_id": names, "root": [str(root)] * len(names), "path": names}
    rows |= {"bytes": [(root / name).stat().st_size for name in names]}
    rows |= {"content_hash": [content_hashes.of_file(root / name) for name in names]}
    query = [name == names[-1] for name in names]
    roles = {"reference": [not is_query for is_query in query], "query": query, "training": [False] * len(names)}
    table = pa.table({**rows, **roles, "group": pa.nulls(len(names), pa.string())}).select(
        [*IMAGES.columns, "content_hash"]
    )
    store.write_table(table, folder / "images.parquet", IMAGES, MADE)
    paths, done = [], 0
    for number, shard in enumerate(shards):
        part = pa.table(rows, SHARD.schema()).slice(done, len(shard))
        done += len(shard)
        store.write_table(part, folder / f"{number}.shard", SHARD, {})
        paths.append(str(folder / f"{number}.parquet"))
        embed_shard(
            EmbedJob(
                shard=str(folder / f"{number}.shard"),
                weights=str(folder / "weights.json"),
                out=paths[-1],
                rejected_out=str(folder / f"{number}.rejected"),
                timing_out=str(folder / f"{number}.json"),
                model="lite0",
                key=LITE0,
                batch_size=16,
                threads=1,
                gpu=False,
                code=CODE,
            )
        )
    return paths


@pytest.mark.parametrize("key", ['{"factory": "Flat"}', '{"scan": true}'])
def test_a_duplicate_in_another_shard_ties_with_the_first_to_the_last_bit(
    tmp_path: Path, image_folder: ImageFolder, key: str
) -> None:
    root = image_folder(tmp_path / "photos", 17)
    (root / "copy.png").write_bytes((root / "p3.png").read_bytes())
    paths = embed(tmp_path, root, [[f"p{number}.png" for number in range(16)], ["copy.png"], ["p16.png"]])
    stored = {path: np.stack(store.read_table(path, EMBEDDINGS)["embedding"].to_numpy()) for path in paths}
    assert not np.array_equal(stored[paths[0]][3], stored[paths[1]][0])  # a real network, or this could not fail
    files = {
        "images": str(tmp_path / "images.parquet"),
        "embeddings": paths,
        "key": key,
        "embedding_key": LITE0,
        "embedding_code": CODE,
    }
    build(
        IndexJob(
            **files,
            rejected=[path.replace(".parquet", ".rejected") for path in paths],
            out=str(tmp_path / "faiss"),
            ids_out=str(tmp_path / "ids.parquet"),
            images_out=str(tmp_path / "seen.parquet"),
            on_bad_image="fail",
        )
    )
    search(
        SearchJob(
            **files,
            index=str(tmp_path / "faiss"),
            ids=str(tmp_path / "ids.parquet"),
            out=str(tmp_path / "neighbors.parquet"),
            **{f"{name}_out": str(tmp_path / f"{name}.parquet") for name in SEARCHED if name != "neighbors"},
            parts=[],
            timing_out=str(tmp_path / "timing.json"),
            build_key=key,
            model="lite0",
            index_name="index",
            k=20,
        )
    )
    neighbors = store.read_table(tmp_path / "neighbors.parquet", NEIGHBORS).to_pylist()
    scores = {row["reference_id"]: row["score"] for row in neighbors}
    assert scores["copy.png"] == scores["p3.png"]
    assert len(set(scores.values())) == 16


def with_duplicates(folder: Path) -> tuple[Chain, dict[str, str]]:
    """Shards in which some files have the bytes of another and a vector that differs in the last bits; and of which."""
    chain = Chain(folder, references=9000, queries=9, training=9)
    first = {"r8999": "r17", "r5": "t3", "r4100": "t3", "q2": "r17", "q8": "q1", "t8": "t0", "r50": "r8"}
    chain.contents = {copy: chain.contents.get(original, original) for copy, original in first.items()}
    for copy, original in first.items():
        chain.vectors[copy] = chain.vectors[original] * np.float32(1 + 1e-6)
    for role, name in {"t": "training", "r": "references", "q": "queries"}.items():
        chain.shard(name, [image_id for image_id in chain.vectors if image_id[0] == role])
    return chain, first


@pytest.mark.parametrize("role", ["q", "r", "t"])
def test_every_reader_gives_duplicates_the_vector_of_the_first_of_them(tmp_path: Path, role: str) -> None:
    chain, first = with_duplicates(tmp_path)
    names = [[*store.read_columns(path, "image_id")["image_id"].to_pylist()] for path in chain.shards]
    masks = [np.array([name[0] == role for name in shard]) for shard in names]
    sources = [first.get(name, name) for shard in names for name in shard if name[0] == role]
    expected = np.concatenate([unit(chain.vectors[name][None].copy()) for name in sources])
    assert np.array_equal(vectors.read(chain.shards, masks), expected)
    blocks = [block.copy() for block in vectors.blocks(chain.shards, masks, 1000)]
    assert np.array_equal(np.concatenate(blocks), expected)


def test_files_whose_hashes_share_64_bits_are_distinguished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain, _ = with_duplicates(tmp_path)
    names = [store.read_columns(path, "image_id")["image_id"] for path in chain.shards]
    masks = [np.ones(len(shard), np.bool_) for shard in names]
    expected = vectors.read(chain.shards, masks)
    monkeypatch.setattr(vectors, "hashes_of", lambda column: np.zeros(len(column), np.uint64))
    assert np.array_equal(vectors.read(chain.shards, masks), expected)


@pytest.mark.parametrize("factory", ["PCAW64,L2norm,Flat", "PCA64,Flat", "PCAW64,L2norm,IVF4,Flat"])
def test_transforms_keep_equal_vectors_equal(tmp_path: Path, factory: str) -> None:
    chain = Chain(tmp_path, references=5003, queries=5, dimension=512)
    copies = {"r5002": "r3", "r100": "r7", "r4099": "r0"}
    for copy, original in copies.items():
        chain.vectors[copy] = chain.vectors[original]
    chain.shard("references", [name for name in chain.vectors if name[0] == "r"])
    key = json.dumps({"factory": factory, "search": {"nprobe": 4}} if "IVF" in factory else {"factory": factory})
    chain.build(factory)
    found = chain.search(5002, key=key, build_key=json.dumps({"factory": factory})).to_pylist()
    scores = {(row["query_id"], row["reference_id"]): row["score"] for row in found}
    for query in ("q0", "q1", "q2", "q3", "q4"):
        for copy, original in copies.items():
            assert scores[query, copy] == scores[query, original]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("key", ['{"factory": "Flat"}', '{"scan": true}'])
def test_a_vector_that_is_not_finite_is_refused_by_file_and_image(tmp_path: Path, value: float, key: str) -> None:
    chain = Chain(tmp_path, references=5000)
    chain.build(key=key)
    chain.vectors["r4200"][1] = value
    chain.shard("references", [name for name in chain.vectors if name[0] == "r"])
    shard = chain.folder / "references.parquet"
    message = rf"{shard}: the vector of 'r4200' holds NaN or infinite numbers\. .* --forcerun {shard}"
    if "scan" in json.loads(key):
        chain.build(key=key)  # a list of shards: no vector is read
    with pytest.raises(LookalikeError, match=message):
        (chain.search if "scan" in json.loads(key) else chain.build)(key=key)


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1e15, 1e25, 1e38])
def test_large_and_small_numbers_neither_underflow_nor_overflow(scale: float) -> None:
    drawn = np.random.default_rng(0).uniform(0.1, 1, (5, 8)).astype(np.float32)
    drawn[3] = 0
    expected = unit(drawn.astype(np.float64))
    np.testing.assert_allclose(unit(drawn * np.float32(scale)), expected, rtol=1e-5)
