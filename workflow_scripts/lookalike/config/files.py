"""Configuration files as they are written: what YAML passes on as something else is refused while its text is there."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lookalike.job.errors import ConfigError

_REMEDY = "Look for a missing comma, colon, quote or bracket, and for tabs; put text with a colon, # or ? in quotes."
_OCTAL = re.compile(r"[-+]?0[0-9_]+")
_TAGS = {"datasets": "kind", "models": "family"}  # what an entry's other keys depend on


def read(path: str | Path) -> Any:
    """Read a configuration file, unchecked but for its writing: it may be a part that is merged over another.

    Raises ConfigError, with the line, for what is not YAML, for a key that is there twice, since YAML keeps the last
    only, and for a number that YAML reads to another base than ten.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such configuration file.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text. Save it as UTF-8.") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}). Name a file, such as mine.yaml.") from None
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _each_once(pairs, path))  # first, as Snakemake does
    except (ValueError, RecursionError):
        pass
    loader = yaml.SafeLoader("")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if slips := [f"{path}, line {line}: {slip}" for line, slip in _slips(node, "", set())]:
            raise ConfigError("\n".join(slips))
        return loader.construct_document(node) if node else None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line}: is not valid YAML ({error.problem}). {_REMEDY}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that no calendar has
        raise ConfigError(f"{path}: is not valid YAML ({getattr(error, 'reason', error)}). {_REMEDY}") from None
    finally:
        loader.dispose()


def check(paths: Sequence[str | Path]) -> None:
    """Raise ConfigError where files that are merged cannot be read, or have entries of one name but of other kinds."""
    seen: dict[tuple[str, str], tuple[Any, str | Path]] = {}
    mistakes = []
    for path in paths:
        for section, name, tag in _tagged(read(path)):
            other, elsewhere = seen.setdefault((section, name), (tag, path))
            if other != tag:
                key = f"embed.{_TAGS[section]}" if section == "models" else _TAGS[section]
                mistakes.append(
                    f"{section}.{name}.{key}: is '{tag}' in {path} and '{other}' in {elsewhere}, and entries of one "
                    "name are merged key by key. Give yours another name."
                )
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def _tagged(raw: Any) -> Iterator[tuple[str, str, Any]]:
    """Section, name, and kind or family of every entry that says one."""
    for section, tag in _TAGS.items():
        entries = raw.get(section) if isinstance(raw, Mapping) else None
        for name, entry in entries.items() if isinstance(entries, Mapping) else ():
            holder = entry.get("embed") if section == "models" and isinstance(entry, Mapping) else entry
            if isinstance(holder, Mapping) and tag in holder:
                yield section, name, holder[tag]


def _each_once(pairs: list[tuple[str, Any]], path: str | Path) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(
                f"{path}: '{key}' is there twice in one pair of braces, and only the last of the two is kept. Make one "
                "of them."
            )
    return dict(pairs)


def _slips(node: Any, place: str, seen: set[int]) -> Iterator[tuple[int, str]]:
    """Line and message of every key that is there twice, and of every number to another base than ten."""
    if id(node) in seen:  # used again by its anchor
        return
    seen.add(id(node))
    below = f"{place}." if place else ""
    if isinstance(node, yaml.ScalarNode):
        yield from _misread(node, place)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _slips(item, f"{below}{number}", seen)
    elif isinstance(node, yaml.MappingNode):
        first: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            name, line = f"{below}{key.value if isinstance(key, yaml.ScalarNode) else '?'}", key.start_mark.line + 1
            if value.value != "":  # `queries: 1,000` in braces: the rest of a number, which is refused as a key
                yield from _slips(key, name, seen)
            if isinstance(key, yaml.ScalarNode) and not key.tag.endswith(":merge"):
                if (key.tag, key.value) in first:
                    yield (
                        line,
                        f"{name}: is there already in line {first[key.tag, key.value]}, and YAML keeps only the last "
                        "of the two. Make one block of them.",
                    )
                first.setdefault((key.tag, key.value), line)
            yield from _slips(value, name, seen)


def _misread(node: yaml.ScalarNode, place: str) -> Iterator[tuple[int, str]]:
    """A plain number with colons, or with a zero in front, which YAML 1.1 reads to the base 60, or 8."""
    if node.style is None and node.tag.endswith((":int", ":float")):
        base = 60 if ":" in node.value else 8 if _OCTAL.fullmatch(node.value) else 10
        if base != 10:
            number = yaml.safe_load(node.value)
            yield (
                node.start_mark.line + 1,
                f"{place}: YAML reads {node.value} as a number to the base {base}: {number}. Write the number that you "
                f'mean in plain digits, or put the text in quotes: "{node.value}".',
            )
