"""Imported by a process that runs Snakemake: Python scripts start as forks of another, which has done their imports."""

import os
import shlex
import sys
from pathlib import Path
from typing import Any

from snakemake.script import PythonScript

from warm import SCRIPTS

CLIENT = shlex.join([sys.executable, "-IS", str(Path(__file__).with_name("warm_client.py"))])
start_as_users_do = PythonScript.execute_script


def execute_script(script: Any, file: str, edit: bool = False) -> None:
    address = os.environ.get(SCRIPTS)
    if address and script.threads == 1:  # libraries count threads as they load
        fork = {"client": CLIENT, "address": address, "file": file, "is_python_script": True}
        script._execute_cmd("{client} {address} {file:q}", **fork)
    else:
        start_as_users_do(script, file, edit)


PythonScript.execute_script = execute_script
