"""Pictures that are there twice: files of the same bytes among the references, and between them and the queries.

Counted from the hashes that embedding records. A double says nothing about a model and yet moves its numbers, so the
report counts them. Pictures that only look the same (saved again, scaled) are other files and are not found here.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lookalike.io import identity, store
from lookalike.io.formats.records import Duplicates
from lookalike.io.formats.tables import DUPLICATES, EMBEDDINGS, IMAGES, TRUTH
from lookalike.job.errors import LookalikeError

log = logging.getLogger(__name__)

EXAMPLES = 6  # pairs of each kind
ROLES = ("reference", "query", "training")

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def find_duplicates(*, embeddings: Sequence[str], images: str, truth: str, out: str, list_out: str) -> None:
    """Write the ``formats.Duplicates`` of a data set to ``out``, and the DUPLICATES table to ``list_out``.

    ``embeddings`` are all shards of one model: which one does not matter, since models that saw other bytes are not
    compared. A rejected picture has no hash and is left out.
    """
    sample_sha256 = identity.check_sample(images, truth)
    sample = store.read_table(images, IMAGES)
    hashes = pa.concat_tables(_hashes(path, sample, images) for path in embeddings)
    found = _Pictures.of(hashes, sample)
    counted = count(found, store.read_table(truth, TRUTH)).model_copy(
        update={identity.SAMPLE: sample_sha256, "shards_sha256": identity.hash_shards(embeddings)}
    )
    store.write_json(counted, out)
    provenance = {"made_by": "lookalike find_duplicates", "read": EMBEDDINGS.name, identity.SAMPLE: sample_sha256}
    store.write_table(_listed(found), list_out, DUPLICATES, provenance)
    log.info("%d of %d references are there more than once", counted.doubled, counted.references)


def _hashes(path: str, sample: pa.Table, images: str) -> pa.Table:
    """Ids and hashes of a shard's pictures, all of which must be of the sample."""
    hashes = store.read_columns(path, "image_id", "sha256")
    unknown = hashes.filter(pc.invert(pc.is_in(hashes["image_id"], value_set=sample["image_id"].combine_chunks())))
    if unknown.num_rows:
        raise LookalikeError(
            f"{path}: its picture '{unknown['image_id'][0]}' is not in {images}. Take the sample and embed again: "
            f"--forcerun {images} {path}"
        )
    return hashes


@dataclass(frozen=True)
class _Pictures:
    """Embedded pictures that have a role; ``code`` numbers the distinct hashes, ``same`` counts references by code."""

    ids: pa.Array
    sha256: pa.Array
    code: Ints
    roles: dict[str, Bools]
    same: Ints

    @classmethod
    def of(cls, hashes: pa.Table, images: pa.Table) -> "_Pictures":
        rows = pc.index_in(hashes["image_id"].combine_chunks(), value_set=images["image_id"].combine_chunks())
        known = images.select(ROLES).take(rows)
        has_role = pc.or_(pc.or_(known["reference"], known["query"]), known["training"])
        hashes, known = hashes.filter(has_role), known.filter(has_role)
        sha256 = hashes["sha256"].combine_chunks()
        code = sha256.dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)
        roles = {role: known[role].to_numpy().astype(np.bool_) for role in ROLES}
        same = np.bincount(code[roles["reference"]], minlength=len(code))
        return cls(hashes["image_id"].combine_chunks(), sha256, code, roles, same)


def count(pictures: _Pictures, truth: pa.Table) -> Duplicates:
    """Count the doubles of a data set, with a few examples of each kind."""
    code, same = pictures.code, pictures.same
    reference, query = pictures.roles["reference"], pictures.roles["query"]
    query_row, match_row = _rows_of(truth, pictures.ids)

    # of each picture: how many of its true matches have its own bytes
    alike = (code[query_row] == code[match_row]) & (query_row != match_row)
    like_match = np.bincount(query_row[alike], minlength=len(code))
    like_other = np.where(query, same[code] - reference - like_match, 0)

    # of each true match: identical references that are no true match of this query, nor the query itself
    _, place, number = np.unique(query_row * len(code) + code[match_row], return_inverse=True, return_counts=True)
    itself = reference[query_row] & (code[query_row] == code[match_row]) & (query_row != match_row)
    rivals = same[code[match_row]] - number[place] - itself
    training = pictures.roles["training"] & ~reference & (same[code] > 0)
    doubled = reference & (same[code] > 1)
    return Duplicates(
        references=int(reference.sum()),
        queries=int(query.sum()),
        doubled=int(doubled.sum()),
        groups=int((same > 1).sum()),
        undecidable=len(np.unique(query_row[rivals > 0])),
        queries_like_match=int((like_match > 0).sum()),
        queries_like_other=int((like_other > 0).sum()),
        training_like_reference=int(training.sum()),
        examples={
            "doubled": _twins(pictures, doubled),
            "queries_like_match": _partners(pictures, like_match > 0, query_row, match_row, of_truth=True),
            "queries_like_other": _partners(pictures, like_other > 0, query_row, match_row, of_truth=False),
            "training_like_reference": _partners(pictures, training, query_row, match_row, of_truth=False),
        },
    )


def _rows_of(truth: pa.Table, ids: pa.Array) -> tuple[Ints, Ints]:
    """The rows of query and true match, for the true matches of which both were embedded."""
    query = pc.index_in(truth["query_id"].combine_chunks(), value_set=ids)
    match = pc.index_in(truth["reference_id"].combine_chunks(), value_set=ids)
    both = pc.and_(query.is_valid(), match.is_valid())
    query_row, match_row = (
        rows.filter(both).to_numpy(zero_copy_only=False).astype(np.int64) for rows in (query, match)
    )
    return query_row, match_row


def _twins(pictures: _Pictures, doubled: Bools) -> list[tuple[str, str]]:
    """The first two of some groups of identical references, in the order of their ids."""
    rows = np.flatnonzero(doubled)
    if not len(rows):
        return []
    ranks = pc.rank(pictures.ids.take(pa.array(rows)), tiebreaker="first").to_numpy()
    rows = rows[np.lexsort((ranks, pictures.code[rows]))]  # groups side by side, each in the order of its ids
    starts = np.flatnonzero(np.diff(pictures.code[rows], prepend=-1))
    named = zip(_ids(pictures, rows[starts]), _ids(pictures, rows[starts + 1]), strict=True)
    return sorted(named)[:EXAMPLES]


def _partners(
    pictures: _Pictures, chosen: Bools, query_row: Ints, match_row: Ints, *, of_truth: bool
) -> list[tuple[str, str]]:
    """Some of the chosen pictures, each with an identical reference that is, or is not, a true match of it."""
    rows = np.flatnonzero(chosen)
    order = pc.sort_indices(pictures.ids.take(pa.array(rows))).to_numpy()[:EXAMPLES]
    named = []
    for row in rows[order]:
        identical = np.flatnonzero(pictures.roles["reference"] & (pictures.code == pictures.code[row]))
        matches = np.isin(identical, match_row[query_row == row])
        partners = identical[(matches == of_truth) & (identical != row)]
        named.append((_ids(pictures, [row])[0], min(_ids(pictures, partners))))
    return named


def _ids(pictures: _Pictures, rows: Any) -> list[str]:
    found: list[str] = pictures.ids.take(pa.array(rows, pa.int64())).to_pylist()
    return found


def _listed(pictures: _Pictures) -> pa.Table:
    """The DUPLICATES table: every picture whose bytes another one has, where one of them is a reference."""
    size = np.bincount(pictures.code, minlength=len(pictures.code))
    rows = pa.array(np.flatnonzero((size[pictures.code] > 1) & (pictures.same[pictures.code] > 0)), pa.int64())
    columns = {"sha256": pictures.sha256, "image_id": pictures.ids}
    columns |= {role: pa.array(pictures.roles[role]) for role in ROLES}
    return pa.table(columns).take(rows).sort_by([("sha256", "ascending"), ("image_id", "ascending")])
