"""Searching: neighbors, candidates of all queries, normalised scores, roles that a data set lacks."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from chain import CODE, KEY, Chain
from conftest import REPOSITORY
from lookalike.io import store, vectors
from lookalike.io.formats.tables import IMAGES, INDEX_IDS
from lookalike.io.vectors import unit
from lookalike.job.errors import LookalikeError
from lookalike.plan.paths import SEARCHED
from lookalike.search import loading
from lookalike.search.searcher import Searcher
from tables import MADE


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


def test_a_zero_vector_scores_zero(tmp_path: Path) -> None:
    chain = Chain(tmp_path)
    chain.vectors["q0"] = np.zeros(8, np.float32)
    chain.shard("queries", [name for name in chain.vectors if name[0] == "q"])
    chain.build()
    result = chain.search().to_pandas()
    assert result.loc[result["query_id"] == "q0", "score"].tolist() == [0.0] * 6


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
