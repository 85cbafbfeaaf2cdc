"""Processes that start with their imports done: each is forked from one that has imported them before.

Snakemake imports for a second, and so does anything with torch. What runs is the same program in a process, environment
and folder of its own; only its modules are there already.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path


class Warm:
    """A process that has imported ``modules``, and runs programs as forks of itself, one at a time."""

    def __init__(self, *modules: str, path: str | Path = "") -> None:
        self.modules, self.path = modules, str(path)
        self.server: subprocess.Popen[str] | None = None

    def _start(self) -> "subprocess.Popen[str]":
        environment = {**os.environ, "PYTHONPATH": self.path}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        server = subprocess.Popen([sys.executable, __file__, *self.modules], env=environment, **pipes)
        atexit.register(server.communicate)  # without input, it ends
        return server

    def run(
        self, *command: str, cwd: str | Path, env: Mapping[str, str], timeout: float = 900
    ) -> subprocess.CompletedProcess[str]:
        """``python COMMAND``, which begins with ``-m`` or ``-c``, as ``subprocess.run`` does with captured output."""
        server = self.server = self.server or self._start()
        with tempfile.TemporaryDirectory() as folder:
            files = [f"{folder}/out", f"{folder}/err"]
            call = {"command": command, "cwd": str(cwd), "env": dict(env), "files": files, "seconds": timeout}
            server.stdin.write(f"{json.dumps(call)}\n")
            server.stdin.flush()
            answer = server.stdout.readline()
            assert answer, f"the process with {self.modules} has ended"
            out, err = (Path(file).read_text(errors="replace") for file in files)
        return subprocess.CompletedProcess([sys.executable, *command], int(answer), out, err)


def _become(command: list[str], cwd: str, env: dict[str, str], files: list[str], seconds: float) -> None:
    os.setpgid(0, 0)
    signal.alarm(int(seconds))
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[0] = cwd
    sys.path[1:1] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    kind, program, *arguments = command
    sys.argv = [kind, *arguments]
    if kind == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})


def _serve(modules: list[str]) -> None:
    for module in modules:
        importlib.import_module(module)
    gc.freeze()
    for line in iter(sys.stdin.buffer.raw.readline, b""):
        child = os.fork()
        if not child:
            return _become(**json.loads(line))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == -signal.SIGALRM:  # with all that it has started
            os.killpg(child, signal.SIGKILL)
        print(status, flush=True)
    return None


if __name__ == "__main__":
    _serve(sys.argv[1:])
