"""A user's own images: a folder of references and, optionally, a folder of queries and their true matches."""

import csv
import hashlib
import logging
import os
import stat
import unicodedata
from collections import deque
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from lookalike.config.datasets import Folder
from lookalike.io import archives
from lookalike.io.extensions import EXTENSIONS
from lookalike.io.formats.tables import BY, IMAGES, TRUTH
from lookalike.job.errors import LookalikeError, did_you_mean
from lookalike.sample import collection, folder_archives, left_out
from lookalike.sample.folder_archives import Inside
from lookalike.sample.left_out import LeftOut

log = logging.getLogger(__name__)

CheckHeader = Callable[[list[str], str, str], None]
WHERE_PATHS_START = "Check the path: relative paths start at the folder where snakemake is run."

NAMES = {"root": "the root", "queries": "the folder of queries", "training": "the folder of training images"}
NOT_UTF_8 = "names that are not valid UTF-8 (rename them)"
ROLES = {"root": "reference", "queries": "query", "training": "training"}


def sample(entry: Folder, where: str, skipped: dict[str, LeftOut] | None = None) -> tuple[pa.Table, pa.Table]:
    """List the images and the true matches: an IMAGES and a TRUTH table.

    ``where`` is ``datasets.NAME``, for messages; what is left out of each folder is put into ``skipped``. Ids are paths
    relative to ``root``, or to ``queries`` or ``training``.
    Raises LookalikeError for a missing or empty folder, a duplicate id, or a truth file that does not match.
    """
    if entry.truth is not None and entry.queries is None:
        raise LookalikeError(f"{where}.truth: requires queries. Set 'queries' to their folder, or remove 'truth'.")
    folders = {key: folder for key in ROLES if (folder := getattr(entry, key)) is not None}
    real = {key: existing(folder, f"{where}.{key}") for key, folder in folders.items()}
    for one, other in combinations(folders, 2):
        if real[one] == real[other]:
            raise LookalikeError(
                f"{where}.{other}: '{folders[other]}' is also {NAMES[one]}. "
                f"Move the {_images_of(other)} to a separate folder."
            )
    # one folder inside another: each image belongs to the innermost only
    inside = {key: Inside() for key in folders}
    found = {
        key: _images(folder, f"{where}.{key}", frozenset(real.values()) - {real[key]}, inside[key], skipped)
        for key, folder in folders.items()
    }
    for one, other in combinations(folders, 2):
        if twice := next((image_id for image_id in found[other] if image_id in found[one]), None):
            raise LookalikeError(
                f"{where}.{other}: '{twice}' is both in {one} ('{folders[one]}') and in {other} ('{folders[other]}'), "
                "and every id, the path inside its folder, must be unique. Rename one of the two, or move all "
                f"{_images_of(other)} into a sub-folder of '{folders[other]}'."
            )
    if entry.truth is None and entry.queries:
        log.warning("%s: there is no truth file, so the queries have no true matches", where)
    pairs = _truth(entry.truth, f"{where}.truth", entry, found["root"], found["queries"]) if entry.truth else []
    known = {image_id: size for sizes in found.values() for image_id, size in sizes.items()}
    if entry.sample is not None and entry.sample < len(found["root"]):
        matches = {pair["reference_id"] for pair in pairs}
        found["root"] = _sampled(entry.sample, found["root"], matches, f"{where}.sample")
    images = pa.concat_tables(_table(folder, found[key], inside[key], ROLES[key]) for key, folder in folders.items())
    if captions := {image_id: texts for one in inside.values() for image_id, texts in one.captions.items()}:
        cells = [captions.get(image_id, []) for image_id in images["image_id"].to_pylist()]
        images = images.append_column("captions", pa.array(cells, pa.list_(pa.string())))
    if entry.about:
        about, columns = _about(entry.about, f"{where}.about", entry, known)
        rows = [about.get(image_id, {}) for image_id in images["image_id"].to_pylist()]
        for column in columns:
            images = images.append_column(column, pa.array([row.get(column) for row in rows], pa.string()))
    if entry.queries is None:
        images = collection.complete(images, entry, where)
    return images, pa.Table.from_pylist(pairs, schema=TRUTH.schema())


def check(entry: Folder, where: str) -> None:
    """Raise LookalikeError where a folder or table of the entry is missing; ``where`` is as in ``sample``."""
    for name in ROLES:
        if (folder := getattr(entry, name)) is not None:
            existing(folder, f"{where}.{name}")
    for name, check_header in (("truth", _check_truth_header), ("about", _check_about_header)):
        if (table := getattr(entry, name)) is not None:
            next(_lines(table, f"{where}.{name}", check_header), None)


def _sampled(wanted: int, references: dict[str, int], matches: set[str], where: str) -> dict[str, int]:
    """``wanted`` references: all true matches, then those whose ids have the smallest hashes.

    So the choice is random but reproducible, and a larger sample contains every smaller one.
    """
    if wanted < len(matches):
        raise LookalikeError(
            f"{where}: is {wanted}, but {len(matches)} references are true matches of queries. "
            f"Set sample to {len(matches)} or more."
        )
    order = sorted(references, key=lambda one: (one not in matches, hashlib.sha256(f"sample {one}".encode()).digest()))
    log.info("%s: %s of %s references are sampled", where, f"{wanted:,}", f"{len(references):,}")
    return {image_id: references[image_id] for image_id in sorted(order[:wanted])}


def _images_of(key: str) -> str:
    return "training images" if key == "training" else key


def _table(root: str, sizes: dict[str, int], inside: Inside, role: str) -> pa.Table:
    """The IMAGES table of one folder, by columns: a row as a mapping would take half a kilobyte."""
    number = len(sizes)
    columns = {
        "image_id": list(sizes),
        **{one: [one == role] * number for one in ROLES.values()},
        "root": [root] * number,
        "path": [inside.paths.get(image_id, image_id) for image_id in sizes],
        "bytes": list(sizes.values()),
        "group": pa.nulls(number, pa.string()),
    }
    return pa.table(columns, IMAGES.schema())


def existing(folder: str, where: str) -> str:
    """The folder's real path. Raises LookalikeError for one that is missing, or whose name is not UTF-8."""
    check_name(folder, where)
    if not Path(folder).exists():
        raise LookalikeError(f"{where}: the folder '{folder}' does not exist. {WHERE_PATHS_START}")
    if not Path(folder).is_dir():
        raise LookalikeError(f"{where}: '{folder}' is a file, not a folder. Set it to the folder with the images.")
    return os.path.realpath(folder)


def list_images(folder: str, where: str, skipped: dict[str, LeftOut] | None = None) -> tuple[dict[str, int], Inside]:
    """Size in bytes of every image in and below ``folder``, by id, sorted, and what is known of those in archives.

    ``where`` names the place in messages; what is left out is put into ``skipped``. Raises LookalikeError for a folder
    that is missing, empty or unreadable, and for an archive that cannot be read.
    """
    existing(folder, where)
    inside = Inside()
    return _images(folder, where, frozenset(), inside, skipped), inside


def _images(
    folder: str, where: str, others: frozenset[str], inside: Inside, skipped: dict[str, LeftOut] | None
) -> dict[str, int]:
    """Size in bytes of every image in and below ``folder``, by id, sorted; ``others`` are not entered."""
    odd = LeftOut()
    found = dict(sorted(_walk(folder, where, others, inside, odd)))
    for line in odd.lines():
        log.info("%s: left out: %s", folder, line)
    if not found:
        rest = f" Left out: {'; '.join(odd.lines())}." if odd.counts else ""
        raise LookalikeError(f"{where}: '{folder}' contains no images (looked for {', '.join(EXTENSIONS)}).{rest}")
    if skipped is not None:
        skipped[folder] = odd
    return found


class File(NamedTuple):
    """An image or an archive in a folder: its id, its path, and its size in bytes."""

    id: str
    path: str
    size: int


def _walk(root: str, where: str, others: frozenset[str], inside: Inside, odd: LeftOut) -> Iterator[tuple[str, int]]:
    """Yield id and size of the images below ``root``, and of those in zip and tar archives there."""
    for file in files(root, where, others, odd):
        if file.id.lower().endswith(archives.EXTENSIONS):
            yield from folder_archives.images_of(file.path, file.id, where, inside, odd)
        else:
            yield file.id, file.size


def files(root: str, where: str, others: frozenset[str] = frozenset(), odd: LeftOut | None = None) -> Iterator[File]:
    """Yield the images and archives below ``root``; ``odd`` collects what is left out.

    Links are followed, but each folder is listed once: at its real path if that is below ``root``, else by the first
    link to it. So symlink cycles end, and links between folders do not multiply.
    """
    odd = odd or LeftOut()
    folders = [(root, "", os.path.realpath(root))]  # the path it was found at, the prefix of its ids, its real path
    links: deque[tuple[str, str, str]] = deque()
    listed = set(others)
    while folders or links:
        folder, prefix, real = folders.pop() if folders else links.popleft()
        if real in listed:
            if real not in others:
                odd.add("links to folders that are already listed", prefix)
            continue
        listed.add(real)
        parent = prefix[:-1].rpartition("/")[2] if prefix else Path(root).name
        for entry in _entries(folder, where):
            image_id = prefix + entry.name
            is_folder = _is_folder(entry)
            reason = left_out.why(entry.name, parent)
            if not _is_utf8(entry.name):
                reason, image_id = NOT_UTF_8, _shown(image_id)
            if reason:
                odd.add(reason, f"{image_id}/" if is_folder else image_id)
            elif is_folder:
                if entry.is_symlink():
                    links.append((entry.path, f"{image_id}/", os.path.realpath(entry.path)))
                else:
                    folders.append((entry.path, f"{image_id}/", os.path.join(real, entry.name)))  # noqa: PTH118
            elif not entry.name.lower().endswith((*EXTENSIONS, *archives.EXTENSIONS)):
                odd.add_extension(image_id)
            elif (size := _size(entry, folder, where)) is None:
                odd.add("broken links, and other things that are not regular files", image_id)
            else:
                yield File(image_id, entry.path, size)


def _entries(folder: str, where: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise _unreadable(folder, where, error) from None


def _unreadable(folder: str, where: str, error: OSError) -> LookalikeError:
    return LookalikeError(
        f"{where}: the folder '{folder}' cannot be read ({error.strerror}). "
        "Grant yourself permission to read it, or move it out."
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symlink cycle
        return False


def _size(entry: os.DirEntry[str], folder: str, where: str) -> int | None:
    """In bytes; None for what is not a regular file. Where permission is denied, it is the folder's."""
    try:
        now = entry.stat()
    except PermissionError as error:
        if not entry.is_symlink():
            raise _unreadable(folder, where, error) from None
        return None
    except OSError:
        return None
    return now.st_size if stat.S_ISREG(now.st_mode) else None


def check_name(path: str, where: str) -> None:
    """Raise LookalikeError for a path that is not valid UTF-8, which no table can hold."""
    if not _is_utf8(path):
        raise LookalikeError(f"{where}: the name '{_shown(path)}' is not valid UTF-8. Rename the file or folder.")


def _is_utf8(name: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _shown(name: str) -> str:
    return name.encode(errors="backslashreplace").decode().replace(r"\udc", r"\x")  # the bytes, such as \xff


def _truth(
    path: str, where: str, entry: Folder, references: dict[str, int], queries: dict[str, int]
) -> list[dict[str, str]]:
    """Read and check the CSV of true matches. A query without a match has no row, or an empty reference_id."""
    first_lines: dict[tuple[str, str], int] = {}
    without: dict[str, int] = {}
    for line, cells in _lines(path, where, _check_truth_header):
        place = f"{where}: {path}, line {line}"
        query_id, reference_id = cells["query_id"], cells["reference_id"]
        if query_id not in queries:
            raise LookalikeError(
                f"{place}: query_id '{query_id}' is not in queries.{_nearest(query_id, queries, entry.queries)}"
            )
        if not reference_id:
            without.setdefault(query_id, line)
            continue
        if reference_id not in references:
            raise LookalikeError(
                f"{place}: reference_id '{reference_id}' is not in root."
                f"{_nearest(reference_id, references, entry.root)}"
            )
        first = first_lines.setdefault((query_id, reference_id), line)
        if first != line:
            raise LookalikeError(f"{place}: duplicates line {first}. Delete one of the two.")
    for (query_id, _), line in first_lines.items():
        if query_id in without:
            raise LookalikeError(
                f"{where}: {path}: '{query_id}' has a match in line {line}, and none in line {without[query_id]}. "
                "Delete one of the two."
            )
    return [{"query_id": query_id, "reference_id": reference_id} for query_id, reference_id in first_lines]


def _about(
    path: str, where: str, entry: Folder, images: dict[str, int]
) -> tuple[dict[str, dict[str, str | None]], tuple[str, ...]]:
    """Read the CSV of what is known of images: cells by id and column, and the columns' names in the images table.

    An image that has no row, and an empty cell, are unknown.
    """
    found: dict[str, dict[str, str | None]] = {}
    first_lines: dict[str, int] = {}
    columns: dict[str, None] = {}
    for line, cells in _lines(path, where, _check_about_header):
        place = f"{where}: {path}, line {line}"
        image_id = cells.pop("image_id")
        if image_id not in images:
            raise LookalikeError(
                f"{place}: image_id '{image_id}' is in none of the folders.{_nearest(image_id, images, entry.root)}"
            )
        if first_lines.setdefault(image_id, line) != line:
            raise LookalikeError(f"{place}: '{image_id}' is in line {first_lines[image_id]} already. Delete one.")
        found[image_id] = {
            column if column == "scene" else f"{BY}{column}": cell or None for column, cell in cells.items()
        }
        columns.update(dict.fromkeys(found[image_id]))
    return found, tuple(columns)


def _lines(path: str, where: str, check_header: CheckHeader) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number of the line and the cells by column of every row of a CSV file that is not blank."""
    try:
        # csv, since it knows the line that a row is on; utf-8-sig, since spreadsheets write a byte order mark
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            header = next(rows, [])
            check_header(header, path, where)
            for row in rows:
                if not any(row):
                    continue
                if len(row) != len(header):
                    raise LookalikeError(
                        f"{where}: {path}, line {rows.line_num}: has {len(row)} cells, expected {len(header)}. "
                        "Put names that contain a comma in double quotes."
                    )
                yield rows.line_num, dict(zip(header, row, strict=True))
    except FileNotFoundError:
        raise LookalikeError(f"{where}: the file '{path}' does not exist. {WHERE_PATHS_START}") from None
    except OSError as error:
        raise LookalikeError(
            f"{where}: the file '{path}' cannot be read ({error.strerror}). Check its permissions."
        ) from None
    except UnicodeDecodeError:
        raise LookalikeError(f"{where}: {path} is not UTF-8 text. Save it as CSV (UTF-8).") from None
    except csv.Error as error:
        raise LookalikeError(
            f"{where}: {path}, line {rows.line_num}: is not valid CSV ({error}). Fix this line."
        ) from None


def _check_about_header(header: list[str], path: str, where: str) -> None:
    others = [column for column in header if column != "image_id"]
    if len(others) + 1 != len(header) or not all(others) or not others or len(set(others)) < len(others):
        raise LookalikeError(
            f"{where}: {path}, line 1: has the columns '{','.join(header)}'. The first line must name image_id and at "
            "least one more column, each once."
        )


def _check_truth_header(header: list[str], path: str, where: str) -> None:
    expected = list(TRUTH.columns)
    for column in header:
        if column not in expected:
            raise LookalikeError(
                f"{where}: {path}, line 1: unknown column '{column}'.{did_you_mean(column, expected)} "
                f"The first line must be: {','.join(expected)}"
            )
    if sorted(header) != sorted(expected):
        raise LookalikeError(
            f"{where}: {path}, line 1: has the columns '{','.join(header)}'. "
            f"The first line must be: {','.join(expected)}"
        )


def _nearest(word: str, ids: dict[str, int], folder: str | None) -> str:
    """A suggestion, or an example of an id: a list of all of them would help nobody."""
    for image_id in ids:
        if unicodedata.normalize("NFC", image_id) == unicodedata.normalize("NFC", word):
            return (
                f" '{image_id}' looks the same, but is written with other Unicode characters (composed or decomposed, "
                "as macOS does). Copy the name from the folder's listing."
            )
    close = get_close_matches(word, ids, n=1, cutoff=0.6)
    if close:
        return f" Did you mean '{close[0]}'?"
    return f" Ids are paths inside '{folder}', for example '{next(iter(ids))}'."
