"""COCO val2017: 5,000 photographs, with the categories of the objects in them (docs/coco.md).

Every image is a reference and a query; nothing is known of true matches.
"""

import json
import re
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from lookalike.config.datasets import INSTANCES, Coco
from lookalike.io import archives
from lookalike.io.formats.tables import TRUTH
from lookalike.job.errors import LookalikeError
from lookalike.sample import published
from lookalike.sample.found import FoundImages, Part, Source
from lookalike.sample.left_out import LeftOut
from lookalike.sample.published import Listing

SOURCE = Source(
    title="COCO",
    publisher="the COCO consortium (val2017.zip, 0.8 GB, and annotations_trainval2017.zip, 0.2 GB)",
    page="https://cocodataset.org/#download",
    licence="annotations CC BY 4.0; each image under the licence that the annotations name for it, by Flickr's terms",
    docs="docs/coco.md",
)
NAMES = re.compile(r"val2017", re.IGNORECASE)
FILE_NAMES = re.compile(rf"(\d{{12}}){published.JPEG}")
ENDING = ".jpg"  # of ids: as in the published file names
OTHERS = re.compile(r"annotations(?:_trainval2017)?|readme.*", re.IGNORECASE)

Labels = dict[str, list[str]]  # the categories in each image that the annotations name, in alphabetical order


def look(entry: Coco) -> FoundImages:
    """List the images and read the annotations. Raises LookalikeError for an instances file that is wrong."""
    published.check_root(entry.root)
    listing = published.list_images(entry.root, NAMES, FILE_NAMES, ending=ENDING)
    fetch = "put val2017.zip there, as it is, or the folder val2017/"
    part = published.image_part("images", listing, "all", fetch, published=5000)
    files = entry.tables()
    labels: Labels = {}
    odd = LeftOut()
    damage = ""
    try:
        labels = _labels(files[0], odd) if files else {}
    except archives.ArchiveError as error:  # a truncated download counts as missing
        damage = f"{Path(files[0]).name} {error}"
    name = entry.annotations or "annotations_trainval2017.zip, as it is, or annotations/instances_val2017.json"
    packed = [f"{one}.gz" for one in INSTANCES if (Path(entry.root) / f"{one}.gz").exists()]
    table = published.file_part(
        "annotations",
        "annotated images",
        len(labels),
        files=files,
        root=entry.root,
        fetch=f"unpack {packed[0]} there (gunzip {packed[0]})" if packed else f"put {name} there",
    )
    table.missing = damage or table.missing
    table.remarks += odd.lines()
    table.leave_out(published.strays(entry.root, [NAMES, OTHERS], files))
    if part.found and files and not damage:
        _compare(part, listing, labels, fetch)
    return FoundImages(SOURCE, entry.root, [part, table], listing.images, labels)


def _compare(part: Part, listing: Listing, labels: Labels, fetch: str) -> None:
    """Report where images and annotations disagree."""
    ids = set(listing.images["image_id"].to_pylist())
    lost = sorted(labels.keys() - ids)
    damaged = "".join(f"; {line}" for line in listing.damaged)
    part.missing = (
        f"{len(lost):,} of the {len(labels):,} annotated images, e.g. {lost[0]}{damaged}: {fetch}" if lost else ""
    )
    part.remarks += [] if lost else listing.damaged
    odd = LeftOut()
    for image_id in sorted(ids - labels.keys()):
        odd.add("images without annotations, left out", image_id)
    part.remarks += odd.lines()


def choose(entry: Coco, found: FoundImages) -> tuple[pa.Table, pa.Table]:
    """The IMAGES table, with the column ``labels``, and an empty TRUTH table."""
    images = found.images
    images = images.filter(pc.is_in(images["image_id"], value_set=pa.array(list(found.texts), pa.string())))
    labels = [found.texts[image_id] for image_id in images["image_id"].to_pylist()]
    images = published.images_table(
        entry.root, images, reference=True, query=True, labels=pa.array(labels, pa.list_(pa.string()))
    )
    return images, TRUTH.schema().empty_table()


def _labels(file: str, odd: LeftOut) -> Labels:
    """Names of the categories in every annotated image; none for an image without objects.

    Annotations of images that the file does not list, as in a file reduced to some images, are counted in
    ``odd``. Raises ArchiveError, and LookalikeError for a file that is not COCO's.
    """
    try:
        data = (
            archives.read(file, INSTANCES[0]).decode()
            if file.endswith(archives.EXTENSIONS)
            else published.read_text(file)
        )
        content = json.loads(data)
        categories = {str(one["id"]): str(one["name"]) for one in content["categories"]}
        names = {
            str(one["id"]): published.image_id(str(one["file_name"]), FILE_NAMES, ENDING) for one in content["images"]
        }
        objects = [(one.get("id"), str(one["image_id"]), str(one["category_id"])) for one in content["annotations"]]
    except json.JSONDecodeError as error:
        raise _not_instances(file, f"{error}; is it truncated?" if data.strip() else "it is empty") from None
    except KeyError as error:
        raise _not_instances(file, f"it has no {error}") from None
    except UnicodeDecodeError:
        raise _not_instances(file, "it is not UTF-8 text") from None
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise _not_instances(file, "it has another layout") from None
    found: dict[str, set[str]] = {name: set() for name in names.values()}
    for number, image, category in objects:
        if category not in categories:
            raise _not_instances(file, f"annotation {number} is of category {category}, which it does not list")
        if image in names:
            found[names[image]].add(categories[category])
        else:
            odd.add("annotations of images that the file does not list, left out", f"annotation {number} of {image}")
    if objects and not any(found.values()):
        raise _not_instances(file, f"none of its {len(objects):,} annotations is of an image that it lists")
    for name, times in Counter(names.values()).items():
        if times > 1:
            odd.add("images that the file lists more than once, used once", name)
    return {name: sorted(labels) for name, labels in found.items()}


def _not_instances(file: str, why: str) -> LookalikeError:
    return LookalikeError(
        f"{file}: is not an instances file of COCO ({why}). Fetch instances_val2017.json again, or set "
        "'annotations' to the right file."
    )
