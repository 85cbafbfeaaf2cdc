"""`benchmarks/embed.py` runs to completion; its measurements are not tested."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

import tiny
from conftest import REPOSITORY


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark", REPOSITORY / "benchmarks" / "embed.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "benchmark", module)  # dataclasses look it up there
    spec.loader.exec_module(module)
    makers = {"clip-vit-b32": tiny.clip, "blip2-opt-2.7b": tiny.blip2}
    monkeypatch.setattr(module, "build", lambda name, folder: makers[name](folder))
    return module


def test_every_method_is_measured_and_the_table_is_written(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--models", "clip-vit-b32", "blip2-opt-2.7b", "--pictures", "3", "--seconds", "0"]
    arguments += ["--sizes", "64x48", "--extrapolate", "0.01", "--markdown", str(tmp_path / "table.md")]
    monkeypatch.setattr(sys, "argv", ["embed.py", *arguments])
    benchmark.main()
    machine, _, head, _, *rows = (tmp_path / "table.md").read_text().splitlines()
    assert "load average" in machine
    assert machine.endswith(f"`python benchmarks/embed.py {' '.join(arguments)}`:")
    names = [cell.strip() for cell in head.strip("|").split("|")]
    clip, blip2 = (dict(zip(names, map(str.strip, row.strip("|").split("|")), strict=True)) for row in rows)
    assert clip["model"] == "clip-vit-b32"
    assert clip["pictures"] == "2 of 64x48"
    assert clip["bottleneck"] in ("read", "decode", "preprocess", "transfer", "forward")
    assert clip["151,448 pictures"].endswith(" h")
    for method in ("torch", "prepare", "bound", "loop", "pipeline"):
        assert float(clip[f"ours / {method}"]) >= 0  # 0.00 if two images are too slow on a busy machine
    assert clip["batch, precision, engine"] == "2, float32, onnxruntime"
    assert float(clip["GFLOP/s of the product"]) > 0
    assert blip2["ours / pipeline"] == "-", "the pipeline cannot call the Q-Former"
    assert "clip-vit-b32" in capsys.readouterr().out
