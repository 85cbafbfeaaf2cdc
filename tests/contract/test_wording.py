"""Pages are short, and project text uses the field's standard terms."""

import re
import subprocess
from pathlib import Path

import pytest

from conftest import REPOSITORY

PAGES = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").glob("*.md"))]
WORDS, COLUMNS = 1700, 120

TEXT = {".py", ".md", ".yaml", ".yml", ".toml", ".smk", ".j2", ".html", ".css", ".js", ".txt", ".cff", ""}

# What to avoid, and what to say instead. Letters' case, and line breaks for spaces, do not matter. Where a word is also
# right elsewhere (Math.floor, a thread pool, `gallery:` as the old name of a key), the pattern leaves that out.
AVOID = {
    r"\bat hand\b": "available locally, cached",
    r"(?<!math[.])(?<![`\"_.])\bfloors?\b(?![`\"=(:])": "baseline",
    r"\bmend(ed|s|ing)?\b": "fix",
    r"\b(go|goes|going|went|gone|carr(y|ies|ied)) on\b": "continue, resume",
    r"\b(bears|comes to)\b|\bstands?\b(?! for|-in)": "is, has, costs",
    r"\blaid over\b": "composited onto, drawn onto",
    r"\bpage-locked\b": "pinned memory",
    r"\bin rings\b|\brings of them\b": "symlink cycle",
    r"\bthere twice\b|\bidentical pictures\b|\bdoubles? of\b|\bown double\b": "duplicate",
    r"\bevery two (models|indexes|runs|of)\b": "pairwise comparison",
    r"\ba page to look at\b": "HTML report",
    r"\bby itself\b": "automatically, alone",
    r"\bfor this (picture|image) alone\b|\bmemory ran out\b": "out of memory, at batch size 1",
    r"\b(rules of )?the house\b": "conventions",
    r"\bthe published way\b": "reference implementation",
    r"\b(has|there is|there are) none\b": "has no ..., is missing",
    r"(?<!there)(?<!\s)\s+(is|are) no (?!longer|better|worse|more|less|fewer|larger|smaller)": "is not a ...",
    r"\basked\b|\basks? for\b": "requested, required",
    r"\bpools? of (pairs|candidates)\b|\b(pair|candidate) pools?\b|\bpool_table\b": "candidates",
    r"\bgallery\b(?![:\"'-]|[.]parquet)": "showcase",
    r"\barticles? [AB]\b": "author and title",
    r"\belse it is said\b|\b(is|are) said first\b": "is reported first",
}
IN_CODE = {r"(?<![/\"-])\bpictures?\b(?![/\"])": "image"}  # in prose either is fine; folders may have the name


def text_files() -> list[Path]:
    command = ["git", "-C", str(REPOSITORY), "ls-files", "-z", "--", "."]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    files = [REPOSITORY / name for name in names if name and Path(name).suffix in TEXT]
    return [file for file in files if file.is_file() and file != Path(__file__)]


def test_project_text_uses_standard_terms() -> None:
    files = text_files()
    assert REPOSITORY / "README.md" in files
    found = []
    for file in files:
        text = file.read_text(encoding="utf-8")
        for phrase, better in (AVOID if file.suffix == ".md" else AVOID | IN_CODE).items():
            for match in re.finditer(phrase.replace(" ", r"[\s#]+"), text, re.IGNORECASE):
                line = text.count("\n", 0, match.start()) + 1
                found.append(f"{file.relative_to(REPOSITORY)}:{line}: '{match[0]}'. Say {better}.")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name)
def test_a_page_is_short(page: Path) -> None:
    words = [word for word in page.read_text(encoding="utf-8").split() if re.search(r"\w", word)]
    assert len(words) <= WORDS, f"{page.name} has {len(words)} words. Split it."


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_wraps_at_120_columns(page: Path) -> None:
    """Tables and links cannot be wrapped."""
    lines = enumerate(page.read_text(encoding="utf-8").splitlines(), start=1)
    long = [(number, line) for number, line in lines if len(line) > COLUMNS]
    assert not [number for number, line in long if not re.match(r"\s*\|", line) and "](" not in line]


@pytest.mark.parametrize("page", sorted((REPOSITORY / "docs").glob("*.md")), ids=lambda page: page.name)
def test_a_page_opens_with_what_its_reader_can_do(page: Path) -> None:
    title, _, opening = page.read_text(encoding="utf-8").partition("\n\n")
    assert title.startswith("# ")
    assert opening.startswith("After reading this page ")
