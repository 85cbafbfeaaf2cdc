"""``lookalike.find_duplicates``: which files show the same image, with or without a model."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from lookalike.job.errors import LookalikeError
from lookalike.sample.near_duplicates import library as near_duplicates
from lookalike.sample.near_duplicates.library import COLUMNS, PathInput

if TYPE_CHECKING:
    import pandas as pd

KINDS = {"bytes": "exact", "pixels": "near", "cosine": "near"}


def find_duplicates(
    images: PathInput | Iterable[PathInput],
    *,
    threads: int | None = None,
    precision: int | None = None,
    model: str | None = None,
    threshold: float | None = None,
) -> "pd.DataFrame":
    """Find files that show the same image: byte-identical, re-saved, resized, compressed again, turned or mirrored.

    images: a folder, searched as a data set of kind `folder` with its subfolders and archives; or paths of files; two
        paths of one file, such as a symlink and its target, count once
    threads: CPU threads, by default all
    precision: in percent, from 50 to 99; finds cropped and captioned copies too, as ``lookalike duplicates`` does. By
        default no model is involved: images are compared as the stage *find_near_duplicates* compares them.
    model, threshold: as in ``lookalike duplicates``; with ``precision`` only

    Deletes nothing. Returns a row for each image of a group, the one to keep first; images without a duplicate have no
    row.

    - group: its number, from 0; image: path (of a member of an archive: ``photos.zip!a.jpg``)
    - keep: one of each group: the one with most pixels; of several the largest file, then the first path
    - kind: ``kept``; ``exact`` if it has the bytes of the image to keep; ``near`` otherwise
    - score: how similar it is to the image to keep. Without ``precision``, the correlation of grey thumbnails in the
      best orientation, at most 1; at least 0.96 with the image that a group was formed around, and it may be less with
      the one to keep. With ``precision``, the cosine of the model's vectors, which may be small where pixels agree.
    - pixels: width times height; bytes: of the file

    ``attrs`` of the table has ``images``, how many were read, and ``rejected``, path -> reason of those that could not
    be; with ``precision`` also ``model``, ``threshold`` and ``threshold_from``. Images of nearly one color are only in
    exact groups. Raises LookalikeError for a missing folder, or one without images.

    >>> import lookalike as la
    >>> found = la.find_duplicates("photos")
    >>> found[["group", "image", "keep", "kind"]]
       group              image   keep   kind
    0      0    photos/cat.png   True   kept
    1      0  photos/small.jpg  False   near
    """
    if precision is None:
        if model is not None or threshold is not None:
            raise LookalikeError(
                "find_duplicates: model and threshold need a precision. Add precision=99, or leave them out."
            )
        return near_duplicates.find_duplicates(images, threads=threads)
    import pandas as pd

    from lookalike.cli.duplicate_search.search import Request, search

    given = (
        Path(images)
        if isinstance(images, str | os.PathLike)
        else tuple(str(Path(image).expanduser()) for image in images)
    )
    result = search(
        Request(given, precision=precision, model=model, threshold=threshold, threads=threads or os.cpu_count() or 1)
    )
    rows = [
        (
            *(number, member.file.path, member is group.members[0], member.score),
            "kept" if member is group.members[0] else KINDS[member.by],
            *(member.file.pixels, member.file.bytes),
        )
        for number, group in enumerate(result.groups)
        for member in group.members
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
    table.attrs = {
        **{"images": len(result.collection.files), "rejected": dict(sorted(result.collection.unreadable.items()))},
        **{"model": result.model, "threshold": result.cosine, "threshold_from": result.source},
    }
    return table
