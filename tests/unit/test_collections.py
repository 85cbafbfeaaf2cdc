"""Labelled collections, where all images of a query's class are right, and folders without any right answer."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from chain import Chain, Floats
from conftest import made_image
from lookalike.config.datasets import Copies, Folder
from lookalike.io import identity, relevance, store
from lookalike.io.formats.records import Metrics
from lookalike.io.formats.tables import CLASS_RANKS, IMAGES, NEIGHBORS, TRUTH
from lookalike.io.in_work import Guard
from lookalike.job.errors import LookalikeError
from lookalike.measure.measure import MeasureJob, measure
from lookalike.metrics.class_ranks import by_class
from lookalike.metrics.evaluation import Results
from lookalike.metrics.ranking import rank
from lookalike.report import classmates
from lookalike.sample import copies, expectations, hashing
from lookalike.sample import folder as folder_kind
from lookalike.sample.make_images import Album
from lookalike.sample.sample import SampleJob
from lookalike.sample.sample import sample as sample_stage
from lookalike.search import class_ranks
from tables import MADE, images_table, neighbors_table, truth_table

NONE = truth_table([])


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def put(*paths: str) -> None:
    for number, path in enumerate(paths):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        made_image(number).save(path)


def sample(**entry: Any) -> tuple[pa.Table, pa.Table]:
    folder = Folder.model_validate({"kind": "folder", "root": "photos"} | entry)
    images, truth = folder_kind.sample(folder, "datasets.mine")
    return IMAGES.check(images, "images"), TRUTH.check(truth, "truth")


def labelled(classes: dict[str, str | None]) -> pa.Table:
    """An images table in which every image with a class is a query against all others."""
    queries = [name for name, of_class in classes.items() if of_class]
    groups = {name: of_class for name, of_class in classes.items() if of_class}
    return images_table(list(classes), queries, groups).append_column("class", pa.array(list(classes.values())))


# --- which images are queries, and of which class ---


def test_without_queries_every_image_is_one_and_no_answer_is_known() -> None:
    put("photos/a.png", "photos/b/c.png", "more/t.png")
    images, truth = sample(training="more")
    assert images["query"].to_pylist() == images["reference"].to_pylist() == [True, True, False]
    assert truth.num_rows == 0
    assert not relevance.is_labelled(images)


def test_the_class_of_an_image_is_the_first_folder_in_its_path() -> None:
    put(*(f"photos/{name}.png" for name in ("cat/1", "cat/old/2", "dog/1", "dog/2", "loose")))
    images, truth = sample(same="folder")
    assert images["class"].to_pylist() == ["cat", "cat", "dog", "dog", None]
    assert images["group"].to_pylist() == images["class"].to_pylist()
    assert images["query"].to_pylist() == [True, True, True, True, False]
    assert images["reference"].to_pylist() == [True] * 5
    assert truth.num_rows == 0
    assert relevance.matches(truth, images).tolist() == [1, 1, 1, 1, 0]
    assert expectations.count(images, truth) == {"references": 5, "queries": 4, "training": 0, "pairs": 4}


def test_an_archive_is_not_a_class_but_the_folders_in_it_are() -> None:
    import zipfile

    put("photos/dog/1.png", "cat.png")
    with zipfile.ZipFile("photos/all.zip", "w") as packed:
        packed.write("cat.png", "cat/1.png")
        packed.write("photos/dog/1.png", "dog/2.png")
    images, _ = sample(same="folder")
    assert dict(zip(images["image_id"].to_pylist(), images["class"].to_pylist(), strict=True)) == {
        "all.zip/cat/1.png": "cat",
        "all.zip/dog/2.png": "dog",
        "dog/1.png": "dog",
    }


def test_the_class_may_be_a_column_of_about_which_then_is_no_breakdown() -> None:
    put(*(f"photos/{name}.png" for name in "abcd"))
    Path("about.csv").write_text("image_id,shoe,shop\na.png,boot,x\nb.png,boot,y\nc.png,clog,x\n")
    images, _ = sample(same="shoe", about="about.csv")
    assert images["class"].to_pylist() == ["boot", "boot", "clog", None]
    assert [name for name in images.column_names if name.startswith("by_")] == ["by_shop"]


@pytest.mark.parametrize(
    ("files", "entry", "message"),
    [
        (
            ["a", "b"],
            {"same": "folder"},
            r"datasets\.mine\.same: no image of 'photos' is in a subfolder\. Check root",
        ),
        (
            ["x/a", "x/b"],
            {"same": "folder"},
            r"all images are of one class, 'x', so no answer can be wrong\. Check root",
        ),
        (["x/a", "y/b"], {"same": "folder"}, r"each of the 2 classes has only one image, so no image has a match\."),
        (
            ["a", "b"],
            {"same": "shoes", "about": "about.csv"},
            r"about\.csv has no column 'shoes'\. Did you mean 'shoe'",
        ),
    ],
)
def test_classes_without_which_nothing_could_be_measured_are_an_error(
    files: list[str], entry: dict[str, Any], message: str
) -> None:
    put(*(f"photos/{name}.png" for name in files))
    Path("about.csv").write_text("image_id,shoe\na.png,boot\n")
    with pytest.raises(LookalikeError, match=message):
        sample(**entry)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"same": "folder", "queries": "queries"}, "'same', which makes every image a query, and also 'queries'"),
        ({"same": "shoe"}, r"'same: shoe' is a column of the table 'about', which is missing\. Add 'about'"),
    ],
)
def test_contradicting_keys_are_refused(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Folder.model_validate({"kind": "folder", "root": "photos"} | entry)


def test_the_footer_of_the_empty_truth_says_that_classes_decide() -> None:
    put("photos/cat/1.png", "photos/cat/2.png", "photos/dog/1.png")
    key = json.dumps({"kind": "folder", "root": "photos", "same": "folder"})
    sample_stage(SampleJob("mine", key, None, "images.parquet", "truth.parquet"))
    assert store.read_provenance("truth.parquet")["relevance"] == "class"
    assert store.read_table("truth.parquet", TRUTH).num_rows == 0
    assert store.read_table("images.parquet", IMAGES)["class"].to_pylist() == ["cat", "cat", "dog"]


def test_copies_of_a_labelled_collection_are_right_for_their_source_alone() -> None:
    put(*(f"photos/{name}.png" for name in ("cat/1", "cat/2", "dog/1")))
    with_classes, plain = (
        hashing.fill(sample(**entry)[0], Path("cache"), keep=False) for entry in ({"same": "folder"}, {})
    )
    made = []
    for images in (with_classes, plain):
        with Album(["results/copies/images/queries-00000.zip"]) as album:
            made.append(copies.make_images(Copies(kind="copies", of="mine", queries=3), images, album, Guard()))
    assert made[0].equals(made[1])
    assert not relevance.is_labelled(made[0])


# --- what is right ---


def test_right_pairs_are_those_of_one_class_without_the_query_itself() -> None:
    images = labelled({"a1": "a", "a2": "a", "a3": "a", "b1": "b", "x": None, "y": None})
    assert relevance.matches(NONE, images).tolist() == [2, 2, 2, 0, 0, 0]
    assert relevance.involved(NONE, images).tolist() == [True, True, True, False, False, False]
    pairs = relevance.pairs_of(pa.array(["a1", "b1"]), NONE, images).to_pylist()
    assert sorted(pair["reference_id"] for pair in pairs) == ["a2", "a3"]
    found = neighbors_table({"a1": [("x", 0.9), ("a3", 0.8), ("b1", 0.1)], "b1": [("a1", 0.9)]})
    assert relevance.right_among(found, NONE, images).to_pylist() == [{"query_id": "a1", "reference_id": "a3"}]


def test_the_example_of_the_docs() -> None:
    """docs/collections.md: four cats, two dogs, one image without a class."""
    images = labelled(dict.fromkeys(["c1", "c2", "c3", "c4"], "cat") | dict.fromkeys(["d1", "d2"], "dog") | {"x": None})
    found = neighbors_table({"c1": [("c2", 0.9), ("d1", 0.8), ("c3", 0.7), ("c4", 0.6), ("d2", 0.5), ("x", 0.4)]})
    ranking = rank(found, NONE, images, searched=7, kept=11)
    ranks = pa.table(
        {"query_id": ["c1"], "relevant": [3], "found": [2], "precision": [1 + 2 / 3]}, CLASS_RANKS.schema()
    )
    values = {
        name: value
        for name, outcome in by_class(ranking, ranks, images, 10).items()
        if outcome is not None
        for value in [outcome[0]]
    }
    assert values == pytest.approx({"accuracy_at_1": 1, "accuracy_at_3": 1, "r_precision": 2 / 3, "map_at_r": 5 / 9})


# --- how deep a class is searched ---


class Collection(Chain):
    """Vectors of a labelled collection on disk; images without a class are references only."""

    def __init__(self, folder: Path, vectors: dict[str, Floats], classes: Sequence[str | None]) -> None:
        super().__init__(folder, references=0, queries=1)
        self.vectors = vectors
        self.images = labelled(dict(zip(vectors, classes, strict=True)))
        store.write_table(self.images, folder / "images.parquet", IMAGES, MADE)
        self.shard("queries", list(vectors))

    def ranks(self, **settings: Any) -> dict[str, tuple[int, int, float]]:
        self.search(**settings)
        table = store.read_table(self.folder / "classes.parquet", CLASS_RANKS)
        return {row["query_id"]: (row["relevant"], row["found"], row["precision"]) for row in table.to_pylist()}

    def expected(self) -> dict[str, tuple[int, int, Any]]:
        """By the definition, one query after the other: at equal scores wrong references rank first."""
        names, (_, vectors) = list(self.vectors), (None, np.stack([*self.vectors.values()]))
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        classes, ranks = self.images["class"].to_pylist(), {}
        for row, name in enumerate(names):
            others = [other for other in range(len(names)) if other != row]
            right = {other for other in others if classes[other] == classes[row]}
            if classes[row] is None or not right:
                continue
            score = np.einsum("ij,j->i", unit, unit[row])
            order = sorted(others, key=lambda other: (-score[other], other in right))[: len(right)]
            hits = [place for place, other in enumerate(order, start=1) if other in right]
            total = sum(count / place for count, place in enumerate(hits, start=1))
            ranks[name] = (len(right), len(hits), pytest.approx(total, rel=1e-9))
        return ranks


def collection(folder: Path, sizes: Sequence[int], *, spread: float = 1.5, without: int = 5) -> Collection:
    rng = np.random.default_rng(3)
    centers = rng.normal(size=(len(sizes), 8))
    vectors, classes = {}, list[str | None]()
    for number, (size, center) in enumerate(zip(sizes, centers, strict=True)):
        for member in range(size):
            vectors[f"{number}-{member}"] = (center + spread * rng.normal(size=8)).astype(np.float32)
            classes.append(f"class {number}")
    for number in range(without):
        vectors[f"x{number}"] = rng.normal(size=8).astype(np.float32)
        classes.append(None)
    return Collection(folder, vectors, classes)


@pytest.mark.parametrize("pairs", [1, 500, 1 << 21])
def test_every_class_is_searched_as_deep_as_it_is_large_whatever_fits_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pairs: int
) -> None:
    monkeypatch.setattr(class_ranks, "PAIRS", pairs)
    chain = collection(tmp_path / "chain", [60, 33, 2, 1, 12])
    chain.build()
    ranks = chain.ranks(k=5)
    assert ranks == chain.expected()
    assert len(ranks) == 107  # the class of one image has no match
    assert store.read_table(chain.folder / "neighbors.parquet", NEIGHBORS).num_rows == 108 * 6


@pytest.mark.parametrize("key", ['{"scan": true}', '{"factory": "IVF1,Flat"}', '{"factory": "HNSW32,Flat"}'])
def test_other_indexes_search_as_deep(tmp_path: Path, key: str) -> None:
    chain = collection(tmp_path / "chain", [40, 20, 9])
    chain.build(key=key) if "scan" in key else chain.build(json.loads(key)["factory"])
    found = chain.ranks(key=key)
    if "HNSW" in key:  # may miss some
        assert {name: ranks[0] for name, ranks in found.items()} == {n: r[0] for n, r in chain.expected().items()}
        assert sum(ranks[1] for ranks in found.values()) <= sum(ranks[1] for ranks in chain.expected().values()) + 3
    else:
        assert found == chain.expected()


def test_equal_scores_earn_nothing_even_across_the_last_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    same = {f"i{number}": np.ones(8, np.float32) for number in range(30)}
    chain = Collection(tmp_path / "chain", same, ["a", "b", "c"] * 10)
    chain.build()
    assert set(chain.ranks().values()) == {(9, 0, 0.0)}
    few = dict(list(same.items())[:5]) | {f"d{number}": np.eye(8, dtype=np.float32)[number] for number in range(8)}
    chain = Collection(tmp_path / "other", few, ["a", "a", "a", "a", "b", *["d"] * 8])
    chain.build()
    for pairs in (1, 1 << 21):  # however deep the others are searched
        monkeypatch.setattr(class_ranks, "PAIRS", pairs)
        assert chain.ranks() == chain.expected()
    assert chain.ranks()["i0"] == (3, 2, pytest.approx(1 / 2 + 2 / 3))  # the wrong one first, then two of three


def measured(chain: Collection, k: int = 10) -> Metrics:
    folder = chain.folder
    store.write_table(NONE, folder / "truth.parquet", TRUTH, MADE)
    names = ("neighbors", "candidates", "training_found", "candidates_sn")
    measure(
        MeasureJob(
            results=Results(*(folder / f"{name}.parquet" for name in names), classes=folder / "classes.parquet"),
            truth=folder / "truth.parquet",
            images=folder / "images.parquet",
            seen=folder / "flat.images.parquet",
            timings=[],
            search_timing=folder / "none.json",
            out=folder / "metrics.json",
            dataset="mine",
            model="pixels",
            index="flat",
            k=k,
        )
    )
    return store.read_json(folder / "metrics.json", Metrics)


def test_metrics_of_a_collection_have_intervals_by_class_and_no_pooled_list(tmp_path: Path) -> None:
    chain = collection(tmp_path / "chain", [40, 30, 30, 25, 20, 16], spread=0.8)
    chain.build()
    chain.search(k=10)
    record = measured(chain)
    assert list(record.metrics) == ["accuracy_at_1", "accuracy_at_3", "accuracy_at_10", "map_at_r", "r_precision"]
    assert record.groups == 6
    expected = chain.expected().values()
    for name, column in (("r_precision", 1), ("map_at_r", 2)):
        values = [float(getattr(row[column], "expected", row[column])) / row[0] for row in expected]
        found = record.metrics[name]
        assert found.value == pytest.approx(np.mean(values))
        assert found.n == 161
        assert found.low is not None
        assert found.high is not None
        assert found.high - found.low > 4 * np.std(values) / 161**0.5  # of 6 classes, not of 161 queries
    assert record.thresholds == record.curves == {}


def test_small_classes_are_pooled_as_well(tmp_path: Path) -> None:
    """Of at most eleven images a class, ten pairs a query hold all true pairs, so uAP means what it says."""
    chain = collection(tmp_path / "chain", [6] * 8, spread=0.5)
    chain.build()
    chain.search(k=10)
    record = measured(chain)
    unit = np.stack([vector / np.linalg.norm(vector) for vector in chain.vectors.values()])
    score, classes = unit @ unit.T, np.array([*np.repeat(np.arange(8), 6), *[-1] * 5])
    right = (classes[:, None] == classes) & (classes >= 0)
    pairs = ~np.eye(len(unit), dtype=bool) & (classes >= 0)[:, None]
    order = np.argsort(-score[pairs], kind="stable")[:480]
    hits = np.flatnonzero(right[pairs][order]) + 1
    assert record.metrics["uap"].value == pytest.approx(np.sum(np.arange(1, len(hits) + 1) / hits) / 240, abs=1e-6)
    assert record.thresholds["recall_at_p90"].score is not None


def test_rejected_images_of_a_class_are_misses(tmp_path: Path) -> None:
    chain = collection(tmp_path / "chain", [4, 4], spread=0.01, without=0)
    chain.shard("queries", [name for name in chain.vectors if name != "0-0"])
    chain.rejected = chain.reject([{"image_id": "0-0", "path": "0-0", "reason": "truncated"}])
    chain.build()
    chain.search(k=5)
    # of 8 queries one found nothing, and its class has three images that miss one of their three matches
    assert measured(chain, k=5).metrics["r_precision"].value == pytest.approx((3 * 2 / 3 + 4) / 8)


def test_ranks_of_another_sample_are_refused() -> None:
    images = labelled({"a1": "a", "a2": "a", "b1": "b"})
    ranking = rank(neighbors_table({"a1": [("a2", 0.9)]}), NONE, images, searched=3, kept=4)
    ranks = pa.table({"query_id": ["a1"], "relevant": [2], "found": [1], "precision": [1.0]}, CLASS_RANKS.schema())
    with pytest.raises(LookalikeError, match=r"^flat\.classes: does not have the classes of the sample"):
        by_class(ranking, ranks, images, 3, "flat.classes")


def test_without_classes_the_table_of_ranks_is_absent(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "chain")
    chain.build()
    chain.search()
    assert identity.is_absent(chain.folder / "classes.parquet")
    assert pc.count(store.read_columns(chain.folder / "classes.parquet", "query_id")["query_id"]).as_py() == 0


def test_the_matches_in_the_report_are_the_class_without_the_query() -> None:
    images = labelled({"c": "x", "a": "x", "lone": "y", "b": "x", "none": None})
    matches = classmates.of(images)
    assert {row: list(others) for row, others in matches.items()} == {0: [1, 3], 1: [3, 0], 3: [1, 0]}
    assert matches[0][:1] == [1]
    assert (matches[0][-1], len(matches[0])) == (3, 2)
    with pytest.raises(IndexError):
        matches[0][2]
