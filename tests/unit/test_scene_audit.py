"""The audit confirms shots of one scene, hardly ever anything else, and says what it did not look at."""

import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import phone_folder
from lookalike.config.datasets import Folder
from lookalike.io import identity, images, store
from lookalike.io.formats.audit import BY_COLUMN, BY_FEATURES, NOT_AUDITED, OTHER, SAME_SCENE, UNREADABLE
from lookalike.io.formats.tables import AUDIT, IMAGES, NEIGHBORS, TRUTH
from lookalike.measure.audit import audit as stage
from lookalike.measure.audit.audit import AuditJob, audit
from lookalike.measure.audit.features import PLACES, agreement, features_of, grey_of, mirrored
from lookalike.measure.audit.misses import Miss, misses
from lookalike.sample import folder, hashing
from phone_folder import PhoneFolder, compressed, scene_canvas, take_shot
from tables import neighbors_table, truth_table


def test_most_shots_of_one_scene_are_confirmed_and_at_most_two_in_a_thousand_others() -> None:
    draw = np.random.default_rng(3)
    canvases = [scene_canvas(draw) for _ in range(32)]
    shots = [features_of(grey_of(compressed(take_shot(one, draw), 70))) for one in canvases for _ in range(3)]
    confirmed: dict[bool, list[bool]] = {True: [], False: []}
    for one, other in combinations(range(len(shots)), 2):
        if (same := one // 3 == other // 3) or (one + other) % 2:  # every second pair of different scenes
            confirmed[same].append(agreement(shots[one], shots[other]) >= PLACES)
    assert len(confirmed[False]) > 2000
    assert np.mean(confirmed[False]) <= 0.002
    assert np.mean(confirmed[True]) >= 0.8


def test_a_mirror_image_agrees_only_with_the_mirrored_one() -> None:
    draw = np.random.default_rng(5)
    canvas = scene_canvas(draw)
    one = grey_of(take_shot(canvas, draw, 0.2))
    other = features_of(grey_of(take_shot(canvas, draw, 0.2).transpose(Image.Transpose.FLIP_LEFT_RIGHT)))
    assert agreement(features_of(one), other) < PLACES
    assert agreement(features_of(mirrored(one)), other) >= PLACES


def test_images_without_features_agree_with_nothing() -> None:
    blank = features_of(np.full((200, 300), 128, np.uint8))
    assert len(blank.points) == 0
    assert agreement(blank, blank) == 0


def test_misses_are_wrong_answers_before_the_first_true_match_with_ties_against_the_model() -> None:
    neighbors = neighbors_table(
        {
            "hit": [("a", 0.9), ("b", 0.5)],
            "second": [("b", 0.9), ("a", 0.8), ("c", 0.7)],
            "tied": [("a", 0.9), ("b", 0.9), ("c", 0.1)],
            "never": [("b", 0.9), ("c", 0.8), ("d", 0.7)],
            "unasked": [("b", 0.9)],
        }
    )
    truth = truth_table(
        [("hit", "a"), ("second", "a"), ("second", "z"), ("tied", "a"), ("never", "a"), ("absent", "a")]
    )
    assert misses(neighbors, truth, k=2) == [
        Miss("second", ((1, "b"),), ("a", "z")),
        Miss("tied", ((1, "b"),), ("a",)),
        Miss("never", ((1, "b"), (2, "c")), ("a",)),
    ]


class Search:
    """A search on a phone folder with given neighbors, and its audit."""

    def __init__(self, folder_: Path, phone: PhoneFolder, **entry: str) -> None:
        self.folder = folder_
        images, truth = folder.sample(Folder.model_validate(phone.entry() | entry), "datasets.phone")
        images = hashing.fill(images)
        made = {identity.SAMPLE: identity.hash_sample(images, truth)}
        store.write_table(images, folder_ / "images.parquet", IMAGES, made)
        store.write_table(truth, folder_ / "truth.parquet", TRUTH, made)
        self.made = made
        self.candidates: dict[str, list[tuple[str, float]]] = {}

    def audit(self, found: dict[str, list[str]], threads: int = 2) -> pa.Table:
        pairs = {query: [(name, 1 - 0.1 * rank) for rank, name in enumerate(names)] for query, names in found.items()}
        store.write_table(neighbors_table(pairs), self.folder / "n.parquet", NEIGHBORS, self.made)
        store.write_table(neighbors_table(self.candidates), self.folder / "c.parquet", NEIGHBORS, self.made)
        names = ("n.parquet", "c.parquet", "images.parquet", "truth.parquet", "audit.parquet", "audit.in_work")
        files = (self.folder / name for name in names)
        audit(AuditJob(*files, k=5, threads=threads))
        return store.read_table(self.folder / "audit.parquet", AUDIT)


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> PhoneFolder:
    return phone_folder.make(tmp_path_factory.mktemp("phone"), scenes=6)


FOUND = {
    "q-scene000-0.jpg": ["scene000-1.jpg", "scene001-0.jpg", "scene002-0.jpg", "scene003-0.jpg", "scene004-0.jpg"],
    "q-scene001-0.jpg": ["scene001-resaved.jpg", "scene001-0.jpg"],
    "q-scene002-0.jpg": ["scene002-0.jpg", "scene001-0.jpg"],
    "q-scene003-2.jpg": ["scene004-1.jpg", "scene003-2.jpg"],
}


def test_wrong_answers_are_compared_with_the_true_match(tmp_path: Path, phone: PhoneFolder) -> None:
    search = Search(tmp_path, phone)
    rows = search.audit(FOUND).to_pylist()
    verdicts = [(row["query_id"], row["rank"], row["reference_id"], row["verdict"]) for row in rows]
    assert verdicts == [
        ("q-scene000-0.jpg", 1, "scene000-1.jpg", SAME_SCENE),
        ("q-scene000-0.jpg", 2, "scene001-0.jpg", OTHER),
        ("q-scene000-0.jpg", 3, "scene002-0.jpg", OTHER),
        ("q-scene000-0.jpg", 4, "scene003-0.jpg", OTHER),  # the third: what follows decides about no accuracy
        ("q-scene001-0.jpg", 1, "scene001-resaved.jpg", SAME_SCENE),
        ("q-scene003-2.jpg", 1, "scene004-1.jpg", OTHER),
    ]
    assert {row["by"] for row in rows} == {BY_FEATURES}
    assert rows[0]["inliers"] >= PLACES > rows[1]["inliers"]
    footer = store.read_provenance(tmp_path / "audit.parquet")
    assert (footer["misses"], footer["not_audited"], footer["seed"]) == (3, 0, 0)
    assert footer["recipe"] >= 1
    bytes_ = (tmp_path / "audit.parquet").read_bytes()
    search.audit(FOUND, threads=1)
    assert (tmp_path / "audit.parquet").read_bytes() == bytes_, "the number of threads decides nothing"


def test_the_users_scenes_win_and_need_no_images(tmp_path: Path, phone: PhoneFolder) -> None:
    copy = tmp_path / "phone"
    shutil.copytree(phone.root.parent, copy)
    about = copy / "about.csv"
    about.write_text(about.read_text().replace("scene000-1.jpg,scene000", "scene000-1.jpg,elsewhere"))
    moved = PhoneFolder(copy / "photos", copy / "queries", copy / "truth.csv", about, phone.scenes, phone.same)
    search = Search(tmp_path, moved, about=str(about))
    shutil.rmtree(copy / "photos")
    rows = search.audit(FOUND).to_pylist()
    assert {row["by"] for row in rows} == {BY_COLUMN}
    verdicts = {row["reference_id"]: row["verdict"] for row in rows}
    assert verdicts["scene000-1.jpg"] == OTHER, "although the images would agree"
    assert verdicts["scene001-resaved.jpg"] == SAME_SCENE


def test_an_image_that_cannot_be_read_is_said_to_be_unreadable(tmp_path: Path, phone: PhoneFolder) -> None:
    shutil.copytree(phone.root.parent, tmp_path / "phone")
    root = tmp_path / "phone/photos"
    (root / "scene000-1.jpg").write_bytes(b"\xff\xd8\xff broken")
    moved = PhoneFolder(root, tmp_path / "phone/queries", phone.truth, phone.about, phone.scenes, phone.same)
    rows = Search(tmp_path, moved).audit(FOUND).to_pylist()
    assert [row["verdict"] for row in rows if row["reference_id"] == "scene000-1.jpg"] == [UNREADABLE]


def test_misses_beyond_the_limit_are_counted(
    tmp_path: Path, phone: PhoneFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stage, "AT_ONCE", 1)
    monkeypatch.setattr(stage, "MOST_PAIRS", 1)
    table = Search(tmp_path, phone).audit(FOUND)
    left = table.filter(pa.compute.equal(table["verdict"], NOT_AUDITED))
    assert left.num_rows == 2
    assert store.read_provenance(tmp_path / "audit.parquet")["not_audited"] == 2
    assert "the limit of 1 pairs is reached: 2 misses are not audited" in caplog.text


def test_without_misses_no_image_is_read(tmp_path: Path, phone: PhoneFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "read_row", lambda row: pytest.fail(f"{row} was read"))
    assert not Search(tmp_path, phone).audit({"q-scene002-0.jpg": ["scene002-0.jpg"]}).num_rows


def test_candidates_are_audited_as_well_from_the_highest_score_down(tmp_path: Path, phone: PhoneFolder) -> None:
    search = Search(tmp_path, phone)
    search.candidates = {
        "q-scene000-0.jpg": [("scene000-1.jpg", 0.95)],  # audited as a miss
        "q-scene002-0.jpg": [("scene002-0.jpg", 0.9), ("scene002-1.jpg", 0.8), ("scene005-1.jpg", 0.3)],  # a hit
    }
    rows = {(row["query_id"], row["reference_id"]): row["verdict"] for row in search.audit(FOUND).to_pylist()}
    assert len(rows) == 6 + 2
    assert rows["q-scene002-0.jpg", "scene005-1.jpg"] == OTHER
    assert rows["q-scene002-0.jpg", "scene002-1.jpg"] == SAME_SCENE
    assert ("q-scene002-0.jpg", "scene002-0.jpg") not in rows, "it is right"
    assert store.read_provenance(tmp_path / "audit.parquet")["pooled_from"] is None


def test_candidates_beyond_the_limit_are_said_to_be_missing(
    tmp_path: Path, phone: PhoneFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stage, "AT_ONCE", 1)
    monkeypatch.setattr(stage, "MOST_POOLED", 1)
    search = Search(tmp_path, phone)
    search.candidates = {
        "q-scene002-0.jpg": [("scene003-1.jpg", 0.75), ("scene004-1.jpg", 0.5), ("scene005-1.jpg", 0.25)]
    }
    assert search.audit({"q-scene002-0.jpg": ["scene002-0.jpg"]}).num_rows == 1
    pooled_from = store.read_provenance(tmp_path / "audit.parquet")["pooled_from"]
    assert 0.5 < pooled_from < 0.51, "below it, something is unknown"
    assert "the limit of 1 pairs is reached: 2 candidates are not audited" in caplog.text
