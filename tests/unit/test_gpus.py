"""One claim per process and device, with devices that a fake `nvidia-smi` lists and real processes."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import REPOSITORY
from lookalike.embed import encoders
from lookalike.io.formats.records import Weights
from lookalike.job import gpus
from lookalike.job.errors import LookalikeError

TWO = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa0000-1111)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bbbb0000-2222)
"""
DIVIDED = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa0000-1111)
  MIG 3g.20gb     Device  0: (UUID: MIG-cccc0000-3333)
  MIG 3g.20gb     Device  1: (UUID: MIG-dddd0000-4444)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bbbb0000-2222)
"""
CLAIM = """
import os, subprocess, sys, time
from lookalike.job import gpus
gpus.PLACES = (sys.argv[1],)
gpus.claim(wait=0.05)
subprocess.run(["sh", "-c", "echo $CUDA_VISIBLE_DEVICES"])
exec(sys.argv[2])
time.sleep(600)
"""


class Machine:
    """Processes that claim devices; ``locks`` replaces /tmp."""

    def __init__(self, folder: Path, listed: str) -> None:
        self.folder, self.locks = folder, folder / "locks"
        self.locks.mkdir()
        program = folder / "bin/nvidia-smi"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{listed}END\n")
        program.chmod(0o755)
        self.path = f"{program.parent}:{os.environ['PATH']}"
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, visible: str | None = None, then: str = "", **environment: str) -> "subprocess.Popen[bytes]":
        base = {name: value for name, value in os.environ.items() if name != gpus.VISIBLE}
        base |= {"PATH": self.path, "PYTHONPATH": str(REPOSITORY / "workflow_scripts"), **environment}
        if visible is not None:
            base[gpus.VISIBLE] = visible
        command = [sys.executable, "-c", CLAIM, str(self.locks), then]
        with (self.folder / f"{len(self.processes)}.log").open("w") as log:
            process = subprocess.Popen(command, env=base, stdout=subprocess.PIPE, stderr=log, bufsize=0)
        self.processes.append(process)
        return process

    def keeps_waiting(self, process: "subprocess.Popen[bytes]") -> bool:
        """Whether a process has found all devices in use, and waits for one."""
        log, deadline = self.folder / f"{self.processes.index(process)}.log", time.monotonic() + 120
        while "in use by other jobs: waiting for one" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.02)
        return time.monotonic() < deadline and device(process, 0.2) is None


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Callable[[str], Machine]]:
    made: list[Machine] = []

    def of(listed: str) -> Machine:
        made.append(Machine(tmp_path, listed))
        return made[0]

    yield of
    for process in made[0].processes if made else ():
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def device(process: "subprocess.Popen[bytes]", seconds: float = 120) -> str | None:
    """The device that a process and what it starts sees; None while it waits for one."""
    assert process.stdout
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    return process.stdout.readline().decode().strip() if ready else None  # not a byte beyond the line is read


def test_however_devices_are_named_no_two_processes_share_one(
    machine: Callable[[str], Machine], tmp_path: Path
) -> None:
    computer = machine(DIVIDED)
    (tmp_path / "scratch").mkdir()
    assert device(computer.start("0")) == "MIG-cccc0000-3333", "the first part of the divided GPU, as in CUDA"
    assert device(computer.start("MIG-d", TMPDIR=str(tmp_path / "scratch"))) == "MIG-dddd0000-4444"
    assert device(computer.start()) == "GPU-bbbb0000-2222"
    others = ("1", "GPU-bbbb0000-2222", "MIG-cccc0000-3333,1", None, "0,GPU-b", "GPU-aaaa")
    late = {visible: computer.start(visible, TMPDIR=str(tmp_path)) for visible in others}
    for visible, process in late.items():
        assert computer.keeps_waiting(process), visible


@pytest.mark.parametrize(
    "end", ["os.kill(os.getpid(), 9)", "os.abort()", "sys.exit(1)", "raise MemoryError", "os._exit(0)"]
)
def test_a_single_device_is_claimed_and_freed_however_its_process_ends(
    machine: Callable[[str], Machine], end: str
) -> None:
    computer = machine(TWO)
    go = computer.folder / "go"
    first = computer.start("1", then=f"while not os.path.exists({str(go)!r}): time.sleep(0.02)\n{end}")
    assert device(first) == "GPU-bbbb0000-2222"
    second = computer.start("GPU-bbbb0000-2222")
    assert computer.keeps_waiting(second)
    go.touch()
    assert device(second) == "GPU-bbbb0000-2222"
    assert first.wait() != 0 or "_exit" in end


def test_a_child_that_outlives_its_killed_parent_does_not_keep_the_device(machine: Callable[[str], Machine]) -> None:
    computer = machine(TWO)
    fork = "child = os.fork(); child or time.sleep(600); print(child, flush=True)"
    parent = computer.start("0", then=fork)
    assert device(parent) == "GPU-aaaa0000-1111"
    child = int(str(device(parent)))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    try:
        assert device(computer.start("0")) == "GPU-aaaa0000-1111"
    finally:
        os.kill(child, signal.SIGKILL)


def test_claims_of_one_process_are_one_claim_and_do_not_wait_for_each_other(machine: Callable[[str], Machine]) -> None:
    again = "print(gpus.claim(), gpus.claim_one_of(['GPU-x', gpus.claim()]), gpus.claim_one_of(['0', '1']), flush=True)"
    one = machine(TWO).start(then=again)
    assert device(one) == "GPU-aaaa0000-1111"
    assert device(one) == "GPU-aaaa0000-1111 1 0"


def test_twelve_processes_race_for_two_devices(machine: Callable[[str], Machine]) -> None:
    computer = machine(TWO)
    for number in range(12):
        computer.start([None, "0,1", "1,0", "GPU-b,GPU-a"][number % 4])
    holders: dict[str, subprocess.Popen[bytes]] = {}
    waiting, done = list(computer.processes), 0
    deadline = time.monotonic() + 300
    while waiting:
        assert time.monotonic() < deadline
        for process in list(waiting):
            if name := device(process, 0):
                assert name not in holders or holders[name].poll() is not None, "two processes have one device"
                holders[name] = process
                waiting.remove(process)
        if len([one for one in holders.values() if one.poll() is None]) == 2:
            for one in holders.values():
                one.kill()
                one.wait()
                done += 1
        time.sleep(0.02)
    assert done >= 10


@pytest.mark.parametrize(
    ("setting", "seen"),
    [
        (None, ["GPU-aaaa0000-1111", "GPU-bbbb0000-2222"]),
        ("1,0", ["GPU-bbbb0000-2222", "GPU-aaaa0000-1111"]),
        ("1,7,0", ["GPU-bbbb0000-2222"]),
        ("-1", []),
        ("", []),
        ("GPU-b, 1", ["GPU-bbbb0000-2222"]),
    ],
)
def test_visible_devices_are_read_as_cuda_reads_them(setting: str | None, seen: list[str]) -> None:
    assert gpus.visible([gpus.Gpu("GPU-aaaa0000-1111"), gpus.Gpu("GPU-bbbb0000-2222")], setting) == seen


def test_a_lock_folder_that_others_can_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "PLACES", (str(tmp_path / "missing"), str(tmp_path)))
    folder = gpus.lock_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    with pytest.raises(LookalikeError, match=r"is not a folder that only you can write"):
        gpus.lock_folder()
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LookalikeError, match=r"is not a folder that only you can write"):
        gpus.lock_folder()


ENCODER = """
import os, subprocess
import numpy as np

class Encoder:
    dimension, device, overlaps, compute_dtype, versions = 1, "fake", True, "float32", {}
    seen = subprocess.run(["sh", "-c", "echo $CUDA_VISIBLE_DEVICES"], capture_output=True, text=True).stdout.strip()
    def prepare(self, image):
        return np.asarray(image, np.float32).mean(keepdims=True).reshape(1)
    def encode(self, batch):
        return batch

def make(machine):
    return Encoder()
"""


def test_what_a_users_encoder_starts_sees_one_device(
    machine: Callable[[str], Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computer = machine(TWO)
    (tmp_path / "gpu_encoder.py").write_text(ENCODER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PATH", computer.path)
    monkeypatch.setenv(gpus.VISIBLE, "0,1")
    monkeypatch.setattr(gpus, "PLACES", (str(computer.locks),))
    other = computer.start("0")
    assert device(other) == "GPU-aaaa0000-1111"
    key = '{"family": "python", "factory": "gpu_encoder:make"}'
    weights: Weights = encoders.family(encoders.parse(key)).fetch(encoders.parse(key))
    try:
        encoder = encoders.load(key, weights, encoders.Machine(threads=1, gpu=True))
        assert encoder.seen == "GPU-bbbb0000-2222"  # type: ignore[attr-defined]
    finally:
        gpus.release()
    assert os.environ[gpus.VISIBLE] == "0,1"
