"""The benchmarks run to completion; their measurements are not tested."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

import tiny
from conftest import REPOSITORY

MAKERS = {"clip-vit-b32": tiny.clip, "blip2-opt-2.7b": tiny.blip2}


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("LOOKALIKE_CACHE", "")  # a benchmark sets it, and it must not outlast the test
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", REPOSITORY / "benchmarks" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, f"benchmark_{name}", module)  # dataclasses look it up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = script("embed", monkeypatch)
    monkeypatch.setattr(module, "build", lambda name, folder: MAKERS[name](folder))
    return module


def tables(text: str) -> list[list[dict[str, str]]]:
    """The rows of each Markdown table, by the names in its first row."""
    found = []
    for block in text.split("\n\n"):
        if block.startswith("|"):
            names, _, *rows = (
                [cell.strip() for cell in line.strip("|").split("|")] for line in block.strip().splitlines()
            )
            found.append([dict(zip(names, row, strict=True)) for row in rows])
    return found


def test_the_gpu_benchmark_is_rehearsed_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = script("gpu", monkeypatch)
    monkeypatch.setattr(module.stage, "build", lambda name, folder: MAKERS[name](folder))
    sizes = ["--images", "3", "--sizes", "64x48", "--references", "900", "--queries", "70", "--dimensions", "32"]
    arguments = ["--models", "clip-vit-b32", "--seconds", "0", *sizes, "--markdown", str(tmp_path / "table.md")]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *arguments])
    module.main()
    text = (tmp_path / "table.md").read_text()
    search, stage, jobs, comparisons = tables(text)
    assert [row["queries"] for row in search] == ["70", "70", "64"]
    assert search[0]["result"] == "the same as on the CPU"
    assert [row["model"] for row in stage] == ["clip-vit-b32"]
    assert float(jobs[0]["s before its first image"]) > float(jobs[0]["of these, loading"]) > 0
    assert float(jobs[0]["peak MB, host"].replace(",", "")) > 100
    assert jobs[0]["peak MB, GPU"] == "-"
    assert [row["experiment"] for row in comparisons] == ["flickr30k", "coco", "disc21"]
    disc21 = comparisons[2]
    assert (disc21["images x models"], disc21["jobs"]) == ("151,448 x 1", "7")
    assert disc21["not measured"] == "clip-vit-l14, dinov2-base-mean"
    assert "a rehearsal without a GPU" in text
    printed = capsys.readouterr().out
    assert all(part in printed for part in text.strip().split("\n\n"))


def test_what_does_not_fit_into_the_budget_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = script("gpu", monkeypatch)
    sizes = ["--images", "1", "--sizes", "64x48", "--references", "90", "--queries", "7", "--dimensions", "8"]
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--models", "vit-large", "clip-vit-b32", "--budget", "0", *sizes])
    module.main()
    assert "Not measured, for lack of time: vit-large, clip-vit-b32." in capsys.readouterr().out


def test_every_method_is_measured_and_the_table_is_written(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--models", "clip-vit-b32", "blip2-opt-2.7b", "--images", "3", "--seconds", "0"]
    arguments += ["--sizes", "64x48", "--extrapolate", "0.01", "--markdown", str(tmp_path / "table.md")]
    monkeypatch.setattr(sys, "argv", ["embed.py", *arguments])
    benchmark.main()
    machine, _, head, _, *rows = (tmp_path / "table.md").read_text().splitlines()
    assert "load average" in machine
    assert machine.endswith(f"`python benchmarks/embed.py {' '.join(arguments)}`:")
    names = [cell.strip() for cell in head.strip("|").split("|")]
    clip, blip2 = (dict(zip(names, map(str.strip, row.strip("|").split("|")), strict=True)) for row in rows)
    assert clip["model"] == "clip-vit-b32"
    assert clip["photos"] == "2 of 64x48"
    assert clip["bottleneck"] in ("read", "decode", "preprocess", "transfer", "forward")
    assert clip["151,448 images"].endswith(" h")
    for method in ("torch", "prepare", "bound", "loop", "pipeline"):
        assert float(clip[f"ours / {method}"]) >= 0  # 0.00 if two images are too slow on a busy machine
    assert clip["batch, precision, engine"] == "2, float32, onnxruntime"
    assert float(clip["GFLOP/s of the product"]) > 0
    assert blip2["ours / pipeline"] == "-", "the pipeline cannot call the Q-Former"
    assert "clip-vit-b32" in capsys.readouterr().out
