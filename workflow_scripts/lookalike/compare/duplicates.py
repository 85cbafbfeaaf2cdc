"""Duplicate files: byte-identical images among the references, and between references, queries and training images.

Duplicates are found by the hashes that embedding records. They say nothing about a model, yet they affect its scores,
so the report counts them. Images that merely look the same (re-saved, scaled) are not duplicates.
"""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.io import identity, relevance, store
from lookalike.io.formats.records import Duplicates
from lookalike.io.formats.tables import DUPLICATES, IMAGES, INDEX_IMAGES, TRUTH
from lookalike.metrics.joining import Bools, Ints

log = logging.getLogger(__name__)

EXAMPLES = 6  # example pairs per kind
ROLES = ("reference", "query", "training")


@dataclass(frozen=True)
class DuplicatesJob:
    """The files of one data set whose duplicates are counted."""

    seen: str
    images: str
    truth: str
    out: str
    list_out: str


def find_duplicates(job: DuplicatesJob) -> None:
    """Write the ``records.Duplicates`` of a data set to ``out``, and the DUPLICATES table to ``list_out``.

    ``seen`` is the INDEX_IMAGES table of any model, since models that read different bytes are never compared.
    Rejected images have no hash and are ignored.
    """
    sample_sha256 = identity.check_sample(job.images, job.truth, job.seen)
    hashes = store.read_columns(job.seen, "image_id", "sha256").drop_null()
    sample = store.read_table(job.images, IMAGES)
    images = _Images.of(hashes, sample)
    counts = count(images, _truth_of(images, store.read_table(job.truth, TRUTH), sample)).model_copy(
        update={
            identity.SAMPLE: sample_sha256,
            "shards_sha256": store.read_provenance(job.seen).get("shards_sha256", ""),
        }
    )
    store.write_json(counts, job.out)
    provenance = {"made_by": "lookalike find_duplicates", "read": INDEX_IMAGES.name, identity.SAMPLE: sample_sha256}
    store.write_table(_listed(images), job.list_out, DUPLICATES, provenance)
    log.info("%d of %d references have duplicates", counts.doubled, counts.references)


@dataclass(frozen=True)
class _Images:
    """Embedded images with a role; ``code`` numbers the distinct hashes, ``same`` counts references by code."""

    ids: pa.Array
    sha256: pa.Array
    code: Ints
    roles: dict[str, Bools]
    same: Ints

    @classmethod
    def of(cls, hashes: pa.Table, sample: pa.Table) -> "_Images":
        rows = pc.index_in(hashes["image_id"].combine_chunks(), value_set=sample["image_id"].combine_chunks())
        known = sample.select(ROLES).take(rows)
        has_role = pc.or_(pc.or_(known["reference"], known["query"]), known["training"])
        hashes, known = hashes.filter(has_role), known.filter(has_role)
        sha256 = hashes["sha256"].combine_chunks()
        code = sha256.dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)
        roles = {role: known[role].to_numpy().astype(np.bool_) for role in ROLES}
        same = np.bincount(code[roles["reference"]], minlength=len(code))
        return cls(hashes["image_id"].combine_chunks(), sha256, code, roles, same)


def _truth_of(images: _Images, truth: pa.Table, sample: pa.Table) -> pa.Table:
    """The true matches; in a labelled collection, those among identical files, as only these can be duplicates."""
    if not relevance.is_labelled(sample):
        return truth
    listed = pa.table({"code": images.code, "query_id": images.ids}).filter(pa.array(images.same[images.code] > 1))
    others = listed.rename_columns(["code", "reference_id"])
    pairs = listed.join(others, keys="code", join_type="inner", use_threads=False)
    return relevance.right_among(pairs, truth, sample)


def count(images: _Images, truth: pa.Table) -> Duplicates:
    """Count the duplicates of a data set, with a few examples of each kind."""
    code, same = images.code, images.same
    reference, query = images.roles["reference"], images.roles["query"]
    query_row, match_row = _rows_of(truth, images.ids)

    # per image: the number of its true matches with the same bytes
    identical = (code[query_row] == code[match_row]) & (query_row != match_row)
    like_match = np.bincount(query_row[identical], minlength=len(code))
    like_other = np.where(query, same[code] - reference - like_match, 0)

    # per true match: identical references that are neither true matches of the query nor the query itself
    _, pair, number = np.unique(query_row * len(code) + code[match_row], return_inverse=True, return_counts=True)
    is_query = reference[query_row] & (code[query_row] == code[match_row]) & (query_row != match_row)
    rivals = same[code[match_row]] - number[pair] - is_query
    training = images.roles["training"] & ~reference & (same[code] > 0)
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
            "doubled": _first_pairs(images, doubled),
            "queries_like_match": _partners(images, like_match > 0, query_row, match_row, of_truth=True),
            "queries_like_other": _partners(images, like_other > 0, query_row, match_row, of_truth=False),
            "training_like_reference": _partners(images, training, query_row, match_row, of_truth=False),
        },
    )


def _rows_of(truth: pa.Table, ids: pa.Array) -> tuple[Ints, Ints]:
    """The rows of query and true match, for all true matches of which both were embedded."""
    query = pc.index_in(truth["query_id"].combine_chunks(), value_set=ids)
    match = pc.index_in(truth["reference_id"].combine_chunks(), value_set=ids)
    both = pc.and_(query.is_valid(), match.is_valid())
    query_row, match_row = (
        rows.filter(both).to_numpy(zero_copy_only=False).astype(np.int64) for rows in (query, match)
    )
    return query_row, match_row


def _first_pairs(images: _Images, doubled: Bools) -> list[tuple[str, str]]:
    """The first two ids of some groups of identical references, sorted."""
    rows = np.flatnonzero(doubled)
    if not len(rows):
        return []
    ranks = pc.rank(images.ids.take(pa.array(rows)), tiebreaker="first").to_numpy()
    rows = rows[np.lexsort((ranks, images.code[rows]))]  # sorted by group, then by id
    starts = np.flatnonzero(np.diff(images.code[rows], prepend=-1))
    pairs = zip(_ids(images, rows[starts]), _ids(images, rows[starts + 1]), strict=True)
    return sorted(pairs)[:EXAMPLES]


def _partners(
    images: _Images, chosen: Bools, query_row: Ints, match_row: Ints, *, of_truth: bool
) -> list[tuple[str, str]]:
    """Some of the chosen images, each with an identical reference that is (or is not) one of its true matches."""
    rows = np.flatnonzero(chosen)
    order = pc.sort_indices(images.ids.take(pa.array(rows))).to_numpy()[:EXAMPLES]
    pairs = []
    for row in rows[order]:
        identical = np.flatnonzero(images.roles["reference"] & (images.code == images.code[row]))
        matches = np.isin(identical, match_row[query_row == row])
        partners = identical[(matches == of_truth) & (identical != row)]
        pairs.append((_ids(images, [row])[0], min(_ids(images, partners))))
    return pairs


def _ids(images: _Images, rows: Any) -> list[str]:
    ids: list[str] = images.ids.take(pa.array(rows, pa.int64())).to_pylist()
    return ids


def _listed(images: _Images) -> pa.Table:
    """The DUPLICATES table: every image with a duplicate, if at least one of the identical files is a reference."""
    size = np.bincount(images.code, minlength=len(images.code))
    rows = pa.array(np.flatnonzero((size[images.code] > 1) & (images.same[images.code] > 0)), pa.int64())
    columns = {"sha256": images.sha256, "image_id": images.ids}
    columns |= {role: pa.array(images.roles[role]) for role in ROLES}
    return pa.table(columns).take(rows).sort_by([("sha256", "ascending"), ("image_id", "ascending")])
