"""Metrics of scenes, worked out by hand; strict metrics stay what they are beside them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lookalike.io import identity, store
from lookalike.io.formats.audit import BY_FEATURES, NOT_AUDITED, OTHER, SAME_SCENE
from lookalike.io.formats.tables import AUDIT, NEAR_DUPLICATES
from lookalike.job.errors import LookalikeError
from lookalike.metrics.evaluation import Evaluation, Results, evaluate
from tables import images_table, truth_table, write_search

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
        outcomes = judge.evaluate().outcomes
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
