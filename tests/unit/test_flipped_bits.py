"""A flipped bit in a file that a run reads is an error that names the file, never another number or a traceback."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookalike.io import content_hashes, store
from lookalike.io.checks import check_index
from lookalike.io.formats.records import Duplicates, EmbedTiming, Scan, Weights
from lookalike.io.formats.tables import EMBEDDINGS, IMAGES, INDEX_IDS, NEIGHBORS, REJECTED, TRUTH
from lookalike.job.errors import LookalikeError
from lookalike.sample import hashing
from tables import images_table, neighbors_table, rejected_table, truth_table

FLIPS = 100  # for each way to read a file
REFERENCES, QUERIES = [f"r{number}.jpg" for number in range(40)], [f"q{number}.jpg" for number in range(20)]
SETTINGS = {"made_by": "a test", "key": '{"family": "pixels"}'}

Read = Callable[[Path], Any]


def embeddings(dtype: str) -> pa.Table:
    rng = np.random.default_rng(0)
    vectors = pa.array(rng.normal(size=40 * 8).astype(dtype))
    return pa.table(
        {
            "image_id": REFERENCES,
            "sha256": [rng.bytes(32).hex() for _ in REFERENCES],
            "width": pa.array(range(40), pa.int32()),
            "height": pa.array([480] * 40, pa.int32()),
            "embedding": pa.FixedSizeListArray.from_arrays(vectors, 8),
        }
    )


def tables() -> dict[str, tuple[pa.Table, Any]]:
    return {
        "images": (images_table(REFERENCES, QUERIES, {"q1.jpg": "g"}, labels={"q2.jpg": ["cat", "mat"]}), IMAGES),
        "truth": (truth_table(list(zip(QUERIES, REFERENCES, strict=False))), TRUTH),
        "float32": (embeddings("f4"), EMBEDDINGS),
        "float16": (embeddings("f2"), EMBEDDINGS),
        "rejected": (rejected_table(REFERENCES[:2]), REJECTED),
        "none rejected": (rejected_table([]), REJECTED),
        "neighbors": (neighbors_table({query: [("r1.jpg", 0.5), ("r2.jpg", 0.25)] for query in QUERIES}), NEIGHBORS),
    }


def every_reader(path: Path, table: pa.Table, format: Any) -> dict[str, Read]:
    def batches(path: Path) -> Any:
        return [batch.to_pylist() for batch in store.read_batches(path, *table.column_names, rows=16)]

    return {
        "table": lambda path: store.read_table(path, format).to_pylist(),
        "columns": lambda path: store.read_columns(path, *table.column_names).to_pylist(),
        "batches": batches,
        "provenance": store.read_provenance,
        "schema": store.read_schema,
        "identity": store.identity,
    }


def flip_and_read(path: Path, read: Read, seed: int = 0) -> int:
    """Flip one bit after the other and count the flips that are detected. The others must not change what is read."""
    intact, expected, rng, refused = path.read_bytes(), read(path), random.Random(seed), 0
    for _ in range(FLIPS):
        data = bytearray(intact)
        position = rng.randrange(len(data))
        data[position] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            content, message = read(path), ""
        except LookalikeError as error:
            content, message = None, str(error)
        if message:
            assert message.startswith(f"{path}: ")
            assert message.endswith("Delete it and run again.")
            refused += 1
        else:
            assert content == expected, f"byte {position} of {len(data)}"
    path.write_bytes(intact)
    return refused


@pytest.mark.parametrize("name", tables())
def test_no_flipped_bit_of_a_table_gives_another_value(tmp_path: Path, name: str) -> None:
    table, format = tables()[name]
    path = tmp_path / "a.parquet"
    store.write_table(table, path, format, SETTINGS)
    for seed, (reader, read) in enumerate(every_reader(path, table, format).items()):
        refused = flip_and_read(path, read, seed)
        assert refused > FLIPS / 10, reader


def test_a_flipped_bit_in_any_byte_of_a_footer_is_detected(tmp_path: Path) -> None:
    table, format = tables()["truth"]
    path = tmp_path / "a.parquet"
    store.write_table(table, path, format, SETTINGS)
    intact, rng = path.read_bytes(), random.Random(0)
    length = int.from_bytes(intact[-8:-4], "little")
    for position in range(len(intact) - 8 - length, len(intact)):
        flipped = intact[position] ^ 1 << rng.randrange(8)
        path.write_bytes(intact[:position] + bytes([flipped]) + intact[position + 1 :])
        with pytest.raises(LookalikeError, match=r"a\.parquet: .* Delete it and run again\."):
            store.read_provenance(path)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    table, format = tables()["float32"]
    path = tmp_path / "a.parquet"
    store.write_table(table, path, format, SETTINGS)
    intact = path.read_bytes()
    for length in range(0, len(intact), 37):
        path.write_bytes(intact[:length])
        with pytest.raises(LookalikeError, match=r"a\.parquet: is damaged"):
            store.read_table(path, format)


def records() -> dict[str, Any]:
    return {
        "weights": Weights(source="hub", revision="abc", files={"model.safetensors": "0" * 64, "ü": "1" * 64}),
        "timing": EmbedTiming(images=10, seconds=4.25e-7, load_seconds=1.0, device="CPU", batch_size=2),
        "scan": Scan(shards={"../../embeddings/m/references-00000.parquet": 40}),
        "duplicates": Duplicates(
            references=3,
            queries=2,
            doubled=1,
            groups=1,
            undecidable=0,
            queries_like_match=0,
            queries_like_other=0,
            training_like_reference=0,
            examples={"doubled": [("a", "b")]},
        ),
    }


@pytest.mark.parametrize("name", records())
def test_no_flipped_bit_of_a_record_gives_another_value(tmp_path: Path, name: str) -> None:
    record = records()[name]
    path = tmp_path / "a.json"
    store.write_json(record, path)
    refused = flip_and_read(path, lambda path: store.read_json(path, type(record)))
    assert refused > FLIPS / 2


def test_other_programs_read_a_sealed_table(tmp_path: Path) -> None:
    table, format = tables()["float32"]
    path = tmp_path / "a.parquet"
    store.write_table(table, path, format, SETTINGS)
    metadata = pq.read_metadata(path).metadata
    assert metadata[b"lookalike_sha256"].startswith(b"data:")
    assert pq.read_table(path).equals(table)


def test_the_identity_of_a_file_depends_on_its_rows(tmp_path: Path) -> None:
    """Vectors that differ in one bit have pages of equal size and no statistics, so the rest of the footer is equal."""
    table, format = tables()["float16"]
    vectors = table["embedding"].combine_chunks().flatten().to_numpy().copy()
    vectors.view(np.uint16)[5] ^= 1
    other = table.set_column(4, "embedding", pa.FixedSizeListArray.from_arrays(pa.array(vectors), 8))
    for name, rows in (("first", table), ("second", table), ("other", other)):
        store.write_table(rows, tmp_path / name, format, SETTINGS)
    first, second, changed = (store.identity(tmp_path / name) for name in ("first", "second", "other"))
    assert first == second
    assert first != changed


def flipped(path: Path) -> Iterator[None]:
    """Flip one bit of the file after the other, and restore it at the end."""
    intact, rng = path.read_bytes(), random.Random(1)
    for _ in range(FLIPS):
        data = bytearray(intact)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        yield
    path.write_bytes(intact)


def test_no_flipped_bit_of_an_index_is_searched(tmp_path: Path) -> None:
    index, ids = tmp_path / "flat.faiss", tmp_path / "flat.ids.parquet"
    index.write_bytes(random.Random(0).randbytes(5_000))
    footer = {"index_sha256": store.sha256_file(index)}
    store.write_table(pa.table({"image_id": REFERENCES}), ids, INDEX_IDS, footer)
    for _ in flipped(index):
        with pytest.raises(LookalikeError, match=rf"^{index}: is not the index that {ids} was written for"):
            check_index(str(index), str(ids), {})
    check_index(str(index), str(ids), {})


def test_no_flipped_bit_of_the_cached_content_hashes_becomes_a_hash(tmp_path: Path) -> None:
    cache = tmp_path / "content_hashes.cache"
    columns = [REFERENCES, ["9 1 1 1"] * 40, [f"pieces:{number:032x}" for number in range(40)]]
    hashing._write(pa.table(columns, schema=hashing.CACHE), cache)
    assert hashing._read(cache).num_rows == 40
    for _ in flipped(cache):
        assert hashing._read(cache).num_rows == 0


def test_no_flipped_bit_of_an_image_that_a_run_made_is_embedded() -> None:
    data = bytearray(random.Random(0).randbytes(300_000))
    row = {"root": "results/made/images", "path": "queries-00000.zip!copy.jpg", "bytes": len(data)}
    row |= {"content_hash": content_hashes.of_made(data)}
    content_hashes.check(row, bytes(data))
    rng = random.Random(0)
    for _ in range(50):
        position, bit = rng.randrange(len(data)), 1 << rng.randrange(8)
        data[position] ^= bit
        with pytest.raises(LookalikeError, match=r"copy\.jpg.* --forcerun results/made/images/manifest\.parquet"):
            content_hashes.check(row, bytes(data))
        data[position] ^= bit
