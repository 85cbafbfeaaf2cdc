"""A full or read-only disk ends each stage with a message that says so, and leaves no half-written file."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import REPOSITORY
from faults.conftest import ALL, check_same, jobs, tally
from workflow.conftest import Tree

STAGES = (
    *("fetch_weights", "make_images", "sample", "shard", "find_near_duplicates", "embed", "index", "search", "audit"),
    *("measure", "project", "compare", "find_duplicates", "report"),
)
PART = {"full": ("embed",), "full at the end": ("make_images", "report"), "read-only": ("index",)}
SAYS = {
    "full": ("Check the folder's permissions and the free space", "Free some space"),
    "full at the end": ("Check the folder's permissions and the free space", "Free some space"),
    "read-only": ("Check the folder's permissions", "Give yourself permission"),
}


def test_every_stage_is_tried(undisturbed: Tree) -> None:
    assert {job.rule for job in jobs(undisturbed)} == {*STAGES}


@contextmanager
def disk(tree: Tree, state: str, folders: set[Path]) -> Iterator[None]:
    """The jobs' disk in a state: they get it from tests/faults/machine."""
    paths = str(REPOSITORY / "tests/faults/machine")
    with pytest.MonkeyPatch.context() as patch:
        environment = {**os.environ, "PYTHONPATH": paths, "LOOKALIKE_TEST_DISK": state}
        patch.setattr(Tree, "environment", environment)
        if state == "read-only":
            for folder in folders:
                folder.chmod(0o555)
        try:
            yield
        finally:
            for folder in filter(Path.exists, folders):  # Snakemake removes those that a failed job leaves empty
                folder.chmod(0o755)


@pytest.mark.parametrize(
    ("state", "stage"), [(state, stage) for state in PART for stage in (STAGES if ALL else PART[state])]
)
def test_a_stage_ends_with_a_message_and_is_made_again(
    undisturbed: Tree, tmp_path: Path, state: str, stage: str
) -> None:
    tree = undisturbed.copy(tmp_path / "tree")
    tree.forked = False  # forks of a warm process do not meet that disk
    job = next(job for job in jobs(undisturbed) if job.rule == stage)
    paths = [tree.folder / name for name in job.outputs if (tree.folder / name).is_file()]
    for path in paths:
        path.unlink()
    with disk(tree, state, {path.parent for path in paths}):
        output = tree.run(job.outputs[0], status=1).output
    assert any(message in output for message in SAYS[state]), output[-3000:]
    assert "please report" not in output
    assert "Traceback" not in output
    assert not [path for path in paths if path.exists()]
    assert not list(tree.folder.glob("results/**/.*.tmp"))
    tree.run(job.outputs[0])
    check_same(tree, undisturbed)
    tally(f"a disk that is {state}, in each stage", "a message with the file and a remedy; afterwards as undisturbed")
