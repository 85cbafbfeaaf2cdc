"""Flickr30k: photographs of everyday scenes, with five captions each (docs/flickr30k.md).

Every picture of the sample is a reference and a query; nothing is known of true matches.
"""

import logging
import re
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from lookalike.config import Flickr30k
from lookalike.datasets import published
from lookalike.datasets.left_out import LeftOut
from lookalike.datasets.published import Part, Source
from lookalike.errors import LookalikeError
from lookalike.formats import TRUTH

log = logging.getLogger(__name__)

SOURCE = Source(
    title="Flickr30k",
    publisher="its authors (fill in their form)",
    page="https://shannon.cs.illinois.edu/DenotationGraph/",
    licence="for research and education, not commercial; the pictures are subject to the terms of Flickr",
    docs="docs/flickr30k.md",
)
NAMES = re.compile(r"flickr30k[-_]images|images", re.IGNORECASE)
PICTURES = re.compile(r"(\d+\.jpg)")
OTHERS = re.compile(r"readme.*|flickr30k.*\.tar(?:\.gz)?|results.*", re.IGNORECASE)
TOKEN = re.compile(r"(?P<image>[^#\t]+)#(?P<number>\d+)\t(?P<text>.*)")
# One row of the CSV that circulates lacks its second bar, so that spaces are taken for it too.
CSV = re.compile(r"(?P<image>[^|]+)\|\s*(?P<number>\d+)\s*(?:\||\s)(?P<text>.*)")
HEADER = re.compile(r"image_name\|\s*comment_number\|\s*comment\s*")

Captions = dict[str, list[str]]  # of each picture, in the order of their numbers


@dataclass
class Found(published.Found):
    """The pictures (a table of LISTED) and their captions."""

    pictures: pa.Table
    captions: Captions


def look(entry: Flickr30k) -> Found:
    """List the pictures and read the captions. Raises LookalikeError for a captions file that is wrong."""
    published.check_root(entry.root)
    files = entry.tables()
    listing = published.list_pictures(entry.root, NAMES, PICTURES, files)
    wanted = f"{entry.sample:,} at random" if entry.sample else "all that are there"
    packed = sorted(path.name for path in Path(entry.root).glob("flickr30k*images.tar*"))
    fetch = (
        f"unpack {packed[0]} there (tar xf {packed[0]}): pictures are read from folders and zip archives only"
        if packed
        else "put the folder flickr30k-images/ there, or flickr30k-images.zip as it is"
    )
    part = published.picture_part("pictures", listing, wanted, fetch)
    if part.found and entry.sample and part.found < entry.sample:
        part.missing = f"{entry.sample:,} at random are asked for, and only {part.found:,} are there: {fetch}"
    captions = _captions(files[0]) if files else {}
    name = entry.captions or "results_20130124.token or results.csv"
    count = sum(map(len, captions.values()))
    text = published.file_part("captions", "captions", count, files=files, root=entry.root, fetch=f"put {name} there")
    text.leave_out(published.strays(entry.root, [NAMES, OTHERS], files))
    _compare(part, text, entry, listing.pictures, captions)
    return Found(SOURCE, entry.root, [part, text], listing.pictures, captions)


def _compare(part: Part, text: Part, entry: Flickr30k, pictures: pa.Table, captions: Captions) -> None:
    """Say where pictures, captions and the pictures that are always shown do not fit together."""
    odd = LeftOut()
    ids = set(pictures["image_id"].to_pylist())
    if part.found and captions:
        for image_id in sorted(ids - captions.keys()):
            odd.add("pictures without captions", image_id)
        for image_id in sorted(captions.keys() - ids):
            odd.add("pictures that have captions and are not there", image_id)
        text.remarks += odd.lines()
    if part.found and (lost := [name for name in entry.always if name not in ids]):
        part.absent.append(f"{', '.join(lost)}, named in 'always'")


def choose(entry: Flickr30k, found: Found) -> tuple[pa.Table, pa.Table]:
    """The IMAGES table, with the columns ``captions`` and ``gallery``, and an empty TRUTH table."""
    pictures = found.pictures
    if entry.sample:
        pictures = published.sampled(pictures, entry.sample, entry.seed, entry.always)
    captions = [found.captions.get(image_id, []) for image_id in pictures["image_id"].to_pylist()]
    images = published.images_table(
        entry.root,
        pictures,
        reference=True,
        query=True,
        captions=pa.array(captions, pa.list_(pa.string())),
        gallery=pc.is_in(pictures["image_id"], value_set=pa.array(entry.always, pa.string())),
    )
    return images, TRUTH.schema().empty_table()


def _captions(file: str) -> Captions:
    """Captions by picture, from a ``.token`` file or a CSV with bars. Raises LookalikeError for any other line."""
    lines = published.read_text(file).split("\n")
    is_csv = bool(HEADER.fullmatch(lines[0].strip("\r")))
    pattern = CSV if is_csv else TOKEN
    numbered: dict[str, list[tuple[int, str]]] = {}
    for number, line in enumerate(lines, start=1):
        text = line.strip("\r")
        if not text.strip() or (is_csv and number == 1):
            continue
        match = pattern.fullmatch(text)
        if not match:
            expected = "1000.jpg| 0| A dog runs." if is_csv else "1000.jpg#0<TAB>A dog runs."
            raise LookalikeError(
                f"{file}, line {number}: is '{text[:80]}', expected a picture, a number and a caption, such as "
                f"'{expected}'. Fetch the file again, or name the right one with 'captions'."
            )
        numbered.setdefault(match["image"].strip(), []).append((int(match["number"]), match["text"].strip()))
    return {image: [text for _, text in sorted(texts)] for image, texts in numbered.items()}
