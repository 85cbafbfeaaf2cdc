"""A file that was damaged or replaced in silence (its date is as before) is refused by name, or changes no number."""

import os
import random
import shutil
from pathlib import Path

import pytest

from faults.conftest import ALL, Job, check_same, files_of, jobs, tally
from workflow.conftest import Tree

READ_BY_PEOPLE = (".csv", ".html", "duplicates.parquet")
DAMAGES = ("a flipped bit", "cut", "of another data set")
PART = (("embeddings", "a flipped bit"), ("sample/truth", "cut"), ("metrics", "a flipped bit"))


def read(tree: Tree) -> dict[str, list[Job]]:
    """The files that jobs read, with those jobs."""
    readers = {name: [job for job in jobs(tree) if name in job.inputs] for name in files_of(tree)}
    return {name: found for name, found in readers.items() if found}


def test_every_file_that_a_job_writes_is_read_by_one_or_by_people(undisturbed: Tree) -> None:
    unread = set(files_of(undisturbed)) - set(read(undisturbed))
    assert [name for name in unread if not name.endswith(READ_BY_PEOPLE)] == ["results/photos/sample/truth.parquet"]


def damage(path: Path, how: str, foreign: Path | None, rng: random.Random) -> None:
    status, data = path.stat(), bytearray(path.read_bytes())
    if how == "a flipped bit":
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
    elif how == "cut":
        path.write_bytes(data[: rng.randrange(len(data))])
    else:
        assert foreign
        shutil.copyfile(foreign, path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_file_is_refused_by_name_or_changes_nothing(
    undisturbed: Tree, tmp_path: Path, request: pytest.FixtureRequest, how: str
) -> None:
    chosen = [name for name in read(undisturbed) if ALL or any(part in name and how == of for part, of in PART)]
    other = request.getfixturevalue("foreign") if how == DAMAGES[2] and chosen else None
    tree = undisturbed.copy(tmp_path / "tree")
    undisturbed_readers = read(undisturbed)
    rng = random.Random(how)
    for name in chosen:
        reader = rng.choice(undisturbed_readers[name])
        intact = tree.folder / f"{name}.intact"
        shutil.copy2(tree.folder / name, intact)
        outputs = [tree.folder / output for output in reader.outputs if (tree.folder / output).is_file()]
        kept = {path: path.read_bytes() for path in outputs}
        damage(tree.folder / name, how, other.folder / name if other else None, rng)
        status, output = _force(tree, reader)
        if status:
            assert name in output or Path(name).name in output, f"{name}: {output[-3000:]}"
            assert "please report" not in output, output[-3000:]
            assert "Traceback" not in output, output[-3000:]
            tally(f"a file that is {how}", "refused by name, with a remedy")
        shutil.move(intact, tree.folder / name)
        if not status:
            check_same(tree, undisturbed)
            tally(f"a file that is {how}", "no number depends on what changed")
        for path, content in kept.items():
            path.write_bytes(content)


def _force(tree: Tree, reader: Job) -> tuple[int, str]:
    try:
        return 0, tree.run(reader.outputs[0], options=("--force",)).output
    except AssertionError as error:  # it says what the run did
        return 1, str(error)
