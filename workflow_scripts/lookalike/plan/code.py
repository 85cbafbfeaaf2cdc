"""Which code makes a stage's numbers: what its script imports. A hash of it decides, beside keys, about reruns.

Imports are read from the source, so nothing is run and torch is not imported. Those inside functions count, those for
type checkers only do not.
"""

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

LIBRARY = Path(__file__).parent.parent
IN_WHEEL = (LIBRARY / "workflow" / "Snakefile").is_file()
# The folder of the Snakefile: inside an installed library, or the repository around it.
WORKFLOW = LIBRARY / "workflow" if IN_WHEEL else LIBRARY.parents[1]
SCRIPTS = WORKFLOW / "workflow_scripts"
DATA = (".j2", ".css", ".js")

# Editing these changes no number, so it reruns nothing: module or package -> why. Their imports do not count either.
NEUTRAL = {
    "": "the public API and the version: it imports lazily and computes nothing",
    "config": "what a configuration says is in the keys",
    "job": "how a job logs, fails, and finds its device",
    "plan": "what it decides is in the keys and paths",
    "io.formats": "checks and describes tables and records; the stages make what they hold",
    "io.store": "writes and reads files, with checksums; a value that is read is the value that was written",
    "io.vector_store": "reads and writes files, with checksums; a vector that is taken is the one that was computed",
    "io.alone": "decodes as io.images does, in a process of its own",
    "io.in_work": "notes which images are decoded, and leaves out those that hang or kill a job",
    "embed.catalogue": "reads the configuration for commands and programs; no stage imports it",
    "embed.watched": "shows images that are decoded to a command; no stage imports it",
    "embed.library": "calls what the stage calls, for programs; no stage imports it",
    "search.library": "calls what the stage calls, for programs; no stage imports it",
    "sample.near_duplicates.library": "calls what the stage calls, for programs; no stage imports it",
    "io.library": "reads what a run wrote, for programs; no stage imports it",
    "sample.counting": "estimates how many images a run will have, before they are sampled",
    "embed.checkpoints": "finds files, which are identified by their hashes",
    "embed.time_limit": "limits the time of a download",
    "embed.downloads": "fetches files, which are identified by their hashes",
    "embed.onnx_external": "finds files, which are identified by their hashes",
    "embed.onnx_files": "finds files, which are identified by their hashes",
    "embed.fetch_weights": "writes down which files there are, by their hashes",
    "embed.file_hashes": "hashes files, or remembers the hash",
}


class Code:
    """The source of a library, and hashes over the part of it that a script uses. Each file is read once."""

    def __init__(self, library: Path = LIBRARY, scripts: Path = SCRIPTS) -> None:
        self.library, self.scripts = library, scripts
        self._imports: dict[Path, list[str]] = {}
        self._hashes: dict[tuple[str, ...], str] = {}

    def hash(self, rule: str, *modules: str) -> str:
        """Hash what the script of a rule imports, and the ``modules`` that it chooses by name (``sample.coco``)."""
        key = (rule, *modules)
        if key not in self._hashes:
            digest = hashlib.sha256()
            files = {self._name(file): file for file in self.files(rule, *modules)}
            for name, file in sorted(files.items()):
                digest.update(name.as_posix().encode() + b"\0" + file.read_bytes())
            self._hashes[key] = digest.hexdigest()[:16]
        return self._hashes[key]

    def _name(self, file: Path) -> Path:
        """A file's path in a clone, where the scripts are beside the library: the same in the wheel."""
        return file.relative_to(self.scripts if file.parent == self.scripts else self.library.parent)

    def files(self, rule: str, *modules: str) -> list[Path]:
        """The files that a rule's hash covers, sorted: its script, the import closure of that, and data beside them."""
        script = self.scripts / f"{rule}.py"
        found = {script}
        pending = [*self._imported(script), *modules]
        seen: set[str] = set()
        while pending:
            module = pending.pop()
            if module in seen or is_neutral(module):
                continue
            seen.add(module)
            parent = module.rpartition(".")[0]
            pending.append(parent)  # Python runs the packages around a module, too
            folder = self.library.joinpath(*module.split("."))
            file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
            found.add(file)
            found.update(_data(folder) if folder.is_dir() else ())
            pending += self._imported(file)
        return sorted(found)

    def modules(self) -> list[str]:
        """All modules and packages of the library, such as ``io.images``."""
        files = (file.relative_to(self.library) for file in self.library.rglob("*.py") if not is_leftover(file))
        return sorted(".".join(file.with_suffix("").parts).removesuffix("__init__").rstrip(".") for file in files)

    def _imported(self, file: Path) -> list[str]:
        """The library's modules that a file imports."""
        if file not in self._imports:
            try:
                tree = ast.parse(file.read_bytes())
            except SyntaxError:  # the job that imports it will say so; the hash is of the text
                tree = ast.Module([], [])
            self._imports[file] = [module for name in _names(tree) if (module := self._module(name)) is not None]
        return self._imports[file]

    def _module(self, name: str) -> str | None:
        """The module of the library that an imported name is or is in (``io.images``); None for other names."""
        root, *inside = name.split(".")
        if root != self.library.name:
            return None
        while inside:
            path = self.library.joinpath(*inside)
            if path.is_dir() or path.with_suffix(".py").is_file():
                break
            inside.pop()
        return ".".join(inside)


def is_neutral(module: str) -> bool:
    """Whether editing a module changes no number."""
    return module in NEUTRAL or any(name and module.startswith(f"{name}.") for name in NEUTRAL)


def is_leftover(file: Path) -> bool:
    """Whether a file is hidden, cached, or what an editor leaves: no part of the library."""
    return any(part.startswith((".", "#", "__pycache__")) for part in file.parts[-3:]) or file.name.endswith(
        ("~", ".orig", ".rej", ".bak", ".swp", ".pyc", ".tmp")
    )


def _names(tree: ast.AST) -> Iterator[str]:
    """The full names that a module imports, but for those that only a type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif not isinstance(node, ast.expr):  # most of the nodes, without statements
            yield from _names(node)


def _data(package: Path) -> list[Path]:
    """Templates, styles and page scripts of a package."""
    return [file for file in package.rglob("*") if file.is_file() and file.suffix in DATA and not is_leftover(file)]
