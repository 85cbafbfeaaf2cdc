"""Processes that start with their imports done: each is forked from one that has imported them before.

Snakemake imports for a second, a job for half of one, and so does anything with torch. What runs is the same program in
a process, environment and folder of its own; only its modules are there already. Limits on resources are pytest's.
"""

import atexit
import gc
import importlib
import marshal
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

from warm_client import FILES, LARGEST, call

SCRIPTS = "WARM_SCRIPTS"  # the variable with the address of the process that Snakemake's scripts are forks of


class Warm:
    """A process that has imported ``modules`` with these variables, and runs programs as forks of itself."""

    def __init__(self, *modules: str, path: str | Path = "", **variables: str) -> None:
        self.modules, self.variables = modules, {**variables, "PYTHONPATH": str(path)}
        self._address = ""

    @property
    def address(self) -> str:
        """The socket at which the process listens, from the first time that it is needed."""
        if not self._address:
            folder = tempfile.mkdtemp()
            atexit.register(shutil.rmtree, folder)
            self._address = f"{folder}/socket"
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
                listener.bind(self._address)
                listener.listen()
                command = [sys.executable, __file__, str(listener.fileno()), *self.modules]
                files = {"stdin": subprocess.PIPE, "pass_fds": [listener.fileno()]}
                server = subprocess.Popen(command, env={**os.environ, **self.variables}, **files)
            atexit.register(server.communicate)  # without input, it ends
        return self._address

    def run(
        self, *command: str, cwd: str | Path, env: Mapping[str, str], timeout: float = 900
    ) -> subprocess.CompletedProcess[str]:
        """`python COMMAND`, as ``subprocess.run`` does with captured output, in a process group of its own."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, Path(os.devnull).open() as nothing:
            files = [file.fileno() for file in (nothing, out, err)]
            status = call(self.address, (list(command), str(cwd), dict(env), 0, timeout), files)
            for file in (out, err):
                file.seek(0)
            written = [file.read().decode(errors="replace") for file in (out, err)]
        return subprocess.CompletedProcess([sys.executable, *command], status, *written)


def _run(command: list[str], cwd: str, env: dict[str, str]) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    kind, *arguments = command
    sys.path[0] = {"-m": cwd, "-c": ""}.get(kind, str(Path(kind).parent))
    sys.path[1:1] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    status = 0
    try:
        if kind == "-m":
            sys.argv = arguments
            runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        elif kind == "-c":
            sys.argv = ["-c", *arguments[1:]]
            exec(compile(arguments[0], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = command
            runpy.run_path(kind, run_name="__main__")
    except SystemExit as error:
        if not isinstance(error.code, int | None):
            raise
        status = error.code or 0
    # End as Python does, but without clearing memory: most of it is shared, and would be copied for that.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _answer(connection: socket.socket) -> None:
    """Run a program in a fork, and wait until it ends, its time is over, or its caller has ended."""
    content, files, *_ = socket.recv_fds(connection, LARGEST, len(FILES))
    command, cwd, env, group, seconds = marshal.loads(content)
    child = os.fork()
    if not child:
        os.setpgid(0, group)
        connection.close()
        for number, file in zip(FILES, files, strict=True):
            os.dup2(file, number)
            os.close(file)
        return _run(command, cwd, env)
    for file in files:
        os.close(file)
    ended = os.pidfd_open(child)
    first, *_ = select.select([ended, connection], [], [], seconds)
    if not first:  # with all that it has started
        os.killpg(child, signal.SIGKILL)
    elif ended not in first:
        os.kill(child, signal.SIGTERM)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if first != [connection]:
        connection.send(str(status).encode())
    os._exit(0)


def _serve(listener: str, modules: list[str]) -> None:
    for module in modules:
        importlib.import_module(module)
    gc.freeze()
    calls = socket.socket(fileno=int(listener))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while select.select([sys.stdin, calls], [], [])[0] == [calls]:  # input ends with the process that started this one
        connection, _ = calls.accept()
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            calls.close()
            return _answer(connection)
        connection.close()
    return None


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2:])
