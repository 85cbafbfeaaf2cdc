"""Every command and Python snippet of the docs is one that works: parsed by the real programs, but not run."""

import ast
import builtins
import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from test_docs import CATALOGUE, PAGES, merged

from conftest import REPOSITORY
from lookalike.cli.main import app
from lookalike.plan.plan import RULES, Plan

LOOKALIKE: Any = typer.main.get_command(app)
MAKEFILE = (REPOSITORY / "Makefile").read_text()
EXTRAS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
CHECKED = ("lookalike", "snakemake", "make", "python", "pytest", "pip")
OTHERS = {"git", "mkdir", "mv", "tar", "ruff", "mypy", "snakefmt", "trec_eval", "jq", "export", "."}  # others' programs
METRICS = "results/{dataset}/metrics/{model}/{index}.json"
# modules that a snippet imports, and that no extra installs
NOT_INSTALLED = {"open_clip", "datasets", "lancedb", "qdrant_client", "embedding_atlas", "fiftyone"}
INLINE = rf"`((?:{'|'.join(CHECKED)}) [^`]+)`"
FENCED = r"^ *```(\w*)\n(.*?)^ *```"


@cache
def snakemake() -> Any:
    """Its argument parser, with the options of the plugins."""
    from snakemake.cli import get_argument_parser  # takes seconds

    return get_argument_parser()


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(FENCED, "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def shell_lines(page: Path) -> Iterator[str]:
    """The lines of a page's shell blocks: fenced ones, and indented ones that begin with a program."""
    fenced = re.findall(FENCED, page.read_text(), re.DOTALL | re.MULTILINE)
    blocks = [block for language, block in fenced if language in ("", "sh", "bash", "shell")]
    indented = re.findall(r"(?:^ {4,}.*\n)+", prose(page), re.MULTILINE)
    programs = {*CHECKED, *OTHERS}
    blocks += [block for block in indented if block.split(maxsplit=1)[0] in programs]
    for block in blocks:
        yield from block.replace("\\\n", " ").splitlines()


def commands(page: Path) -> Iterator[list[str]]:
    """The commands of a page's shell blocks, as words."""
    for line in shell_lines(page):
        words = shlex.split(re.sub(r" > \S+", "", line), comments=True)
        for is_end, command in groupby(words, lambda word: word in ("&&", "|")):
            if not is_end:
                yield list(command)


def every(kinds: tuple[str, ...] = CHECKED) -> list[Any]:
    """All commands in blocks and in the prose, with their page and whether they are whole."""
    found = []
    for page in PAGES:
        whole = [(command, True) for command in commands(page)]
        parts = [(shlex.split(" ".join(text.split())), False) for text in re.findall(INLINE, prose(page))]
        for command, is_whole in whole + ([] if page.name == "CHANGELOG.md" else parts):
            if command[0] in kinds:
                found.append(pytest.param(page, command, is_whole, id=f"{page.stem}: {' '.join(command)[:60]}"))
    return found


def plan_of(page: Path, options: list[str]) -> Plan:
    """The plan that a page's command runs with: with --configfile, the page's own configurations are merged in."""
    raw = CATALOGUE
    if "--configfile" in options:
        for text in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL):
            raw = merged(raw, yaml.safe_load(text))
        anyone = {"dataset": "coco", "models": ["pixels"]}  # a page may leave its reader's `mine` open
        raw = merged({"experiments": {"mine": anyone}}, raw)
    return Plan.of(raw)


def test_every_program_in_a_block_is_known() -> None:
    first = {command[0] for page in PAGES for command in commands(page)}
    assert {"lookalike", "snakemake", "make", "python"} < first
    assert first <= {*CHECKED, *OTHERS}


@pytest.mark.parametrize(("page", "command", "is_whole"), every(("lookalike",)))
def test_a_command_of_lookalike_has_these_options(page: Path, command: list[str], is_whole: bool) -> None:
    sub = LOOKALIKE if command[1].startswith("--") else LOOKALIKE.commands[command[1]]
    if sub is LOOKALIKE:
        assert {*command[1:]} <= {name for parameter in sub.params for name in parameter.opts}
        return
    context = typer.Context(sub)
    given, _, _ = sub.make_parser(context).parse_args(command[2:])  # raises for an unknown option
    plan = plan_of(page, ["--configfile"])
    of = plan.config.experiments.get(given.get("experiment") or "")
    known = [*(of.models if of else plan.config.models), "MODEL..."]
    names = {"experiment": plan.config.experiments, "model": known, "models": known}
    for parameter in sub.get_params(context):
        value = given.get(parameter.name or "")
        assert not (is_whole and parameter.required and not value), f"{parameter.name} is missing"
        if parameter.name in names and value:
            values = [value] if isinstance(value, str) else value
            assert {one for text in values for one in text.split(",")} <= {*names[parameter.name]}
        elif parameter.name == "name" and value and command[1] == "check":
            assert value in plan.config.datasets


@pytest.mark.parametrize(("page", "command", "is_whole"), every(("snakemake",)))
def test_a_command_of_snakemake_has_these_options_and_targets(
    page: Path, command: list[str], is_whole: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        given = snakemake().parse_args(command[1:])
    except SystemExit:
        pytest.fail(capsys.readouterr().err)
    plan = plan_of(page, command)
    entries = plan.config.experiments.items()
    files = {
        *(path for name, entry in entries for model in entry.models for path in plan.embeddings(entry.dataset, model)),
        *(plan.config.models[model].embed.weights_file() for _, entry in entries for model in entry.models),
        *(path for name, _ in entries for path in plan.per_model(name, METRICS)),
    }
    assert {*given.targets} <= {*plan.config.experiments, *files}
    assert {*(given.forcerun or ())} <= {*RULES, *files}
    if "--profile" in command:
        assert (REPOSITORY / command[command.index("--profile") + 1] / "config.yaml").exists()
    assert {*(given.set_resources or {})} <= {*RULES}


@pytest.mark.parametrize(("page", "command", "is_whole"), every(("make", "python", "pytest", "pip")))
def test_another_command_of_this_repository_exists(page: Path, command: list[str], is_whole: bool) -> None:
    words = [word for word in command[1:] if not word.startswith("-")]
    for text in command:
        for extra in re.findall(r"(?:^EXTRAS=|\.\[)([\w,]+)", text):
            assert {*extra.split(",")} <= {*EXTRAS}, extra
    if command[0] == "make":
        targets = [word for word in words if "=" not in word]
        assert targets
        assert all(re.search(rf"^{target}:", MAKEFILE, re.MULTILINE) for target in targets)
        assert all(f"$({word.split('=')[0]})" in MAKEFILE for word in words if "=" in word)
    elif command[0] == "python":
        script = (REPOSITORY / words[0]).read_text()
        assert all(f'"{option}"' in script for option in command if option.startswith("--"))
    else:
        assert all((REPOSITORY / word).exists() for word in words if "/" in word or word.endswith(".txt"))


def snippets() -> list[Any]:
    """The Python snippets of each page, as one text: the second may use what the first defines."""
    found = []
    for page in PAGES:
        blocks = re.findall(FENCED, page.read_text(), re.DOTALL | re.MULTILINE)
        if texts := [text for language, text in blocks if language == "python"]:
            found.append(pytest.param("\n".join(texts), id=page.stem))
    return found


@pytest.mark.parametrize("text", snippets())
def test_python_snippets_compile_and_use_names_that_exist(text: str) -> None:  # noqa: PLR0912
    tree = ast.parse(text)
    compile(tree, "snippet", "exec")
    modules: dict[str, Any] = {}
    bound = {*dir(builtins)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound.add(alias.asname or alias.name)
                if alias.name.partition(".")[0] not in NOT_INSTALLED:
                    modules[alias.asname or alias.name] = importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (node.module or "").partition(".")[0] not in NOT_INSTALLED:
                    assert hasattr(importlib.import_module(node.module or ""), alias.name), alias.name
                bound.add(alias.asname or alias.name)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.ExceptHandler):
            bound.add(node.name or "")
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
    of_the_library = [importlib.import_module(f"lookalike.{name}") for name in ("config.datasets", "sample.folder")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            assert hasattr(modules[node.value.id], node.attr), f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.Name) and node.id not in bound:
            assert any(hasattr(module, node.id) for module in of_the_library), f"{node.id} is not defined"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_an_option_in_the_prose_exists(page: Path) -> None:
    known = {*snakemake()._option_string_actions}
    known |= {name for parameter in LOOKALIKE.params for name in parameter.opts}
    for sub in LOOKALIKE.commands.values():
        known |= {name for parameter in sub.get_params(typer.Context(sub)) for name in parameter.opts}
    scripts = "".join(path.read_text() for path in (REPOSITORY / "benchmarks").glob("*.py"))
    known |= {*re.findall(r'"(--[a-z-]+)"', scripts)}
    for text in re.findall(r"`(--[a-z][^`]*)`", prose(page)):
        options = [word.partition("=")[0] for word in text.split() if word.startswith("--") and word != "--"]
        assert {*options} <= known, text
