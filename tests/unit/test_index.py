"""Building an index: what it is built from, what is refused, and what is recorded beside it."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from chain import CODE, FOOTER, KEY, Chain
from conftest import largest_file
from lookalike.io import store, vectors
from lookalike.io.checks import check_shards
from lookalike.io.formats.records import SearchTiming
from lookalike.io.formats.tables import EMBEDDINGS, IMAGES, INDEX_IDS, INDEX_IMAGES
from lookalike.job.errors import LookalikeError
from tables import MADE


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


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
