"""What commands show of Snakemake's output: a line a stage, and the reason of a failure."""

import time
from pathlib import Path

import pytest

from lookalike.cli import workflow_run
from lookalike.cli.stages import STAGES, Stages
from lookalike.cli.workflow_run import Workflow
from lookalike.plan.plan import RULES

OUTPUT = """\
Job stats:
job                               count
------------------------------  -------
fetch_weights                         2
make_images_my-pictures-copies        1
embed                                 4
my-pictures                           1
total                                 8

Finished jobid: 5 (Rule: fetch_weights)
make_images_my-pictures-copies: made 40 of 40 copies, 76.0/s, in 1 s
Finished jobid: 2 (Rule: make_images_my-pictures-copies)
Finished jobid: 6 (Rule: fetch_weights)
embed my-pictures-copies dinov2-base queries-00000: embedded 500 of 1,000 images, 26.2/s, 19 s left
"""


def test_every_stage_has_words_for_people() -> None:
    assert {*STAGES} == {*RULES}


def test_a_stage_has_one_line_once_all_of_its_jobs_are_done() -> None:
    stages = Stages()
    shown = [line for second, text in enumerate(OUTPUT.splitlines()) if (line := stages.read(text, second))]
    assert [" ".join(line.split()) for line in shown] == [
        "make altered copies 1 job done in 1 s",
        "fetch weights 2 jobs done in 3 s",
    ]


def test_the_time_left_of_a_stage_follows_from_its_images() -> None:
    stages = Stages()
    for line in OUTPUT.splitlines():
        stages.read(line, 0)
    assert " ".join(stages.status(60).split()) == "embed images 4 jobs 12%, about 7 min left"  # an eighth in 60 s
    stages.read("Finished jobid: 7 (Rule: embed)", 120)
    assert " ".join(stages.status(120).split()) == "embed images 4 jobs 25%, about 6 min left"
    for job in (8, 9, 10):
        stages.read(f"Finished jobid: {job} (Rule: embed)", 200)
    assert stages.status(201) == "..."


def test_lines_that_only_look_like_counts_are_none() -> None:
    stages = Stages()
    for line in ("embed", "a 3 b", "no_such_rule   3", "Finished jobid: 1 (Rule: other)", "embed x: embedded, 3 of 4"):
        assert stages.read(line, 0) is None
    assert stages.status(1) == "..."


@pytest.fixture
def failed(tmp_path: Path) -> Workflow:
    workflow = Workflow(tmp_path, [Path("mine.yaml")], ["mine"], "mine", 2)
    workflow.log.parent.mkdir(parents=True)
    workflow.log.write_text("Building DAG of jobs...\n")
    return workflow


def test_the_reason_is_the_last_error_of_a_job(failed: Workflow) -> None:
    log = failed.folder / "results/logs/embed/mine.log"
    log.parent.mkdir()
    log.write_text(
        "2026-01-01 10:00:00,000 ERROR an earlier one\n2026-01-01 10:00:00,000 ERROR a.jpg: is broken.\n  Fix it.\n"
        "2026-01-01 10:00:00,000 DEBUG took 0.38 s of CPU\n"
    )
    assert workflow_run._reason(failed, 0) == "a.jpg: is broken.\n  Fix it."
    failed.log.write_text("Building DAG of jobs...\nresults: cannot be written.\n\nNothing was run.\n")
    later = time.time() + 100
    assert workflow_run._reason(failed, later) == "results: cannot be written.\nNothing was run.", "of this run only"


def test_a_bug_is_reported_with_its_log(failed: Workflow) -> None:
    log = failed.folder / "results/logs/measure.log"
    log.write_text(
        "2026-01-01 10:00:00,000 ERROR unexpected error\nTraceback (most recent call last):\n  x\nKeyError: 1\n"
    )
    assert workflow_run._reason(failed, 0) == f"{log}: unexpected error"


def test_locked_results_say_how_to_unlock_them(failed: Workflow) -> None:
    failed.log.write_text("LockException:\nError: Directory cannot be locked.\n")
    reason = workflow_run._reason(failed, 0)
    assert "another run is using these results. Wait until it has ended." in reason
    assert reason.endswith("--configfile mine.yaml --unlock -- mine")


def test_a_run_without_any_reason_names_its_log(failed: Workflow) -> None:
    assert workflow_run._reason(failed, 0) == f"Snakemake ended without a reason. See {failed.log}"
