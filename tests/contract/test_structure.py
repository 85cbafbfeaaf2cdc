"""The house keeps its order: who imports whom, what starts without torch, and how thin a script is."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPOSITORY
from lookalike import plan
from lookalike.config import Dataset, Embed
from lookalike.plan import stages

SCRIPTS = REPOSITORY / "workflow_scripts"
LIBRARY = SCRIPTS / "lookalike"
NEUTRAL = {"errors", "formats", "store", "identity", "config", "progress", "devices", "checkpoints", "memory"}

# from the ground up; a module may import only from layers below its own, or from its own package
LAYERS = [
    {"errors", "progress", "user_module", "archives", "memory", "image_containers"},
    {"image_refusals"},
    {"formats", "content_hashes", "images", "config", "preprocess", "expectations", "devices"},
    {"store", "job"},
    {"checkpoints", "identity"},
    {"datasets", "models", "index", "metrics", "statistics", "sharding"},
    {"evaluation", "agreement"},
    {"embedding", "measurement", "comparison", "duplicates", "plan", "report"},
    {"cli"},
]

KINDS = [member.model_fields["kind"].annotation.__args__[0] for member in Dataset.__origin__.__args__]
FAMILIES = [member.model_fields["family"].annotation.__args__[0] for member in Embed.__origin__.__args__]


def modules() -> list[Path]:
    return sorted(path for path in LIBRARY.rglob("*.py") if path != LIBRARY / "__init__.py")


def imported(path: Path) -> set[str]:
    """The library's modules that a file imports, such as ``models.pixels``; imports inside functions count too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lookalike":
            inside = (node.module or "").removeprefix("lookalike").strip(".")
            names = {alias.name for alias in node.names if alias.name != "__version__"}
            folder = LIBRARY / inside.replace(".", "/")
            inner = {name for name in names if inside and (folder / f"{name}.py").exists()}
            found |= (
                {f"{inside}.{name}" for name in inner} | ({inside} if names - inner else set()) if inside else names
            )
        elif isinstance(node, ast.Import):
            found |= {
                alias.name.removeprefix("lookalike.") for alias in node.names if alias.name.startswith("lookalike.")
            }
    return found


def part(path: Path) -> str:
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(LIBRARY)))
def test_a_module_imports_only_what_is_below_it(path: Path) -> None:
    layer = {name: number for number, names in enumerate(LAYERS) for name in names}
    own = part(path)
    for name in {one.split(".")[0] for one in imported(path)} - {own}:
        assert layer[name] < layer[own], f"{own} imports {name}"


@pytest.mark.parametrize("stage", stages.STAGES)
def test_a_stages_code_hash_covers_all_that_makes_its_numbers(stage: str) -> None:
    """What a hashed module imports is hashed too, or is neutral: it can change no number."""
    for kind in KINDS:
        for family in FAMILIES:
            hashed = {module.replace("/", ".") for module in stages.modules(stage, kind, family)}
            for module in hashed:
                base = LIBRARY / module.replace(".", "/")
                files = sorted(base.rglob("*.py")) if base.is_dir() else [base.with_suffix(".py")]
                for file in files:
                    unknown = {
                        name
                        for name in imported(file)
                        if name.split(".")[0] not in NEUTRAL
                        and not any(name == one or name.startswith(f"{one}.") for one in hashed)
                        # these only dispatch: to a family, to a kind, and, when a sample is taken, to outside pictures
                        and name not in ("models", "datasets", "datasets.outside")
                    }
                    assert not unknown, f"{stage}: {file.name} imports {unknown}, which its code hash leaves out"


def test_the_library_knows_nothing_of_snakemake() -> None:
    for path in modules():
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        roots = {
            (alias.name if isinstance(node, ast.Import) else node.module or "").split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert "snakemake" not in names | roots, path


@pytest.mark.parametrize(
    "module",
    ["plan", "datasets", "sharding", "index", "measurement", "comparison", "duplicates", "report", "job", "embedding"],
)
def test_starting_a_stage_imports_no_torch(module: str) -> None:
    code = f"import sys, lookalike.{module}; print(sorted({{'torch', 'transformers'}} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("rule", plan.RULES)
def test_every_rule_has_a_script_that_unpacks_and_calls_one_function(rule: str) -> None:
    tree = ast.parse((SCRIPTS / f"{rule}.py").read_text())
    assert [type(node) for node in tree.body if not isinstance(node, ast.ImportFrom | ast.Assign)] == [ast.With]
    (block,) = (node for node in tree.body if isinstance(node, ast.With))
    (call,) = block.body
    assert isinstance(call, ast.Expr)
    assert isinstance(call.value, ast.Call)


def test_no_script_bears_the_name_of_a_package_that_others_look_for() -> None:
    taken = {"datasets", "evaluate", "faiss", "accelerate", "torch", "transformers", *sys.stdlib_module_names}
    assert not {path.stem for path in SCRIPTS.iterdir()} & taken


def test_every_rule_file_opens_with_its_contract_and_defines_no_function() -> None:
    for path in (REPOSITORY / "rules").glob("*.smk"):
        text = path.read_text()
        assert text.startswith('"""'), path
        assert "inputs:" in text.split('"""')[1], path
        assert "outputs:" in text.split('"""')[1], path
        assert "def " not in text, path
