"""What belongs together: shards of one model, an index and its ids, vectors and the images that were sampled."""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lookalike.config.models import from_key
from lookalike.io import store
from lookalike.io.vectors import rows_of, whole
from lookalike.job.errors import LookalikeError

log = logging.getLogger(__name__)

IDENTITY = ("key", "code", "weights_sha256", "dtypes")  # what vectors must share to be compared with each other
NAMED = 8  # files that a message lists at most


def check_shards(embeddings: Iterable[str], embedding_key: str, embedding_code: str) -> dict[str, Any]:
    """Check that embedding shards belong together and were made with ``embedding_key`` by ``embedding_code``.

    Returns what they share, for the footers of what is made from them; ``embed_versions`` are the library versions that
    made the vectors. Different versions are a warning, and all of them are listed, such as ``11.3.0 / 12.0.0``.
    """
    footers = {path: store.read_provenance(path) for path in embeddings}
    weights = from_key(embedding_key).weights_file()  # forcing it embeds all shards of the model again
    _check_current(footers, {"key": embedding_key, "code": embedding_code}, weights)
    first, shared = next(iter(footers.items()))
    versions: dict[str, set[str]] = {}
    for path, footer in footers.items():
        for name in IDENTITY:
            if footer[name] != shared[name]:
                raise LookalikeError(
                    f"{path}: its {name} is {footer[name]}, and that of {first} is {shared[name]}, so their vectors "
                    f"cannot be compared. Embed all shards again: --forcerun {weights}"
                )
        engines = [made.get("engine", {}).get("name") for made in (footer, shared)]
        if engines[0] != engines[1]:
            log.warning(
                "%s: was computed with %s, %s with %s. In float32 their vectors agree within 1e-5 of their norm",
                *(path, engines[0], first, engines[1]),
            )
        elif footer["versions"] != shared["versions"]:
            log.warning("%s: was made with %s, other shards with %s", path, footer["versions"], shared["versions"])
        for library, version in footer["versions"].items():
            versions.setdefault(library, set()).add(version)
    return {
        **{name: shared[name] for name in (*IDENTITY, "weights")},
        "embed_versions": {library: " / ".join(sorted(used)) for library, used in versions.items()},
    }


def _check_current(footers: dict[str, dict[str, Any]], expected: dict[str, Any], weights: str) -> None:
    """Refuse shards of an earlier configuration or code, which Snakemake may not know of if it was killed.

    The message lists all of them: a forced run that embeds only one would be refused for the next.
    """
    stale = [path for path, footer in footers.items() if any(footer.get(name) != expected[name] for name in expected)]
    if not stale:
        return
    name = next(name for name in expected if footers[stale[0]].get(name) != expected[name])
    maker = "configuration" if name == "key" else "version of the code"
    forced = " ".join(stale) if len(stale) <= NAMED else weights
    raise LookalikeError(
        f"{stale[0]}: was made by another {maker}: its {name} is {footers[stale[0]].get(name)}, expected "
        f"{expected[name]} ({len(stale)} of {len(footers)} shards). Embed again: --forcerun {forced}"
    )


def check_index(index: str, ids: str, expected: dict[str, Any]) -> dict[str, Any]:
    """Check that an index is the one that its ids were written for, and that their footer is as expected.

    Returns the footer.
    """
    footer = store.read_provenance(ids)
    if footer.get("index_sha256") != store.sha256_file(index):
        raise LookalikeError(f"{index}: is not the index that {ids} was written for. Delete both and run again.")
    check_same(ids, footer, expected)
    return footer


def check_same(path: str, footer: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raise LookalikeError where a file's footer differs from what is expected."""
    for name, value in expected.items():
        if footer.get(name) != value:
            raise LookalikeError(
                f"{path}: was made by another configuration: its {name} is {footer.get(name)}, expected {value}. "
                "Delete this file and run again."
            )


def check_images(
    embeddings: Sequence[str], rows: Sequence[NDArray[np.int64]], sample: pa.Table, rejected: pa.Table, images: str
) -> str:
    """Check, image by image, that sampled = embedded + rejected, and that what was embedded is what was sampled.

    ``rows`` are the sample's rows of each shard's images (``vectors.rows_among``), ``sample`` has at least the column
    ``image_id``. Returns a hash over all ids and the bytes that were decoded for them, whatever their order: models
    whose hashes differ saw different images.
    """
    ids = whole(sample["image_id"])
    sampled_hashes = whole(sample["sha256"]) if "sha256" in sample.column_names else None
    rejected_rows = rows_of(whole(rejected["image_id"]), ids)  # -1 as well where an image is rejected twice
    all_rows = np.concatenate([*rows, rejected_rows])
    counts = np.bincount(all_rows[all_rows >= 0], minlength=len(ids))
    if (all_rows < 0).any() or (counts != 1).any():
        examples = ids.filter(pa.array(counts != 1))[:1].to_pylist()
        for path, shard_rows in zip(embeddings, rows, strict=True):
            examples += _not_sampled(path, shard_rows)
        examples += rejected["image_id"].filter(pa.array(rejected_rows < 0))[:1].to_pylist()
        weights = from_key(store.read_provenance(embeddings[0])["key"]).weights_file()
        raise LookalikeError(
            f"{images}: {len(ids)} images were sampled, but {len(all_rows) - rejected.num_rows} are embedded and "
            f"{rejected.num_rows} rejected; for example '{examples[0]}'. The embeddings belong to another sample, or "
            f"the sample to another data set. Make both again: --forcerun {images} {weights}"
        )
    total = sum(_digest(image_id, "rejected") for image_id in rejected["image_id"].to_pylist())
    for path, shard_rows in zip(embeddings, rows, strict=True):
        table = store.read_columns(path, "image_id", "sha256")
        if sampled_hashes is not None:
            expected = sampled_hashes.take(pa.array(shard_rows))
            differs = pc.fill_null(pc.not_equal(table["sha256"].combine_chunks(), expected), False)
            if (changed := table.filter(differs)).num_rows:
                raise LookalikeError(
                    f"{path}: holds the vector of another image under the name '{changed['image_id'][0]}': its file "
                    "was changed after it was embedded or copied. Copy and embed it again: --forcerun "
                    f"{Path(images).parent.parent / 'images/manifest.parquet'} {path}"
                )
        for batch in table.to_batches(max_chunksize=1 << 16):
            total += sum(map(_digest, batch["image_id"].to_pylist(), batch["sha256"].to_pylist()))
    return f"{total % 2**256:064x}"


def _digest(image_id: str, sha256: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{image_id}\0{sha256}".encode()).digest())


def _not_sampled(path: str, shard_rows: NDArray[np.int64]) -> list[str]:
    """The first image of a shard that is not in the sample, if any."""
    ids = store.read_columns(path, "image_id")["image_id"]
    return list(ids.filter(pa.array(shard_rows < 0))[:1].to_pylist())
