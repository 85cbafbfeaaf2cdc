"""What a run on a cluster needs to know before its first job, and what to say when one of its jobs fails."""

import asyncio
import logging
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any

from lookalike.job import watchdog
from lookalike.job.errors import ConfigError

ANSWER_SECONDS = 30  # for SLURM's commands
NOTICED = 0.5  # seconds, after which an interrupted run ends
ERROR = re.compile(r"^\S+ \S+ ERROR (.*)", re.MULTILINE)  # a line of a job's log (job/log.py)
SLURMS_ERROR = re.compile(r"^((?:srun|slurmstepd): error: (?!.*[Ee]xit code).*)", re.MULTILINE)
MORE_TIME = (
    "it ran out of time. A retry gets more (--retries). Raise `minutes` in the `runtime:` of its model or index, or "
    "give the data set more `shards`, so that each takes less"
)
MORE_MEMORY = (
    "it was killed for its memory. A retry gets more (--retries). Raise `mem_mb` in the `runtime:` of its model or "
    "index, or for other rules mem_mb in --default-resources"
)
REFUSED = (
    "SLURM did not take the job: what it and the jobs in one with it request together is more time or memory than the "
    "partition has (`sinfo -o '%P %l %m'`), or the account or partition is wrong. Lower `minutes` or `mem_mb`, or "
    "choose another partition"
)
NO_ANSWER = "SLURM's controller does not answer (`scontrol ping`), and did not take the job. Run again when it does"
# SLURM's words, in a job's log or for its state -> what they mean
REASONS = (
    (re.compile(r"DUE TO TIME LIMIT|TIMEOUT"), MORE_TIME),
    (re.compile(r"oom.kill|out.of.memory|OOM|exceeded (job )?memory limit", re.IGNORECASE), MORE_MEMORY),
    (re.compile(r"DUE TO NODE FAILURE|NODE_FAIL"), "its node failed. Run again"),
    (re.compile(r"CANCELLED"), "it was cancelled (scancel, or by an administrator). Run again"),
)


def status_command(chosen: str, first_poll: float) -> str:
    """The command that polls jobs: ``sacct``, or ``squeue`` where SLURM keeps no accounts.

    ``chosen``: by the user or the plugin, which takes ``sacct`` because the program exists, and then waits forever.
    ``first_poll``: seconds before the first poll. Raises ConfigError if the end of jobs could be missed.
    """
    settings = _settings()
    accounts = settings.get("AccountingStorageType", "").removeprefix("accounting_storage/")
    if chosen == "sacct" and accounts not in ("", "none", "(null)") and _answers("sacct", "-n", "-X", "-S", "now"):
        return "sacct"
    remembered = int((re.match(r"\d+", settings.get("MinJobAge", "")) or ["300"])[0])
    if remembered < 3 * first_poll:
        raise ConfigError(
            f"SLURM keeps no accounts that `sacct` could read, and forgets jobs after {remembered} seconds "
            f"(MinJobAge), so that their end may be missed. Poll at least three times as often: "
            f"--slurm-init-seconds-before-status-checks {max(1, remembered // 3)}"
        )
    return "squeue"


def _settings() -> dict[str, str]:
    """What ``scontrol show config`` says. Raises ConfigError if the controller does not answer."""
    try:
        told = subprocess.run(
            ["scontrol", "show", "config"], capture_output=True, text=True, check=True, timeout=ANSWER_SECONDS
        ).stdout
    except FileNotFoundError:
        raise ConfigError(
            "there is no SLURM on this machine (`scontrol` is missing). Run this where jobs are submitted, or without "
            "--profile profiles/slurm."
        ) from None
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", "") or error).strip().splitlines()
        raise ConfigError(
            f"SLURM's controller does not answer ({said[-1] if said else 'no reason given'}). "
            "Check `scontrol ping`, and run again when it answers."
        ) from None
    lines = (line.partition("=") for line in told.splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def _answers(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=ANSWER_SECONDS).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def group_anew(workflow: Any) -> None:
    """Make Snakemake put jobs into groups anew after each checkpoint.

    It keeps each group by the jobs with which it was begun, and adds others to it later (9.27, ``GroupJob.merge``).
    After a checkpoint such a group comes back with jobs that have been replaced since; their successors are never run,
    and the run ends with "BUG: Out of jobs ready to be started".
    """
    workflow.dag.group_job_factory.cache = _Nothing()


class _Nothing(dict[Any, Any]):
    """Keeps nothing."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Keep nothing."""


def follow_jobs(plugin: Any) -> None:
    """Make Snakemake's SLURM plugin keep the jobs whose state it cannot learn, until SLURM answers again.

    It forgets them instead (2.8), and the run waits for them forever; likewise for jobs that are "CANCELLED by 1000".
    An interrupted run ends at once, not after the next poll, which may be minutes later.
    """
    query, check, pause = plugin.query_job_status, plugin.Executor.check_active_jobs, plugin.Executor.sleep
    answered = True

    async def query_job_status(*arguments: Any) -> Any:
        nonlocal answered
        states, seconds = await query(*arguments)
        answered = states is not None
        return states and {job: state.partition(" ")[0] for job, state in states.items()}, seconds

    async def check_active_jobs(executor: Any, active_jobs: list[Any]) -> AsyncIterator[Any]:
        nonlocal answered
        answered = True
        async for job in check(executor, active_jobs):
            yield job
        if not answered:
            executor.logger.warning(f"SLURM does not answer. Waiting for it and for jobs: {len(active_jobs)}")
            for job in active_jobs:
                yield job

    async def sleep(executor: Any) -> None:
        pausing = asyncio.ensure_future(pause(executor))
        while executor.wait and not pausing.done():
            await asyncio.wait([pausing], timeout=NOTICED)
        pausing.cancel()

    plugin.query_job_status = query_job_status
    plugin.Executor.check_active_jobs, plugin.Executor.sleep = check_active_jobs, sleep


class Failures(logging.Handler):
    """Explains each failed job where the command was typed: the reason, images in work, and the logs.

    Snakemake's own message about a failed job is switched off together with those about successful ones (`quiet`).
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Print an explanation if the record is about a failed job, or about jobs that failed in one."""
        fields = vars(record)
        event = getattr(fields.get("event"), "name", "")
        if event == "JOB_ERROR" and not fields["indent"]:
            _show(fields)
        elif event == "GROUP_ERROR":  # Snakemake repeats each of its jobs, with indent
            jobs = fields["job_error_info"]
            for job in [job for job in jobs if _own_errors(job["log"])] or jobs[:1]:
                refused = "" if fields["aux_logs"] else why_refused()  # Snakemake drops the message
                _show({**job, "log": [*job["log"], *fields["aux_logs"]], "rule_msg": refused})


def why_refused() -> str:
    """Why SLURM did not take a job, as far as can be known without its message."""
    return REFUSED if _answers("scontrol", "ping") else NO_ANSWER


def _show(job: Mapping[str, Any]) -> None:
    print(explain(job["rule_name"], job["output"], job["log"], job["rule_msg"] or ""), file=sys.stderr, flush=True)


def explain(rule: str, outputs: Iterable[str], logs: Iterable[str], message: str) -> str:
    """Why a job failed, as far as its logs (its own and SLURM's) and the executor's message tell."""
    names = [str(name).split(" (")[0] for name in logs]
    texts = {name: _read(name) for name in names}
    told = [meaning for words, meaning in REASONS if any(map(words.search, [message, *texts.values()]))]
    own, slurms = _own_errors(names), SLURMS_ERROR.findall("\n".join(texts.values()))
    reason = next(iter([*own[-1:], *told, *slurms[-1:], message]), "") or "it ended without a message"
    images = [image["path"] for name in names for image in watchdog.read(Path(name).with_suffix(".in_work"))]
    lines = [f"FAILED: {rule}, which writes {next(iter(outputs), 'nothing')}", f"  reason: {reason}"]
    lines += [f"  SLURM: {meaning}" for meaning in told[:1] if meaning != reason]
    lines += [f"  it was decoding: {', '.join(images)}"] if images else []
    return "\n".join([*lines, *(f"  log: {name}" for name in names if texts[name])])


def _own_errors(logs: Iterable[str]) -> list[str]:
    """The errors in a job's own log, the last one last."""
    names = (str(name).split(" (")[0] for name in logs)
    return [line for name in names if name.startswith("results/") for line in ERROR.findall(_read(name))]


def _read(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
