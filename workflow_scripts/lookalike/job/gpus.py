"""Claims on the GPUs of a machine: each process computes on one that no other process of this user has.

Snakemake counts GPUs but assigns none. A claim is a lock on a file named after the device's UUID, so that neither
numbering nor MIG nor how a device was named matters. It is a POSIX lock: it ends with the process, however that ends,
a child does not inherit it, and a process that claims again has its device already.
"""

import fcntl
import logging
import os
import re
import stat
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from lookalike.job.errors import LookalikeError

PLACES = ("/tmp", "/dev/shm")  # the same for all processes, unlike TMPDIR; the first that can be written
VISIBLE = "CUDA_VISIBLE_DEVICES"
WHOLE = re.compile(r"GPU (\d+): .*\(UUID: (GPU-[^)]+)\)")  # lines of nvidia-smi -L
PART = re.compile(r"\s+MIG .*\(UUID: (MIG-[^)]+)\)")

log = logging.getLogger(__name__)


@dataclass
class Claim:
    """The device of this process: its name in the lock, and what ``CUDA_VISIBLE_DEVICES`` was before."""

    name: str
    file: IO[bytes]
    visible_before: str | None = None


@dataclass
class Gpu:
    """A GPU as the driver lists it, and its parts if it is divided (MIG)."""

    uuid: str
    parts: list[str] = field(default_factory=list)

    @property
    def units(self) -> list[str]:
        """What a process can compute on: the parts of a divided GPU, otherwise the whole."""
        return self.parts or [self.uuid]


_claim: Claim | None = None


def installed() -> list[Gpu]:
    """The GPUs that the driver lists, in its order; none where there is no driver or no ``nvidia-smi``."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    gpus: list[Gpu] = []
    for line in listed.splitlines():
        if whole := WHOLE.match(line):
            gpus.append(Gpu(whole[2]))
        elif (part := PART.match(line)) and gpus:
            gpus[-1].parts.append(part[1])
    return gpus


def visible(gpus: Sequence[Gpu], setting: str | None) -> list[str]:
    """UUIDs of the devices that a value of ``CUDA_VISIBLE_DEVICES`` makes visible; None stands for all.

    Numbers are those of ``nvidia-smi``; of a divided GPU, a number means the first part, as in CUDA. As in CUDA, an
    entry that is not a device ends the list. A UUID may be abbreviated.
    """
    if setting is None:
        return [unit for gpu in gpus for unit in gpu.units]
    found: list[str] = []
    for entry in (part.strip() for part in setting.split(",")):
        if entry.isdecimal():
            units = gpus[int(entry)].units[:1] if int(entry) < len(gpus) else []
        else:
            named = {gpu.uuid: gpu.units[0] for gpu in gpus} | {part: part for gpu in gpus for part in gpu.parts}
            units = [unit for uuid, unit in named.items() if entry and uuid.startswith(entry)][:1]
        if not units:
            break
        found += units
    return list(dict.fromkeys(found))


def claim(wait: float = 1.0) -> str | None:
    """Claim one of the visible devices, waiting for one if necessary; return its UUID.

    Call it before anything starts CUDA: it sets ``CUDA_VISIBLE_DEVICES``, so that all that this process computes or
    starts sees only its device. None, and nothing is claimed, where the driver lists no visible device.
    """
    if _claim:
        return _claim.name
    before = os.environ.get(VISIBLE)
    names = visible(installed(), before)
    if not names:
        return None
    name = names[claim_one_of(names, wait)]
    assert _claim
    _claim.visible_before = before
    os.environ[VISIBLE] = name
    return name


def claim_one_of(names: Sequence[str], wait: float = 1.0) -> int:
    """Claim one of some devices, waiting for one if necessary; return its position among them."""
    global _claim  # noqa: PLW0603  # a process has one
    if _claim:
        return names.index(_claim.name) if _claim.name in names else 0
    folder, logged = lock_folder(), False
    while True:
        for position, name in enumerate(names):
            if file := _locked(folder / f"gpu-{name.replace('/', '_')}.lock"):
                _claim = Claim(name, file)
                return position
        if not logged:
            log.warning("all %d GPUs are in use by other jobs: waiting for one", len(names))
            logged = True
        time.sleep(wait)


def held() -> bool:
    """Whether this process has a device."""
    return _claim is not None


def release() -> None:
    """Give the device of this process up: it cannot be used."""
    global _claim  # noqa: PLW0603
    if _claim:
        _claim.file.close()
        if os.environ.get(VISIBLE) == _claim.name:
            os.environ.pop(VISIBLE)
            if _claim.visible_before is not None:
                os.environ[VISIBLE] = _claim.visible_before
        _claim = None


def _locked(path: Path) -> IO[bytes] | None:
    """The open file with this process's lock; None if another process has it."""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), "r+b")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    file.truncate(0)
    file.write(str(os.getpid()).encode())  # for people, and `lookalike doctor`
    file.flush()
    return file


def holders(folder: Path) -> list[str]:
    """The claims that processes have now: ``GPU-1234 by process 567``."""
    claims = []
    for path in sorted(folder.glob("gpu-*.lock")):
        with path.open("r+b") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                name = path.name.removeprefix("gpu-").removesuffix(".lock")
                claims.append(f"{name} by process {file.read().decode(errors='replace')}")
    return claims


def lock_folder() -> Path:
    """The folder of this user's locks, which nobody else can write. Raises LookalikeError if it cannot be had."""
    problems = []
    for place in PLACES:
        folder = Path(place) / f"lookalike-{os.getuid()}"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            status = folder.lstat()
        except OSError as error:
            problems.append(f"{folder}: {error.strerror}")
            continue
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
            raise LookalikeError(
                f"{folder}: is not a folder that only you can write, so a lock in it would not be safe. Remove it, or "
                "ask its owner or an administrator to."
            )
        return folder
    raise LookalikeError(f"no folder for the locks of GPUs: {'; '.join(problems)}. Make one of them writable.")
