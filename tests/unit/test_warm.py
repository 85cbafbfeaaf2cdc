"""A fork of a process with its imports done is to its caller what a new process is."""

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from warm import Warm

WARM = Warm("json")
CLIENT = [sys.executable, "-IS", str(Path(__file__).parents[1] / "warm_client.py")]
PROGRAMS = {
    "ends": "print('out'); print('err', file=sys.stderr)",
    "status": "atexit.register(print, 'at exit'); sys.exit(3)",
    "message": "sys.exit('a reason')",
    "error": "1 / 0",
    "thread": "threading.Thread(target=lambda: (time.sleep(0.05), print('later'))).start()",
    "signal": "sys.stdout.flush(); os.kill(os.getpid(), signal.SIGTERM)",
    "input": "print(sys.stdin.read())",
    "surroundings": "print(os.getcwd(), os.environ, sys.argv[1:], __name__, os.getpgrp())",
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_fork_ends_as_a_new_process_does(tmp_path: Path, program: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import atexit, os, signal, sys, threading, time\n{program}\n")
    options = {"cwd": tmp_path, "env": {"A": "b"}, "input": "typed", "capture_output": True, "text": True}
    forked, new = (
        subprocess.run([*start, str(script), "--option"], check=False, **options)
        for start in ([*CLIENT, WARM.address], [sys.executable])
    )
    assert (forked.returncode, forked.stdout) == (new.returncode, new.stdout)
    assert forked.stderr.splitlines()[-1:] == new.stderr.splitlines()[-1:]  # a traceback begins elsewhere


def test_nothing_is_left_of_a_program_after_its_time(tmp_path: Path) -> None:
    program = "import os, time; os.fork(); open(str(os.getpid()), 'w').close(); time.sleep(600)"
    ended = WARM.run("-c", program, cwd=tmp_path, env={}, timeout=1)
    assert ended.returncode == -signal.SIGKILL
    started = [int(path.name) for path in tmp_path.iterdir()]
    assert len(started) == 2
    wait_until_ended(*started)


def test_a_program_ends_with_the_process_that_stands_for_it(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import os, time
        print(os.getpid(), flush=True)
        time.sleep(600)
    """)
    client = subprocess.Popen([*CLIENT, WARM.address, "-c", program], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert client.stdout
    with client.stdout:
        pid = int(client.stdout.readline())
    client.kill()
    client.wait()
    wait_until_ended(pid)


def wait_until_ended(*pids: int) -> None:
    deadline = time.monotonic() + 300
    while any(map(command_of, pids)):
        assert time.monotonic() < deadline, [command_of(pid) for pid in pids]
        time.sleep(0.02)


def command_of(pid: int) -> str:
    """The command line of a process, empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
