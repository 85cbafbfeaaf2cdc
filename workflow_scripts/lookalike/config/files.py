"""Configuration files as written: whatever YAML would silently drop or convert is rejected while its line is known."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lookalike.job.errors import ConfigError

_REMEDY = "Check for tabs or a missing comma, colon, quote or bracket; put text with a colon, # or ? in quotes."
_OCTAL = re.compile(r"[-+]?0[0-9_]+")
_TAGS = {"datasets": "kind", "models": "family"}  # the key that decides which others an entry has


def read(path: str | Path) -> Any:
    """Read a configuration file and check its syntax only: it may be partial, to be merged over another.

    Raises ConfigError, with the line, for invalid YAML, for duplicate keys, of which YAML silently keeps the last, and
    for numbers that YAML does not read in base 10.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: this configuration file does not exist. Check the path.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text. Save it as UTF-8.") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}). Name a file, such as mine.yaml.") from None
    try:
        # JSON first, as Snakemake does
        return json.loads(text, object_pairs_hook=lambda pairs: _without_duplicates(pairs, path))
    except (ValueError, RecursionError):
        pass
    loader = yaml.SafeLoader("")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if mistakes := [f"{path}, line {line}: {mistake}" for line, mistake in _mistakes(node, "", set())]:
            raise ConfigError("\n".join(mistakes))
        return loader.construct_document(node) if node else None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line}: is not valid YAML ({error.problem}). {_REMEDY}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: an impossible date
        raise ConfigError(f"{path}: is not valid YAML ({getattr(error, 'reason', error)}). {_REMEDY}") from None
    finally:
        loader.dispose()


def check(paths: Sequence[str | Path]) -> None:
    """Raise ConfigError if files to be merged are unreadable, or if entries of the same name differ in kind."""
    seen: dict[tuple[str, str], tuple[Any, str | Path]] = {}
    mistakes = []
    for path in paths:
        for section, name, tag in _tagged(read(path)):
            other, elsewhere = seen.setdefault((section, name), (tag, path))
            if other != tag:
                key = f"embed.{_TAGS[section]}" if section == "models" else _TAGS[section]
                mistakes.append(
                    f"{section}.{name}.{key}: is '{tag}' in {path} but '{other}' in {elsewhere}, and entries of the "
                    "same name are merged key by key. Give yours another name."
                )
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def _tagged(raw: Any) -> Iterator[tuple[str, str, Any]]:
    """Section, name, and kind or family of every entry that has one."""
    for section, tag in _TAGS.items():
        entries = raw.get(section) if isinstance(raw, Mapping) else None
        for name, entry in entries.items() if isinstance(entries, Mapping) else ():
            holder = entry.get("embed") if section == "models" and isinstance(entry, Mapping) else entry
            if isinstance(holder, Mapping) and tag in holder:
                yield section, name, holder[tag]


def _without_duplicates(pairs: list[tuple[str, Any]], path: str | Path) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(
                f"{path}: '{key}' is duplicated within one pair of braces, and only the last one would count. Merge "
                "the two."
            )
    return dict(pairs)


def _mistakes(node: Any, place: str, seen: set[int]) -> Iterator[tuple[int, str]]:
    """Line and message for every duplicate key, and for every number that is not read in base 10."""
    if id(node) in seen:  # reused through an anchor
        return
    seen.add(id(node))
    below = f"{place}." if place else ""
    if isinstance(node, yaml.ScalarNode):
        yield from _misread(node, place)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _mistakes(item, f"{below}{number}", seen)
    elif isinstance(node, yaml.MappingNode):
        first: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            name, line = f"{below}{key.value if isinstance(key, yaml.ScalarNode) else '?'}", key.start_mark.line + 1
            if value.value != "":  # not the rest of a number, as in `{queries: 1,000}`: that is rejected as a key
                yield from _mistakes(key, name, seen)
            if isinstance(key, yaml.ScalarNode) and not key.tag.endswith(":merge"):
                if (key.tag, key.value) in first:
                    yield (
                        line,
                        f"{name}: duplicates line {first[key.tag, key.value]}, and YAML keeps only the last of the "
                        "two. Merge them into one block.",
                    )
                first.setdefault((key.tag, key.value), line)
            yield from _mistakes(value, name, seen)


def _misread(node: yaml.ScalarNode, place: str) -> Iterator[tuple[int, str]]:
    """A plain number with colons or a leading zero, which YAML 1.1 reads in base 60 or 8."""
    if node.style is None and node.tag.endswith((":int", ":float")):
        base = 60 if ":" in node.value else 8 if _OCTAL.fullmatch(node.value) else 10
        if base != 10:
            number = yaml.safe_load(node.value)
            yield (
                node.start_mark.line + 1,
                f"{place}: YAML reads {node.value} as a number in base {base}: {number}. Write the number in plain "
                f'decimal digits, or put the text in quotes: "{node.value}".',
            )
