import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from conftest import REPOSITORY, largest_file
from lookalike.index import factories
from lookalike.index.build import IndexJob, build
from lookalike.io import faiss_index, store, vectors
from lookalike.io.checks import check_shards
from lookalike.io.formats.records import SearchTiming
from lookalike.io.formats.tables import EMBEDDINGS, IMAGES, INDEX_IDS, INDEX_IMAGES, NEIGHBORS, REJECTED
from lookalike.io.vectors import unit
from lookalike.job.errors import LookalikeError
from lookalike.plan.paths import SEARCHED
from lookalike.search import exact_gpu, loading
from lookalike.search.search import SearchJob, search
from lookalike.search.searcher import Searcher
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


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


def expected(chain: Chain, query: str, references: list[str]) -> list[str]:
    def cosine(reference: str) -> float:
        a, b = chain.vectors[query].astype(float), chain.vectors[reference].astype(float)
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    return sorted((name for name in references if name != query), key=cosine, reverse=True)


def test_neighbors_are_the_k_plus_1_largest_cosines(chain: Chain) -> None:
    chain.build()
    result = chain.search(k=5).to_pandas()
    references = [name for name in chain.vectors if name[0] == "r"]
    for query, rows in result.groupby("query_id"):
        assert rows["reference_id"].tolist() == expected(chain, str(query), references)[:6]
        assert rows["rank"].tolist() == [1, 2, 3, 4, 5, 6]
        a, b = chain.vectors[str(query)], chain.vectors[rows["reference_id"].iloc[0]]
        np.testing.assert_allclose(rows["score"].iloc[0], a @ b / np.linalg.norm(a) / np.linalg.norm(b), rtol=1e-5)
    assert result["query_id"].nunique() == 7


def nearest(chain: Chain, image_id: str, k: int) -> dict[str, float]:
    """The nearest references of an image's vector and their scores, as a single search finds them."""
    index, ids = chain.folder / "flat.faiss", chain.folder / "flat.ids.parquet"
    names = vectors.whole(store.read_columns(str(ids), "image_id")["image_id"])
    searcher = Searcher(loading.load(str(index), str(ids), names, {}))
    found, _ = searcher.search(unit(chain.vectors[image_id][None].copy()), k, np.array([-1]))
    return {str(names[row]): float(score) for row, score in zip(found.rows[0], found.scores[0], strict=True)}


def test_a_single_vector_finds_what_the_stage_finds(chain: Chain) -> None:
    chain.build()
    stored = chain.search(k=5).to_pandas().query("query_id == 'q3'")
    result = nearest(chain, "q3", k=6)
    assert list(result) == stored["reference_id"].tolist()
    np.testing.assert_allclose(list(result.values()), stored["score"], rtol=1e-6)
    assert len(nearest(chain, "q3", k=40)) == 40


def test_an_image_is_never_its_own_neighbor(tmp_path: Path) -> None:
    chain = Chain(tmp_path)
    chain.sample(dict.fromkeys(chain.vectors, "rq"))
    chain.build()
    result = chain.search(k=5).to_pandas()
    assert not (result["query_id"] == result["reference_id"]).any()
    for query, rows in result.groupby("query_id"):
        assert rows["reference_id"].tolist() == expected(chain, str(query), list(chain.vectors))[:6]
        assert rows["rank"].tolist() == [1, 2, 3, 4, 5, 6]


def test_fewer_references_than_k_are_all_returned(tmp_path: Path) -> None:
    chain = Chain(tmp_path, references=3)
    chain.build()
    assert chain.search(k=3).num_rows == 7 * 3


def test_a_factory_that_needs_training_is_trained(chain: Chain) -> None:
    chain.build("PCA4,Flat")
    assert chain.search(key='{"factory": "PCA4,Flat"}').num_rows == 7 * 6


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("Flt", r"cannot build factory 'Flt' for vectors of 8 dimensions: .*could not parse index string Flt"),
        ("PQ3", r"cannot build factory 'PQ3' .* should be a multiple of the number of subquantizers"),
        ("IVF4096,Flat", r"'IVF4096,Flat' learns 4096 clusters, which needs at least 4096 .*; there are 40\. Reduce"),
        ("PCA80,Flat", r"learns 80 principal components, which needs at least 81 training vectors; there are 40"),
        ("OPQ2,PQ2", r"learns 256 clusters"),
        ("HNSW8_PQ4x4", r"FAISS builds an IndexHNSWPQ that compares by L2 distance, not inner product"),
        ("SQ8_direct", r"does not score by inner product: of 1600 scores .*, all are 0\.000, for inner products from"),
    ],
)
def test_a_factory_that_cannot_be_built_is_reported_with_a_remedy(chain: Chain, factory: str, message: str) -> None:
    with pytest.raises(LookalikeError, match=message):
        chain.build(factory)


def test_footers_pass_on_the_identity_of_the_embedding(chain: Chain) -> None:
    chain.build()
    chain.search()
    ids = store.read_provenance(chain.folder / "flat.ids.parquet")
    assert ids["index_sha256"] == store.sha256_file(chain.folder / "flat.faiss")
    neighbors = store.read_provenance(chain.folder / "neighbors.parquet")
    assert (neighbors["model"], neighbors["index"], neighbors["references"], neighbors["k"]) == (
        "pixels",
        "flat",
        40,
        5,
    )
    assert neighbors["key"] == ids["key"] == KEY
    assert neighbors["images_sha256"] == ids["images_sha256"]
    assert neighbors["embed_versions"] == ids["embed_versions"] == {"numpy": "2"}
    assert "faiss-cpu" in neighbors["versions"]
    timing = store.read_json(chain.folder / "timing.json", SearchTiming)
    assert (timing.queries, timing.device, timing.latency_queries) == (7, "CPU (1 threads)", 7)
    assert 0 < (timing.latency_median or 0) <= (timing.latency_p95 or 0) < 5
    assert (timing.peak_memory_mb or 0) > 30
    assert neighbors["index_bytes"] == (chain.folder / "flat.faiss").stat().st_size


@pytest.mark.parametrize("size", [0, 100, 1200])
def test_an_index_that_does_not_fit_on_the_disk_is_reported_and_leaves_no_file(size: int, chain: Chain) -> None:
    """FAISS itself does not notice if the last buffer of a file cannot be written."""
    with (
        largest_file(size),
        pytest.raises(LookalikeError, match=r"\.faiss: cannot be written \(File too large\)\. Check"),
    ):
        chain.build()
    assert not [*chain.folder.rglob("*.faiss*"), *chain.folder.rglob(".*.tmp")]


def test_shards_of_another_configuration_are_rejected(chain: Chain) -> None:
    queries = [name for name in chain.vectors if name[0] == "q"]
    chain.shard("queries", queries, key='{"family": "pixels", "size": 8}')
    with pytest.raises(LookalikeError) as caught:
        chain.build()
    assert str(caught.value) == (
        f"{chain.folder}/queries.parquet: was made by another configuration: "
        f'its key is {{"family": "pixels", "size": 8}}, expected {KEY} (1 of 2 shards). '
        f"Embed again: --forcerun {chain.folder}/queries.parquet"
    )


def test_all_shards_made_by_other_code_are_rejected_together(tmp_path: Path) -> None:
    """Jobs that end after Snakemake was killed leave shards whose code Snakemake does not know."""
    chain = Chain(tmp_path / "tiny", training=5)
    for role, shard in (("t", "training"), ("q", "queries")):
        chain.shard(shard, [name for name in chain.vectors if name[0] == role], code="0ld")
    with pytest.raises(LookalikeError) as caught:
        chain.build()
    assert str(caught.value) == (
        f"{chain.folder}/training.parquet: was made by another version of the code: its code is 0ld, expected c0de "
        f"(2 of 3 shards). Embed again: --forcerun {chain.folder}/training.parquet {chain.folder}/queries.parquet"
    )
    for role, shard in (("t", "training"), ("q", "queries")):
        chain.shard(shard, [name for name in chain.vectors if name[0] == role])
    chain.build()
    chain.shard("queries", [name for name in chain.vectors if name[0] == "q"], code="0ld")
    with pytest.raises(LookalikeError, match=r"queries\.parquet: was made by another version of the code"):
        chain.search()


def test_if_many_shards_are_of_other_code_the_remedy_embeds_the_model_again(tmp_path: Path) -> None:
    paths = []
    for number in range(9):
        paths.append(str(tmp_path / f"tiny/references-{number:05d}.parquet"))
        embeddings = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(2, np.float32)), 2)
        table = pa.table({"image_id": ["a"], "sha256": ["s"], "embedding": embeddings})
        store.write_table(table, paths[-1], EMBEDDINGS, FOOTER | {"code": "0ld"})
    with pytest.raises(
        LookalikeError, match=r"\(9 of 9 shards\)\. Embed again: --forcerun results/weights/pixels/weights\.json$"
    ):
        check_shards(paths, KEY, CODE)


@pytest.mark.parametrize("footer", [{"weights_sha256": "v"}, {"dtypes": {"compute": "float16", "stored": "float32"}}])
def test_shards_of_other_weights_or_precision_are_rejected(chain: Chain, footer: dict[str, Any]) -> None:
    chain.shard("queries", [name for name in chain.vectors if name[0] == "q"], **footer)
    with pytest.raises(
        LookalikeError, match=rf"queries\.parquet: its {next(iter(footer))} is .* --forcerun results/weights/"
    ):
        chain.build()


def test_shards_of_two_engines_are_a_warning_that_names_both(chain: Chain, caplog: pytest.LogCaptureFixture) -> None:
    queries = [name for name in chain.vectors if name[0] == "q"]
    chain.shard("queries", queries, engine={"name": "torch"}, versions={"torch": "2.9"})
    with caplog.at_level(logging.WARNING, "lookalike"):
        chain.build()
    assert "queries.parquet: was computed with torch, " in caplog.text
    assert "In float32 their vectors agree within 1e-5 of their norm" in caplog.text


def test_shards_of_other_library_versions_are_a_warning(chain: Chain, caplog: pytest.LogCaptureFixture) -> None:
    chain.shard("queries", [name for name in chain.vectors if name[0] == "q"], versions={"numpy": "3", "torch": "2.9"})
    with caplog.at_level(logging.WARNING, "lookalike"):
        chain.build()
    assert (
        "queries.parquet: was made with {'numpy': '3', 'torch': '2.9'}, other shards with {'numpy': '2'}" in caplog.text
    )
    ids = store.read_provenance(chain.folder / "flat.ids.parquet")
    assert ids["embed_versions"] == {"numpy": "2 / 3", "torch": "2.9"}


def test_an_index_that_does_not_belong_to_its_ids_is_rejected(chain: Chain) -> None:
    chain.build()
    (chain.folder / "flat.faiss").write_bytes(b"another")
    with pytest.raises(
        LookalikeError, match=r"flat\.faiss: is not the index that .*flat\.ids\.parquet was written for"
    ):
        chain.search()


def test_an_index_of_another_models_vectors_is_rejected(chain: Chain) -> None:
    chain.build()
    ids = chain.folder / "flat.ids.parquet"
    footer = store.read_provenance(ids) | {"weights_sha256": "other"}
    store.write_table(store.read_table(ids, INDEX_IDS), ids, INDEX_IDS, footer)
    with pytest.raises(LookalikeError, match=r"flat\.ids\.parquet: was made by another .* its weights_sha256 is other"):
        chain.search()


def test_an_index_of_another_factory_is_rejected(chain: Chain) -> None:
    chain.build("PCA4,Flat")
    with pytest.raises(LookalikeError, match=r"flat\.ids\.parquet: was made by another .* its index_key is"):
        chain.search()


def test_counts_add_up_or_nothing_is_built(chain: Chain) -> None:
    chain.shard("references", [name for name in chain.vectors if name[0] == "r"][:-1])
    with pytest.raises(LookalikeError, match=r"47 images were sampled, but 46 are embedded and 0 rejected.*'r39'"):
        chain.build()
    chain.rejected = chain.reject([{"image_id": "r39", "path": "r39", "reason": "damaged"}])
    chain.build()
    assert store.read_table(chain.folder / "flat.ids.parquet", INDEX_IDS).num_rows == 39


def test_a_vector_of_other_bytes_than_the_sampled_ones_is_rejected(chain: Chain) -> None:
    """An image was edited in place to the same size, and copies have been made of it since."""
    path = chain.folder / "images.parquet"
    sampled = store.read_table(path, IMAGES)
    known = pa.array(["r0"] + [None] * (sampled.num_rows - 1), pa.string())
    store.write_table(sampled.append_column("sha256", known), path, IMAGES, MADE)
    chain.build()
    other = pa.array(["t"] + [None] * (sampled.num_rows - 1), pa.string())
    store.write_table(sampled.append_column("sha256", other), path, IMAGES, MADE)
    with pytest.raises(LookalikeError) as caught:
        chain.build()
    shard = chain.folder / "references.parquet"
    manifest = chain.folder.parent / "images/manifest.parquet"
    assert str(caught.value) == (
        f"{shard}: holds the vector of another image under the name 'r0': its file was changed after it was "
        f"embedded or copied. Copy and embed it again: --forcerun {manifest} {shard}"
    )


def test_what_the_model_saw_of_every_image_is_written_next_to_the_ids(chain: Chain) -> None:
    chain.shard("references", [f"r{n}" for n in range(39)])
    chain.rejected = chain.reject([{"image_id": "r39", "path": "r39", "reason": "damaged"}])
    chain.build()
    seen = store.read_table(chain.folder / "flat.images.parquet", INDEX_IMAGES).to_pylist()
    assert [row["image_id"] for row in seen] == [*(f"r{n}" for n in range(39)), *(f"q{n}" for n in range(7)), "r39"]
    assert {row["reason"] for row in seen[:-1]} == {None}
    assert [row["sha256"] for row in seen[:-1]] == [row["image_id"] for row in seen[:-1]]
    assert seen[-1] == {"image_id": "r39", "sha256": None, "width": None, "height": None, "reason": "damaged"}


def test_rejected_images_stop_the_run_with_on_bad_image_fail(chain: Chain) -> None:
    chain.rejected = chain.reject([{"image_id": "r39", "path": "a/r39.jpg", "reason": "damaged"}])
    with pytest.raises(LookalikeError, match=r"a/r39\.jpg: damaged \(rejected images: 1\)\. Fix or remove them"):
        chain.build(on_bad_image="fail")


def test_an_empty_index_is_an_error_with_the_first_reason(tmp_path: Path) -> None:
    chain = Chain(tmp_path, references=1)
    chain.sample({"lost": "r", **{name: "q" for name in chain.vectors if name[0] == "q"}})
    chain.shard("references", ["q0"])
    chain.shard("queries", [f"q{n}" for n in range(1, 7)])
    chain.rejected = chain.reject([{"image_id": "lost", "path": "lost.jpg", "reason": "the file is empty"}])
    message = r"no reference could be embedded\. The first rejected image: lost\.jpg: the file is"
    with pytest.raises(LookalikeError, match=message):
        chain.build()


def test_a_zero_vector_scores_zero(tmp_path: Path) -> None:
    chain = Chain(tmp_path)
    chain.vectors["q0"] = np.zeros(8, np.float32)
    chain.shard("queries", [name for name in chain.vectors if name[0] == "q"])
    chain.build()
    result = chain.search().to_pandas()
    assert result.loc[result["query_id"] == "q0", "score"].tolist() == [0.0] * 6


def test_a_duplicate_id_among_many_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookalike.io.formats.tables.HASH_TABLE_LIMIT", 10)
    names = [f"r{number}" for number in range(9000)]
    INDEX_IDS.check(pa.table({"image_id": names}), "a.parquet")
    with pytest.raises(LookalikeError, match=r"a\.parquet: duplicate image_id 'r7' \(1 in total\)"):
        INDEX_IDS.check(pa.table({"image_id": [*names, "r7"]}), "a.parquet")


@pytest.mark.parametrize("collide", [False, True])
def test_many_ids_are_located_shard_by_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collide: bool) -> None:
    """Above HASH_TABLE_LIMIT by sorted hashes, which need less memory; colliding hashes hide no id."""
    chain = Chain(tmp_path, references=600)
    ids = pa.array([name for name in reversed(chain.vectors) if name != "r13"])
    expected = vectors.rows_among(chain.shards, ids)
    assert (expected[0] == -1).sum() == 1
    monkeypatch.setattr(vectors, "HASH_TABLE_LIMIT", 10)
    if collide:
        hashes = vectors.hashes_of
        monkeypatch.setattr(vectors, "hashes_of", lambda ids: hashes(ids) % 100)
    for actual, rows in zip(vectors.rows_among(chain.shards, ids), expected, strict=True):
        np.testing.assert_array_equal(actual, rows)


def test_candidates_are_the_best_ten_pairs_per_query_over_all_queries(tmp_path: Path) -> None:
    chain = Chain(tmp_path, references=600)
    chain.build()
    chain.search()
    candidates = chain.rows("candidates")
    (queries, q), (references, r) = chain.unit("q"), chain.unit("r")
    scores = q @ r.T
    best = np.argsort(-scores, axis=None)[:70]
    expected = {(queries[cell // 600], references[cell % 600]) for cell in best.tolist()}
    assert {(row["query_id"], row["reference_id"]) for row in candidates} == expected
    for query in queries:
        own_rows = [row for row in candidates if row["query_id"] == query]
        assert [row["rank"] for row in own_rows] == list(range(1, len(own_rows) + 1))
        for row in own_rows:
            exact = scores[queries.index(query), references.index(row["reference_id"])]
            assert row["score"] == pytest.approx(exact, abs=1e-6)
    footer = store.read_provenance(chain.folder / "candidates.parquet")
    assert footer["policy"].startswith("the best 10 pairs per query over all queries")
    assert (footer["queries"], footer["references"], footer["index"]) == (7, 600, "flat")


def test_a_rejected_query_does_not_reduce_the_number_of_candidates(tmp_path: Path) -> None:
    """Ten pairs per sampled query: a model that rejects images has equally many candidates."""
    chain = Chain(tmp_path, references=600)
    chain.shard("queries", [f"q{n}" for n in range(6)])
    chain.rejected = chain.reject([{"image_id": "q6", "path": "q6", "reason": "truncated"}])
    chain.build()
    chain.search()
    assert len(chain.rows("candidates")) == 10 * 7
    assert {row["query_id"] for row in chain.rows("candidates")} <= {f"q{n}" for n in range(6)}


def test_an_image_is_never_a_candidate_of_itself(tmp_path: Path) -> None:
    chain = Chain(tmp_path)
    chain.sample(dict.fromkeys(chain.vectors, "rq"))
    chain.build()
    chain.search()
    candidates = chain.rows("candidates")
    assert len(candidates) == 10 * 47
    assert all(row["query_id"] != row["reference_id"] for row in candidates)


@pytest.mark.parametrize("factory", ["Flat", "PCAW4,L2norm,Flat", "IVF4,Flat", ""])
def test_normalised_scores_subtract_the_mean_of_the_nearest_three_training_scores(tmp_path: Path, factory: str) -> None:
    chain = Chain(tmp_path, references=300, training=50)
    key = json.dumps({"factory": factory, "search": {"nprobe": 4}} if "IVF" in factory else {"factory": factory})
    key = key if factory else '{"scan": true}'
    build_key = json.dumps({"factory": factory}) if "IVF" in factory else key
    chain.build(key=build_key)
    chain.search(key=key, build_key=build_key, training=True)
    (queries, q), (references, r), (training, t) = (chain.unit(role) for role in "qrt")
    if factory.startswith("PCAW"):
        import faiss

        whitening = faiss.read_index(str(chain.folder / "flat.faiss"))
        seen = faiss.downcast_VectorTransform(whitening.chain.at(0))
        assert store.read_provenance(chain.folder / "flat.ids.parquet")["trained_on"] == {
            "role": "training",
            "vectors": 50,
        }
        q, r, t = (unit(seen.apply(np.ascontiguousarray(x))) for x in (q, r, t))
    nearest = np.sort(q @ t.T, axis=1)[:, ::-1][:, :3]
    result = chain.rows("training_found")
    assert [row["rank"] for row in result] == [1, 2, 3] * 7
    np.testing.assert_allclose([row["score"] for row in result], nearest.reshape(-1), atol=2e-6)
    assert {row["reference_id"] for row in result} <= set(training)
    normalised = q @ r.T - nearest.mean(axis=1, keepdims=True)
    best = np.argsort(-normalised, axis=None)[:70]
    candidates = {(row["query_id"], row["reference_id"]): row["score"] for row in chain.rows("candidates_sn")}
    expected = {(queries[cell // 300], references[cell % 300]): normalised.flat[cell] for cell in best.tolist()}
    assert candidates == pytest.approx(expected, abs=5e-6)
    footer = store.read_provenance(chain.folder / "candidates_sn.parquet")
    assert footer["normalise"] == {"beta": 1.0, "first": 1, "last": 3}


def test_tables_of_roles_that_a_data_set_lacks_are_empty_and_marked_absent(tmp_path: Path) -> None:
    chain = Chain(tmp_path)
    chain.build()
    chain.search()
    absent = {name: chain.rows(name) for name in ("training_found", "candidates_sn")}
    assert absent == {"training_found": [], "candidates_sn": []}
    roles = {path.stem: store.read_provenance(path).get("role") for path in tmp_path.glob("*.parquet")}
    assert {name for name, role in roles.items() if role == "absent"} == {*absent, "classes"}


def test_a_training_role_whose_images_were_all_rejected_is_not_absent(chain: Chain) -> None:
    chain.build()
    with pytest.raises(LookalikeError, match="Add images with the training role to the data set"):
        chain.search(training=True)


def test_a_scan_index_is_a_manifest_and_finds_what_flat_finds(tmp_path: Path) -> None:
    chain = Chain(tmp_path, references=5000, queries=40, training=20)
    chain.build()
    chain.search(training=True)
    names = ("neighbors", "candidates", "training_found", "candidates_sn")
    flat = {name: chain.rows(name) for name in names}
    chain.build(key='{"scan": true}')
    manifest = json.loads((chain.folder / "flat.faiss").read_text())
    assert manifest["shards"] == {"training.parquet": 0, "references.parquet": 5000, "queries.parquet": 0}
    chain.search(key='{"scan": true}', training=True)
    assert {name: chain.rows(name) for name in names} == flat
    best = [row["reference_id"] for row in flat["neighbors"] if row["query_id"] == "q3"]
    assert list(nearest(chain, "q3", k=6)) == best


def test_a_scan_index_over_shards_with_other_references_is_rejected(chain: Chain) -> None:
    chain.build(key='{"scan": true}')
    chain.shard("references", [f"r{n}" for n in range(39)])
    with pytest.raises(
        LookalikeError, match=r"references\.parquet: is not the shard that .*flat\.ids\.parquet was built from"
    ):
        chain.search(key='{"scan": true}')


# VmHWM and not ru_maxrss, which a new process inherits from its parent.
MEASURE = """
import json, pathlib, re, sys
from lookalike.index.build import IndexJob, build
from lookalike.search import exact_gpu, loading
from lookalike.search.search import SearchJob, search
arguments = json.loads(sys.argv[1])
build(IndexJob(**arguments["build"]))
search(SearchJob(**arguments["search"]))
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) // 1024)
"""


def test_a_scan_index_needs_no_more_memory_for_more_shards(tmp_path: Path) -> None:
    """Compares two shards of 20 MB of vectors with eight."""

    def peak(shards: int) -> int:
        chain = Chain(tmp_path / str(shards), references=0, queries=20, dimension=2048)
        rng = np.random.default_rng(0)
        for number in range(shards):
            ids = [f"r{number}-{row}" for row in range(2_500)]
            chain.vectors |= dict(zip(ids, rng.standard_normal((2_500, 2048), np.float32), strict=True))
            chain.shard(f"references-{number}", ids)
        chain.sample({name: name[0] for name in chain.vectors})
        folder, key = str(chain.folder), '{"scan": true}'
        paths = [f"{folder}/references-{number}.parquet" for number in range(shards)] + [f"{folder}/queries.parquet"]
        both = {
            "embeddings": paths,
            "images": f"{folder}/images.parquet",
            "key": key,
            "embedding_key": KEY,
            "embedding_code": CODE,
        }
        files = {"index": f"{folder}/scan.faiss", "ids": f"{folder}/scan.ids.parquet"}
        built = {
            "out": files["index"],
            "ids_out": files["ids"],
            "images_out": f"{folder}/seen",
            "rejected": [str(chain.rejected)],
        }
        wanted = {"out": f"{folder}/result.parquet"}
        wanted |= {f"{name}_out": f"{folder}/{name}.parquet" for name in SEARCHED if name != "neighbors"}
        named = {"timing_out": f"{folder}/timing.json", "model": "m", "index_name": "scan", "k": 10, "parts": []}
        arguments = {
            "build": both | built | {"on_bad_image": "reject"},
            "search": both | files | wanted | named | {"build_key": key},
        }
        command = [sys.executable, "-c", MEASURE, json.dumps(arguments)]
        scripts = REPOSITORY / "workflow_scripts"
        return int(subprocess.run(command, cwd=scripts, capture_output=True, text=True, check=True).stdout)

    few, many = peak(2), peak(8)
    assert many - few < 60, f"{few} MB for 40 MB of vectors, {many} MB for 160 MB"


@pytest.mark.parametrize("factory", ["HNSW8,Flat", "IVF16_HNSW4,PQ4x4", "SQ8", "PCAW4,L2norm,Flat"])
def test_building_an_index_is_reproducible(tmp_path: Path, factory: str) -> None:
    chain = Chain(tmp_path, references=3000)
    key = json.dumps({"factory": factory, "train": {"sample": 1000}})
    result = []
    for _ in range(2):
        chain.build(key=key, threads=4)
        result.append((chain.folder / "flat.faiss").read_bytes())
    assert result[0] == result[1]
    if factory not in ("HNSW8,Flat", "SQ8"):
        chain.build(key=json.dumps({"factory": factory, "train": {"sample": 1000, "seed": 1}}))
        assert (chain.folder / "flat.faiss").read_bytes() != result[0]


def test_search_settings_of_the_entry_are_used(tmp_path: Path) -> None:
    chain = Chain(tmp_path, references=2000, queries=60)
    build_key = '{"factory": "IVF64,Flat"}'
    chain.build(key=build_key)
    truth = [expected(chain, f"q{n}", [name for name in chain.vectors if name[0] == "r"])[0] for n in range(60)]

    def correct(nprobe: int) -> int:
        key = json.dumps({"factory": "IVF64,Flat", "search": {"nprobe": nprobe}})
        result = chain.search(key=key, build_key=build_key).to_pandas().query("rank == 1").set_index("query_id")
        return sum(result["reference_id"].get(f"q{n}") == truth[n] for n in range(60))

    assert correct(64) == 60
    assert correct(1) < 60
    with pytest.raises(
        LookalikeError, match=r"factory 'IVF64,Flat' has no search setting 'nprob'\. Did you mean 'nprobe'"
    ):
        chain.search(key='{"factory": "IVF64,Flat", "search": {"nprob": 1}}', build_key=build_key)


def test_few_training_vectors_are_a_warning_with_a_remedy(chain: Chain, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "lookalike"):
        chain.build("IVF4,Flat")
    assert "'IVF4,Flat' learns 4 clusters from 40 training vectors; 156 or more are recommended" in caplog.text


def test_whitening_of_vectors_that_vary_in_too_few_directions_is_rejected(tmp_path: Path) -> None:
    chain = Chain(tmp_path)
    for vector in chain.vectors.values():
        vector[2:] = 0
    chain.shard("references", [name for name in chain.vectors if name[0] == "r"])
    with pytest.raises(LookalikeError, match=r"vary in fewer directions than it keeps|divides by a variance of zero"):
        chain.build("PCAW6,L2norm,Flat")


def test_without_training_images_an_index_is_trained_on_references_and_records_it(
    chain: Chain, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "lookalike"):
        chain.build("PCA4,Flat")
    assert "training on 40 images with the role 'reference'" in caplog.text
    assert store.read_provenance(chain.folder / "flat.ids.parquet")["trained_on"] == {
        "role": "reference",
        "vectors": 40,
    }


def test_without_a_gpu_the_search_runs_on_the_cpu_and_logs_it(chain: Chain, caplog: pytest.LogCaptureFixture) -> None:
    key = '{"factory": "IVF4,Flat"}'
    chain.build(key=key)
    on_cpu = chain.search(key=key).to_pylist()
    with caplog.at_level(logging.INFO, "lookalike"):
        assert chain.search(key=key, gpu=True).to_pylist() == on_cpu
    assert "computing on the CPU" in caplog.text


def test_showcase_images_find_what_queries_would_and_are_no_candidates(chain: Chain) -> None:
    queried = chain.folder / "images.parquet"
    chain.build()
    expected_rows = [row for row in chain.search().to_pylist() if row["query_id"] == "q3"]
    candidates = chain.rows("candidates")
    assert chain.rows("showcase") == []
    chain.sample({name: "g" if name == "q3" else name[0] for name in chain.vectors})
    sample = store.read_table(queried, IMAGES)
    showcase_role = pa.array([name == "q3" for name in sample["image_id"].to_pylist()])
    store.write_table(sample.append_column("showcase", showcase_role), queried, IMAGES, MADE)
    result = chain.search()
    assert "q3" not in result["query_id"].to_pylist()
    showcase = chain.rows("showcase")
    assert [row["reference_id"] for row in showcase] == [row["reference_id"] for row in expected_rows]
    assert [row["rank"] for row in showcase] == [1, 2, 3, 4, 5, 6]
    assert "q3" in {row["query_id"] for row in candidates}
    assert "q3" not in {row["query_id"] for row in chain.rows("candidates")}


def test_the_faiss_gpu_path_gives_the_results_of_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: only FAISS' GPU calls are replaced, by the CPU."""
    import faiss

    chain = Chain(tmp_path, references=3000, training=600)
    key, moved = '{"factory": "IVF4,Flat"}', []

    class Resources:
        def setTempMemory(self, size: int) -> None:  # noqa: N802
            assert size > 0

    class Options:
        useFloat16 = True  # noqa: N815

    def to_gpu(resources: Resources, device: int, index: Any, options: Options | None = None) -> Any:
        assert (device, options is None or not options.useFloat16) == (0, True)
        moved.append(index)
        return index

    chain.build(key=key)
    built, on_cpu = (chain.folder / "flat.faiss").read_bytes(), all_tables(chain, key, gpu=True)
    monkeypatch.setattr(faiss, "StandardGpuResources", Resources, raising=False)
    monkeypatch.setattr(faiss, "GpuClonerOptions", Options, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", to_gpu, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    chain.build(key=key, gpu=True)
    assert (chain.folder / "flat.faiss").read_bytes() == built
    moved.clear()
    on_gpu = all_tables(chain, key, gpu=True)
    assert moved
    for name, rows in on_cpu.items():
        pairs = [[(row["query_id"], row["reference_id"]) for row in result] for result in (rows, on_gpu[name])]
        assert pairs[0] == pairs[1], name
        scores = [[row["score"] for row in result] for result in (rows, on_gpu[name])]
        np.testing.assert_allclose(scores[0], scores[1], atol=1e-6)


def all_tables(chain: Chain, key: str, *, gpu: bool) -> dict[str, list[dict[str, Any]]]:
    chain.search(key=key, training=True, gpu=gpu)
    tables = ("neighbors", "candidates", "showcase", "training_found", "candidates_sn")
    return {name: chain.rows(name) for name in tables}


@pytest.mark.parametrize("key", ['{"factory": "Flat"}', '{"factory": "PCAW4,L2norm,Flat"}', '{"scan": true}'])
def test_exact_search_on_a_gpu_writes_the_tables_of_the_cpu(
    tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU: torch computes on the CPU. Scores are equal to the last bit, and ties keep the index's order."""
    import torch

    chain = Chain(tmp_path, references=5000, training=600)  # in two blocks
    for number in (*range(1, 20), 4500, 4999):
        chain.vectors[f"r{number}"] = chain.vectors["r0"]
    chain.shard("references", [name for name in chain.vectors if name[0] == "r"])
    chain.vectors["q0"] = chain.vectors["r0"]
    chain.shard("queries", [name for name in chain.vectors if name[0] == "q"])
    chain.sample({name: "g" if name == "q3" else name[0] for name in chain.vectors})
    sample = store.read_table(tmp_path / "images.parquet", IMAGES)
    showcase_role = pa.array([name == "q3" for name in sample["image_id"].to_pylist()])
    store.write_table(sample.append_column("showcase", showcase_role), tmp_path / "images.parquet", IMAGES, MADE)
    chain.build(key=key)
    on_cpu = all_tables(chain, key, gpu=False)
    used = []
    monkeypatch.setattr(exact_gpu, "find", lambda machine: torch.device("cpu"))
    monkeypatch.setattr(exact_gpu.GpuProducts, "load", counting(exact_gpu.GpuProducts.load, used))
    on_gpu = all_tables(chain, key, gpu=True)
    assert on_gpu == on_cpu
    assert used
    assert all(on_cpu.values())
    own = [row for row in on_gpu["neighbors"] if row["query_id"] == "q0"]
    assert [row["reference_id"] for row in own] == [f"r{number}" for number in range(6)]
    assert len({row["score"] for row in own}) == 1


def counting(method: Any, calls: list[Any]) -> Any:
    def call(*args: Any) -> Any:
        calls.append(args)
        return method(*args)

    return call


def clustered(count: int, seed: int, spread: float = 0.4) -> Floats:
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(30, 64))
    rng = np.random.default_rng(seed)
    drawn = centers[rng.integers(0, 30, count)] + spread * rng.normal(size=(count, 64))
    return unit(drawn.astype(np.float32))


@pytest.mark.parametrize("factory", ["SQ8", "SQ4", "HNSW16_SQ8", "IVF8,SQ8", "PCA32,SQ8", "IVF8,PQ8x4,Refine(SQ8)"])
def test_scalar_quantizers_do_not_clip_references_outside_the_training_range(factory: str) -> None:
    """With training images that are all alike: the ranges come from the references."""
    import faiss

    references, narrow = clustered(2000, 1), clustered(30_000, 2, spread=0.1)[:1000]
    narrow = unit(narrow + 8 * narrow.mean(axis=0, keepdims=True))

    def recall(training_vectors: Floats) -> float:
        built = factories.make(factory, 64)
        factories.train(built, factory, training_vectors, gpu=False)
        assert factories.fit_ranges(built, references)
        built.add(references)
        settings = {"nprobe": 8.0} if "IVF" in factory else {}
        loading.configure(built, factory, settings | ({"k_factor_rf": 20.0} if "Refine" in factory else {}))
        seen = faiss_index.transform(built, references)
        best = np.argsort(-(seen[:200] @ seen.T), axis=1)[:, :10]
        result = built.search(references[:200], 10)[1]
        return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(result.tolist(), best.tolist(), strict=True)]))

    faiss.omp_set_num_threads(1)
    assert recall(narrow) > (0.6 if factory == "SQ4" else 0.9)


def test_fit_ranges_returns_false_for_factories_without_ranges() -> None:
    for factory in ("Flat", "SQfp16", "PCA32,Flat", "IVF8,Flat"):
        assert not factories.fit_ranges(factories.make(factory, 64), clustered(10, 1))


@pytest.mark.parametrize(
    "factory",
    [
        *("PQ16x4", "PQ16x4fs", "IVF8,PQ16x4fsr", "RaBitQ", "IVF8,RaBitQ", "RQ2x4", "PRQ2x2x4", "HNSW16"),
        *("NSG16", "IVF8_HNSW16,PQ16x4", "PCAW16,Flat", "PQ16x4,RFlat", "SQ4", "PQ2x4", "ITQ64,SQ8"),
    ],
)
@pytest.mark.parametrize("spread", [0.4, 100.0])
def test_coarse_codes_pass_the_check_of_scores(factory: str, spread: float) -> None:
    """Also for vectors without any structure, which codes approximate badly."""
    import faiss

    faiss.omp_set_num_threads(1)
    references = clustered(1000, 1, spread)
    built = factories.make(factory, 64)
    if not built.is_trained:
        factories.train(built, factory, references, gpu=False)
    built.add(references)
    factories.check_scores(built, factory, references)


@pytest.mark.parametrize(
    ("factory", "message"),
    [("HNSW16_PQ16x4", "the best is the smallest"), ("SQ8_direct", r"all are 0\.000"), ("Flat", "RMS error")],
)
def test_a_filled_index_whose_scores_are_not_inner_products_is_rejected(factory: str, message: str) -> None:
    """Today's FAISS reveals this by the index's metric type; a later version may not."""
    import faiss

    references = clustered(1500, 1)
    built = faiss.index_factory(64, factory, faiss.METRIC_INNER_PRODUCT)
    built.train(references)
    built.add(references * 2 if factory == "Flat" else references)
    with pytest.raises(LookalikeError, match=rf"'{factory}' does not score by inner product: .*{message}.* Choose"):
        factories.check_scores(built, factory, references)


@pytest.mark.parametrize(
    ("factory", "half"),
    [("IVF4,PQ48", False), ("IVF4,PQ64", True), ("OPQ64,IVF4,PQ64", True), ("IVF4,Flat", False), ("PQ64", False)],
)
def test_long_codes_use_half_precision_tables_on_a_gpu_and_nothing_else_does(
    factory: str, half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAISS refuses float32 tables of more than 48 KiB; with other indexes, float16 would round the vectors."""
    import faiss

    class Options:
        useFloat16 = True  # noqa: N815

    monkeypatch.setattr(faiss_index, "gpu", lambda: 0)
    monkeypatch.setattr(faiss_index, "gpu_memory", lambda: None)
    monkeypatch.setattr(faiss, "GpuClonerOptions", Options, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", lambda *args: args[3].useFloat16, raising=False)
    assert loading.on_gpu(factories.make(factory, 192)) is half


def test_more_clusters_than_a_gpu_can_visit_are_searched_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import faiss

    class Options:
        useFloat16 = True  # noqa: N815

    monkeypatch.setattr(faiss_index, "gpu", lambda: 0)
    monkeypatch.setattr(faiss_index, "gpu_memory", lambda: None)
    monkeypatch.setattr(faiss, "GpuClonerOptions", Options, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", lambda *args: "copy", raising=False)
    index = factories.make("IVF4096,Flat", 8)
    loading.configure(index, "IVF4096,Flat", {"nprobe": 2048})
    assert loading.on_gpu(index) == "copy"
    loading.configure(index, "IVF4096,Flat", {"nprobe": 2049})
    assert loading.on_gpu(index) is None
    assert "(nprobe is 2049, and FAISS visits at most 2048 clusters there); searching on the CPU" in caplog.text


def test_training_continues_on_the_cpu_if_a_gpu_cannot_hold_the_clusters(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import faiss

    def full(resources: Any, device: int, index: Any) -> Any:
        raise RuntimeError("Error: 'err == cudaSuccess' failed: out of memory")

    vectors = clustered(400, 1)
    monkeypatch.setattr(faiss_index, "gpu", lambda: 0)
    monkeypatch.setattr(faiss_index, "gpu_memory", lambda: None)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", full, raising=False)
    built = [factories.make("IVF4,Flat", 64) for _ in range(2)]
    for index, gpu in zip(built, (False, True), strict=True):
        factories.train(index, "IVF4,Flat", vectors, gpu=gpu)
    centroids = [index.quantizer.reconstruct_n(0, 4) for index in built]
    np.testing.assert_array_equal(centroids[0], centroids[1])
    assert "clusters cannot be trained on a GPU (out of memory); training on the CPU" in caplog.text
    assert faiss.extract_index_ivf(built[1]).clustering_index is None


def test_a_failed_training_leaves_no_dangling_pointer(monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    monkeypatch.setattr(faiss_index, "gpu", lambda: 0)
    monkeypatch.setattr(faiss_index, "gpu_memory", lambda: None)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", lambda resources, device, index: index, raising=False)
    built = factories.make("IVF8_NSG16,Flat", 64)  # its graph needs 100 clusters or more
    with pytest.raises(LookalikeError, match="cannot train factory 'IVF8_NSG16,Flat'"):
        factories.train(built, "IVF8_NSG16,Flat", clustered(400, 1), gpu=True)
    assert faiss.extract_index_ivf(built).clustering_index is None
