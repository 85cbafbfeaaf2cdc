"""The showcase: a folder of images that are searched for and shown, and have no role in the data set."""

import os

import pyarrow as pa
import pyarrow.compute as pc

from lookalike.job.errors import LookalikeError
from lookalike.sample import folder
from lookalike.sample.left_out import LeftOut

PREFIX = "showcase:"  # of the ids: the data set may have an image of the same name


def add(images: pa.Table, root: str, where: str, skipped: dict[str, LeftOut] | None = None) -> pa.Table:
    """An images table with the images of the folder ``root`` after its own.

    ``where`` is ``datasets.NAME.showcase``, for messages; what is left out is put into ``skipped``. Raises
    LookalikeError for a missing or empty folder, and for an image that is also in the data set: a showcase must not
    change anything else.
    """
    sizes, inside = folder.list_images(root, where, skipped)
    paths = {image_id: inside.paths.get(image_id, image_id) for image_id in sizes}
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
        for image_id, size in sizes.items()
    ]
    return pa.concat_tables([images, pa.Table.from_pylist(rows, schema=images.schema)])


def _refuse_own(images: pa.Table, root: str, paths: list[str], where: str) -> None:
    """Raise LookalikeError where the showcase's folder contains an image of the data set."""
    files = [f"{os.path.realpath(root)}/{path}" for path in paths]
    for own in images["root"].unique().to_pylist():
        start = f"{os.path.realpath(own)}/"
        inside = pa.array([file.removeprefix(start) for file in files if file.startswith(start)], pa.string())
        own_paths = images.filter(pc.equal(images["root"], own))["path"].combine_chunks()
        shared = inside.filter(pc.is_in(inside, value_set=own_paths))
        if len(shared):
            raise LookalikeError(
                f"{where}: '{shared[0]}' is an image of the data set itself, in '{own}'. Put the showcase images into "
                "a separate folder, neither inside the data set's nor containing it."
            )
