"""What the report says about misses and near-duplicates: counts from the files, and a selection to show."""

from pathlib import Path

import pyarrow as pa
import pytest

from lookalike.io import store
from lookalike.io.formats.audit import Audit, AuditPair
from lookalike.io.formats.tables import NEAR_DUPLICATES
from lookalike.report import near_duplicates, scenes
from lookalike.report.near_duplicates import MOST_GROUPS, MOST_MEMBERS
from lookalike.report.scenes import MOST_PAIRS


def audit(misses: int, same_image: int, same_scene: int, not_audited: int = 0) -> Audit:
    kinds = [("same image", same_image), ("same scene", same_scene)]
    pairs = [
        AuditPair(query=f"{kind} {number}", match="a", reference="b", verdict=kind)
        for kind, count in kinds
        for number in range(count)
    ]
    other = misses - same_image - same_scene - not_audited
    return Audit(
        misses=misses,
        same_image=same_image,
        same_scene=same_scene,
        other=other,
        not_audited=not_audited,
        pairs=pairs,
    )


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ((80, 0, 40), "40 of 80 misses found another shot of the same scene."),
        (
            (80, 5, 40),
            "40 of 80 misses found another shot of the same scene, and 5 another file of the same image.",
        ),
        ((1, 1, 0), "1 of 1 miss found another file of the same image."),
        ((9, 0, 2, 3), "2 of 9 misses found another shot of the same scene. 3 were not checked."),
    ],
)
def test_one_sentence_says_what_misses_found(counts: tuple[int, ...], sentence: str) -> None:
    assert scenes._sentence(audit(*counts)).replace("\u00a0", " ") == sentence


def test_pairs_of_both_kinds_are_shown_and_not_too_many() -> None:
    shown = scenes._some(audit(30, 12, 12))
    assert [pair.verdict for pair in shown] == ["same scene"] * MOST_PAIRS + ["same image"] * MOST_PAIRS


def test_groups_are_counted_and_some_are_shown(tmp_path: Path) -> None:
    groups = [(f"g{group:02d}", f"g{group:02d}-{member}") for group in range(20) for member in range(6)]
    columns = {"group": [group for group, _ in groups], "image_id": [member for _, member in groups]}
    footer = {"rejected": 3, "flat": 2, "capped": False}
    path = tmp_path / "near.parquet"
    store.write_table(pa.table(columns, NEAR_DUPLICATES.schema()), path, NEAR_DUPLICATES, footer)
    found = near_duplicates.read(path)
    assert found is not None
    assert (found.images, found.groups, found.rejected, found.flat) == (120, 20, 3, 2)
    assert len(found.shown) == MOST_GROUPS
    assert {len(group) for group in found.shown} == {MOST_MEMBERS}
    assert near_duplicates.read(None) is None
