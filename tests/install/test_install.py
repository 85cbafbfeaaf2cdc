"""The wheel with the extra `cpu`, installed from the package registry: `make test-install` (minutes, and 1 GB)."""

import json
import resource
import subprocess
import sys
import time

import pytest

from conftest import REPOSITORY, ImageFolder
from wheels import ENVIRONMENT, built_wheel

pytestmark = pytest.mark.install
MB = 1_000_000
LARGEST = 1300 * MB  # on disk; docs/install.md says what was measured


def seconds(*command: str) -> tuple[float, float]:
    """How long a command takes, and its CPU time: the best of three."""
    times = []
    for _ in range(3):
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        times.append((time.perf_counter() - started, cpu))
    return min(times)


def test_the_extra_cpu_is_enough_for_a_report_and_says_its_size(
    tmp_path_factory: pytest.TempPathFactory, image_folder: ImageFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path_factory.mktemp("install")
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    started = time.perf_counter()
    pip = [str(environment / "bin/python"), "-m", "pip", "--disable-pip-version-check"]
    wanted = ["-c", str(REPOSITORY / "constraints.txt"), f"lookalike[cpu] @ {built_wheel(tmp_path_factory).as_uri()}"]
    subprocess.run([*pip, "install", "--quiet", *wanted], check=True, env=ENVIRONMENT)
    installed_in = time.perf_counter() - started
    listed = subprocess.run([*pip, "list", "--format", "json"], check=True, capture_output=True, env=ENVIRONMENT).stdout
    names = {package["name"].lower() for package in json.loads(listed)}
    assert {"lookalike", "snakemake", "faiss-cpu", "onnxruntime"} <= names
    assert not {"torch", "transformers", "onnx", "onnxscript"} & names

    photos = image_folder(folder / "photos", 9)
    lookalike = str(environment / "bin/lookalike")
    tried = [lookalike, "try", str(photos), "--models", "pixels,phash-256", "--queries", "6", "--json"]
    report = json.loads(subprocess.run(tried, cwd=folder, check=True, capture_output=True, env=ENVIRONMENT).stdout)
    assert {row["model"] for row in report["leaderboard"]} == {"pixels", "phash-256"}

    size = sum(path.stat().st_size for path in environment.rglob("*") if path.is_file() and not path.is_symlink())
    version = seconds(lookalike, "--version")
    imported = seconds(str(environment / "bin/python"), "-c", "import lookalike")
    with capsys.disabled():
        print(f"\ninstalled in {installed_in:.0f} s; {size / MB:,.0f} MB on disk with {len(names)} packages")
        print("cold start: lookalike --version {:.2f} s ({:.2f} s of CPU), ".format(*version), end="")
        print("import lookalike {:.2f} s ({:.2f} s of CPU)".format(*imported))
    assert size < LARGEST
