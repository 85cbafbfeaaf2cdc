"""A folder without queries of its own: every image is searched for among all others, by class where it has labels."""

import logging
from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from lookalike.config.datasets import Folder
from lookalike.io.formats.tables import BY
from lookalike.io.relevance import CLASS
from lookalike.job.errors import LookalikeError, did_you_mean

log = logging.getLogger(__name__)


def complete(images: pa.Table, entry: Folder, where: str) -> pa.Table:
    """Make every reference a query and, with ``same``, give it the class that makes two images right for each other.

    images: an IMAGES table whose references are not queries; where: ``datasets.NAME``, for messages

    A class is a group, too: its images resemble each other, so intervals and tests count classes. An image without a
    class is a reference only, since nobody knows what is right for it. Raises LookalikeError for classes without which
    nothing could be found, or nothing missed.
    """
    if entry.same is None:
        return _with(images, "query", images["reference"].combine_chunks())
    if entry.same == "folder":
        ids, paths = (images[name].to_pylist() for name in ("image_id", "path"))
        names = pa.array([_folder(*row) for row in zip(ids, paths, strict=True)])
    else:
        names = _column(images, entry, where)
        images = images.drop_columns([f"{BY}{entry.same}"])
    names = pc.if_else(images["reference"].combine_chunks(), names.cast(pa.string()), None)
    _check(Counter(names.drop_null().to_pylist()), names.null_count, entry, where)
    images = images.append_column(CLASS, names)
    return _with(_with(images, "query", names.is_valid()), "group", names)


def _folder(image_id: str, path: str) -> str | None:
    """The first folder in an image's path; an archive is not a folder, but those inside it are."""
    if path != image_id:  # some.zip!member
        archive, _, member = path.partition("!")
        path = f"{archive.rpartition('/')[0]}/{member}".lstrip("/")
    return path.partition("/")[0] if "/" in path else None


def _column(images: pa.Table, entry: Folder, where: str) -> pa.Array:
    columns = [name.removeprefix(BY) for name in images.column_names if name.startswith(BY)]
    if entry.same not in columns:
        raise LookalikeError(
            f"{where}.same: {entry.about} has no column '{entry.same}'.{did_you_mean(str(entry.same), columns)}"
        )
    return images[f"{BY}{entry.same}"].combine_chunks()


def _check(sizes: Counter[str], without: int, entry: Folder, where: str) -> None:
    source = "is in a subfolder" if entry.same == "folder" else f"has a value of '{entry.same}'"
    remedy = f"Check {'root' if entry.same == 'folder' else 'about'}, or set same to what tells the classes apart."
    if not sizes:
        raise LookalikeError(f"{where}.same: no image of '{entry.root}' {source}. {remedy}")
    if len(sizes) == 1:
        raise LookalikeError(
            f"{where}.same: all images are of one class, '{next(iter(sizes))}', so no answer can be wrong. {remedy}"
        )
    single = sum(size == 1 for size in sizes.values())
    if single == len(sizes):
        raise LookalikeError(
            f"{where}.same: each of the {single} classes has only one image, so no image has a match. {remedy}"
        )
    log.info("%s: %d images of %d classes", where, sizes.total(), len(sizes))
    if single:
        log.info("%s: %d classes have one image: it is a query without a match", where, single)
    if without:
        log.info("%s: %d images have no class: they are not queries, and never right", where, without)


def _with(images: pa.Table, column: str, values: pa.Array) -> pa.Table:
    return images.set_column(images.column_names.index(column), images.schema.field(column), values)
