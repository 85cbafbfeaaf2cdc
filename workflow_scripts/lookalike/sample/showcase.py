"""Outside pictures: a folder whose pictures are searched for and shown, and are in no role of the data set."""

import os

import pyarrow as pa
import pyarrow.compute as pc

from lookalike.job.errors import LookalikeError
from lookalike.sample import folder
from lookalike.sample.left_out import LeftOut

PREFIX = "showcase:"  # of the ids: the data set may well have a picture of the same name


def add(images: pa.Table, root: str, where: str, skipped: dict[str, LeftOut] | None = None) -> pa.Table:
    """An images table with the pictures of the folder ``root`` after its own.

    ``where`` is ``datasets.NAME.showcase``, for messages; what is left out is put into ``skipped``. Raises
    LookalikeError for a missing or empty folder, and for a picture that the data set has too: naming a showcase must
    change nothing else.
    """
    found, inside = folder.list_images(root, where, skipped)
    paths = {image_id: inside.paths.get(image_id, image_id) for image_id in found}
    _refuse_own(images, root, list(paths.values()), where)
    if "showcase" not in images.column_names:
        images = images.append_column("showcase", pa.array([False] * images.num_rows, pa.bool_()))
    rows = [
        {
            "image_id": PREFIX + image_id,
            "reference": False,
            "query": False,
            "training": False,
            "root": root,
            "path": paths[image_id],
            "bytes": size,
            "showcase": True,
        }
        for image_id, size in found.items()
    ]
    return pa.concat_tables([images, pa.Table.from_pylist(rows, schema=images.schema)])


def _refuse_own(images: pa.Table, root: str, paths: list[str], where: str) -> None:
    """Raise LookalikeError where the showcase's folder holds a picture of the data set."""
    files = [f"{os.path.realpath(root)}/{path}" for path in paths]
    for own in images["root"].unique().to_pylist():
        start = f"{os.path.realpath(own)}/"
        inside = pa.array([file.removeprefix(start) for file in files if file.startswith(start)], pa.string())
        known = images.filter(pc.equal(images["root"], own))["path"].combine_chunks()
        both = inside.filter(pc.is_in(inside, value_set=known))
        if len(both):
            raise LookalikeError(
                f"{where}: '{both[0]}' is a picture of the data set itself, in '{own}'. Put the outside pictures into "
                "a folder of their own, neither inside the data set's nor around it."
            )
