"""Runs the workflow for a command: quietly, with Snakemake's output in a file, and the reason of a failure last."""

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import typer

from lookalike.cli.stages import Stages
from lookalike.embed.catalogue import for_commands
from lookalike.job.errors import LookalikeError, writing
from lookalike.plan.code import WORKFLOW

REFRESH = 0.5  # seconds
ERROR = re.compile(r"^\d{4}-\S+ \S+ ERROR (.*)")  # in a job's log
LOGGED = re.compile(r"^\d{4}-\S+ \S+ [A-Z]+ ")
CHATTER = re.compile(  # of Snakemake: neither a reason nor a remedy
    "Using |Config file |Assuming |Building |Provided |Rules claiming|Conda env|Job stats|Select |Shutting down|"
    "Exiting because|Complete log|Elapsed time|WorkflowError|At least one job"
)


@dataclass(frozen=True)
class Workflow:
    """A call of Snakemake in a folder. ``name`` is that of the log of what it prints."""

    folder: Path
    configfiles: Sequence[Path]
    targets: Sequence[str]
    name: str
    cores: int

    @property
    def log(self) -> Path:
        """Where the output goes."""
        return self.folder / "results" / "logs" / "snakemake" / f"{self.name}.log"

    def command(self, *options: str) -> list[str]:
        """The arguments after ``snakemake``."""
        place = ["-s", str(WORKFLOW.resolve() / "Snakefile")]
        place += ["--workflow-profile", str(WORKFLOW.resolve() / "profiles" / "default")]
        place += ["--directory", str(self.folder), "--configfile", *map(str, self.configfiles)]
        return ["--cores", str(self.cores), *place, *options, "--", *self.targets]


def run(workflow: Workflow, options: Sequence[str], *, verbose: bool, again: str) -> None:
    """Run Snakemake to its end. Raises LookalikeError with the reason and ``again``, the command to repeat.

    Ctrl-C terminates it with all its jobs, and then this program.
    """
    started = time.time()
    with writing(workflow.log):
        workflow.log.parent.mkdir(parents=True, exist_ok=True)
        log = workflow.log.open("w", encoding="utf-8", errors="surrogateescape")
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    # a separate process group, so that Ctrl-C reaches each of its processes exactly once, sent from here
    process = subprocess.Popen(
        [sys.executable, "-m", "snakemake", *workflow.command(*options)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="surrogateescape",
        process_group=0,
    )
    try:
        with log:
            _follow(process, log, verbose=verbose)
        status = process.wait()
    except KeyboardInterrupt:
        say("interrupted: stopping the workflow's jobs")
        _end(process)
        say(f"Resume with: {again}")
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)
    if status:
        say(f"Snakemake's output: {workflow.log}")
        raise LookalikeError(f"{for_commands(_reason(workflow, started))} Then resume with: {again}")


def say(line: str) -> None:
    """Tell the user; standard output is for results."""
    typer.echo(line, err=True)


def _follow(process: "subprocess.Popen[str]", log: TextIO, *, verbose: bool) -> None:
    """Copy the output to the log, and show a line a stage; on a terminal, the last line tells how far it is."""
    stages, lock, ended = Stages(), threading.Lock(), threading.Event()
    in_place = sys.stderr.isatty() and not verbose

    def refresh() -> None:
        while not ended.wait(REFRESH):
            with lock:
                sys.stderr.write(f"\r\x1b[K{stages.status(time.monotonic())}")
                sys.stderr.flush()

    thread = threading.Thread(target=refresh, daemon=True)
    if in_place:
        thread.start()
    try:
        for line in process.stdout or ():
            log.write(line)
            log.flush()
            with lock:
                done = stages.read(line.rstrip("\n"), time.monotonic())
                if verbose:
                    say(line.rstrip("\n"))
                elif done:
                    say(f"\r\x1b[K{done}" if in_place else done)
    finally:
        ended.set()
        if in_place:
            thread.join()
            sys.stderr.write("\r\x1b[K")


def _reason(workflow: Workflow, started: float) -> str:
    """Why a run failed: the last error in the logs of its jobs, or else the last that Snakemake printed."""
    logs = [path for path in (workflow.folder / "results" / "logs").rglob("*.log") if path.stat().st_mtime >= started]
    for path in sorted(logs, key=lambda path: path.stat().st_mtime, reverse=True):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        at = max((number for number, line in enumerate(lines) if ERROR.match(line)), default=None)
        if path != workflow.log and at is not None and (first := ERROR.match(lines[at])):
            rest = lines[at + 1 :]
            end = next((number for number, line in enumerate(rest) if LOGGED.match(line)), len(rest))
            if "Traceback (most recent call last):" in rest[:end]:  # a bug
                return f"{path}: {first[1]}"
            return "\n".join([first[1], *rest[:end]])
    output = workflow.log.read_text(encoding="utf-8", errors="replace").splitlines()
    if any("LockException" in line for line in output):
        return (
            f"{workflow.folder}: another run is using these results. Wait until it has ended. If none is running, as "
            f"after a crash of the machine, unlock them: snakemake {shlex.join(workflow.command('--unlock'))}"
        )
    said = [line for line in output if line.strip() and not CHATTER.match(line)]
    return "\n".join(said[-5:]) or f"Snakemake ended without a reason. See {workflow.log}"


def _end(process: "subprocess.Popen[str]") -> None:
    """Terminate a process and its group: politely at first, forcibly in the end or at another Ctrl-C."""
    for number, patience in ((signal.SIGINT, 20), (signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            process.communicate(timeout=patience)
            break
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # a job that outlived it
