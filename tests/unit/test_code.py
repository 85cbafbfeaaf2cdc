"""Which jobs an edit of the library runs again: what a stage's script imports decides, and nothing else."""

import ast
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from conftest import REPOSITORY
from lookalike.config.datasets import Dataset
from lookalike.config.models import Embed
from lookalike.plan.code import NEUTRAL, Code, is_neutral
from lookalike.plan.plan import RULES

KINDS = [member.model_fields["kind"].annotation.__args__[0] for member in Dataset.__origin__.__args__]
MADE = ("photo_tiles", "copies")  # their samples are read from the manifest
FAMILIES = [member.model_fields["family"].annotation.__args__[0] for member in Embed.__origin__.__args__]
EXPORTED = ("efficientnet_lite", "transformers", "blip2", "torchscript")  # to ONNX, for CPUs
# every job's hash: a rule, and the kind or the family that it uses
JOBS = [
    *(("make_images" if kind in MADE else "sample", f"sample.{kind}") for kind in KINDS),
    ("sample",),
    *(("embed", f"embed.models.{family}") for family in FAMILIES if family not in EXPORTED),
    *(("embed", f"embed.models.{family}", "embed.exported") for family in EXPORTED),
    *(("embed", f"embed.models.{family}", "embed.gpu_decoding") for family in EXPORTED),
    *(("export", f"embed.models.{family}") for family in EXPORTED),
    *((rule,) for rule in RULES if rule not in ("make_images", "sample", "export", "embed")),
]
STAGES = {"sample", "embed", "index", "search", "measure", "compare", "report"}


@pytest.fixture(scope="module", autouse=True)
def _each_text_is_parsed_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lookalike.plan.code.ast.parse", cache(ast.parse))
        yield


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A copy of the scripts and the library, to be edited."""
    scripts = tmp_path / "workflow_scripts"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "workflow_scripts", scripts, ignore=ignored)
    return scripts / "lookalike"


def hashes(library: Path, closures: dict[tuple[str, ...], list[Path]] | None = None) -> dict[tuple[str, ...], str]:
    """Every job's hash; ``closures`` are the files of each, where they are known to be the same as before."""
    code = Code(library)
    if closures:
        code.files = lambda *job: closures[job]  # type: ignore[method-assign]
    return {job: code.hash(*job) for job in JOBS}


def changed(
    library: Path,
    file: str,
    before: dict[tuple[str, ...], str],
    closures: dict[tuple[str, ...], list[Path]] | None = None,
) -> set[tuple[str, ...]]:
    """The jobs whose hash an added comment changes; the file is put back."""
    path = library / file
    text = path.read_bytes() if path.exists() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((text or b"") + b"\n# edited\n")
    after = hashes(library, closures)
    if text is None:
        path.unlink()
    else:
        path.write_bytes(text)
    return {job for job in JOBS if after[job] != before[job]}


def test_each_module_runs_again_exactly_the_stages_that_import_it(library: Path) -> None:
    """Every module is edited in turn. A stage's own modules change that stage and no other; neutral ones, none."""
    before = hashes(library)
    code = Code(library)
    closures = {job: code.files(*job) for job in JOBS}  # an added comment changes no import
    for module in code.modules():
        folder = library.joinpath(*module.split(".")) if module else library
        file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
        edited = changed(library, str(file.relative_to(library)), before, closures)
        rules = {job[0] for job in edited}
        top = module.split(".")[0]
        if is_neutral(module) or top == "cli":
            assert not edited, f"{module} changes {edited}, and is neutral"
        else:
            covering = {job for job in JOBS if file in closures[job]}
            assert edited == covering, module
            assert edited, f"{module} makes no stage's numbers: why is it not neutral?"
        if top in STAGES - {"sample", "index", "compare"} and not is_neutral(module):
            besides = {"fetch_weights", "export"} if top == "embed" else set()
            beside = {"measure": "audit", "search": "project"}
            parts = {"measure.audit": {"audit"}, "search.projection": {"project"}, "search.tsne": {"project"}}
            own = next((rules for part, rules in parts.items() if module.startswith(part)), {top})
            own |= {beside[module]} if module in beside else set()
            assert rules - besides == (own if rules - {"export"} else set()), f"{module} changes {rules}"


@pytest.mark.parametrize(
    ("file", "rules"),
    [
        ("io/images.py", {"make_images", "find_near_duplicates", "embed", "audit", "report"}),
        ("io/extensions.py", {"sample"}),
        ("io/vectors.py", {"index", "search", "project"}),
        ("metrics/ranking.py", {"measure", "compare"}),
        ("metrics/breakdowns.py", {"measure", "compare"}),
        ("embed/preprocess.py", {"embed", "export"}),
        ("embed/export.py", {"export"}),
        ("embed/exported.py", {"embed", "export"}),
        ("report/templates/index.html.j2", {"report"}),
        ("report/scripts/main.js", {"report"}),
        ("config/models.py", set()),
        ("io/store.py", set()),
        ("cli/main.py", set()),
    ],
)
def test_an_edit_runs_these_rules_again(library: Path, file: str, rules: set[str]) -> None:
    assert {job[0] for job in changed(library, file, hashes(library))} == rules


def test_a_familys_module_embeds_its_own_models_again_and_a_kinds_samples_its_own_data_sets(library: Path) -> None:
    before = hashes(library)
    assert changed(library, "embed/models/pixels.py", before) == {("embed", "embed.models.pixels")}
    assert {job[1] for job in changed(library, "sample/coco.py", before)} == {"sample.coco"}
    edited = changed(library, "embed/torch_encoder.py", before)
    assert edited == {job for job in JOBS if job[0] in ("embed", "export") and job[1].endswith(EXPORTED)}


@pytest.mark.parametrize(
    "file",
    [
        "metrics/.ranking.py.swp",
        "metrics/.ranking.py",
        "metrics/.ipynb_checkpoints/ranking-checkpoint.py",
        "metrics/__pycache__/ranking.cpython-311.pyc",
        "metrics/ranking.py~",
        "metrics/ranking.py.orig",
        "report/templates/.index.html.j2.swp",
        "report/templates/#index.html.j2#",
        "metrics/a_folder/notes.txt",
    ],
)
def test_what_editors_leave_behind_runs_nothing_again(library: Path, file: str) -> None:
    assert changed(library, file, hashes(library)) == set()


def test_locks_and_folders_of_the_names_of_modules_run_nothing_again(library: Path) -> None:
    before = hashes(library)
    (library / "metrics/.#pooled.py").symlink_to("somebody@a-machine.1234")  # Emacs' lock leads nowhere
    for folder in ("pooled.py.d", "old.py"):
        (library / "metrics" / folder).mkdir()
    assert hashes(library) == before


def test_imports_in_functions_count_and_those_for_type_checkers_do_not(library: Path) -> None:
    ranking = library / "metrics/ranking.py"
    text = ranking.read_text()
    ranking.write_text(text + "\n\ndef late():\n    from lookalike.io import images\n")
    assert library / "io/images.py" in Code(library).files("measure")
    guarded = "\nfrom typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from lookalike.io import images\n"
    ranking.write_text(text + guarded)
    assert library / "io/images.py" not in Code(library).files("measure")


def test_every_neutral_module_exists_and_says_why() -> None:
    modules = set(Code().modules())
    for name, reason in NEUTRAL.items():
        assert name in modules, name
        assert len(reason) > 20
