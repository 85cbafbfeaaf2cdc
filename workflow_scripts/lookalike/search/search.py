"""The search stage: the nearest references of every query, and the best pairs of all queries together."""

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lookalike.config.indexes import Normalise
from lookalike.io import identity, store, vectors
from lookalike.io.checks import IDENTITY, check_index, check_shards
from lookalike.io.formats.records import SearchTiming
from lookalike.io.formats.tables import NEIGHBORS
from lookalike.job.errors import LookalikeError
from lookalike.search import approximate, exact
from lookalike.search.candidates import PAIRS_PER_QUERY, Candidates
from lookalike.search.loading import Stored, load, on_gpu

log = logging.getLogger(__name__)
Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


def search(
    *,
    index: str,
    ids: str,
    embeddings: Sequence[str],
    images: str,
    out: str,
    candidates_out: str,
    timing_out: str,
    key: str,
    build_key: str,
    embedding_key: str,
    embedding_code: str,
    model: str,
    index_name: str,
    k: int,
    showcase_out: str | None = None,
    training_out: str | None = None,
    candidates_sn_out: str | None = None,
    threads: int = 1,
    gpu: bool = False,
) -> None:
    """Find the nearest references of every embedded query, and the best pairs of all queries.

    k + 1 neighbors are kept, so that a tie across the boundary is seen when the result is measured (fewer where the
    index holds fewer). A picture is never its own neighbor. ``showcase_out`` gets the same of outside pictures.
    ``candidates_out`` gets the best 10 pairs a query over all queries together, rejected ones counted, none of those
    tied with the first one left out. Where the data set has training pictures, ``training_out`` gets each query's
    nearest ones, and ``candidates_sn_out`` the candidates of normalised scores.

    ``key`` is the index's entry, ``build_key`` the part of it that the index was made with, ``embedding_key`` and
    ``embedding_code`` as in ``build``. Raises LookalikeError where the index file is not the one that its
    ids were written for, or holds vectors of another key.
    """
    import faiss

    faiss.omp_set_num_threads(threads)
    settings = json.loads(key)
    made_with = check_shards(embeddings, embedding_key, embedding_code)
    footer = check_index(index, ids, {"index_key": build_key, **{name: made_with[name] for name in IDENTITY}})
    sample_sha256 = identity.check_sample(images, ids)
    identity.check_shards(embeddings, footer["shards"], ids)
    reference_ids = vectors.whole(store.read_columns(ids, "image_id")["image_id"])
    sampled = _with_role(images, "query")
    query_ids, queries = _embedded(embeddings, sampled)
    own = vectors.rows_of(query_ids, reference_ids)
    log.info("searching %d queries among %d references", len(query_ids), len(reference_ids))

    started = time.perf_counter()
    stored = load(index, ids, reference_ids, settings.get("search", {}))
    read = time.perf_counter() - started
    size = PAIRS_PER_QUERY * len(sampled)  # rejected ones count: models that refuse others have candidates of one size
    candidates = [Candidates(size, np.zeros(len(query_ids), np.float32))]
    training: tuple[pa.Array, exact.Nearest] | None = None
    normalise = Normalise.model_validate(settings.get("normalise", {}))
    if training_out and candidates_sn_out:
        training = _training(embeddings, images, stored, query_ids=query_ids, queries=queries, count=normalise.last)
        candidates.append(Candidates(size, _shift(training[1].scores, normalise, images)))

    nearest, seconds = _search(stored, queries, min(k + 1, len(reference_ids)), own=own, candidates=candidates, gpu=gpu)

    provenance = {
        "made_by": "lookalike search",
        "model": model,
        "index": index_name,
        "index_key": key,
        "k": k,
        "queries": len(query_ids),
        "references": len(reference_ids),
        "dimension": queries.shape[1],
        "index_bytes": Path(index).stat().st_size,
        "index_sha256": footer["index_sha256"],
        "pictures_sha256": footer["pictures_sha256"],
        identity.SAMPLE: sample_sha256,
        "shards_sha256": identity.hash_shards(embeddings),
        **{name: footer[name] for name in ("trained_on",) if name in footer},
        **made_with,
        "versions": store.versions("faiss-cpu", "faiss-gpu", "numpy"),
    }
    policy_of_candidates = (
        f"the best {PAIRS_PER_QUERY} pairs a query over all queries together, without ties at the cut-off"
    )
    shifted = {"normalise": normalise.model_dump()}

    def write(path: str, found: pa.Table, policy: str, **more: Any) -> None:
        store.write_table(found, path, NEIGHBORS, provenance | {"policy": policy} | more)

    write(out, _neighbors(nearest, query_ids, reference_ids), f"the nearest {k + 1} of each query")
    write(candidates_out, _pairs(candidates[0], query_ids, reference_ids), policy_of_candidates)
    if training and training_out and candidates_sn_out:
        training_ids, similar = training
        policy = f"the nearest {normalise.last} training pictures of each query"
        write(training_out, _neighbors(similar, query_ids, training_ids), policy)
        write(
            candidates_sn_out,
            _pairs(candidates[1], query_ids, reference_ids),
            f"{policy_of_candidates}, scores normalised",
            **shifted,
        )
    if showcase_out:
        write(
            showcase_out,
            _showcase(embeddings, images, stored, reference_ids, k),
            f"the nearest {k + 1} of each picture",
        )
    store.write_json(SearchTiming(queries=len(query_ids), read_seconds=read, seconds=seconds), timing_out)


def nearest(
    *, index: str, ids: str, vector: NDArray[np.float32], k: int, settings: dict[str, float] | None = None
) -> list[tuple[str, float]]:
    """Ids and scores of the k references nearest to one unit vector (d,), nearest first; all where there are fewer.

    ``settings`` are the search parameters of the index's entry. The files are taken as they are:
    ``checks.check_index`` says whether they belong together and to the vector.
    """
    reference_ids = vectors.whole(store.read_columns(ids, "image_id")["image_id"])
    stored = load(index, ids, reference_ids, settings or {})
    nobody = np.array([-1])
    found, _ = _search(stored, vector[None], min(k, len(reference_ids)), own=nobody, candidates=[], gpu=False)
    pairs = zip(reference_ids.take(pa.array(found.rows[0][found.rows[0] >= 0])), found.scores[0], strict=False)
    return [(str(image_id), float(score)) for image_id, score in pairs]


def _search(
    stored: Stored, queries: Floats, k: int, *, own: Rows, candidates: Sequence[Candidates], gpu: bool
) -> tuple[exact.Nearest, float]:
    """The k nearest of each query, and the seconds that took; fills the candidates."""
    started = time.perf_counter()
    if (blocks := stored.blocks()) is not None:  # on the CPU: FAISS on a GPU rounds by place, and ties come as they may
        if gpu:
            log.info("an exact search computes on the CPU. The entry needs no `gpu: 1`")
        return exact.search(stored.transform(queries), blocks, k, own, candidates), time.perf_counter() - started
    copy = on_gpu(stored.faiss) if gpu else None
    asked = [index for index in (copy, stored.faiss) if index is not None]
    found = approximate.search(asked[0], queries, k, own)
    seconds = time.perf_counter() - started
    if candidates:
        approximate.fill(candidates, asked, queries, own)
    return found, seconds


def _with_role(images: str, role: str) -> pa.Array:
    """Ids of the pictures that have a role."""
    sample = store.read_columns(images, "image_id", role)
    return sample.filter(sample[role])["image_id"].combine_chunks()


def _outside(images: str) -> pa.Array:
    """Ids of the pictures that the report shows with what they find, less the queries, which have theirs anyway."""
    if "showcase" not in store.read_schema(images).names:
        return pa.array([], pa.string())
    sample = store.read_columns(images, "image_id", "query", "showcase")
    shown = pc.and_not(pc.fill_null(sample["showcase"], False), sample["query"])
    return sample.filter(shown)["image_id"].combine_chunks()


def _embedded(embeddings: Sequence[str], ids: pa.Array) -> tuple[pa.Array, Floats]:
    """Those of the pictures that are embedded, and their unit vectors, in the order of the shards."""
    there, wanted = _located(embeddings, ids)
    return there, vectors.read(embeddings, wanted)


def _located(embeddings: Sequence[str], ids: pa.Array) -> tuple[pa.Array, list[NDArray[np.bool_]]]:
    """Those of the pictures that are embedded, in the order of the shards, and which rows of each shard are theirs."""
    rows = vectors.rows_among(embeddings, ids)
    wanted = [here >= 0 for here in rows]
    return ids.take(pa.array(np.concatenate([here[mask] for here, mask in zip(rows, wanted, strict=True)]))), wanted


def _showcase(embeddings: Sequence[str], images: str, stored: Stored, reference_ids: pa.Array, k: int) -> pa.Table:
    """The nearest k + 1 references of each outside picture; no rows where there are none."""
    ids, outside = _embedded(embeddings, _outside(images))
    own = vectors.rows_of(ids, reference_ids)
    found, _ = _search(stored, outside, min(k + 1, len(reference_ids)), own=own, candidates=[], gpu=False)
    return _neighbors(found, ids, reference_ids)


def _training(
    embeddings: Sequence[str], images: str, stored: Stored, *, query_ids: pa.Array, queries: Floats, count: int
) -> tuple[pa.Array, exact.Nearest]:
    """Ids of the training pictures, and each query's nearest ones among them, exactly, as the index sees vectors."""
    ids, wanted = _located(embeddings, _with_role(images, "training"))
    blocks = (stored.transform(block) for block in vectors.blocks(embeddings, wanted))
    return ids, exact.search(stored.transform(queries), blocks, count, vectors.rows_of(query_ids, ids))


def _shift(similarities: Floats, settings: Normalise, images: str) -> Floats:
    """What normalisation takes off each query's scores: beta times the mean of its nearest first..last training scores.

    Pizzi et al., A Self-Supervised Descriptor for Image Copy Detection (2022), equation 8.
    """
    chosen = similarities[:, settings.first - 1 : settings.last]
    there = np.isfinite(chosen)
    if not there.any(axis=1).all():
        raise LookalikeError(
            f"{images}: score normalisation takes each query's training pictures from the {settings.first}. nearest "
            "on, and there are not as many. Add pictures to the data set's training role."
        )
    mean = np.where(there, chosen, 0).sum(axis=1, dtype=np.float64) / there.sum(axis=1)
    shift: Floats = (settings.beta * mean).astype(np.float32)
    return shift


def _neighbors(found: exact.Nearest, query_ids: pa.Array, reference_ids: pa.Array) -> pa.Table:
    query, column = np.nonzero(found.rows >= 0)
    return _table(
        query_ids.take(pa.array(query)),
        column + 1,
        reference_ids.take(pa.array(found.rows[query, column])),
        found.scores[query, column],
    )


def _pairs(pairs: Candidates, query_ids: pa.Array, reference_ids: pa.Array) -> pa.Table:
    queries, rows, rank, scores = pairs.pairs()
    return _table(query_ids.take(pa.array(queries)), rank, reference_ids.take(pa.array(rows)), scores)


def _table(queries: pa.Array, rank: Rows, references: pa.Array, scores: Floats) -> pa.Table:
    columns = (queries, pa.array(rank, pa.int32()), references, pa.array(scores))
    return pa.table(dict(zip(NEIGHBORS.columns, columns, strict=True)), NEIGHBORS.schema())
