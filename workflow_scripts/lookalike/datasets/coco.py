"""COCO val2017: 5,000 photographs, with the categories of the objects in them (docs/coco.md).

Every picture is a reference and a query; nothing is known of true matches.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from lookalike import archives
from lookalike.config import Coco
from lookalike.config.datasets import INSTANCES
from lookalike.datasets import published
from lookalike.datasets.left_out import LeftOut
from lookalike.datasets.published import Listing, Part, Source
from lookalike.errors import LookalikeError
from lookalike.formats import TRUTH

SOURCE = Source(
    title="COCO",
    publisher="the COCO consortium (val2017.zip, 0.8 GB, and annotations_trainval2017.zip, 0.2 GB)",
    page="https://cocodataset.org/#download",
    licence="annotations CC BY 4.0; each picture under the licence that the annotations name for it, by Flickr's terms",
    docs="docs/coco.md",
)
NAMES = re.compile(r"val2017", re.IGNORECASE)
PICTURES = re.compile(r"(\d{12}\.jpg)")
OTHERS = re.compile(r"annotations(?:_trainval2017)?|readme.*", re.IGNORECASE)

Labels = dict[str, list[str]]  # the categories in each picture that the annotations name, in alphabetical order


@dataclass
class Found(published.Found):
    """The pictures (a table of LISTED) and what is in them."""

    pictures: pa.Table
    labels: Labels


def look(entry: Coco) -> Found:
    """List the pictures and read the annotations. Raises LookalikeError for an instances file that is wrong."""
    published.check_root(entry.root)
    listing = published.list_pictures(entry.root, NAMES, PICTURES)
    fetch = "put val2017.zip there, as it is, or the folder val2017/"
    part = published.picture_part("pictures", listing, "all", fetch, published=5000)
    files = entry.tables()
    labels: Labels = {}
    damage = ""
    try:
        labels = _labels(files[0]) if files else {}
    except archives.ArchiveError as error:  # a download that was cut short is missing, like what was not begun
        damage = f"{Path(files[0]).name} {error}"
    name = entry.annotations or "annotations_trainval2017.zip, as it is, or annotations/instances_val2017.json"
    table = published.file_part(
        "annotations", "annotated pictures", len(labels), files=files, root=entry.root, fetch=f"put {name} there"
    )
    table.missing = damage or table.missing
    table.leave_out(published.strays(entry.root, [NAMES, OTHERS], files))
    if part.found and files and not damage:
        _compare(part, listing, labels, fetch)
    return Found(SOURCE, entry.root, [part, table], listing.pictures, labels)


def _compare(part: Part, listing: Listing, labels: Labels, fetch: str) -> None:
    """Say where pictures and annotations do not fit together."""
    ids = set(listing.pictures["image_id"].to_pylist())
    lost = sorted(labels.keys() - ids)
    damaged = "".join(f"; {line}" for line in listing.damaged)
    part.missing = (
        f"{len(lost):,} of the {len(labels):,} annotated pictures, e.g. {lost[0]}{damaged}: {fetch}" if lost else ""
    )
    part.remarks += [] if lost else listing.damaged
    odd = LeftOut()
    for image_id in sorted(ids - labels.keys()):
        odd.add("pictures that the annotations do not name, and that are left out", image_id)
    part.remarks += odd.lines()


def choose(entry: Coco, found: Found) -> tuple[pa.Table, pa.Table]:
    """The IMAGES table, with the column ``labels``, and an empty TRUTH table."""
    pictures = found.pictures
    pictures = pictures.filter(pc.is_in(pictures["image_id"], value_set=pa.array(list(found.labels), pa.string())))
    labels = [found.labels[image_id] for image_id in pictures["image_id"].to_pylist()]
    images = published.images_table(
        entry.root, pictures, reference=True, query=True, labels=pa.array(labels, pa.list_(pa.string()))
    )
    return images, TRUTH.schema().empty_table()


def _labels(file: str) -> Labels:
    """Names of the categories in every annotated picture; none for a picture without objects.

    Raises ArchiveError, and LookalikeError for a file that is not COCO's.
    """
    try:
        data = archives.read(file, INSTANCES[0]).decode() if file.endswith(".zip") else published.read_text(file)
        content = json.loads(data)
        categories = {one["id"]: str(one["name"]) for one in content["categories"]}
        names = {one["id"]: str(one["file_name"]) for one in content["images"]}
        found: dict[str, set[str]] = {name: set() for name in names.values()}
        for one in content["annotations"]:
            found[names[one["image_id"]]].add(categories[one["category_id"]])
    except (ValueError, KeyError, TypeError) as error:
        raise LookalikeError(
            f"{file}: is no instances file of COCO ({type(error).__name__}: {error}). Fetch instances_val2017.json "
            "again, or name the right file with 'annotations'."
        ) from None
    return {name: sorted(labels) for name, labels in found.items()}
