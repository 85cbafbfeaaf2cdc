"""ONNX Runtime as it is used here: bounded, quiet, and with errors that say what to do."""

import logging
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from conftest import REPOSITORY
from lookalike.embed import onnx_session
from lookalike.job import devices
from lookalike.job.errors import LookalikeError


def matrix_product(path: Path, columns: int = 4) -> Path:
    """A network of one matrix product: (n, 3) to (n, columns)."""
    weights = np.arange(3 * columns, dtype=np.float32).reshape(3, columns)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["rows", "weights"], ["product"])],
        "product",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("product", TensorProto.FLOAT, ["n", columns])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def test_a_network_computes_and_says_what_it_takes_and_gives(tmp_path: Path) -> None:
    session = onnx_session.open_session(matrix_product(tmp_path / "net.onnx"), "model x", threads=2)
    rows = np.array([[1, 2, 3], [0, 1, 0]], np.float32)
    (product,) = session.run({"rows": rows}, ["product"])
    np.testing.assert_array_equal(product, rows @ np.arange(12, dtype=np.float32).reshape(3, 4))
    assert session.inputs == (onnx_session.Tensor("rows", (None, 3), "float32"),)
    assert str(session.outputs[0]) == "'product' (? x 4, float32)"
    assert session.device == "CPU (2 threads)"
    assert not session.overlaps
    assert session.versions["onnxruntime"].count(".") == 2
    assert session.versions["instructions"]


@pytest.mark.parametrize(
    ("cpuinfo", "named"),
    [
        ("flags : fpu sse4_1 avx avx2 avx512f avx512_vnni", "avx512_vnni"),
        ("flags : fpu sse4_1 avx avx2", "avx2"),
        ("Features : fp asimd", "asimd"),
    ],
)
def test_footers_name_the_instructions_that_kernels_are_chosen_by(
    cpuinfo: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_session, "_cpuinfo", lambda: cpuinfo)
    onnx_session.instructions.cache_clear()
    assert onnx_session.instructions() == named
    onnx_session.instructions.cache_clear()


def test_a_damaged_file_is_said_with_place_fact_and_remedy(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = matrix_product(tmp_path / "net.onnx")
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(LookalikeError, match=r"model x: ONNX Runtime .* cannot load .*net\.onnx.*fetch it again"):
        onnx_session.open_session(file, "model x")
    assert capfd.readouterr() == ("", ""), "ONNX Runtime writes nothing of its own"


def test_what_fails_while_it_runs_names_the_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    session = onnx_session.open_session(matrix_product(tmp_path / "net.onnx"), "model x")
    with pytest.raises(LookalikeError, match=r"model x: fails: .*Got: 5 Expected: 3"):
        session.run({"rows": np.zeros((1, 5), np.float32)}, ["product"])
    assert capfd.readouterr() == ("", "")


def test_memory_that_runs_out_is_a_memory_error_so_that_the_batch_is_halved(tmp_path: Path) -> None:
    file = matrix_product(tmp_path / "net.onnx", columns=4096)
    code = f"""
import resource, numpy as np
from lookalike.embed import onnx_session
session = onnx_session.open_session({str(file)!r}, "model x")
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
try:
    session.run({{"rows": np.zeros((200_000, 3), np.float32)}}, ["product"])
except MemoryError as error:
    print("MemoryError", error)
print(session.run({{"rows": np.zeros((2, 3), np.float32)}}, ["product"])[0].shape)
"""
    scripts = REPOSITORY / "workflow_scripts"
    ran = subprocess.run([sys.executable, "-c", code], cwd=scripts, capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("MemoryError")
    assert ran.stdout.endswith("(2, 4096)\n")


def test_it_uses_the_jobs_threads_and_none_spins(tmp_path: Path) -> None:
    file = matrix_product(tmp_path / "net.onnx")
    before = len(list(Path("/proc/self/task").iterdir()))
    session = onnx_session.open_session(file, "model x", threads=3)
    assert len(list(Path("/proc/self/task").iterdir())) == before + 2, "the calling thread is the third"
    session.run({"rows": np.zeros((1000, 3), np.float32)}, ["product"])
    started = sum(_ticks())
    threading.Event().wait(0.3)
    assert sum(_ticks()) - started <= 3, "in hundredths of a second"


def _ticks() -> list[int]:
    files = [folder / "stat" for folder in Path("/proc/self/task").iterdir()]
    return [sum(map(int, file.read_text().rpartition(")")[2].split()[11:13])) for file in files]


def test_starting_it_imports_no_torch(tmp_path: Path) -> None:
    file = matrix_product(tmp_path / "net.onnx")
    code = f"""
import sys
from lookalike.embed import onnx_session
onnx_session.open_session({str(file)!r}, "model x", threads=2, gpu=True)
print(sorted({{"torch", "transformers", "onnx"}} & set(sys.modules)))
"""
    scripts = REPOSITORY / "workflow_scripts"
    ran = subprocess.run([sys.executable, "-c", code], cwd=scripts, capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_without_onnx_runtime_the_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(LookalikeError, match=r"pip install onnxruntime, or onnxruntime-gpu"):
        onnx_session.open_session(tmp_path / "net.onnx", "model x")


@pytest.fixture
def _no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in devices.GPU_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(onnx_session, "cuda_devices", list)


@pytest.mark.usefixtures("_no_scheduler")
def test_without_a_gpu_the_cpu_computes_and_the_log_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        session = onnx_session.open_session(matrix_product(tmp_path / "net.onnx"), "model x", gpu=True)
    assert session.device.startswith("CPU")
    assert "computing on the cpu" in caplog.text.lower()


@pytest.mark.usefixtures("_no_scheduler")
def test_a_gpu_that_a_scheduler_gave_and_that_cannot_be_used_stops_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_GPUS", "0")
    with pytest.raises(LookalikeError, match=r"was given a GPU \(SLURM_JOB_GPUS=0\)"):
        onnx_session.open_session(matrix_product(tmp_path / "net.onnx"), "model x", gpu=True)
