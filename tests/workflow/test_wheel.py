"""The wheel carries the workflow, and the base installation needs no torch: both in an environment of its own."""

import csv
import json
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import onnx_networks
import tiny
from conftest import REPOSITORY, ImageFolder
from lookalike.io import store
from lookalike.plan.code import Code
from lookalike.plan.plan import RULES, Plan
from warm import SCRIPTS
from wheels import ENVIRONMENT, build, built_wheel
from workflow.conftest import JOBS, SNAKEMAKE, Run

IN_PYTHON = """
import sys
from pathlib import Path
import lookalike as la
import pillow_heif
from PIL import Image

photos = Path(sys.argv[1])
for name in ("pixels", "vit", "net"):
    run = la.read_embeddings(f"results/my-photos-copies/embeddings/{name}", role="reference")
    model = la.load_model(name, config=["my-photos.yaml", "mine.yaml"])
    assert 6 <= len(run.ids) <= 9
    assert (model.embed(photos / image_id for image_id in run.ids) == run.vectors).all(), name
    print(model.engine["name"])
pillow_heif.from_pillow(Image.open(photos / "p0.png")).save("phone.heic")
assert model.similarity("phone.heic", photos / "p0.png") > 0.9
Path("phone.heic").unlink()
"""
ABSENT = re.compile(r"torch|functorch|transformers|onnx(?!runtime)|lookalike|__editable__|.*\.pth$")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, from a copy of the repository in which an earlier build and an editor left files."""
    return built_wheel(tmp_path_factory)


def contents(wheel: Path) -> dict[str, bytes]:
    """The files of a wheel, but for the list of their hashes."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}


def test_the_wheel_carries_the_workflow_as_it_is_in_the_repository_and_no_more(wheel: Path) -> None:
    found = contents(wheel)
    carried = {name.removeprefix("lookalike/workflow/") for name in found if name.startswith("lookalike/workflow/")}
    patterns = ("rules/**/*.*", "profiles/**/*.*", "envs/*.*", "docs/*.md", "workflow_scripts/*.py")
    expected = {str(path.relative_to(REPOSITORY)) for one in patterns for path in REPOSITORY.glob(one)}
    assert carried == {"Snakefile", "config.yaml", *expected}
    for name in carried:
        assert found[f"lookalike/workflow/{name}"] == (REPOSITORY / name).read_bytes()
    library = {name for name in found if not name.startswith(("lookalike/workflow/", "lookalike-"))}
    scripts = REPOSITORY / "workflow_scripts"
    assert "lookalike/py.typed" in library
    assert {name for name in library if name.endswith(".py")} == {
        str(path.relative_to(scripts)) for path in (scripts / "lookalike").rglob("*.py")
    }


def test_a_source_distribution_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    for folder in ("sdist", "wheel"):
        (tmp_path / folder).mkdir()
    sources = wheel.parents[1] / "sources"
    with tarfile.open(build("sdist", sources, tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.glob("lookalike-*")
    assert contents(build("wheel", unpacked, tmp_path / "wheel")) == contents(wheel)


def test_a_stage_has_the_same_code_hash_in_the_wheel_and_in_a_clone(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    installed = Code(tmp_path / "lookalike", tmp_path / "lookalike/workflow/workflow_scripts")
    stages = [*((rule,) for rule in RULES), ("embed", "embed.models.onnx"), ("sample", "sample.folder")]
    assert [installed.hash(*stage) for stage in stages] == [Code().hash(*stage) for stage in stages]


def test_the_base_installation_asks_for_no_torch(wheel: Path) -> None:
    (metadata,) = (text.decode() for name, text in contents(wheel).items() if name.endswith(".dist-info/METADATA"))
    required = re.findall(r"^Requires-Dist: ([\w.-]+)[^;\n]*$", metadata, re.MULTILINE)
    assert "snakemake" in required
    assert not {"torch", "transformers", "onnx", "onnxscript"} & set(required)


@pytest.fixture
def python(wheel: Path, tmp_path: Path) -> Path:
    """A Python with the wheel and the packages of this one, but for those of the extra `hub`."""
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        if not ABSENT.match(package.name):
            (site / package.name).symlink_to(package)
    program = environment / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", str(program), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--disable-pip-version-check", str(wheel)], check=True, env=ENVIRONMENT)
    return program


def call(here: Path, *command: str, status: int = 0) -> str:
    environment = {**ENVIRONMENT, "LOOKALIKE_HOME": str(here.parent / "home")}
    ended = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == status, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def test_the_wheel_works_in_an_empty_folder_without_torch(
    python: Path, tmp_path: Path, image_folder: ImageFolder
) -> None:
    """By `lookalike compare`, then by `snakemake`: two more models, of which this Python has exported one network."""
    photos, here = image_folder(tmp_path / "photos", 9), tmp_path / "empty"
    here.mkdir()
    lookalike = str(python.parent / "lookalike")
    snakefile = call(here, lookalike, "workflow").strip()
    assert Path(snakefile).is_relative_to(python.parents[1])
    before = {path for path in Path(snakefile).parent.rglob("*") if "__pycache__" not in path.parts}
    small = ("--models", "pixels", "--queries", "6", "--cores", "2")
    call(here, lookalike, "compare", str(photos), "--out", ".", *small)
    assert {path.name for path in here.iterdir()} == {"my-photos.yaml", "results", ".snakemake"}

    vit = {"family": "transformers", "checkpoint": str(tiny.vit(tmp_path / "vit")), "feature": "pooler_output"}
    network = onnx_networks.save(tmp_path / "net.onnx", external=True)
    net = {"family": "onnx", "path": str(network), "size": onnx_networks.SIDE, "mean": [0, 0, 0], "std": [1, 1, 1]}
    models = {"vit": {"embed": vit, "runtime": {"gpu": 0}}, "net": {"embed": net}}
    models["not-exported"] = {"embed": {**vit, "feature": "last_hidden_state", "pooling": "cls"}, "runtime": {"gpu": 0}}
    experiments = {
        "my-photos": {"models": ["pixels", "vit", "net"]},
        "more": {"dataset": "my-photos-copies", "models": ["not-exported"]},
    }
    (here / "mine.yaml").write_text(yaml.safe_dump({"models": models, "experiments": experiments}))
    options = ("--cores", "2", "--quiet", "host", "--configfile", "my-photos.yaml", "mine.yaml", "--")
    catalogue = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    (export,) = Plan.of({**catalogue, "models": {**catalogue["models"], **models}}).exports("vit")
    forks = {**ENVIRONMENT, SCRIPTS: JOBS.address}
    exported = SNAKEMAKE.run(
        "-m", "snakemake", "-s", str(REPOSITORY / "Snakefile"), *options, export, cwd=here, env=forks
    )
    assert exported.returncode == 0, exported.stderr

    snakemake = (str(python), "-m", "snakemake", "-s", snakefile, *options)
    ran = Run(0, call(here, *snakemake, "my-photos"))
    assert {job.split()[2] for job in ran.jobs if job.split()[0] == "embed"} == {"vit", "net"}
    assert len(ran.of("fetch_weights")) == 1, "of net"
    assert not {"sample", "make_images", "export"} & ran.rules, "the code is that of the clone"
    for model in ("vit", "net"):
        for shard in here.glob(f"results/my-photos-copies/embeddings/{model}/*.parquet"):
            assert store.read_provenance(shard)["engine"]["name"] == "onnxruntime"
    with (here / "results/reports/my-photos/leaderboard.csv").open() as file:
        assert {row["model"] for row in csv.DictReader(file)} == {"pixels", "vit", "net"}
    assert (here / "results/reports/my-photos/index.html").read_text().startswith("<!doctype html>")
    files = [option for name in ("my-photos.yaml", "mine.yaml") for option in ("--configfile", name)]
    search = ("search", str(photos / "p3.png"), "--experiment", "my-photos", "--model", "vit", "--json", *files)
    assert len(json.loads(call(here, lookalike, *search))["neighbors"]) == 5

    assert call(here, str(python), "-c", IN_PYTHON, str(photos)).split() == ["python", "onnxruntime", "onnxruntime"]
    said = call(here, str(python), "-c", "import lookalike as la; la.load_model('dinov2-base')", status=1)
    assert "torch and transformers are not installed. Run: pip install 'lookalike[hub]'" in said.splitlines()[-1]

    said = call(here, *snakemake, "more", status=1)
    assert "models.not-exported: torch and transformers are not installed. Run: pip install 'lookalike[hub]'" in said
    assert "Nothing was run." in said
    after = {path for path in Path(snakefile).parent.rglob("*") if "__pycache__" not in path.parts}
    assert after == before, "everything is written into the working directory"
