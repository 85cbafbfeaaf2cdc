"""Which references are right for which queries: the pairs of a truth table or, in a labelled collection, the classes.

A labelled collection has a column ``class`` in its images table and an empty truth table. Every image of a query's
class is right, except the query itself. These pairs are never written out: 10,000 images of 10 classes have 10 million.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.io.formats.tables import TRUTH

CLASS = "class"

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


def is_labelled(images: pa.Table) -> bool:
    """Whether images of one class are right for each other."""
    return CLASS in images.column_names


def classes(images: pa.Table) -> Ints:
    """(images,) int64: the class of each image of a labelled collection as a number, -1 without one."""
    codes = images[CLASS].combine_chunks().dictionary_encode().indices.fill_null(-1)
    return np.asarray(codes.to_numpy(zero_copy_only=False), dtype=np.int64)


def matches(truth: pa.Table, images: pa.Table) -> Ints:
    """(images,) int64: the number of right references of each image; 0 for images that are not queries."""
    return class_matches(images) if is_labelled(images) else _counts(truth["query_id"], images)


def class_matches(images: pa.Table) -> Ints:
    """``matches`` of a labelled collection."""
    code, reference, query = classes(images), _role(images, "reference"), _role(images, "query")
    sizes = np.bincount(code[reference & (code >= 0)], minlength=code.max(initial=-1) + 1)
    return np.where(query & (code >= 0), sizes[code] - reference, 0).astype(np.int64)


def is_right(query: Ints, reference: Ints, code: Ints) -> Bools:
    """(p,) bool: whether pairs of rows of a labelled collection are right; ``code`` is as of ``classes``."""
    return np.asarray((code[query] == code[reference]) & (code[query] >= 0) & (query != reference))


def right_among(pairs: pa.Table, truth: pa.Table, images: pa.Table) -> pa.Table:
    """A TRUTH table that contains every right pair of ``pairs`` (``query_id`` and ``reference_id``)."""
    if not is_labelled(images):
        return truth
    ids = images["image_id"].combine_chunks()
    query, reference = (pc.index_in(pairs[name], value_set=ids).to_numpy() for name in TRUTH.columns)
    return pairs.filter(pa.array(is_right(query, reference, classes(images)))).select(list(TRUTH.columns))


def pairs_of(queries: pa.Array, truth: pa.Table, images: pa.Table) -> pa.Table:
    """A TRUTH table with all right pairs of a few queries."""
    if not is_labelled(images):
        return truth.filter(pc.is_in(truth["query_id"], value_set=queries))
    of_class = images.filter(images["reference"]).select([CLASS, "image_id"]).rename_columns([CLASS, "reference_id"])
    known = images.filter(pc.and_(images["query"], pc.is_in(images["image_id"], value_set=queries)))
    labels = known.select([CLASS, "image_id"]).rename_columns([CLASS, "query_id"])
    pairs = labels.filter(pc.is_valid(labels[CLASS])).join(of_class, keys=CLASS, join_type="inner", use_threads=False)
    return pairs.filter(pc.not_equal(pairs["query_id"], pairs["reference_id"])).select(list(TRUTH.columns))


def involved(truth: pa.Table, images: pa.Table) -> Bools:
    """(images,) bool: the queries with a match, and the references that are right for some query."""
    has_match = matches(truth, images) > 0
    if not is_labelled(images):
        return has_match | (_counts(truth["reference_id"], images) > 0)
    code = classes(images)
    return has_match | (_role(images, "reference") & np.isin(code, code[has_match]))


def _counts(ids: pa.ChunkedArray, images: pa.Table) -> Ints:
    rows = pc.index_in(ids, value_set=images["image_id"].combine_chunks()).drop_null().to_numpy()
    return np.bincount(rows, minlength=images.num_rows).astype(np.int64)


def _role(images: pa.Table, role: str) -> Bools:
    return np.asarray(images[role].to_numpy(), dtype=np.bool_)
