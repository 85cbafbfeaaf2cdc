"""What makes Snakemake plan thousands of jobs faster changes nothing of what it is told."""

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake import sourcecache
from snakemake.common import get_function_params, get_input_function_aux_params
from snakemake.io import IOFile
from snakemake.output_index import OutputIndex
from snakemake.resources import Resource
from snakemake.sourcecache import LocalSourceFile, SourceCache

from lookalike.plan.paths import Paths
from lookalike.plan.start import remember_parameters, remember_producers, remember_scripts


def test_parameters_of_functions_in_rules_are_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def shards(wildcards: Any, attempt: int) -> int:
        return int(wildcards.number) * attempt

    of_resource = Resource("mem_mb", lambda wildcards, attempt: attempt * 100)
    rule = SimpleNamespace(input=["plain.txt", shards], params=[], resources={"mem_mb": of_resource})
    monkeypatch.delattr(Resource.evaluate, "_overwrite_params", raising=False)
    remember_parameters([rule])

    monkeypatch.setattr(inspect, "signature", None)  # all that is expensive ends here
    wildcards = SimpleNamespace(number="3")
    assert get_input_function_aux_params(shards, {"attempt": 2, "threads": 1}) == {"attempt": 2}
    assert get_input_function_aux_params(of_resource.evaluate, {"attempt": 2}) == {"attempt": 2}
    assert of_resource.evaluate(wildcards, attempt=2, threads=1).value == 200
    with pytest.raises(TypeError):
        get_function_params(lambda: None)


def test_copies_of_scripts_are_looked_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = [tmp_path / name for name in ("embed.py", "index.py")]
    for script in scripts:
        script.write_text(f"# {script.name}\n")
    cache = SourceCache(tmp_path / "cache", tmp_path / "copies")
    remember_scripts(cache)
    for script in scripts:
        with cache.open(LocalSourceFile(str(script))) as copy:
            assert copy.read() == f"# {script.name}\n"
    assert not cache.exists(LocalSourceFile(str(tmp_path / "missing.py")))

    monkeypatch.setattr(sourcecache, "parse_uri", None)
    assert Path(cache.get_path(LocalSourceFile(str(scripts[1])))).read_text() == "# index.py\n"
    with pytest.raises(TypeError):
        cache.get_path(LocalSourceFile(str(tmp_path / "missing.py")))


def test_rules_that_make_a_file_are_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = {"embed": ["a/{x}.parquet"], "index": ["a/{x}.faiss", "a/{x}.ids.parquet"]}
    matched = list[str]()

    class Rule(SimpleNamespace):
        __hash__ = object.__hash__

        def products(self) -> list[IOFile]:
            return [IOFile(path, rule=None) for path in outputs[self.name]]

        def is_producer(self, file: str) -> bool:
            matched.append(f"{self.name} {file}")
            return file.count(".") == (1 if self.name == "embed" else 2)

    monkeypatch.setattr(OutputIndex, "match_producers", OutputIndex.match_producers)  # and put back
    remember_producers(OutputIndex)
    index, other = OutputIndex([Rule(name=name) for name in outputs]), OutputIndex([])
    for _ in range(2):
        assert [rule.name for rule in index.match_producers("a/b.parquet")] == ["embed"]
        assert [rule.name for rule in index.match_producers("a/b.ids.parquet")] == ["index"]
        assert other.match_producers("a/b.parquet") == set()
    assert sorted(matched) == ["embed a/b.ids.parquet", "embed a/b.parquet", "index a/b.ids.parquet"]


@pytest.mark.parametrize(
    ("stage", "path", "pattern"),
    [
        ("shard", "results/shards/sample/shards/queries-00000.parquet", "results/shards/sample/{stage}s/"),
        ("images", "results/images/images/references-00001.zip", "results/images/{stage}/"),
    ],
)
def test_a_wildcard_that_has_one_value_comes_after_the_data_set(stage: str, path: str, pattern: str) -> None:
    assert Paths.with_wildcard(stage, [path]) == [pattern + Path(path).name]
