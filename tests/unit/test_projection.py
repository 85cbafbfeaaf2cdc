"""The map's projection: which images are on it, and that it is the same in every run."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lookalike.io import identity, store
from lookalike.io.formats.tables import EMBEDDINGS, IMAGES, MAP, NEIGHBORS, TRUTH
from lookalike.job.errors import LookalikeError
from lookalike.search import tsne
from lookalike.search.projection import FEW, ProjectJob, kept_neighbors, plane, project
from tables import images_table, neighbors_table, truth_table

QUERIES = [f"q-{number:02}" for number in range(20)]
REFERENCES = [f"ref-{number:02}" for number in range(60)]
SAMPLE = {"sample_sha256": "a sample"}


@pytest.fixture
def job(tmp_path: Path) -> ProjectJob:
    """20 queries whose match has the same number, though each third finds ref-50, in two shards of vectors."""
    draw = np.random.default_rng(0)
    shards = []
    for part, ids in (("queries", QUERIES), ("references", REFERENCES)):
        vectors = draw.normal(size=(len(ids), 8)).astype(np.float32)
        columns = {
            "image_id": ids,
            "sha256": ids,
            "embedding": pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), 8),
        }
        shards.append(str(tmp_path / f"{part}-00000.parquet"))
        store.write_table(pa.table(columns), shards[-1], EMBEDDINGS, {})
    made = {**SAMPLE, "model": "m", "index": "flat", "index_sha256": "i", "images_sha256": "j"}
    made |= {"shards_sha256": identity.hash_shards(shards)}
    found = {query: [(REFERENCES[50 if place % 3 == 0 else place], 0.9)] for place, query in enumerate(QUERIES)}
    paths = {name: str(tmp_path / f"{name}.parquet") for name in ("neighbors", "showcase", "images", "truth", "out")}
    store.write_table(neighbors_table(found), paths["neighbors"], NEIGHBORS, made)
    store.write_table(NEIGHBORS.schema().empty_table(), paths["showcase"], NEIGHBORS, made)
    store.write_table(images_table(REFERENCES, QUERIES), paths["images"], IMAGES, SAMPLE)
    store.write_table(truth_table(list(zip(QUERIES, REFERENCES, strict=False))), paths["truth"], TRUTH, SAMPLE)
    return ProjectJob(embeddings=shards, **paths)


def on_map(job: ProjectJob) -> list[str]:
    project(job)
    return list(store.read_table(job.out, MAP)["image_id"].to_pylist())


def test_all_images_are_on_the_map_where_they_fit(job: ProjectJob) -> None:
    assert sorted(on_map(job)) == [*QUERIES, *REFERENCES]
    footer = store.read_provenance(job.out)
    assert (footer["query"], footer["reference"], footer["rejected"]) == (20, 60, 0)
    assert footer["method"] == "PCA to 8 dimensions, then t-SNE with perplexity 26.3"


def test_a_bounded_map_has_queries_with_their_matches_and_what_they_found(job: ProjectJob) -> None:
    named = on_map(replace(job, most=20))
    assert 18 <= len(named) <= 20
    chosen = [int(name[2:]) for name in named if name.startswith("q-")]
    assert len(chosen) > 5
    assert {f"ref-{number:02}" for number in chosen} <= set(named)
    assert "ref-50" in named


def test_the_same_input_gives_the_same_bytes_in_any_order_of_shards(job: ProjectJob) -> None:
    project(job)
    before = Path(job.out).read_bytes()
    project(replace(job, embeddings=job.embeddings[::-1]))
    assert Path(job.out).read_bytes() == before


def test_rejected_images_are_not_on_the_map(job: ProjectJob) -> None:
    shard = Path(job.embeddings[0])
    store.write_table(store.read_table(shard, EMBEDDINGS).slice(1), shard, EMBEDDINGS, {})
    made = store.read_provenance(job.neighbors) | {"shards_sha256": identity.hash_shards(job.embeddings)}
    for path in (job.neighbors, job.showcase):
        store.write_table(store.read_table(path, NEIGHBORS), path, NEIGHBORS, made)
    assert "q-00" not in on_map(job)
    assert store.read_provenance(job.out)["rejected"] == 1


def test_vectors_that_were_not_searched_are_refused(job: ProjectJob) -> None:
    store.write_table(store.read_table(job.embeddings[0], EMBEDDINGS), job.embeddings[0], EMBEDDINGS, {"new": 1})
    with pytest.raises(LookalikeError, match=r"neighbors\.parquet: was found in other embeddings.*--forcerun"):
        project(job)


def test_groups_stay_together_and_most_neighbors_are_kept() -> None:
    draw = np.random.default_rng(1)
    points = np.repeat(np.eye(4, 16, dtype=np.float32), 30, axis=0) + 0.05 * draw.normal(size=(120, 16)).astype("f4")
    places, _ = plane(points)
    assert np.abs(places).max() == pytest.approx(1)
    group = np.repeat(np.arange(4), 30)
    centers = np.stack([places[group == number].mean(axis=0) for number in range(4)])
    far = np.linalg.norm(places[:, None] - centers[None], axis=2)
    assert (far.argmin(axis=1) == group).all()
    kept = kept_neighbors(points, places)
    assert kept is not None
    assert 0.3 < kept < 1


@pytest.mark.parametrize(("count", "method"), [(0, "equal"), (1, "equal"), (5, "PCA to 2"), (11, "t-SNE")])
def test_few_images_have_a_map_too(count: int, method: str) -> None:
    places, made = plane(np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32))
    assert places.shape == (count, 2)
    assert np.isfinite(places).all()
    assert method in made


def test_equal_vectors_and_vectors_of_one_number_have_a_map() -> None:
    assert plane(np.ones((40, 4), np.float32))[1] == "all vectors are equal"
    places, _ = plane(np.linspace(0, 1, 40, dtype=np.float32)[:, None])
    assert np.isfinite(places).all()


def test_a_small_map_is_as_good_as_scikit_learns_exact_one_and_needs_no_scikit_learn() -> None:
    from sklearn.manifold import TSNE

    draw = np.random.default_rng(2)
    points = np.repeat(draw.normal(size=(50, 20)), 2, axis=0) + 0.3 * draw.normal(size=(100, 20))
    points = points @ np.linalg.svd(points - points.mean(axis=0))[2].T  # its first coordinates are components
    near = tsne.similarities(points, 30)
    theirs = TSNE(init="pca", perplexity=30, max_iter=750, random_state=0, method="exact")
    theirs.fit(points.astype(np.float32))
    places = tsne.embed(points, 30, 750)
    weights = 1 / (1 + ((places[:, None] - places[None]) ** 2).sum(axis=2))
    np.fill_diagonal(weights, 0)
    pairs = ~np.eye(100, dtype=bool)
    divergence = (near[pairs] * np.log(near[pairs] / (weights / weights.sum())[pairs])).sum()
    assert divergence < 1.1 * theirs.kl_divergence_
    small = "import sys, numpy as np; from lookalike.search.projection import FEW, plane; "
    small += "plane(np.random.default_rng(0).normal(size=(40, 8)).astype('f4')); assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", small], check=True)


@pytest.mark.parametrize("count", [FEW, FEW + 1])
def test_a_projection_is_the_same_again_in_either_way_to_compute_it(count: int) -> None:
    points = np.random.default_rng(0).normal(size=(count, 12)).astype(np.float32)
    places, method = plane(points)
    assert np.array_equal(plane(points)[0], places)
    assert method == "PCA to 12 dimensions, then t-SNE with perplexity 30"
