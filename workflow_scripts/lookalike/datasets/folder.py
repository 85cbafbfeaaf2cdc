"""Anybody's pictures: a folder of references, and, where there are any, a folder of queries and their true matches."""

import csv
import hashlib
import logging
import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import pyarrow as pa

from lookalike.config import Folder
from lookalike.errors import LookalikeError, did_you_mean
from lookalike.formats import IMAGES, TRUTH
from lookalike.images import EXTENSIONS

log = logging.getLogger(__name__)

WHERE_PATHS_START = "Check the path: relative paths start at the folder where snakemake is run."


@dataclass
class LeftOut:
    """Files that are no pictures of the data set, counted by why; nothing is left out in silence."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, why: str, path: str) -> None:
        """Count one."""
        self.counts[why] = self.counts.get(why, 0) + 1
        self.examples.setdefault(why, path)

    def log(self, folder: str) -> None:
        """Say what was left out, one line a reason."""
        for why, number in self.counts.items():
            log.info("%s: %d %s left out, e.g. %s", folder, number, why, self.examples[why])


def sample(entry: Folder, where: str) -> tuple[pa.Table, pa.Table]:
    """List the pictures and the true matches: an IMAGES and a TRUTH table.

    ``where`` is ``datasets.NAME``, for messages. Ids are paths relative to ``root``, or to ``queries``. Raises
    LookalikeError for a missing or empty folder, an id that is taken twice, or a truth file that does not fit.
    """
    if entry.truth is not None and entry.queries is None:
        raise LookalikeError(
            f"{where}.truth: there are no queries. Name their folder with 'queries', or remove 'truth'."
        )
    root = _existing(entry.root, f"{where}.root")
    if entry.queries is None:
        references, queries = _pictures(entry.root, f"{where}.root"), {}
    else:
        queries_root = _existing(entry.queries, f"{where}.queries")
        if root == queries_root:
            raise LookalikeError(
                f"{where}.queries: '{entry.queries}' is also the root. Put the queries into a folder of their own."
            )
        # one folder inside the other: each picture belongs to the inner one only
        references = _pictures(entry.root, f"{where}.root", leave_out=queries_root)
        queries = _pictures(entry.queries, f"{where}.queries", leave_out=root)
    for image_id in queries:
        if image_id in references:
            raise LookalikeError(
                f"{where}.queries: '{image_id}' is both in root ('{entry.root}') and in queries ('{entry.queries}'), "
                "and every id, the path inside its folder, must be unique. Rename one of the two, or move all queries "
                f"into a sub-folder of '{entry.queries}'."
            )
    rows = [_row(entry.root, image_id, size, query=False) for image_id, size in references.items()]
    rows += [_row(str(entry.queries), image_id, size, query=True) for image_id, size in queries.items()]
    if entry.truth is None and queries:
        log.warning("%s: there is no truth file, so the queries have no true matches", where)
    pairs = _truth(entry.truth, f"{where}.truth", entry, references, queries) if entry.truth is not None else []
    if entry.sample is not None and entry.sample < len(references):
        chosen = _sampled(entry.sample, references, {pair["reference_id"] for pair in pairs}, f"{where}.sample")
        rows = [row for row in rows if row["query"] or row["image_id"] in chosen]
    return pa.Table.from_pylist(rows, schema=IMAGES.schema()), pa.Table.from_pylist(pairs, schema=TRUTH.schema())


def _sampled(wanted: int, references: dict[str, int], matches: set[str], where: str) -> set[str]:
    """So many references: all true matches, and of the others those whose ids have the smallest hashes.

    So the choice is random, yet always the same, and a larger sample contains every smaller one.
    """
    if wanted < len(matches):
        raise LookalikeError(
            f"{where}: {wanted} references are to be taken, but {len(matches)} are true matches of queries. "
            f"Set sample to {len(matches)} or more."
        )
    order = sorted(references, key=lambda one: (one not in matches, hashlib.sha256(f"sample {one}".encode()).digest()))
    log.info("%s: %s of %s references are taken", where, f"{wanted:,}", f"{len(references):,}")
    return set(order[:wanted])


def _row(root: str, image_id: str, size: int, *, query: bool) -> dict[str, str | bool | int | None]:
    return {
        "image_id": image_id,
        "reference": not query,
        "query": query,
        "training": False,
        "root": root,
        "path": image_id,
        "bytes": size,
        "group": None,
    }


def _existing(folder: str, where: str) -> Path:
    """The folder's real path."""
    if not Path(folder).exists():
        raise LookalikeError(f"{where}: the folder '{folder}' does not exist. {WHERE_PATHS_START}")
    if not Path(folder).is_dir():
        raise LookalikeError(f"{where}: '{folder}' is a file, not a folder. Name the folder that holds the pictures.")
    return Path(folder).resolve()


def pictures(folder: str, where: str) -> dict[str, int]:
    """Size in bytes of every picture in and below ``folder``, by its path inside, sorted.

    ``where`` names the place in messages. Raises LookalikeError for a folder that is missing, empty or unreadable.
    """
    _existing(folder, where)
    return _pictures(folder, where)


@dataclass
class Search:
    """A search for pictures: which folder is another's, what was left out, and how messages name the place."""

    where: str
    leave_out: Path | None = None
    left_out: LeftOut = field(default_factory=LeftOut)


def _pictures(folder: str, where: str, leave_out: Path | None = None) -> dict[str, int]:
    """Size in bytes of every picture in and below ``folder``, by id, sorted."""
    search = Search(where, leave_out)
    found = dict(sorted(_walk(search, folder, "", (Path(folder).resolve(),))))
    search.left_out.log(folder)
    if not found:
        raise LookalikeError(f"{where}: '{folder}' holds no pictures (looked for {', '.join(EXTENSIONS)}).")
    return found


def _walk(search: Search, folder: str, prefix: str, above: tuple[Path, ...]) -> Iterator[tuple[str, int]]:
    """Yield id and size of the pictures below ``folder``. Links are followed, but never into a folder ``above``."""
    try:
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise LookalikeError(
            f"{search.where}: the folder '{folder}' cannot be read ({error.strerror}). Give yourself the right to read "
            "it, or move it out."
        ) from None
    for entry in listed:
        image_id = prefix + entry.name
        if entry.name.startswith("."):
            search.left_out.add("hidden files and folders", image_id)
        elif entry.is_dir():
            real = Path(entry.path).resolve()
            if real in above:
                search.left_out.add("links to a folder that they are in themselves", image_id)
            elif real != search.leave_out:
                yield from _walk(search, entry.path, f"{image_id}/", (*above, real))
        elif not entry.name.lower().endswith(EXTENSIONS):
            search.left_out.add("files with other extensions", image_id)
        elif not entry.is_file():
            search.left_out.add("links that lead nowhere, and other things that are no files,", image_id)
        else:
            yield _utf8(image_id, search.where), entry.stat().st_size


def _utf8(image_id: str, where: str) -> str:
    try:
        image_id.encode()
    except UnicodeEncodeError:
        raise LookalikeError(f"{where}: the file name {image_id!r} is not valid UTF-8. Rename the file.") from None
    return image_id


def _truth(
    path: str, where: str, entry: Folder, references: dict[str, int], queries: dict[str, int]
) -> list[dict[str, str]]:
    """Read and check the CSV of true matches. A query without a match has no row, or an empty reference_id."""
    first_lines: dict[tuple[str, str], int] = {}
    without: dict[str, int] = {}
    for line, query_id, reference_id in _truth_lines(path, where):
        place = f"{where}: {path}, line {line}"
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
            raise LookalikeError(f"{place}: says the same as line {first}. Delete one of the two.")
    for (query_id, _), line in first_lines.items():
        if query_id in without:
            raise LookalikeError(
                f"{where}: {path}: '{query_id}' has a match in line {line}, and none in line {without[query_id]}. "
                "Delete one of the two."
            )
    return [{"query_id": query_id, "reference_id": reference_id} for query_id, reference_id in first_lines]


def _truth_lines(path: str, where: str) -> Iterator[tuple[int, str, str]]:
    """Yield the number of the line and both cells of every row that is not blank."""
    expected = list(TRUTH.columns)
    try:
        # csv, since it knows the line that a row is on; utf-8-sig, since spreadsheets write a byte order mark
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            header = next(rows, [])
            _check_header(header, path, where)
            for row in rows:
                if not any(row):
                    continue
                if len(row) != len(header):
                    raise LookalikeError(
                        f"{where}: {path}, line {rows.line_num}: has {len(row)} cells, expected {len(header)}. "
                        "Put a name that holds a comma into double quotes."
                    )
                cells = dict(zip(header, row, strict=True))
                yield rows.line_num, cells[expected[0]], cells[expected[1]]
    except FileNotFoundError:
        raise LookalikeError(f"{where}: the file '{path}' does not exist. {WHERE_PATHS_START}") from None
    except OSError as error:
        raise LookalikeError(f"{where}: the file '{path}' cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise LookalikeError(f"{where}: {path} is not UTF-8 text. Save it as CSV (UTF-8).") from None
    except csv.Error as error:
        raise LookalikeError(f"{where}: {path}, line {rows.line_num}: is not valid CSV ({error}).") from None


def _check_header(header: list[str], path: str, where: str) -> None:
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
