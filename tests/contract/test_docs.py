"""What the pages say is true: links lead somewhere, and every configuration in them is valid."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import REPOSITORY
from lookalike.plan.plan import RULES, Plan

PAGES = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").glob("*.md"))]
CATALOGUE = yaml.safe_load((REPOSITORY / "config.yaml").read_text())


def merged(base: Any, over: Any) -> Any:
    """As Snakemake merges a --configfile: mappings key by key, all else replaced."""
    if isinstance(base, dict) and isinstance(over, dict):
        return {**base, **{key: merged(base.get(key), value) for key, value in over.items()}}
    return over


def blocks() -> list[Any]:
    found = []
    for page in PAGES:
        for number, text in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)):
            found.append(pytest.param(text, id=f"{page.stem}-{number}"))
    return found


@pytest.mark.parametrize("text", blocks())
def test_a_configuration_in_the_docs_is_valid(text: str) -> None:
    Plan.of(merged(CATALOGUE, yaml.safe_load(text)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, section in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", page.read_text()):
        if not target.startswith("http"):
            linked = page.parent / target if target else page
            assert linked.exists(), target
            assert not section or section in sections(linked), f"{target}#{section}"


def sections(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_put_a_separator_before_a_target_that_an_option_would_swallow(page: Path) -> None:
    for line in page.read_text().splitlines():
        if re.search(r"snakemake .*--(configfile|forcerun|set-resources|default-resources)", line):
            assert re.search(r" -- \w|\\$", line), line


def test_every_rule_and_document_is_in_the_readme() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    for rule in RULES:
        assert re.search(rf"\b{rule}\b", readme), rule
    for page in (REPOSITORY / "docs").glob("*.md"):
        assert f"(docs/{page.name})" in readme, page.name


def test_the_readmes_first_commands_are_targets_of_the_makefile() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = re.findall(r"^    make (\w+)", (REPOSITORY / "README.md").read_text(), re.MULTILINE)
    assert targets == ["demo", "test"]
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
