"""What is checked before a run on a cluster, with fake commands, and how failed jobs are explained."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake.jobs import GroupJobFactory
from typer.testing import CliRunner

from lookalike.cli.main import app
from lookalike.job import gpus
from lookalike.job.errors import ConfigError
from lookalike.plan import cluster

ACCOUNTS = "AccountingStorageType   = accounting_storage/slurmdbd\nMinJobAge               = 300 sec"
NO_ACCOUNTS = "AccountingStorageType   = accounting_storage/none\nMinJobAge               = 300 sec"
Commands = Callable[..., None]


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    def install(**scripts: str) -> None:
        for name, script in scripts.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/bin")

    return install


def told(text: str) -> str:
    return f"cat <<'END'\n{text}\nEND"


def test_jobs_are_asked_for_with_the_command_that_knows_them(commands: Commands) -> None:
    commands(scontrol=told(ACCOUNTS), sacct="exit 0")
    assert cluster.status_command("sacct", 10) == "sacct"
    assert cluster.status_command("squeue", 10) == "squeue"
    commands(sacct="echo 'slurmdbd: connection refused' >&2; exit 1")
    assert cluster.status_command("sacct", 10) == "squeue"
    commands(scontrol=told(NO_ACCOUNTS), sacct="exit 0")
    assert cluster.status_command("sacct", 10) == "squeue", "sacct exists, and would be waited for forever"


def test_a_cluster_on_which_jobs_cannot_be_followed_is_refused_with_the_way_out(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands(scontrol=told(NO_ACCOUNTS), sacct="exit 0")
    with pytest.raises(ConfigError, match=r"forgets jobs after 300 s.*--slurm-init-seconds-before-status-checks 100"):
        cluster.status_command("sacct", 120)
    commands(scontrol="echo 'slurm_load_ctl_conf error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(ConfigError, match=r"does not answer \(.*Unable to contact.*\)\. Check"):
        cluster.status_command("sacct", 10)
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 0.3)
    commands(scontrol="exec sleep 5")
    with pytest.raises(ConfigError, match=r"does not answer"):
        cluster.status_command("sacct", 10)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match=r"there is no SLURM on this machine"):
        cluster.status_command("sacct", 10)


class Event(Enum):
    JOB_INFO, JOB_ERROR, GROUP_ERROR = "job_info", "job_error", "group_error"


def failure(event: Event, **fields: Any) -> logging.LogRecord:
    record = logging.LogRecord("snakemake", logging.ERROR, "", 0, "", None, None)
    vars(record).update(event=event, **fields)
    return record


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results/logs").mkdir(parents=True)
    return tmp_path


def job(**more: Any) -> dict[str, Any]:
    return {"rule_name": "embed", "output": ["results/out"], "log": ["results/logs/a.log", "slurm.log"], **more}


@pytest.mark.parametrize(
    ("own", "slurm", "message", "reason"),
    [
        ("2026-11-27 14:00:00,000 ERROR a.jpg: does not fit\n", "", "", "reason: a.jpg: does not fit\n  log: results"),
        ("", "slurmstepd: error: *** JOB 9 ON gpu1 CANCELLED AT x DUE TO TIME LIMIT ***", "", "ran out of time"),
        ("", "slurmstepd: error: Detected 1 oom_kill event in StepId=9.batch.", "", "killed for its memory"),
        (
            "",
            "slurmstepd: error: StepId=9.0 exceeded memory limit, being killed",
            "",
            "killed for its memory",
        ),
        ("", "", "SLURM-job '9' failed, SLURM status is: 'TIMEOUT'.", "ran out of time"),
        ("", "slurmstepd: error: *** JOB 9 ON gpu1 CANCELLED AT x ***", "", "it was cancelled"),
        ("", "srun: error: Unable to create step\n", "Reason: Unknown.", "reason: srun: error: Unable to create step"),
        ("", "srun: error: gpu1: task 0: Exited with exit code 1\n", "Reason: Unknown.", "reason: Reason: Unknown."),
        ("", "", "sbatch: error: invalid partition", "reason: sbatch: error: invalid partition"),
    ],
)
def test_a_failed_job_is_explained_where_the_command_was_typed(
    logs: Path, capsys: pytest.CaptureFixture[str], *, own: str, slurm: str, message: str, reason: str
) -> None:
    (logs / "results/logs/a.log").write_text(own)
    (logs / "slurm.log").write_text(slurm)
    handler = cluster.Failures()
    handler.emit(failure(Event.JOB_INFO, **job(rule_msg=None, indent=False)))
    handler.emit(failure(Event.JOB_ERROR, **job(rule_msg=message, indent=False)))
    shown = capsys.readouterr().err
    assert shown.startswith("FAILED: embed, which writes results/out\n")
    assert shown.count("FAILED") == 1
    assert reason in shown


def test_of_jobs_that_share_one_only_the_failed_one_is_explained(
    logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (logs / "results/logs/b.log").write_text("2026-11-27 14:00:00,000 ERROR no reference\n")
    jobs = [job(rule_msg=None), job(rule_name="index", rule_msg=None, log=["results/logs/b.log"])]
    cluster.Failures().emit(failure(Event.GROUP_ERROR, job_error_info=jobs, aux_logs=[]))
    shown = capsys.readouterr().err
    assert "FAILED: index" in shown
    assert "no reference" in shown
    assert "FAILED: embed" not in shown


def test_the_doctor_names_what_would_make_a_run_fail(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gpus, "PLACES", (str(tmp_path / "locks"),))
    (tmp_path / "locks").mkdir()
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    listed = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa0000-1111)"
    commands(**{"nvidia-smi": told(listed), "sbatch": "", "scontrol": told(ACCOUNTS), "sacct": "exit 0"})
    well = CliRunner().invoke(app, ["doctor"])
    assert well.exit_code == 0, well.output
    assert not Path("results").exists(), "it looks, and leaves nothing behind"
    for line in (
        "GPU: GPU-aaaa0000-1111",
        "no GPU is in use by Lookalike",
        "jobs are polled with sacct",
        "No problem found.",
    ):
        assert line in well.output
    commands(scontrol="exit 1")
    (tmp_path / f"locks/lookalike-{os.getuid()}").chmod(0o777)
    ill = CliRunner().invoke(app, ["doctor"])
    assert ill.exit_code == 1
    assert "PROBLEM SLURM: SLURM's controller does not answer" in ill.output
    assert "PROBLEM locks: " in ill.output


class InGroup:
    """What Snakemake's groups need of a job and its plan."""

    def __init__(self) -> None:
        self.dag = self.workflow = self.execution_settings = self
        self.attempt = 1


def test_a_group_that_is_made_anew_has_no_job_that_was_replaced() -> None:
    plan: Any = SimpleNamespace(dag=SimpleNamespace(group_job_factory=GroupJobFactory()))
    cluster.group_anew(plan)
    factory = plan.dag.group_job_factory
    index, audit = InGroup(), InGroup()
    factory.new("model", [index], {}).merge(factory.new("model", [index, audit], {}))
    assert set(factory.new("model", [index], {}).jobs) == {index}


def test_jobs_are_waited_for_until_slurm_says_that_they_ended(caplog: pytest.LogCaptureFixture) -> None:
    answers: list[dict[str, str] | None] = [None, {"7": "RUNNING"}, {"7": "CANCELLED by 0"}]

    async def query(command: str) -> tuple[dict[str, str] | None, float | None]:
        answer = answers.pop(0)
        return answer, None if answer is None else 0.1

    class Executor:
        logger = logging.getLogger("slurm")
        wait = True

        async def sleep(self) -> None:
            await asyncio.sleep(1000)

        async def check_active_jobs(self, active_jobs: list[str]) -> AsyncIterator[str]:
            states, _ = await plugin.query_job_status("squeue")
            for job in active_jobs if states else []:
                if states[job] != "CANCELLED":
                    yield job

    plugin: Any = SimpleNamespace(query_job_status=query, Executor=Executor)
    cluster.follow_jobs(plugin)

    async def poll() -> list[str]:
        return [job async for job in Executor().check_active_jobs(["7"])]

    assert [asyncio.run(poll()) for _ in range(3)] == [["7"], ["7"], []]
    interrupted = Executor()
    interrupted.wait = False
    asyncio.run(interrupted.sleep())
    assert caplog.text.count("SLURM does not answer. Waiting for it and for jobs: 1") == 1


@pytest.mark.parametrize(("ping", "reason"), [("exit 0", "more time or memory"), ("exit 1", "does not answer")])
def test_jobs_that_were_not_taken_are_explained(
    commands: Commands, capsys: pytest.CaptureFixture[str], ping: str, reason: str
) -> None:
    commands(scontrol=ping)
    cluster.Failures().emit(failure(Event.GROUP_ERROR, job_error_info=[job(rule_msg=None)], aux_logs=[]))
    assert reason in capsys.readouterr().err
