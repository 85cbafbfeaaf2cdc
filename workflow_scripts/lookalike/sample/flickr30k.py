"""Flickr30k: photographs of everyday scenes, with five captions each (docs/flickr30k.md).

Every image of the sample is a reference and a query; nothing is known of true matches.
"""

import csv
import io
import json
import logging
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from lookalike.config.datasets import CAPTIONS, Flickr30k
from lookalike.io import archives
from lookalike.io.formats.tables import TRUTH
from lookalike.job.errors import LookalikeError
from lookalike.sample import published
from lookalike.sample.found import FoundImages, Part, Source
from lookalike.sample.left_out import LeftOut

log = logging.getLogger(__name__)

SOURCE = Source(
    title="Flickr30k",
    publisher="its authors (fill in their form)",
    page="https://shannon.cs.illinois.edu/DenotationGraph/",
    licence="for research and education, not commercial; the images are subject to the terms of Flickr",
    docs="docs/flickr30k.md",
)
NAMES = re.compile(r"flickr30k[-_]images|images", re.IGNORECASE)
FILE_NAMES = re.compile(rf"(\d+){published.JPEG}")
ENDING = ".jpg"  # of ids: as in the published file names
OTHERS = re.compile(
    r"readme.*|flickr30k(?:.*\.(?:tgz|tar\.\w+))?|results.*|captions\.txt|dataset_flickr30k\.json|flickr_annotations_30k\.csv",
    re.IGNORECASE,
)
TOKEN = re.compile(r"(?P<image>[^#\t]+)#(?P<number>\d+)\t(?P<text>.*)")
# One row of the CSV in circulation lacks its second bar, so spaces are accepted too.
CSV = re.compile(r"(?P<image>[^|]+)\|\s*(?P<number>\d+)\s*(?:\||\s)(?P<text>.*)")
HEADER = re.compile(r"image_name\|\s*comment_number\|\s*comment\s*")
COMMAS = (["image_name", "comment_number", "comment"], ["image", "caption"])  # headers of CSV files with commas
SPLITS = {"filename", "raw"}  # columns of the table of Karpathy's splits that count
AGAIN = "Fetch the file again, or set 'captions' to the right one."

Row = tuple[str, int, str]  # image, number of the caption, caption
Captions = dict[str, list[str]]  # of each image, in the order of their numbers


def look(entry: Flickr30k) -> FoundImages:
    """List the images and read the captions. Raises LookalikeError for a captions file that is wrong."""
    published.check_root(entry.root)
    files = entry.tables()
    listing = published.list_images(entry.root, NAMES, FILE_NAMES, ending=ENDING, tables=files)
    wanted = f"{entry.sample:,} at random" if entry.sample else "all that were found"
    packed = sorted(
        path.name for path in Path(entry.root).glob("flickr30k*images*") if archives.COMPRESSED.fullmatch(path.name)
    )
    fetch = (
        f"unpack {packed[0]} there (tar xf {packed[0]}): in a compressed tar, no image can be read in place"
        if packed
        else "put the folder flickr30k-images/ there, or flickr30k-images.zip or .tar as it is"
    )
    part = published.image_part("images", listing, wanted, fetch)
    if part.found and entry.sample and part.found < entry.sample:
        part.missing = f"{entry.sample:,} random images are requested, but only {part.found:,} were found: {fetch}"
    captions = _captions(files[0]) if files else {}
    name = entry.captions or f"{', '.join(CAPTIONS[:-1])} or {CAPTIONS[-1]}"
    count = sum(map(len, captions.values()))
    text = published.file_part("captions", "captions", count, files=files, root=entry.root, fetch=f"put {name} there")
    text.leave_out(published.strays(entry.root, [NAMES, OTHERS], files))
    _compare(part, text, entry, listing.images, captions)
    return FoundImages(SOURCE, entry.root, [part, text], listing.images, captions)


def _compare(part: Part, text: Part, entry: Flickr30k, images: pa.Table, captions: Captions) -> None:
    """Report where images, captions and the images that are always shown disagree."""
    odd = LeftOut()
    ids = set(images["image_id"].to_pylist())
    if part.found and captions:
        for image_id in sorted(ids - captions.keys()):
            odd.add("images without captions", image_id)
        for image_id in sorted(captions.keys() - ids):
            odd.add("captions without images", image_id)
        text.remarks += odd.lines()
    if part.found and (lost := [name for name in entry.always if name not in ids]):
        part.absent.append(f"{', '.join(lost)}, listed in 'always'")


def choose(entry: Flickr30k, found: FoundImages) -> tuple[pa.Table, pa.Table]:
    """The IMAGES table, with the columns ``captions`` and ``showcase``, and an empty TRUTH table."""
    images = found.images
    if entry.sample:
        images = published.sampled(images, entry.sample, entry.seed, entry.always)
    captions = [found.texts.get(image_id, []) for image_id in images["image_id"].to_pylist()]
    images = published.images_table(
        entry.root,
        images,
        reference=True,
        query=True,
        captions=pa.array(captions, pa.list_(pa.string())),
        showcase=pc.is_in(images["image_id"], value_set=pa.array(entry.always, pa.string())),
    )
    return images, TRUTH.schema().empty_table()


def _captions(file: str) -> Captions:
    """Captions by image, from any of the files in circulation. Raises LookalikeError for others and empty ones."""
    text = published.read_text(file)
    first = text.partition("\n")[0].strip()
    header = [cell.strip() for cell in first.split(",")]
    if file.lower().endswith(".json"):
        rows = _from_json(file, text)
    elif set(header) >= SPLITS or header in COMMAS:
        rows = _from_table(file, text, header)
    else:
        rows = _from_lines(file, text, is_csv=bool(HEADER.fullmatch(first)))
    numbered: dict[str, list[tuple[int, str]]] = {}
    for image, number, caption in rows:
        image_id = published.image_id(image.strip().strip('"'), FILE_NAMES, ENDING)
        numbered.setdefault(image_id, []).append((number, caption.strip()))
    if not numbered:
        raise LookalikeError(f"{file}: contains no captions. {AGAIN}")
    return {image: [caption for _, caption in sorted(texts)] for image, texts in numbered.items()}


def _from_lines(file: str, text: str, *, is_csv: bool) -> Iterator[Row]:
    """Rows of a ``.token`` file, or of a CSV with bars."""
    pattern = CSV if is_csv else TOKEN
    expected = "1000.jpg| 0| A dog runs." if is_csv else "1000.jpg#0<TAB>A dog runs."
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip("\r")
        if not stripped.strip() or (is_csv and number == 1):
            continue
        if not (match := pattern.fullmatch(stripped)):
            raise _odd_line(file, number, stripped, expected)
        yield match["image"], int(match["number"]), match["text"]


def _from_table(file: str, text: str, header: list[str]) -> Iterator[Row]:
    """Rows of a CSV with commas: a caption a row, or all of an image's as a JSON list in ``raw``.

    A caption with commas may lack quotes, since it is the last cell.
    """
    counts = Counter[str]()
    lines = csv.reader(io.StringIO(text, newline=""))
    next(lines)
    for cells in lines:
        if not cells:
            continue
        try:
            if set(header) >= SPLITS:
                row = dict(zip(header, cells, strict=True))
                yield from ((row["filename"], number, str(one)) for number, one in enumerate(json.loads(row["raw"])))
                continue
            *start, caption = [*cells[: len(header) - 1], ",".join(cells[len(header) - 1 :])]
            yield start[0], int(start[1]) if len(start) == 2 else counts[start[0]], caption
            counts[start[0]] += 1
        except (ValueError, IndexError, TypeError, RecursionError):
            raise _odd_line(file, lines.line_num, ",".join(cells), ",".join(header)) from None


def _from_json(file: str, text: str) -> Iterator[Row]:
    """Rows of Karpathy's splits: of every image its file's name and its sentences."""
    try:
        for image in json.loads(text)["images"]:
            for number, sentence in enumerate(image["sentences"]):
                yield str(image["filename"]), number, str(sentence["raw"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else f"{error}"
        raise LookalikeError(f"{file}: is not a captions file of Flickr30k ({why}). {AGAIN}") from None


def _odd_line(file: str, line: int, text: str, expected: str) -> LookalikeError:
    return LookalikeError(
        f"{file}, line {line}: is '{text[:80]}', expected an image, a number and a caption, such as '{expected}'. "
        f"{AGAIN}"
    )
