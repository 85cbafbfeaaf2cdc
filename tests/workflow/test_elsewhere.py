"""Each recipe of docs/elsewhere.md finds in another program what the library finds."""

import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import lookalike as la
from conftest import REPOSITORY
from lookalike.cli.main import app
from workflow.conftest import Tree

PAGE = (REPOSITORY / "docs" / "elsewhere.md").read_text()
PACKAGES = {
    "pandas": "pandas",
    "polars": "polars",
    "DuckDB": "duckdb",
    "Hugging Face datasets": "datasets",
    "LanceDB": "lancedb",
    "Qdrant": "qdrant_client",
    "embedding-atlas": "embedding_atlas",
    "FiftyOne": "fiftyone",
    "TREC run and qrels": "pytrec_eval",
}


def sections() -> dict[str, str]:
    """The code of the page by heading; that before the first heading under an empty one."""
    parts = re.split(r"^## (.*)\n", PAGE, flags=re.MULTILINE)
    texts = dict(zip(["", *parts[1::2]], parts[::2], strict=True))
    return {heading: "".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)) for heading, text in texts.items()}


@pytest.fixture
def run(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a finished run as the working directory, with the names that the page uses."""
    monkeypatch.chdir(tree.folder)
    monkeypatch.setenv("HF_HOME", str(tree.folder / "cache"))
    monkeypatch.setenv("FIFTYONE_DO_NOT_TRACK", "1")
    (tree.folder / "results" / "photo-tiles-copies").symlink_to("copies")
    return tree.folder


def test_every_section_has_a_recipe() -> None:
    assert [heading for heading in sections() if heading] == list(PACKAGES)


@pytest.mark.filterwarnings("ignore")  # of the other programs
@pytest.mark.parametrize("heading", PACKAGES)
def test_a_recipe_finds_what_the_library_finds(run: Path, heading: str) -> None:
    pytest.importorskip(PACKAGES[heading])
    code, names = sections(), dict[str, Any]()
    exec(code[""], names)
    if heading.startswith("TREC"):
        command = ["export", "--trec", "mine", "--configfile", "mine.yaml", "--out", "demo-trec"]
        exported = CliRunner().invoke(app, command)
        assert exported.exit_code == 0, exported.output
    try:
        exec(code[heading], names)
    except Exception as error:
        if type(error).__name__ == "FiftyOneConfigError":
            pytest.skip(f"FiftyOne cannot start its database: {error}")
        raise
    if heading == "embedding-atlas":
        import pandas as pd

        table = pd.read_parquet("atlas.parquet")
        assert sorted(table["image_id"]) == sorted(la.read_embeddings(names["EMBEDDINGS"]).ids)
        assert table[["projection_x", "projection_y"]].notna().all(axis=None)
        assert table["reference"].sum() == 11
        return
    queries, references = names["queries"], names["references"]
    indices, scores = la.search(queries.vectors[:1], references.vectors, k=4)
    assert len(set(scores[0])) == 4  # no tie that programs could break differently
    assert names["nearest"] == references.ids[indices[0, :3]].tolist()
