"""DISC21: altered copies, with distractors among them, and a million references to search (docs/disc21.md)."""

import csv
import logging
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.config.datasets import GROUND_TRUTH, Disc21, Selection
from lookalike.io.formats.tables import TRUTH
from lookalike.job.errors import LookalikeError
from lookalike.sample import published
from lookalike.sample.found import FoundParts, Part, Source, shortened
from lookalike.sample.published import Listing

log = logging.getLogger(__name__)

SOURCE = Source(
    title="DISC21",
    publisher="Meta AI (agree to its licence there; 350 GB in all, less for an entry that takes a part)",
    page="https://ai.meta.com/datasets/disc21-dataset/",
    licence="for research, not commercial (CC BY-NC); each image also has terms of its own",
    docs="docs/disc21.md",
)


@dataclass(frozen=True)
class Kind:
    """A part as it is published: the names of its folders, archives and images."""

    names: re.Pattern[str]
    images: re.Pattern[str]
    spell: str
    numbers: range
    archives: str  # what its archives are called, for people
    folder: str

    def fetch(self, first: int | None = None) -> str:
        """What to put there; ``first`` is the number of images, where only the first ones are needed."""
        per_archive = 50_000
        total = len(self.numbers) // per_archive
        needed = -(-first // per_archive) if first else total
        some = f"all {total}" if needed == total else "the first" if needed == 1 else f"the first {needed}"
        which = self.archives if total == 1 else f"{some} of the archives {self.archives}"
        as_are = "as it is" if total == 1 or needed == 1 else "as they are"
        return f"put {which} there, {as_are}, or a folder {self.folder}/ with the images"


def _kind(names: str, ids: str, images: range, *, archives: str, folder: str) -> Kind:
    return Kind(
        names=re.compile(rf"(?:{names}|images)(?:[_-]\w+)*", re.IGNORECASE),
        images=re.compile(rf"({ids}){published.JPEG}"),
        spell=f"{ids[0]}{{:0{len(str(images.stop - 1))}d}}",
        numbers=images,
        archives=archives,
        folder=folder,
    )


# The queries of both sets may be in one folder: their numbers tell them apart.
KINDS = {
    "references": _kind(
        "refs?|references?", r"R\d{6}", range(1_000_000), archives="refs_50k_*.zip", folder="references"
    ),
    "development queries": _kind(
        "dev|dev_queries|queries|query",
        r"Q[0-4]\d{4}",
        range(50_000),
        archives="dev_queries_50k_0.zip",
        folder="dev_queries",
    ),
    "test queries": _kind(
        "test|test_queries|final|final_queries|queries|query",
        r"Q[5-9]\d{4}",
        range(50_000, 100_000),
        archives="test_queries_50k_0.zip",
        folder="test_queries",
    ),
    "training": _kind("train|training", r"T\d{6}", range(1_000_000), archives="train_50k_*.zip", folder="train"),
}
QUERIES = {
    "positives": ("development queries",),
    "development": ("development queries",),
    "test": ("test queries",),
    "all": ("development queries", "test queries"),
}
ANY = re.compile(rf"[RQT]\d+{published.JPEG}")  # of any part: they may be in one folder
EXTRAS = re.compile(r".*attributions?.*\.csv|.*\.(?:md|txt|pdf)|licen[cs]e.*", re.IGNORECASE)


@dataclass
class Found(FoundParts):
    """The images of every part that the entry uses (tables of LISTED, by name), and all true pairs."""

    images: dict[str, pa.Table]
    truth: pa.Table


def look(entry: Disc21) -> Found:
    """List the parts that an entry uses, and read the ground truth. Raises LookalikeError for a table that is wrong."""
    published.check_root(entry.root)
    parts: list[Part] = []
    images: dict[str, pa.Table] = {}
    for name, selection in _used(entry).items():
        kind = KINDS[name]
        listing = published.list_images(entry.root, kind.names, kind.images, others=ANY)
        images[name] = listing.images
        parts.append(_part(name, kind, selection, listing))
    files = entry.tables()
    truth = _truth(files)
    lost = [name for name in entry.truth if not (Path(entry.root) / name).is_file()]
    fetch = f"put {' and '.join(lost) or _truth_names(entry)} there" + ("" if lost else " (or set 'truth' to its name)")
    part = published.file_part(
        "ground truth", "true pairs", truth.num_rows, files=[] if lost else files, root=entry.root, fetch=fetch
    )
    known = [*(kind.names for kind in KINDS.values()), EXTRAS, GROUND_TRUTH]
    part.leave_out(published.strays(entry.root, known, files))
    if not part.missing:
        _compare(part, entry, images, truth)
    return Found(SOURCE, entry.root, [*parts, part], images, truth)


def _used(entry: Disc21) -> dict[str, Selection]:
    everything = Selection.model_validate("all")
    used = {"references": entry.references, **dict.fromkeys(QUERIES[entry.queries], everything)}
    return used | ({"training": entry.training} if entry.training else {})


def _part(name: str, kind: Kind, selection: Selection, listing: Listing) -> Part:
    needed = selection.first or selection.sample
    last = kind.spell.format((selection.first or 1) - 1)
    wanted = (
        f"the first {needed:,}" if selection.first else f"{needed:,} at random" if needed else "all that were found"
    )
    part = published.image_part(name, listing, wanted, kind.fetch(selection.first), len(kind.numbers))
    if not part.found:
        return part
    present = published.numbers(listing.images["image_id"])
    if selection.first:
        lacking = published.absent(present, range(selection.first))
        part.missing = ""  # a damaged archive that is not needed is not an error
        if len(lacking):
            damaged = "".join(f"; {line}" for line in listing.damaged)
            part.missing = (
                f"{_absent(lacking, kind)}, of {kind.spell.format(0)} to {last} that are requested{damaged}: "
                f"{kind.fetch(selection.first)}"
            )
        else:
            part.remarks += listing.damaged
    elif len(absent := published.absent(present, kind.numbers)):
        part.absent.append(f"{_absent(absent, kind)}, of what is published")
    if selection.sample and part.found < selection.sample:
        part.missing = (
            f"{selection.sample:,} random images are requested, but only {part.found:,} were found: {kind.fetch()}"
        )
    return part


def _absent(numbers: npt.NDArray[np.int64], kind: Kind) -> str:
    noun = "image" if len(numbers) == 1 else "images"
    return f"{published.as_ranges(numbers, kind.spell)} ({len(numbers):,} {noun})"


def _truth_names(entry: Disc21) -> str:
    names = {"development queries": "dev_queries_groundtruth.csv", "test queries": "test_queries_groundtruth.csv"}
    return " and ".join(names[part] for part in QUERIES[entry.queries])


def _compare(part: Part, entry: Disc21, images: dict[str, pa.Table], truth: pa.Table) -> None:
    """Report where ground truth and images disagree."""
    if not truth.num_rows:
        part.missing = f"no pairs in {shortened(part.places)}: fetch {_truth_names(entry)} again"
        return
    for name in QUERIES[entry.queries]:
        own = _in_range(truth, KINDS[name].numbers)
        if not own.num_rows:
            part.missing = f"no pairs of the {name} in {shortened(part.places)}: put {_truth_names(entry)} there"
            continue
        for column, where in (("query_id", name), ("reference_id", "references")):
            lost = own.filter(pc.invert(pc.is_in(own[column], value_set=_ids(images[where]))))
            beyond = entry.references.first and where == "references"
            if lost.num_rows and not beyond:
                role = column.removesuffix("_id")
                part.absent.append(f"the {role} of {lost.num_rows:,} true pairs of the {name}, e.g. {lost[column][0]}")


def _in_range(truth: pa.Table, numbers: range) -> pa.Table:
    query = published.numbers(truth["query_id"])
    return truth.filter(pa.array((query >= numbers.start) & (query < numbers.stop)))


def _ids(images: pa.Table) -> pa.Array:
    return images["image_id"].combine_chunks()


def choose(entry: Disc21, found: Found) -> tuple[pa.Table, pa.Table]:
    """The IMAGES and TRUTH tables of an entry.

    A true pair counts where both its images are chosen. ``queries: positives`` are the development queries that have
    one; otherwise a query whose true reference was not chosen is kept, without a match.
    """
    references = _selected(found.images["references"], entry.references)
    queries = pa.concat_tables(found.images[name] for name in QUERIES[entry.queries])
    truth = found.truth.filter(
        pc.and_(
            pc.is_in(found.truth["reference_id"], value_set=_ids(references)),
            pc.is_in(found.truth["query_id"], value_set=_ids(queries)),
        )
    )
    if entry.queries == "positives":
        queries = queries.filter(pc.is_in(queries["image_id"], value_set=truth["query_id"].combine_chunks()))
    log.info(
        "%d of the %d true pairs are among the %d selected references and %d queries",
        *(truth.num_rows, found.truth.num_rows, references.num_rows, queries.num_rows),
    )
    images = [
        published.images_table(entry.root, references, reference=True),
        published.images_table(entry.root, queries, query=True),
    ]
    if entry.training:
        training = _selected(found.images["training"], entry.training)
        images.append(published.images_table(entry.root, training, training=True))
    return pa.concat_tables(images), truth


def _selected(images: pa.Table, selection: Selection) -> pa.Table:
    if selection.first:
        return images.slice(0, selection.first)  # in order of ids, and `look` checked that none is missing
    return published.sampled(images, selection.sample, selection.seed) if selection.sample else images


def _truth(files: list[str]) -> pa.Table:
    """The true pairs of all files, each once. Raises LookalikeError for a file in neither format."""
    pairs: dict[tuple[str, str], str] = {}
    without: dict[str, str] = {}
    for file in files:
        for line, query, reference in _rows(file):
            if reference:
                pairs.setdefault((query, reference), f"{file}, line {line}")
            else:
                without.setdefault(query, f"{file}, line {line}")
    for (query, _), place in pairs.items():
        if query in without:
            raise LookalikeError(
                f"{place}: '{query}' has a match in this file, but none in {without[query]}. Keep one of the two, or "
                "set 'truth' to the right file."
            )
    return pa.table(
        {"query_id": [query for query, _ in pairs], "reference_id": [reference for _, reference in pairs]},
        schema=TRUTH.schema(),
    )


def _rows(file: str) -> list[tuple[int, str, str]]:
    """Line, query and reference ("" where there is no match) of every row, in either format.

    One has the header ``query_id,reference_id`` and a row for each query; the other has no header, and positives only.
    Spreadsheets write semicolons or tabs between them, and some copies name the files, with ``.jpg``.
    """
    text = published.read_text(file)
    first = text.partition("\n")[0]
    delimiter = next((one for one in ";\t" if one in first and "," not in first), ",")
    rows: list[tuple[int, str, str]] = []
    for line, cells in enumerate(csv.reader(text.splitlines(), delimiter=delimiter), start=1):
        row = [re.sub(rf"{published.JPEG}$", "", cell.strip()) for cell in cells]
        if not any(row) or (line == 1 and row == ["query_id", "reference_id"]):
            continue
        known = len(row) == 2 and re.fullmatch(r"Q\d{5}", row[0]) and re.fullmatch(r"(R\d{6})?", row[1])
        if not known:
            raise LookalikeError(
                f"{file}, line {line}: is '{delimiter.join(cells)}', expected a query and its reference, such as "
                "Q00005,R012345, or Q00006, where there is no match. Fetch the file again, or set 'truth' to the "
                "right one."
            )
        rows.append((line, row[0], row[1]))
    return rows
