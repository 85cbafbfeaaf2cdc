"""Metrics of scenes, worked out by hand; strict metrics stay what they are beside them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from lookalike.io import identity, store
from lookalike.io.formats.audit import BY_FEATURES, NOT_AUDITED, OTHER, SAME_SCENE
from lookalike.io.formats.tables import AUDIT, NEAR_DUPLICATES, NEIGHBORS
from lookalike.job.errors import LookalikeError
from lookalike.metrics.evaluation import Evaluation, Results, evaluate, pooled
from lookalike.metrics.ranking import at_k, rank
from lookalike.metrics.scenes import Scenes, outcomes_of_scenes, read_scenes
from tables import MADE, images_table, neighbors_table, truth_table, write_search

REFERENCES = ["barn", "barn-resaved", "barn-other-shot", "cat", "cat-copy", "dune", "elk"]
QUERIES = ["q1", "q2", "q3", "q4", "q5"]
TRUTH = [("q1", "barn"), ("q2", "cat"), ("q3", "dune"), ("q4", "barn")]
FOUND = {
    "q1": [("barn-resaved", 0.9), ("barn", 0.8), ("elk", 0.7), ("dune", 0.6)],  # the same image: right
    "q2": [("cat", 0.9), ("elk", 0.5), ("dune", 0.4), ("barn", 0.3)],  # right
    "q3": [("elk", 0.9), ("cat", 0.8), ("cat-copy", 0.7), ("dune", 0.6)],  # wrong; others may tie with the last
    "q4": [("barn-other-shot", 0.9), ("barn-resaved", 0.8), ("elk", 0.7), ("cat", 0.6)],  # junk, then right
    "q5": [("elk", 0.9)],
}
NEAR = {"barn": ["barn", "barn-resaved"], "cat": ["cat", "cat-copy"]}
VERDICTS = {("q4", "barn-other-shot", "barn"): SAME_SCENE, ("q3", "elk", "dune"): OTHER, ("q3", "cat", "dune"): OTHER}


class Judge:
    """Writes a search with what scenes are judged by, and evaluates it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scenes: Mapping[str, str] | None = None
        self.near: Mapping[str, Sequence[str]] = NEAR
        self.verdicts: Mapping[tuple[str, str, str], str] = VERDICTS
        self.found: Mapping[str, Sequence[tuple[str, float]]] = FOUND
        self.pooled_from: float | None = None

    def results(self) -> tuple[Results, pa.Table]:
        images = images_table(REFERENCES, QUERIES, brought={"scene": self.scenes} if self.scenes is not None else None)
        images = images.append_column("content_hash", pa.array([f"crc32:{row}" for row in range(images.num_rows)]))
        files = write_search(self.folder / "n.parquet", self.found, len(QUERIES))
        rows = [
            {"query_id": query, "rank": rank, "reference_id": wrong, "match_id": match, "verdict": verdict}
            | {"by": BY_FEATURES, "inliers": 20 if verdict == SAME_SCENE else 2, "mirrored": False}
            for rank, ((query, wrong, match), verdict) in enumerate(self.verdicts.items(), start=1)
        ]
        made = {"neighbors": store.identity(files.neighbors), "candidates": store.identity(files.candidates)}
        made |= {"pooled_from": self.pooled_from}
        store.write_table(pa.Table.from_pylist(rows, AUDIT.schema()), self.folder / "audit.parquet", AUDIT, made)
        groups = [(group, member) for group, members in self.near.items() for member in members]
        columns = {"group": [group for group, _ in groups], "image_id": [member for _, member in groups]}
        table = pa.table(columns, NEAR_DUPLICATES.schema())
        footer = {"images_sha256": identity.hash_images(images)}
        store.write_table(table, self.folder / "near.parquet", NEAR_DUPLICATES, footer)
        return Results(*files.files, self.folder / "audit.parquet", self.folder / "near.parquet"), images

    def evaluate(self, k: int = 3) -> Evaluation:
        results, images = self.results()
        return evaluate(results, truth_table(TRUTH), images, searched=len(REFERENCES), k=k)


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    return Judge(tmp_path)


def values(evaluation: Evaluation, metric: str) -> list[float] | None:
    outcomes = evaluation.outcomes[metric]
    return None if outcomes is None else outcomes.tolist()


def test_near_duplicates_are_one_answer_and_another_shot_is_junk(judge: Judge) -> None:
    evaluation = judge.evaluate()
    assert values(evaluation, "accuracy_at_1") == [0, 1, 0, 0]
    assert values(evaluation, "accuracy_at_1_scene") == [1, 1, 0, 1]
    assert values(evaluation, "accuracy_at_3") == [1, 1, 0, 0]
    assert values(evaluation, "accuracy_at_3_scene") == [1, 1, 0, 1]


def test_copies_of_a_wrong_answer_are_one_wrong_answer(judge: Judge) -> None:
    judge.found = {**FOUND, "q3": [*FOUND["q3"], ("barn", 0.5)]}
    evaluation = judge.evaluate(k=4)
    assert values(evaluation, "accuracy_at_3") == [1, 1, 0, 0]
    assert values(evaluation, "accuracy_at_3_scene") == [1, 1, 1, 1]


def test_strict_metrics_are_the_same_without_an_audit(judge: Judge) -> None:
    with_audit = judge.evaluate()
    results, images = judge.results()
    without = evaluate(Results(*results.files), truth_table(TRUTH), images, searched=len(REFERENCES), k=3)
    assert without.audit is None
    strict = {name: values for name, values in with_audit.outcomes.items() if not name.endswith("_scene")}
    assert strict.keys() == without.outcomes.keys()
    for name, outcomes in without.outcomes.items():
        np.testing.assert_array_equal(strict[name], outcomes)


def test_misses_are_counted_by_what_they_found(judge: Judge) -> None:
    audit = judge.evaluate().audit
    assert audit is not None
    assert (audit.misses, audit.same_image, audit.same_scene, audit.other, audit.not_audited) == (3, 1, 1, 1, 0)
    pairs = [(pair.query, pair.match, pair.reference, pair.verdict, pair.inliers) for pair in audit.pairs]
    assert pairs == [
        ("q1", "barn", "barn-resaved", "same image", None),
        ("q4", "barn", "barn-other-shot", "same scene", 20),
    ]


def test_a_query_for_which_nothing_was_found_is_a_miss_of_another_kind(judge: Judge) -> None:
    judge.found = {query: pairs for query, pairs in FOUND.items() if query != "q3"}
    audit = judge.evaluate().audit
    assert audit is not None
    assert (audit.misses, audit.other) == (3, 1)


def test_with_misses_that_were_not_audited_scene_metrics_are_unknown(judge: Judge) -> None:
    judge.verdicts = {**VERDICTS, ("q3", "elk", "dune"): NOT_AUDITED}
    evaluation = judge.evaluate()
    assert values(evaluation, "accuracy_at_1_scene") is None
    assert evaluation.audit is not None
    assert (evaluation.audit.other, evaluation.audit.not_audited) == (0, 1)
    assert values(evaluation, "accuracy_at_1") == [0, 1, 0, 0]


def test_the_users_scenes_are_junk_without_an_audit(judge: Judge) -> None:
    judge.verdicts = {}
    judge.scenes = {"dune": "desert", "elk": "desert", "barn": "farm", "barn-other-shot": "farm"}
    evaluation = judge.evaluate()
    assert values(evaluation, "accuracy_at_1_scene") == [1, 1, 0, 1]
    assert evaluation.audit is not None
    assert evaluation.audit.same_scene == 2
    judge.found = {**FOUND, "q3": [("elk", 0.9), ("dune", 0.8)]}
    assert values(judge.evaluate(), "accuracy_at_1_scene") == [1, 1, 1, 1]


def test_a_reference_that_is_the_query_itself_saved_again_is_junk(judge: Judge) -> None:
    judge.near = {"elk": ["elk", "q3"]}
    judge.found = {**FOUND, "q3": [("elk", 0.9), ("dune", 0.8)]}
    evaluation = judge.evaluate()
    assert values(evaluation, "accuracy_at_1_scene") == [0, 1, 1, 0]
    assert evaluation.audit is not None
    assert evaluation.audit.same_image == 1


def test_ties_count_against_the_model_here_too(judge: Judge) -> None:
    judge.found = {**FOUND, "q1": [("barn-resaved", 0.9), ("elk", 0.9), ("dune", 0.2)]}
    assert values(judge.evaluate(), "accuracy_at_1_scene") == [0, 1, 0, 1]
    constant = [("barn-other-shot", 0.5), ("barn", 0.5), ("elk", 0.5), ("cat", 0.5)]  # cut off: others may tie, too
    judge.found = {**FOUND, "q4": constant}
    assert values(judge.evaluate(), "accuracy_at_3_scene") == [1, 1, 0, 0]


def test_removing_junk_never_lowers_a_rank(judge: Judge) -> None:
    random = np.random.default_rng(0)
    for _ in range(40):
        judge.found = {
            query: [
                (REFERENCES[row], score)
                for row, score in zip(random.permutation(7)[:4], (0.9, 0.7, 0.7, 0.2), strict=True)
            ]
            for query in QUERIES
        }
        outcomes = judge.evaluate(k=6).outcomes  # all that were found are known
        for cutoff in (1, 3):
            strict, lenient = outcomes[f"accuracy_at_{cutoff}"], outcomes[f"accuracy_at_{cutoff}_scene"]
            assert strict is not None
            assert lenient is not None
            assert np.all(lenient >= strict)


def test_an_audit_of_other_neighbors_is_refused(judge: Judge) -> None:
    results, images = judge.results()
    write_search(judge.folder / "n.parquet", {**FOUND, "q5": [("cat", 0.9)]}, len(QUERIES))
    with pytest.raises(LookalikeError, match=r"audit.parquet: was made from another version of .*n.parquet"):
        evaluate(results, truth_table(TRUTH), images, searched=len(REFERENCES), k=3)


def test_near_duplicates_of_other_images_are_refused(judge: Judge) -> None:
    results, images = judge.results()
    changed = images.drop_columns(["content_hash"]).append_column("content_hash", pa.array(["x"] * images.num_rows))
    with pytest.raises(LookalikeError, match=r"near.parquet: was made from other images"):
        evaluate(results, truth_table(TRUTH), changed, searched=len(REFERENCES), k=3)


def test_pooled_metrics_without_junk_are_those_of_the_documentation(judge: Judge) -> None:
    """docs/near-duplicates.md: of equal scores, wrong answers rank first."""
    evaluation = judge.evaluate()
    metrics = pooled(evaluation)
    assert metrics["uap_scene"].value == pytest.approx((1 / 3 + 2 / 4 + 3 / 6 + 4 / 11) / 4)
    assert metrics["recall_at_p90_scene"].value == 0
    strict = evaluation.predictions["uap"]
    assert evaluation.has_junk
    assert evaluation.of_scenes is not None
    assert (len(strict.right), len(evaluation.of_scenes.right)) == (17, 14)  # two copies and another shot are left out
    assert evaluation.of_scenes.matches.sum() == 4


def test_where_nothing_is_junk_pooled_metrics_are_the_strict_ones(judge: Judge) -> None:
    judge.near, judge.verdicts = {}, {}
    evaluation = judge.evaluate()
    metrics = pooled(evaluation)
    assert not evaluation.has_junk
    for name in ("uap", "recall_at_p90"):
        assert metrics[f"{name}_scene"] is metrics[name]


def test_junk_among_the_candidates_of_a_query_that_found_its_match_counts(judge: Judge) -> None:
    before = pooled(judge.evaluate())["uap_scene"].value
    judge.verdicts = {**VERDICTS, ("q1", "elk", "barn"): SAME_SCENE}  # 0.7, before the last right answer
    after = pooled(judge.evaluate())["uap_scene"].value
    assert after == pytest.approx((1 / 3 + 2 / 4 + 3 / 6 + 4 / 10) / 4)
    assert after != before


@pytest.mark.parametrize(("pooled_from", "known"), [(None, True), (0.55, True), (0.65, False)])
def test_an_audit_that_ends_before_the_last_right_answer_leaves_pooled_metrics_unknown(
    judge: Judge, pooled_from: float | None, known: bool
) -> None:
    judge.pooled_from = pooled_from
    evaluation = judge.evaluate()
    metrics = pooled(evaluation)
    assert (metrics["uap_scene"].value is not None, metrics["recall_at_p90_scene"].value is not None) == (known, known)
    assert values(evaluation, "accuracy_at_1_scene") == [1, 1, 0, 1], "of the misses alone"


def test_an_audit_of_other_candidates_is_refused(judge: Judge) -> None:
    results, images = judge.results()
    again = write_search(judge.folder / "other.parquet", {**FOUND, "q5": [("cat", 0.9)]}, len(QUERIES))
    store.write_table(store.read_table(again.candidates, NEIGHBORS), results.candidates, NEIGHBORS, MADE)
    with pytest.raises(LookalikeError, match=r"audit.parquet: was made from another version of .*n\.candidates"):
        read_scenes(judge.folder / "audit.parquet", None, results.neighbors, results.candidates, images)


def test_in_a_labelled_collection_copies_of_the_query_are_junk_and_not_positives(judge: Judge) -> None:
    """docs/collections.md: `cat-saved` shows the image of `cat`, `tom` another cat."""
    classes = {"cat": "cat", "cat-saved": "cat", "tom": "cat", "elk": "elk", "elk-saved": "elk"}
    found = {
        "cat": [("cat-saved", 0.9), ("elk", 0.8), ("tom", 0.7), ("elk-saved", 0.6)],
        "tom": [("cat", 0.9), ("cat-saved", 0.8), ("elk", 0.7), ("elk-saved", 0.6)],
        "cat-saved": [("cat", 0.9), ("tom", 0.8), ("elk", 0.7), ("elk-saved", 0.6)],
        "elk": [("tom", 0.9), ("elk-saved", 0.8), ("cat", 0.7), ("cat-saved", 0.6)],
    }
    images = images_table(list(classes), list(classes), brought={"class": classes})
    ranking = rank(neighbors_table(found), truth_table([]), images, searched=5, kept=4)
    near = {"cat": ["cat", "cat-saved"], "elk": ["elk", "elk-saved"]}
    same = np.array(
        [list(classes).index(next((one for one, all_ in near.items() if name in all_), name)) for name in classes]
    )
    scenes = Scenes(same, np.full(5, -1), AUDIT.schema().empty_table())
    outcomes = outcomes_of_scenes(
        neighbors_table(found),
        truth_table([]),
        images,
        scenes,
        strict=at_k(ranking, 3),
        ranking=ranking,
        searched=5,
    )
    strict = at_k(ranking, 3)["accuracy_at_1"]
    lenient = outcomes["accuracy_at_1_scene"]
    assert strict is not None
    assert lenient is not None
    by_query = dict(zip(classes, zip(strict, lenient, strict=True), strict=True))
    assert by_query["cat"] == (1, 0), "without its own copy, an elk is first"
    assert by_query["tom"] == (1, 1)
    assert by_query["cat-saved"] == (1, 1)
    assert by_query["elk"] == (0, 0), "nothing but its own image is in its class: the strict outcome stays"
    at_three = outcomes["accuracy_at_3_scene"]
    assert at_three is not None
    assert at_three.tolist() == [1, 1, 1, 1, 0]


def collection(seed: int) -> tuple[list[str], dict[str, str], NDArray[np.int64], dict[str, list[tuple[str, float]]]]:
    """Twelve images of three classes, some of which show the same image, and a full random ranking for each."""
    random = np.random.default_rng(seed)
    names = [f"i{number:02}" for number in range(12)]
    classes = {name: "abc"[number] for name, number in zip(names, random.integers(0, 3, 12), strict=True)}
    shown = random.integers(0, 8, 12)
    same = np.array([int(np.flatnonzero(shown == one)[0]) for one in shown])
    found = {}
    for name in names:
        others = random.permutation([other for other in names if other != name]).tolist()
        found[name] = [(other, 1 - 0.05 * rank) for rank, other in enumerate(others)]
    return names, classes, same, found


def by_hand(
    names: list[str], classes: dict[str, str], same: NDArray[np.int64], ranked: list[str], query: str
) -> tuple[float, float] | None:
    """R-precision and mAP@R of a query without junk, image by image; None if nothing is to be found."""
    shown = dict(zip(names, same.tolist(), strict=True))
    wanted = {shown[name] for name in names if classes[name] == classes[query]} - {shown[query]}
    answers = [shown[name] for name in ranked if shown[name] != shown[query]]
    answers = list(dict.fromkeys(answers))[: len(wanted)]
    if not wanted:
        return None
    hits = [answer in wanted for answer in answers]
    precision = [sum(hits[: rank + 1]) / (rank + 1) for rank in range(len(hits))]
    return sum(hits) / len(wanted), sum(p for p, hit in zip(precision, hits, strict=True) if hit) / len(wanted)


@pytest.mark.parametrize("seed", range(12))
def test_r_precision_without_copies_is_that_of_the_images_one_by_one(seed: int) -> None:
    names, classes, same, found = collection(seed)
    images = images_table(names, names, brought={"class": classes})
    ranking = rank(neighbors_table(found), truth_table([]), images, searched=12, kept=12)
    scenes = Scenes(same, np.full(12, -1), AUDIT.schema().empty_table())
    strict = {name: np.full(len(ranking.counted), 0.125) for name in ("map_at_r", "r_precision")}
    outcomes = outcomes_of_scenes(
        neighbors_table(found), truth_table([]), images, scenes, strict=strict, ranking=ranking, searched=12
    )
    for position, row in enumerate(ranking.counted):
        ranked = [name for name, _ in found[names[row]]]
        expected = by_hand(names, classes, same, ranked, names[row]) or (0.125, 0.125)
        measured = [outcomes[f"{name}_scene"] for name in ("r_precision", "map_at_r")]
        assert [values[position] for values in measured if values is not None] == pytest.approx(expected)


def test_r_precision_without_copies_needs_the_whole_class_among_the_neighbors() -> None:
    """Three images and a copy of one of them; with three neighbors kept, junk may leave too few."""
    names = ["cat", "cat-saved", "tom", "elk", "elk-saved", "elk-again"]
    classes = dict(zip(names, ["cat", "cat", "cat", "elk", "elk", "elk"], strict=True))
    images = images_table(names, names, brought={"class": classes})
    strict = {"r_precision": np.zeros(6)}
    found = {
        name: [(other, 1 - 0.1 * rank) for rank, other in enumerate(other for other in names if other != name)]
        for name in names
    }

    def measured(kept: int, same: list[int]) -> dict[str, Any]:
        some = neighbors_table({name: pairs[:kept] for name, pairs in found.items()})
        ranking = rank(some, truth_table([]), images, searched=6, kept=kept)
        scenes = Scenes(np.array(same), np.full(6, -1), AUDIT.schema().empty_table())
        return dict(
            outcomes_of_scenes(some, truth_table([]), images, scenes, strict=strict, ranking=ranking, searched=6)
        )

    assert measured(3, [0, 0, 2, 3, 4, 5])["r_precision_scene"] is not None
    assert measured(3, [0, 0, 0, 3, 4, 5])["r_precision_scene"] is None, "an elk's neighbors are one cat, for two elks"
    assert measured(2, [0, 0, 2, 3, 4, 5]) == {}, "two neighbors cannot hold two right images and a wrong one"


def test_accuracy_without_copies_is_unknown_where_they_use_up_the_kept_neighbors() -> None:
    """Four copies of a cat, and another cat: with three neighbors kept, only the copies are seen."""
    names = ["cat", "cat-1", "cat-2", "cat-3", "tom", "elk"]
    images = images_table(names, names, brought={"class": dict.fromkeys(names[:5], "cat") | {"elk": "elk"}})
    found = {
        name: [(other, 1 - 0.1 * rank) for rank, other in enumerate(other for other in names if other != name)]
        for name in names
    }
    scenes = Scenes(np.array([0, 0, 0, 0, 4, 5]), np.full(6, -1), AUDIT.schema().empty_table())

    def measured(kept: int) -> list[float] | None:
        some = neighbors_table({name: pairs[:kept] for name, pairs in found.items()})
        ranking = rank(some, truth_table([]), images, searched=6, kept=kept)
        values = outcomes_of_scenes(
            some, truth_table([]), images, scenes, strict=at_k(ranking, 1), ranking=ranking, searched=6
        )["accuracy_at_1_scene"]
        return None if values is None else values.tolist()

    assert measured(3) is None
    assert measured(5) == [1, 1, 1, 1, 1]
