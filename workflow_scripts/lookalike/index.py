"""FAISS indexes: built from embedding shards that belong together, and searched. Ids ride along with the vectors."""

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lookalike import store
from lookalike.errors import LookalikeError
from lookalike.formats import EMBEDDINGS, IMAGES, INDEX_IDS, NEIGHBORS, REJECTED, SearchTiming

log = logging.getLogger(__name__)
F = TypeVar("F", np.float32, np.float64)


def build(
    *,
    embeddings: Sequence[str],
    rejected: Sequence[str],
    images: str,
    out: str,
    ids_out: str,
    key: str,
    embedding_key: str,
    on_bad_image: str,
) -> None:
    """Build the index of a model's references.

    ``key`` is the index's entry, ``embedding_key`` what the vectors must have been made with. Raises LookalikeError for
    shards that do not belong together, for pictures that are neither embedded nor rejected, and where no reference has
    a vector.
    """
    import faiss

    made_with = check_shards(embeddings, embedding_key)
    sample = store.read_table(images, IMAGES)
    bad = pa.concat_tables(store.read_table(path, REJECTED) for path in rejected)
    if bad.num_rows and on_bad_image == "fail":
        first = bad.slice(0, 1).to_pylist()[0]
        raise LookalikeError(
            f"{first['path']}: {first['reason']} ({bad.num_rows} such pictures). "
            "Mend or remove them, or set on_bad_image: reject."
        )
    ids, vectors = _vectors(embeddings, sample, "reference")
    pictures_sha256 = _check_pictures(sample, embeddings, bad, images)
    if not ids:
        first = bad.slice(0, 1).to_pylist()[0]
        raise LookalikeError(
            f"{images}: not one reference could be embedded. The first: {first['path']}: {first['reason']}."
        )

    factory = json.loads(key)["factory"]
    try:
        index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        if not index.is_trained:
            index.train(vectors)
        index.add(vectors)
    except RuntimeError as error:
        raise LookalikeError(
            f"indexes: FAISS cannot build factory '{factory}' for {len(ids)} references of {vectors.shape[1]} "
            f"dimensions: {str(error).strip().splitlines()[-1]}"
        ) from None
    with store.atomic(out) as temporary:
        faiss.write_index(index, str(temporary))
    provenance = {
        "made_by": "lookalike index",
        "index_key": key,
        "index_sha256": store.sha256_file(out),
        "pictures_sha256": pictures_sha256,
        **made_with,
        "versions": store.versions("faiss-cpu", "faiss-gpu", "numpy"),
    }
    store.write_table(pa.table({"image_id": pa.array(ids, pa.string())}), ids_out, INDEX_IDS, provenance)
    log.info("indexed %d references of %d dimensions", len(ids), vectors.shape[1])


def search(
    *,
    index: str,
    ids: str,
    embeddings: Sequence[str],
    images: str,
    out: str,
    timing_out: str,
    key: str,
    embedding_key: str,
    model: str,
    index_name: str,
    k: int,
) -> None:
    """Find the nearest references of every embedded query.

    k + 1 neighbors are kept, so that a tie across the boundary is seen when the result is measured (fewer where the
    index holds fewer). A picture is never its own neighbor. Raises LookalikeError where the index file is not the one
    that its ids were written for, or holds vectors of another key. ``key`` and ``embedding_key`` as in ``build``.
    """
    import faiss

    made_with = check_shards(embeddings, embedding_key)
    footer = check_index(index, ids, {"index_key": key, **{name: made_with[name] for name in IDENTITY}})
    reference_ids = np.array(store.read_table(ids, INDEX_IDS)["image_id"].to_pylist(), object)
    query_ids, vectors = _vectors(embeddings, store.read_table(images, IMAGES), "query")
    log.info("searching %d queries among %d references", len(query_ids), len(reference_ids))

    started = time.perf_counter()
    own = not set(query_ids).isdisjoint(reference_ids)
    found = faiss.read_index(index)
    scores, rows = found.search(vectors, min(k + 1 + own, len(reference_ids))) if query_ids else (np.empty((0, 1)),) * 2
    timing = SearchTiming(
        queries=len(query_ids), seconds=time.perf_counter() - started, index_bytes=Path(index).stat().st_size
    )

    queries = np.repeat(np.array(query_ids, object), rows.shape[1])
    references = reference_ids[rows.reshape(-1).astype(np.int64)]
    keep = ((rows.reshape(-1) >= 0) & (queries != references)).reshape(rows.shape)
    rank = np.cumsum(keep, axis=1)
    keep &= rank <= k + 1
    table = pa.table(
        {
            "query_id": pa.array(queries[keep.reshape(-1)], pa.string()),
            "rank": pa.array(rank[keep], pa.int32()),
            "reference_id": pa.array(references[keep.reshape(-1)], pa.string()),
            "score": pa.array(scores[keep], pa.float32()),
        }
    )
    provenance = {
        "made_by": "lookalike search",
        "model": model,
        "index": index_name,
        "index_key": key,
        "k": k,
        "references": len(reference_ids),
        "dimensions": vectors.shape[1],  # as the model gives them; an index may reduce them
        "pictures_sha256": footer["pictures_sha256"],
        **made_with,
        "versions": store.versions("faiss-cpu", "faiss-gpu", "numpy"),
    }
    store.write_table(table, out, NEIGHBORS, provenance)
    store.write_json(timing, timing_out)


def nearest(*, index: str, ids: str, vector: NDArray[np.float32], k: int) -> list[tuple[str, float]]:
    """Ids and scores of the k references nearest to one unit vector (d,), nearest first; all where there are fewer.

    The files are taken as they are: ``check_index`` says whether they belong together and to the vector.
    """
    import faiss

    reference_ids = store.read_table(ids, INDEX_IDS)["image_id"].to_pylist()
    scores, rows = faiss.read_index(index).search(vector[None], min(k, len(reference_ids)))
    return [(reference_ids[row], float(score)) for row, score in zip(rows[0], scores[0], strict=True) if row >= 0]


IDENTITY = ("key", "weights_sha256", "dtypes")  # what vectors must share to be compared with each other


def check_shards(embeddings: Iterable[str], embedding_key: str) -> dict[str, Any]:
    """Check that embedding shards belong together and were made with ``embedding_key``.

    Returns what they share, for the footers of what is made from them; ``embed_versions`` are the library versions that
    made the vectors. Differing ones are a warning, and all of them are named, such as ``11.3.0 / 12.0.0``.
    """
    expected: dict[str, Any] = {"key": embedding_key}
    versions: dict[str, Any] = {}
    shared: dict[str, Any] = {}
    found: dict[str, set[str]] = {}
    for path in embeddings:
        footer = store.read_provenance(path)
        check_same(path, footer, expected)
        expected |= {name: footer[name] for name in IDENTITY}
        shared = {name: footer[name] for name in (*IDENTITY, "weights")}
        if versions and footer["versions"] != versions:
            log.warning("%s: was made with %s, other shards with %s", path, footer["versions"], versions)
        versions = versions or footer["versions"]
        for library, version in footer["versions"].items():
            found.setdefault(library, set()).add(version)
    return {**shared, "embed_versions": {library: " / ".join(sorted(all_of)) for library, all_of in found.items()}}


def check_index(index: str, ids: str, expected: dict[str, Any]) -> dict[str, Any]:
    """Check that an index is the one that its ids were written for, and that their footer says what is expected.

    Returns the footer.
    """
    footer = store.read_provenance(ids)
    if footer.get("index_sha256") != store.sha256_file(index):
        raise LookalikeError(f"{index}: is not the index that {ids} was written for. Delete both and run again.")
    check_same(ids, footer, expected)
    return footer


def check_same(path: str, footer: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raise LookalikeError where a file's footer says other than expected."""
    for name, value in expected.items():
        if footer.get(name) != value:
            raise LookalikeError(
                f"{path}: was made by another configuration: its {name} is {footer.get(name)}, expected {value}. "
                "Delete this file and run again."
            )


def _vectors(embeddings: Sequence[str], sample: pa.Table, role: str) -> tuple[list[str], NDArray[np.float32]]:
    """Ids and unit vectors (n, d) of the embedded pictures that have a role, in the order of the shards."""
    wanted = set(sample.filter(sample[role])["image_id"].to_pylist())
    ids: list[str] = []
    parts: list[NDArray[np.float32]] = []
    for path in embeddings:
        table = store.read_table(path, EMBEDDINGS)
        column = table["embedding"].combine_chunks()
        matrix = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size)
        chosen = [row for row, image_id in enumerate(table["image_id"].to_pylist()) if image_id in wanted]
        ids += table["image_id"].take(pa.array(chosen, pa.int64())).to_pylist()
        parts.append(matrix[chosen].astype(np.float32))
    return ids, unit(np.concatenate(parts))


def unit(vectors: NDArray[F]) -> NDArray[F]:
    """(n, d) vectors to length 1, in place.

    A vector of zeros (a plain picture under `pixels`) stays zero: it scores 0 with everything.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    normalised: NDArray[F] = np.divide(vectors, lengths, out=vectors, where=lengths > 0)
    return normalised


def _check_pictures(sample: pa.Table, embeddings: Sequence[str], bad: pa.Table, images: str) -> str:
    """Check, picture by picture, that sampled = embedded + rejected, and that what was embedded is what was sampled.

    Returns a hash over all ids and the bytes that were decoded for them: models whose hashes differ saw other pictures.
    """
    known = sample["sha256"].to_pylist() if "sha256" in sample.column_names else [None] * sample.num_rows
    expected = dict(zip(sample["image_id"].to_pylist(), known, strict=True))
    seen = [(image_id, "rejected") for image_id in bad["image_id"].to_pylist()]
    for path in embeddings:
        table = store.read_columns(path, "image_id", "sha256")
        for image_id, sha256 in zip(table["image_id"].to_pylist(), table["sha256"].to_pylist(), strict=True):
            if (expected.get(image_id) or sha256) != sha256:
                raise LookalikeError(
                    f"{path}: holds the vector of another picture under the name '{image_id}': its file was changed "
                    f"after it was embedded. Embed this shard again: --forcerun {path}"
                )
            seen.append((image_id, sha256))
    odd = sorted(set(expected).symmetric_difference(image_id for image_id, _ in seen))
    if odd or len(seen) != len(expected):
        ids = [image_id for image_id, _ in seen]
        example = odd[0] if odd else next(image_id for image_id in ids if ids.count(image_id) > 1)
        raise LookalikeError(
            f"{images}: {len(expected)} pictures were sampled, but {len(seen) - bad.num_rows} are embedded and "
            f"{bad.num_rows} rejected; for example '{example}'. The embeddings belong to another sample: "
            f"delete {Path(embeddings[0]).parent} and run again."
        )
    return hashlib.sha256(json.dumps(sorted(seen)).encode()).hexdigest()
