"""What docs/privacy.md promises: no job and no command sends usage statistics."""

import os
import subprocess
import sys

import pytest

from conftest import REPOSITORY

SCRIPTS = REPOSITORY / "workflow_scripts"
AS_A_JOB = """
import sys
source = open(sys.argv[1]).read()
exec(source.partition("with job(")[0].partition("wildcards =")[0])  # what a script imports before its job starts
from lookalike.job.log import job
with job("test", sys.argv[2]):
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers
print(constants.HF_HUB_DISABLE_TELEMETRY, "torch/" in build_hf_headers()["user-agent"])
"""
AS_A_COMMAND = """
import atexit, os
from lookalike.cli.main import main
atexit.register(lambda: print(os.environ["HF_HUB_DISABLE_TELEMETRY"]))
main()
"""


def run(code: str, *arguments: str, **variables: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS), **variables}
    if not variables:
        environment.pop("HF_HUB_DISABLE_TELEMETRY", None)
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("rule", ["fetch_weights", "embed"])  # the only jobs that load the hub's library
def test_a_job_switches_the_hubs_telemetry_off(tmp_path, rule: str) -> None:
    assert run(AS_A_JOB, str(SCRIPTS / f"{rule}.py"), str(tmp_path / "log")).split() == ["True", "False"]


def test_a_command_switches_the_hubs_telemetry_off() -> None:
    assert run(AS_A_COMMAND, "--help").splitlines()[-1] == "1"


def test_who_switches_telemetry_on_keeps_it(tmp_path) -> None:
    switched = run(AS_A_JOB, str(SCRIPTS / "embed.py"), str(tmp_path / "log"), HF_HUB_DISABLE_TELEMETRY="0")
    assert switched.split()[0] == "False"
