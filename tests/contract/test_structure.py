"""The layout of the library: who imports whom, what starts without torch, and how thin a script is."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPOSITORY
from lookalike.plan import plan

SCRIPTS = REPOSITORY / "workflow_scripts"
LIBRARY = SCRIPTS / "lookalike"
# From the ground up: a folder may import only from layers below its own, or from itself.
LAYERS = [
    {"job"},
    {"config"},
    {"io"},
    {"metrics", "plan"},
    {"sample", "embed", "index", "search", "measure", "compare", "report"},
    {"cli"},
]


def modules() -> list[Path]:
    return sorted(path for path in LIBRARY.rglob("*.py") if path != LIBRARY / "__init__.py")


def imported(path: Path) -> set[str]:
    """The library's modules that a file imports, such as ``io.images``; imports inside functions count too."""
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


def test_the_top_of_the_library_is_a_short_list_of_folders() -> None:
    entries = {path.name for path in LIBRARY.iterdir() if path.name not in ("__pycache__", "py.typed")}
    assert len(entries) <= 14, entries
    assert entries == {"__init__.py", *(name for layer in LAYERS for name in layer)}


def test_packages_import_nothing_and_files_are_short() -> None:
    for path in LIBRARY.rglob("*.py"):
        if path.name == "__init__.py" and path.parent != LIBRARY:
            assert not imported(path), path
        assert len(path.read_text().splitlines()) <= 400, f"{path} has more than 400 lines"


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


# Packages that take long to import, and the stages that may import them before they need them.
HEAVY = {
    *("torch", "transformers", "onnxruntime", "huggingface_hub", "pandas", "scipy", "sklearn", "faiss", "imagehash"),
    *("cv2", "jinja2", "pyarrow.dataset", "pyarrow.acero"),
}
HEAVY_AT_START = {"measure.audit.audit": ["cv2"], "report.report": ["jinja2"]}
STAGES = (
    *("job.log", "sample.sample", "sample.make_images", "sample.shard", "sample.near_duplicates.find"),
    *("embed.fetch_weights", "embed.export", "embed.embed", "index.build", "search.search"),
    *("search.projection", "measure.measure"),
    *("compare.compare", "compare.duplicates", "plan.plan"),
    *("embed.library", "sample.near_duplicates.library", *HEAVY_AT_START),
)


def test_starting_a_stage_imports_only_what_it_needs() -> None:
    """All stages in one process: a package counts for the first one that imports it."""
    code = f"""
import importlib, json, sys
found, known = {{}}, set()
for stage in {STAGES!r}:
    importlib.import_module("lookalike." + stage)
    if new := sorted(({HEAVY!r} & set(sys.modules)) - known):
        found[stage] = new
        known.update(new)
print(json.dumps(found))
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == HEAVY_AT_START


def test_a_job_reads_and_writes_tables_without_pandas(tmp_path: Path) -> None:
    """Pyarrow would import it with the first array that it makes; what converts to pandas still can."""
    code = f"""
import sys
from lookalike.job.log import job
with job("a job", {str(tmp_path / "job.log")!r}):
    import pyarrow as pa
    from lookalike.io import store
    from lookalike.io.formats.tables import TRUTH
    table = pa.table({{"query_id": ["a", "b"], "reference_id": ["x", "x"]}})
    store.write_table(table, {str(tmp_path / "truth.parquet")!r}, TRUTH, {{}})
    read = store.read_table({str(tmp_path / "truth.parquet")!r}, TRUTH)
    print(sorted({HEAVY!r} & set(sys.modules)))
    print(len(read.to_pandas()), "pandas" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["[]", "2 True"]


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


@pytest.mark.parametrize(("path", "codes"), [("lookalike/io/new.py", {"D100", "F821"}), ("new.py", set())])
def test_only_scripts_may_use_the_undefined_name_snakemake(path: str, codes: set[str]) -> None:
    command = ["ruff", "check", "--output-format", "json", "--stdin-filename", f"workflow_scripts/{path}", "-"]
    ran = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=REPOSITORY,
        input="print(snakemake.input)\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert {found["code"] for found in json.loads(ran.stdout)} == codes
