"""Whatever YAML would silently convert or drop is refused, with its line."""

from pathlib import Path

import pytest

from conftest import REPOSITORY
from lookalike.config.files import read
from lookalike.embed.catalogue import Catalogue, merge
from lookalike.job.errors import ConfigError
from lookalike.plan.plan import Plan

BASE = REPOSITORY / "config.yaml"


def written(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refused(path: Path) -> str:
    """The message about a file that is merged over the catalogue, without the path of its folder."""
    with pytest.raises(ConfigError) as caught:
        Plan.of(merge(read(BASE), read(path)), [BASE, path])
    with pytest.raises(ConfigError) as on_the_command_line:
        Catalogue.open([path], path.parent / "results")
    assert str(on_the_command_line.value) == str(caught.value)
    return str(caught.value).replace(f"{path.parent}/", "").replace(f"{REPOSITORY}/", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "datasets:\n  a: {kind: folder, root: x}\nrun: [demo]\ndatasets:\n  b: {kind: folder, root: y}\n",
            "mine.yaml, line 4: datasets: duplicates line 1, and YAML keeps only the last of the two. Merge them "
            "into one block.",
        ),
        (
            "models:\n  m:\n    embed: {family: pixels}\n    label: a\n    label: b\n",
            "mine.yaml, line 5: models.m.label: duplicates line 4, and YAML keeps only the last of the two. "
            "Merge them into one block.",
        ),
        (
            '{"models": {"m": {"label": "a",\t"label": "b", "embed": {"family": "pixels"}}}}',
            "mine.yaml: 'label' is duplicated within one pair of braces, and only the last one would count. "
            "Merge the two.",
        ),
    ],
)
def test_a_duplicate_key_is_refused_with_both_lines(tmp_path: Path, text: str, message: str) -> None:
    assert refused(written(tmp_path, text)) == message


def test_a_block_that_is_reused_through_its_anchor_is_not_a_duplicate(tmp_path: Path) -> None:
    text = "models:\n  a: &a {embed: {family: pixels, size: 4}}\n  b: {<<: *a, label: B}\n  c: {<<: *a, label: C}\n"
    plan = Plan.of(merge(read(BASE), read(written(tmp_path, text))), [BASE, tmp_path / "mine.yaml"])
    assert [plan.label(name) for name in "abc"] == ["a", "B", "C"]


@pytest.mark.parametrize(
    ("value", "number", "base"), [("1:30", 90, 60), ("1:30:00", 5400, 60), ("2:00.5", 120.5, 60), ("010", 8, 8)]
)
def test_a_number_in_another_base_than_10_is_refused(tmp_path: Path, value: str, number: float, base: int) -> None:
    path = written(tmp_path, f"models:\n  m:\n    embed: {{family: pixels}}\n    runtime: {{minutes: {value}}}\n")
    assert refused(path) == (
        f"mine.yaml, line 4: models.m.runtime.minutes: YAML reads {value} as a number in base {base}: {number}. "
        f'Write the number in plain decimal digits, or put the text in quotes: "{value}".'
    )


def test_a_base_60_number_is_also_found_in_lists_and_names(tmp_path: Path) -> None:
    assert "mine.yaml, line 1: run.1: YAML reads 1:30 as" in refused(written(tmp_path, "run: [demo, 1:30]"))
    assert "mine.yaml, line 1: datasets.1:30: YAML reads 1:30 as" in refused(written(tmp_path, "datasets: {1:30 : {}}"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "mine.yaml, line 1: is not valid YAML (expected the node content, but found '<stream end>'). "),
        ("run: [demo]\ntitle: Which: one?\n", "mine.yaml, line 2: is not valid YAML (mapping values are not allowed "),
        ("run:\n\t- demo\n", "mine.yaml, line 2: is not valid YAML (found character '\\t' that cannot start any token"),
        ("a: 2024-13-45", "mine.yaml: is not valid YAML (month must be in 1..12)."),
        ("a: \x01", "mine.yaml: is not valid YAML (special characters are not allowed)."),
    ],
)
def test_invalid_yaml_is_reported_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(written(tmp_path, text))
    assert str(caught.value).removeprefix(f"{tmp_path}/").startswith(message)
    assert str(caught.value).endswith(
        "Check for tabs or a missing comma, colon, quote or bracket; put text with a colon, # or ? in quotes."
    )


def test_an_unreadable_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("title: café".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml: is not UTF-8 text. Save it as UTF-8\."):
        read(tmp_path / "latin.yaml")
    with pytest.raises(ConfigError, match=r"\(Is a directory\)\. Name a file, such as mine\.yaml\."):
        read(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "models: {pixels: {embed: {family: color_histogram}}}",
            "models.pixels.embed.family: is 'color_histogram' in mine.yaml but 'pixels' in config.yaml, and entries of "
            "the same name are merged key by key. Give yours another name.",
        ),
        (
            "datasets: {coco: {kind: folder, root: x}}",
            "datasets.coco.kind: is 'folder' in mine.yaml but 'coco' in config.yaml, and entries of the same name are "
            "merged key by key. Give yours another name.",
        ),
    ],
)
def test_an_entry_cannot_inherit_from_another_kind(tmp_path: Path, text: str, message: str) -> None:
    assert refused(written(tmp_path, text)) == message


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (
            "experiments: {2024: {dataset: photo-tiles-copies, models: [pixels]}}\nrun: [2024]",
            [
                'run.0: should be text, but YAML reads it as the number 2024. Put it in quotes: "2024".',
                "experiments: a name should be text, but YAML reads this one as the number 2024. Put it in quotes: "
                '"2024".',
            ],
        ),
        (
            "indexes: {no: {factory: Flat}}\nrun: [demo, on]",
            [
                "run.1: should be text, but YAML reads it as true, like yes and on. Put the word in quotes, such "
                'as "yes".',
                "indexes: a name should be text, but YAML reads this one as false, like no and off. Put the word "
                'in quotes, such as "no".',
            ],
        ),
        (
            "models: {2024-05-01: {embed: {family: pixels}}, 1.5: {embed: {family: pixels}}}",
            [
                "models: a name should be text, but YAML reads this one as the date 2024-05-01. Put it in quotes: "
                '"2024-05-01".',
                'models: a name should be text, but YAML reads this one as the number 1.5. Put it in quotes: "1.5".',
            ],
        ),
        (
            "datasets: {2024: {kind: copies, of: 2025}, p: {kind: folder, root: 2024}}",
            [
                "datasets: a name should be text, but YAML reads this one as the number 2024. Put it in quotes: "
                '"2024".',
                'datasets.2024.of: should be text, but YAML reads it as the number 2025. Put it in quotes: "2025".',
                'datasets.p.root: should be text, but YAML reads it as the number 2024. Put it in quotes: "2024".',
            ],
        ),
        (
            "datasets: {c: {of: photo-tiles, kind: copies, queries: 1,000}}",
            ["datasets.c: 0 is not a valid key. Inside {"],
        ),
        ("indexes: {h: {factory: IVF256,Flat}}", ["indexes.h.Flat: unknown key. It has no value: inside { } a comma"]),
        ("run: ", ["run: has no value. Add one, or remove the line."]),
        ("datasets:\n", ["datasets: has no value. Add one, or remove the line."]),
        (
            "experiments: {x: {title: , dataset: photo-tiles-copies, models: [pixels]}}",
            ["experiments.x.title: has no value. Add one, or remove the line."],
        ),
        (
            "models: {m: {family: pixels, batch_size: 8}}",
            [
                "models.m.embed: is missing. Add it; config.yaml explains every key.",
                "models.m.family: unknown key. It belongs under embed:.",
                "models.m.batch_size: unknown key. It belongs under runtime:.",
            ],
        ),
        (
            "models: {m: {embed: {family: pixels, batch_size: 8}}}",
            ["models.m.embed.batch_size: unknown key. It belongs under runtime:."],
        ),
        (
            "models: {m: {embed: {family: pixels}, runtime: {mem_mb: 8GB}}}",
            ["models.m.runtime.mem_mb: should be a whole number in digits, such as 30, found '8GB' (memory to request"],
        ),
        (
            "models: {m: {embed: {family: transformers, checkpoint: a/b, feature: last_hidden_state, pooling: CLS}}}",
            ["models.m.embed.pooling: input should be 'cls', 'mean', 'mean_patches', 'gem' or 'none', found 'CLS' "],
        ),
        (
            "datasets: {p: {kind: folder, root: 's3://bucket/images'}}",
            ["datasets.p.root: 's3://bucket/images' is a URL. Download the files, and give their local path."],
        ),
        (
            "datasets: {p: {kind: folder, root: $HOME/images}}",
            ["datasets.p.root: '$HOME/images' starts with a variable, and variables are not expanded. Write the path"],
        ),
        (f"models: {{{'x' * 201}: {{embed: {{family: pixels}}}}}}", [f"models.{'x' * 201}: has 201 characters. Names"]),
        ("run: [demo, demo]", ["run: 'demo' is listed more than once. List it once."]),
    ],
)
def test_what_yaml_reads_as_something_else_is_explained(tmp_path: Path, text: str, messages: list[str]) -> None:
    lines = refused(written(tmp_path, text)).splitlines()
    assert len(lines) == len(messages)
    for line, message in zip(lines, messages, strict=True):
        assert line.startswith(message)


def test_a_name_in_another_case_is_suggested(tmp_path: Path) -> None:
    text = "models: {m: {embed: {family: transformers, checkpoint: a/b, feature: last_hidden_state, pooling: CLS}}}"
    assert refused(written(tmp_path, text)).endswith("Did you mean 'cls'?")
