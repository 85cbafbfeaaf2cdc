"""Pages are short, and project text uses the field's standard terms."""

import re
import subprocess
from pathlib import Path

import pytest

from conftest import REPOSITORY

PAGES = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").glob("*.md"))]
WORDS, COLUMNS = 1700, 120

# What is checked, as git names it: "." are all files. Code is added once its messages are rewritten too.
CHECKED = ["."]
TEXT = {".py", ".md", ".yaml", ".yml", ".toml", ".smk", ".j2", ".html", ".css", ".js", ".txt", ".cff", ""}

# Never right here, with what to say instead. Letters' case, and line breaks for spaces, do not matter.
AVOID = {
    r"(are|is|models) at hand": "available locally, cached",
    r"(a|two|the other|as the) floors?(?! and)": "baseline",
    r"\bmend(ed|s|ing)?\b": "fix",
    r"(go|goes|going|went|gone|carr\w+) on where": "resume",
    r"laid over": "composited onto, drawn onto",
    r"page-locked": "pinned memory",
    r"in rings|rings of them": "symlink cycle",
    r"(pictures?|images?|files?) that (are|is) there twice": "duplicate",
    r"identical pictures": "duplicates",
    r"every two models": "pairwise comparison",
    r"a page to look at": "HTML report",
    r"\bby itself\b": "automatically, alone",
    r"for this picture alone": "at batch size 1",
    r"rules of the house": "conventions",
    r"the published way": "reference implementation",
    r"\bis no (file|folder|directory|encoder|zip|checkpoint|number)": "is not a ...",
    r"\barticles? [AB]\b": "author and title",
    r"\belse it is said\b|\bis said first\b": "is reported first",
}


def text_files() -> list[Path]:
    command = ["git", "-C", str(REPOSITORY), "ls-files", "-z", "--", *CHECKED]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    files = [REPOSITORY / name for name in names if name and Path(name).suffix in TEXT]
    return [file for file in files if file.is_file() and file != Path(__file__)]


def test_project_text_uses_standard_terms() -> None:
    files = text_files()
    assert REPOSITORY / "README.md" in files
    found = []
    for file in files:
        text = file.read_text(encoding="utf-8")
        for phrase, better in AVOID.items():
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
