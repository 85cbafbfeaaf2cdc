"""A file that was damaged or replaced in silence (its date is as before) is refused by name, or changes no number."""

import os
import random
import shutil
from pathlib import Path

import pytest

from faults.conftest import ALL, Job, differences, files_of, jobs, tally
from workflow.conftest import Tree

READ_BY_PEOPLE = (".csv", ".html", "duplicates.parquet")
DAMAGES = ("has a flipped bit", "was cut", "is of another data set")
PART = (("embeddings/pixels/references", DAMAGES[0]), ("sample/truth", DAMAGES[1]), ("metrics", DAMAGES[0]))


def read(tree: Tree) -> dict[str, list[Job]]:
    """The files that jobs read, with those jobs."""
    readers = {name: [job for job in jobs(tree) if name in job.inputs] for name in files_of(tree)}
    return {name: found for name, found in readers.items() if found}


def test_every_file_that_a_job_writes_is_read_by_one_or_by_people(undisturbed: Tree) -> None:
    unread = set(files_of(undisturbed)) - set(read(undisturbed))
    assert [name for name in unread if not name.endswith(READ_BY_PEOPLE)] == ["results/photos/sample/truth.parquet"]


def damage(path: Path, how: str, foreign: Path | None, rng: random.Random) -> None:
    status, data = path.stat(), bytearray(path.read_bytes())
    if how == DAMAGES[0]:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
    elif how == DAMAGES[1]:
        path.write_bytes(data[: rng.randrange(len(data))])
    else:
        assert foreign
        shutil.copyfile(foreign, path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_file_is_refused_by_name_or_changes_nothing(
    undisturbed: Tree, tmp_path: Path, request: pytest.FixtureRequest, how: str
) -> None:
    readers = read(undisturbed)
    chosen = [name for name in readers if ALL or any(part in name and how == of for part, of in PART)]
    other = request.getfixturevalue("foreign") if how == DAMAGES[2] and chosen else None
    rng = random.Random(how)
    for number, name in enumerate(chosen):
        reader = rng.choice(readers[name])
        tree = undisturbed.copy(tmp_path / f"tree-{number}")
        damage(tree.folder / name, how, other.folder / name if other else None, rng)
        status, output = _run(tree, reader.outputs[0], "--force")
        differing = [] if status else differences(tree, undisturbed, reader.outputs)
        if differing:  # what it was made from says nothing of the sample: whoever reads the result knows better
            status, output = _run(tree, "mine")
            assert status, f"{differing} were made from {name}, and nothing refuses them"
            assert "results/copies/" in output
        elif status:
            assert name in output or Path(name).name in output, f"{name}: {output[-3000:]}"
        if status:
            assert "please report" not in output, output[-3000:]
            assert "Traceback" not in output, output[-3000:]
        came = "refused by name, with a remedy" if status else "no number depends on what changed"
        tally(f"a file that {how}", came)
        shutil.rmtree(tree.folder)


def _run(tree: Tree, target: str, *options: str) -> tuple[int, str]:
    try:
        return 0, tree.run(target, options=options).output
    except AssertionError as error:  # it says what the run did
        return 1, str(error)
