"""The page's scripts: ES modules in ``scripts/``, concatenated into one script that runs without a build step."""

import re
from pathlib import Path

SCRIPTS = Path(__file__).parent / "scripts"
IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+)\.js";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(async )?function|const|class)", re.MULTILINE)


def bundle(entry: str = "main") -> str:
    """One script: each module once, after those that it imports. Names at the top of modules must be distinct."""
    order: list[str] = []

    def visit(name: str) -> str:
        text = (SCRIPTS / f"{name}.js").read_text(encoding="utf-8")
        for imported in IMPORT.findall(text):
            if imported not in order:
                visit(imported)
        if name not in order:
            order.append(name)
        return text

    visit(entry)
    body = "".join(EXPORT.sub("", IMPORT.sub("", visit(name))) for name in order)
    return f'"use strict";\n(() => {{\n{body}}})();\n'
