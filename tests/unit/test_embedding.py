import json
import logging
import re
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

import tiny
from conftest import ImageFolder, made_image
from lookalike.embed import encoders
from lookalike.embed.batches import Embedded
from lookalike.embed.embed import EmbedJob, embed_image, embed_rows, embed_shard
from lookalike.embed.fetch_weights import fetch_weights
from lookalike.io import content_hashes, phone_formats, store
from lookalike.io.formats.records import STAGES, EmbedTiming, Weights, bottleneck
from lookalike.io.formats.tables import EMBEDDINGS, REJECTED, SHARD
from lookalike.job.errors import LookalikeError
from lookalike.sample.make_images import Album

PIXELS = '{"family": "pixels", "size": 4}'


class Shard:
    """A shard file that lists the images of a folder, and its embedding."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root
        self.sample()
        store.write_json(Weights(source="none", revision="", files={}), folder / "weights.json")

    def sample(self) -> None:
        """Write the shard file from the folder's current contents."""
        paths = sorted(self.root.iterdir())
        names, sizes = [path.name for path in paths], [path.stat().st_size for path in paths]
        rows = {"image_id": names, "root": [str(self.root)] * len(names), "path": names, "bytes": sizes}
        rows["content_hash"] = [content_hashes.of_file(path) for path in paths]
        store.write_table(pa.table(rows, SHARD.schema()), self.folder / "shard.parquet", SHARD, {})

    def embed(self, name: str = "out", **settings: Any) -> tuple[pa.Table, pa.Table]:
        out, rejected = self.folder / f"{name}.parquet", self.folder / f"{name}.rejected.parquet"
        defaults = {
            "model": "pixels",
            "key": PIXELS,
            "code": "c0de",
            "batch_size": 4,
            "threads": 2,
            "gpu": False,
        }
        embed_shard(
            EmbedJob(
                shard=str(self.folder / "shard.parquet"),
                weights=str(self.folder / "weights.json"),
                out=str(out),
                rejected_out=str(rejected),
                timing_out=str(self.folder / "timing.json"),
                **(defaults | settings),
            )
        )
        return store.read_table(out, EMBEDDINGS), store.read_table(rejected, REJECTED)


class Scripted:
    """A simple encoder under a test's control; a batch of more than ``fits`` images raises ``error``."""

    dimension, device, overlaps, compute_dtype = 3, "a device", True, "float32"
    versions: ClassVar[dict[str, str]] = {}

    def __init__(self, fits: int = 1000, error: Exception | None = None, side: int = 4) -> None:
        self.fits, self.error, self.side = fits, error or MemoryError(), side
        self.events: list[str] = []

    def prepare(self, image: Image.Image) -> np.ndarray:
        return np.asarray(image.resize((self.side, self.side)))

    def encode(self, batch: np.ndarray) -> np.ndarray:
        if len(batch) > self.fits:
            raise self.error
        return batch.reshape(len(batch), -1, 3).mean(1, dtype=np.float32)


class Queued(Scripted):
    """Like a GPU: the results are computed when they are fetched, from the batch as it is then."""

    def launch(self, prepared: list[np.ndarray]) -> Any:
        number = sum(event.startswith("launch") for event in self.events)
        self.events.append(f"launch {number}: {len(prepared)}")
        if len(prepared) > self.fits:
            raise self.error

        def fetch() -> Any:
            self.events.append(f"fetch {number}")
            return self.encode(np.stack(prepared)), {"transfer": 0.25, "forward": 2.0}

        return fetch


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The key of a tiny network with batch normalisation."""
    folder = tiny.efficientnet(tmp_path_factory.mktemp("checkpoint") / "efficientnet")
    return json.dumps(
        {"family": "transformers", "checkpoint": str(folder), "feature": "pooler_output", "pooling": "none"}
    )


@pytest.fixture
def shard(tmp_path: Path, image_folder: ImageFolder) -> Shard:
    return Shard(tmp_path, image_folder(tmp_path / "photos", 11))


def test_every_image_gets_the_vector_of_its_own_pixels(shard: Shard) -> None:
    embedded, rejected = shard.embed()
    assert rejected.num_rows == 0
    encoder = encoders.load(PIXELS, Weights(source="", revision="", files={}), encoders.Machine())
    for row in embedded.to_pylist():
        expected = encoder.encode(encoder.prepare(made_image(int(row["image_id"][1:-4])))[None])[0]
        np.testing.assert_array_equal(row["embedding"], expected)
    assert embedded.num_rows == 11
    assert embedded["sha256"][0].as_py() == store.sha256_file(shard.root / embedded["image_id"][0].as_py())


@pytest.mark.parametrize(("batch_size", "threads"), [(1, 1), (3, 2), (64, 4)])
def test_batch_size_and_threads_change_no_row(shard: Shard, network: str, batch_size: int, threads: int) -> None:
    """With a network, whose sums may round differently; images differ by more than 1000 times the rounding."""
    fetch_weights(network, shard.folder / "weights.json")
    expected, _ = shard.embed(key=network)
    actual, _ = shard.embed("other", key=network, batch_size=batch_size, threads=threads)
    assert actual.drop("embedding").equals(expected.drop("embedding"))
    rows, others = (np.array(table["embedding"].to_pylist()) for table in (expected, actual))
    rounding = 1e-5 * np.abs(rows).max()
    np.testing.assert_allclose(others, rows, rtol=0, atol=rounding)
    distances = np.abs(rows[:, None] - rows[None]).max(2)[~np.eye(len(rows), dtype=bool)]
    assert distances.min() > 1000 * rounding


def test_bad_images_are_listed_with_their_reasons_and_counts_add_up(
    shard: Shard, caplog: pytest.LogCaptureFixture
) -> None:
    (shard.root / "p3.png").write_bytes(b"not an image")
    shard.sample()
    (shard.root / "p5.png").unlink()
    with caplog.at_level(logging.INFO, "lookalike"):
        embedded, rejected = shard.embed()
    assert rejected.to_pylist() == [
        {"image_id": "p3.png", "path": "p3.png", "reason": "is text, not an image"},
        {
            "image_id": "p5.png",
            "path": "p5.png",
            "reason": "the file is missing: it was removed after the data set was sampled",
        },
    ]
    assert embedded.num_rows + rejected.num_rows == 11
    assert "9 embedded + 2 rejected = 11 in the shard" in caplog.text
    assert "embedded 11 of 11 images" in caplog.text


def test_a_missing_root_stops_the_job_rather_than_rejecting_everything(shard: Shard) -> None:
    shard.root.rename(shard.root.with_name("elsewhere"))
    with pytest.raises(LookalikeError, match=r"that folder is missing\. Restore it"):
        shard.embed()


def test_an_image_that_changed_since_sampling_stops_the_job(shard: Shard) -> None:
    made_image(99, (61, 48)).save(shard.root / "p3.png")
    with pytest.raises(LookalikeError, match=r"p3\.png: has changed since the data set was sampled: it had \d+ bytes"):
        shard.embed()


def test_an_image_replaced_by_one_of_the_same_size_stops_the_job(shard: Shard) -> None:
    made_image(3).save(shard.root / "p3.bmp")
    shard.sample()
    made_image(4).save(shard.root / "p3.bmp")
    with pytest.raises(LookalikeError, match=r"p3\.bmp: has changed since .* but different ones\. Sample again"):
        shard.embed()


def test_an_image_made_by_a_run_is_embedded_unchanged_or_the_job_stops(shard: Shard) -> None:
    """Wherever a bit of the archive flips, its images are neither rejected nor embedded from changed bytes."""
    root = shard.root.parent / "images"
    with Album([str(root / "queries-00000.zip")]) as album:
        rows = [album.add(path.name, path.read_bytes()) for path in sorted(shard.root.iterdir())]
        album.pack()
    table = pa.Table.from_pylist([{name: row[name] for name in SHARD.columns} for row in rows], SHARD.schema())
    store.write_table(table, shard.folder / "shard.parquet", SHARD, {})
    embedded, _ = shard.embed()
    archive = root / "queries-00000.zip"
    whole = archive.read_bytes()
    remedy = rf"A run made it; make it again: --forcerun {root}/manifest\.parquet$"
    stopped: list[str] = []
    for at in (*range(0, len(whole), len(whole) // 20), len(whole) - 20):
        archive.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        try:
            again, _ = shard.embed()
        except LookalikeError as error:
            stopped.append(str(error))
        else:
            assert again.equals(embedded)  # a bit that no reader uses
    assert len(stopped) > 10
    assert all(re.search(remedy, message) for message in stopped), stopped
    for contents, reason in [(whole[:-30], "truncated"), (whole.replace(b"p3.png", b"pX.png"), "no member 'p3.png'")]:
        archive.write_bytes(contents)
        with pytest.raises(LookalikeError, match=rf"{reason}.* {remedy}"):
            shard.embed()
    archive.unlink()
    with pytest.raises(LookalikeError, match=rf"is missing.* {remedy}"):
        shard.embed()


def test_values_that_are_not_finite_stop_the_job_and_name_the_image(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = encoders.load

    def load(*arguments: Any) -> Any:
        encoder = real(*arguments)
        encode = encoder.encode

        def broken(batch: Any) -> Any:
            vectors = encode(batch)
            vectors[1, 0] = np.nan
            return vectors

        encoder.encode = broken  # type: ignore[method-assign]
        return encoder

    monkeypatch.setattr(encoders, "load", load)
    with pytest.raises(LookalikeError, match=r"p1\.png: the model gave NaN or infinite numbers for this image"):
        shard.embed()


class Scaled(Scripted):
    """An encoder whose vectors are multiplied by ``scale``."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = np.float32(scale)

    def encode(self, batch: np.ndarray) -> np.ndarray:
        return super().encode(batch) * self.scale


@pytest.mark.parametrize(("scale", "largest"), [(1e4, r"up to \d\.\d+e\+06"), (1e-9, r"up to \d\.\d+e-07")])
def test_values_that_do_not_fit_the_stored_dtype_stop_the_job_and_name_the_image(
    shard: Shard, monkeypatch: pytest.MonkeyPatch, scale: float, largest: str
) -> None:
    monkeypatch.setattr(encoders, "load", lambda *_: Scaled(scale))
    embedded, _ = shard.embed()
    assert np.isfinite(embedded["embedding"].combine_chunks().flatten().to_numpy()).all()
    key = '{"family": "pixels", "stored_dtype": "float16"}'
    message = (
        rf"p0\.png: the model's numbers for this image, {largest}, do not fit into float16\. Use stored_dtype: float32"
    )
    with pytest.raises(LookalikeError, match=message):
        shard.embed(key=key)
    with pytest.raises(LookalikeError, match=message):
        embed_image((shard.root / "p0.png").read_bytes(), "p0.png", Scaled(scale), key)


def test_a_zero_vector_is_stored_in_any_dtype(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "load", lambda *_: Scaled(0))
    embedded, _ = shard.embed(key='{"family": "pixels", "stored_dtype": "float16"}')
    assert not embedded["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False).any()


def test_duplicate_files_have_equal_vectors_in_any_batch(tmp_path: Path, image_folder: ImageFolder) -> None:
    root = image_folder(tmp_path / "photos", 16)
    (root / "q.png").write_bytes((root / "p3.png").read_bytes())  # the 17th image, alone in the second batch
    names = sorted(path.name for path in root.iterdir())
    shard, key = Shard(tmp_path, root), '{"family": "efficientnet_lite", "variant": "lite0"}'
    fetch_weights(key, tmp_path / "weights.json")
    embedded, _ = shard.embed(key=key, batch_size=16)
    assert embedded["image_id"].to_pylist() == names
    vectors = np.stack(embedded["embedding"].to_numpy())
    assert np.array_equal(vectors[16], vectors[names.index("p3.png")])
    assert len(np.unique(vectors, axis=0)) == 16


def test_duplicates_are_computed_once_and_take_no_place_in_a_batch(tmp_path: Path, image_folder: ImageFolder) -> None:
    root = image_folder(tmp_path / "photos", 3)
    for number in range(9):
        (root / f"copy{number}.png").write_bytes((root / "p1.png").read_bytes())
    shard, encoder = Shard(tmp_path, root), Queued()
    done = embed(shard, encoder, batch_size=2)
    assert [event for event in encoder.events if "launch" in event] == ["launch 0: 2", "launch 1: 1"]
    np.testing.assert_array_equal(done.vectors, expected(shard))


def test_footer_and_timing_record_how_the_vectors_were_made(shard: Shard) -> None:
    shard.embed(key='{"family": "pixels", "stored_dtype": "float16"}')
    footer = store.read_provenance(shard.folder / "out.parquet")
    assert (footer["made_by"], footer["model"]) == ("lookalike embed", "pixels")
    assert footer["key"] == '{"family": "pixels", "stored_dtype": "float16"}'
    assert footer["dtypes"] == {"compute": "float32", "stored": "float16"}
    assert footer["weights"] == {"source": "none", "revision": "", "files": {}}
    assert footer["rows"] == 11
    decoders = {kind.package for kind in phone_formats.KINDS}  # if they are installed
    assert set(footer["versions"]) - decoders == {"numpy", "pillow", "pyarrow"}
    kind = store.read_table(shard.folder / "out.parquet", EMBEDDINGS).schema.field("embedding").type
    assert kind == pa.list_(pa.float16(), 256)
    timing = store.read_json(shard.folder / "timing.json", EmbedTiming)
    assert (timing.images, timing.batch_size, timing.device) == (11, 4, "CPU (2 threads)")
    assert timing.images_per_second > 0
    assert (timing.threads, timing.precision) == (2, "float32")
    assert set(timing.stages) == {*STAGES, "wait"}
    assert timing.bottleneck == bottleneck(timing.stages, 2) != ""
    assert timing.peak_memory_mb is not None
    assert timing.peak_memory_mb > 30
    assert timing.peak_gpu_memory_mb is None
    assert timing.stages["wait"] + timing.stages["forward"] + timing.stages["write"] <= timing.seconds


@pytest.mark.parametrize("overlaps", [True, False])
def test_memory_is_bounded_by_the_batch_size_not_the_number_of_images(
    tmp_path: Path, image_folder: ImageFolder, monkeypatch: pytest.MonkeyPatch, overlaps: bool
) -> None:
    alive: set[int] = set()
    most = 0
    real = encoders.load

    class Tracked(np.ndarray):  # type: ignore[type-arg]
        def __del__(self) -> None:
            alive.discard(id(self))

    def load(*arguments: Any) -> Any:
        encoder = real(*arguments)
        prepare = encoder.prepare

        def tracked(image: Any) -> Any:
            nonlocal most
            array = prepare(image).view(Tracked)
            alive.add(id(array))
            most = max(most, len(alive))
            return array

        encoder.prepare = tracked  # type: ignore[method-assign]
        encoder.overlaps = overlaps
        return encoder

    monkeypatch.setattr(encoders, "load", load)
    embedded, _ = Shard(tmp_path, image_folder(tmp_path / "many", 40)).embed(batch_size=3)
    assert embedded.num_rows == 40
    assert 3 <= most <= 3 * 3 + 2  # a batch, two batches ahead, and one image per thread


def test_an_empty_shard_gives_empty_tables(tmp_path: Path, image_folder: ImageFolder) -> None:
    embedded, rejected = Shard(tmp_path, image_folder(tmp_path / "none", 0)).embed()
    assert (embedded.num_rows, rejected.num_rows) == (0, 0)
    assert embedded.schema.field("embedding").type.list_size == 16


def embed(shard: Shard, encoder: Any, batch_size: int = 4) -> Embedded:
    rows = store.read_table(shard.folder / "shard.parquet", SHARD)
    return embed_rows(rows, encoder, batch_size=batch_size, threads=2)


def expected(shard: Shard) -> np.ndarray:
    encoder = Scripted()
    names = store.read_table(shard.folder / "shard.parquet", SHARD)["path"].to_pylist()
    return np.concatenate([encoder.encode(encoder.prepare(Image.open(shard.root / name))[None]) for name in names])


@pytest.mark.parametrize("overlaps", [True, False])
def test_threads_that_hand_over_several_images_at_a_time_keep_order_and_count(
    tmp_path: Path, image_folder: ImageFolder, monkeypatch: pytest.MonkeyPatch, overlaps: bool
) -> None:
    handed_over: list[int] = []

    class Pool(ThreadPoolExecutor):
        def submit(self, function: Any, part: Any, /) -> Any:  # type: ignore[override]
            handed_over.append(len(part))
            return super().submit(function, part)

    monkeypatch.setattr("lookalike.embed.embed.ThreadPoolExecutor", Pool)
    root = image_folder(tmp_path / "some", 45)
    names = sorted(path.name for path in root.iterdir())
    (root / names[3]).write_bytes(b"not an image")
    encoder = Scripted()
    encoder.overlaps = overlaps  # type: ignore[misc]
    done = embed(Shard(tmp_path, root), encoder, batch_size=32)
    assert handed_over == ([8] * 5 + [5] if overlaps else [1] * 45)
    assert [image.path for image in done.rejected] == [names[3]]
    assert [image.path for image in done.images] == names[:3] + names[4:]
    alone = [encoder.encode(encoder.prepare(Image.open(root / image.path))[None]) for image in done.images]
    np.testing.assert_array_equal(done.vectors, np.concatenate(alone))


def test_the_next_batch_is_queued_before_the_previous_result_is_fetched(shard: Shard) -> None:
    encoder = Queued()
    done = embed(shard, encoder)
    assert encoder.events == ["launch 0: 4", "launch 1: 4", "fetch 0", "launch 2: 3", "fetch 1", "fetch 2"]
    np.testing.assert_array_equal(done.vectors, expected(shard))
    assert (done.seconds["transfer"], done.seconds["forward"]) == (0.75, 6.0)


@pytest.mark.parametrize("kind", [Scripted, Queued])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("cuBLAS error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
    ids=str,
)
def test_out_of_memory_halves_the_batch_size_for_good_and_changes_no_row(
    shard: Shard, kind: type[Scripted], error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = kind(fits=2, error=error)
    done = embed(shard, encoder, batch_size=8)
    np.testing.assert_array_equal(done.vectors, expected(shard))
    assert [image.path for image in done.images] == sorted(path.name for path in shard.root.iterdir())
    assert done.batch_size == 2
    warnings = [record.getMessage() for record in caplog.records if "out of memory at" in record.getMessage()]
    assert [line.split(":")[0] for line in warnings] == [
        "out of memory at batch size 8; continuing with 4",
        "out of memory at batch size 4; continuing with 2",
    ]
    if isinstance(encoder, Queued):
        sizes = [int(event.split(": ")[1]) for event in encoder.events if event.startswith("launch")]
        assert sizes == [8, 4, 2, 2, 2, 2, 2, 1]


def test_out_of_memory_at_batch_size_1_stops_the_job_with_a_remedy(shard: Shard) -> None:
    with pytest.raises(LookalikeError, match=r"p0\.png: out of memory at batch size 1: .* Run on a machine"):
        embed(shard, Scripted(fits=0))


def test_other_errors_of_a_network_are_not_mistaken_for_out_of_memory(shard: Shard) -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        embed(shard, Scripted(fits=2, error=RuntimeError("shapes cannot be multiplied")))


@pytest.mark.parametrize("kind", [Scripted, Queued])
def test_peak_memory_grows_only_with_vectors_and_names(
    kind: type[Scripted], tmp_path: Path, image_folder: ImageFolder
) -> None:
    root = image_folder(tmp_path / "photos", 240)
    names = sorted(path.name for path in root.iterdir())

    def peak(count: int) -> int:
        sizes = [(root / name).stat().st_size for name in names]
        columns = {"path": names, "bytes": sizes, "root": [str(root)] * len(names)}
        columns["content_hash"] = [content_hashes.of_file(root / name) for name in names]
        rows = {"image_id": [str(number) for number in range(count)]}
        rows |= {name: values[:count] for name, values in columns.items()}
        table = pa.table(rows, SHARD.schema())
        tracemalloc.start()
        embed_rows(table, kind(side=200), batch_size=4, threads=2)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    pixels = 200 * 200 * 3  # bytes of one prepared image
    growth = peak(240) - peak(40)
    assert growth < 200 * 3000 < 200 * pixels / 10, f"{growth / 200:.0f} bytes per image"


def test_bottleneck_is_the_slowest_stage_given_the_threads() -> None:
    stages = {"read": 1.0, "decode": 6.0, "preprocess": 3.0, "transfer": 0.5, "forward": 4.0, "write": 0.1, "wait": 9.0}
    assert bottleneck(stages, threads=1) == "decode"
    assert bottleneck(stages, threads=4) == "forward"
    assert bottleneck({**stages, "transfer": 5.0}, threads=4) == "transfer"
    assert bottleneck({"write": 1.0}, threads=4) == "write"
    assert bottleneck({}, threads=4) == ""


# --- decode: fast ---


@pytest.fixture
def photographs(tmp_path: Path) -> Shard:
    root = tmp_path / "photographs"
    root.mkdir()
    rotated = Image.Exif()
    rotated[0x0112] = 6
    made_image(1, (1600, 1200)).save(root / "a.jpg", quality=90)
    made_image(2, (1200, 700)).save(root / "b.jpg", quality=90, exif=rotated)
    made_image(3, (300, 250)).save(root / "c.jpg", quality=90)
    made_image(4, (900, 800)).save(root / "d.png")
    return Shard(tmp_path, root)


def test_fast_decoding_keeps_the_sizes_and_approximates_the_vectors(photographs: Shard) -> None:
    key = '{"family": "efficientnet_lite", "variant": "lite0"}'
    fetch_weights(key, photographs.folder / "weights.json")
    full, _ = photographs.embed(key=key)
    fast, _ = photographs.embed("fast", key=key[:-1] + ', "decode": "fast"}')
    sizes = [(row["width"], row["height"]) for row in fast.to_pylist()]
    assert sizes == [(1600, 1200), (700, 1200), (300, 250), (900, 800)]
    assert fast.drop("embedding").equals(full.drop("embedding"))
    for before, after, same in zip(full["embedding"], fast["embedding"], (False, False, True, True), strict=True):
        a, b = np.array(before.as_py()), np.array(after.as_py())
        assert np.array_equal(a, b) is same, "only a large enough JPEG is decoded at a reduced size"
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.99


def test_a_single_image_is_embedded_exactly_as_the_stage_embeds_it(photographs: Shard, network: str) -> None:
    key = json.dumps(json.loads(network) | {"decode": "fast"})
    fetch_weights(key, photographs.folder / "weights.json")
    stage, _ = photographs.embed(key=key, batch_size=1)
    weights = store.read_json(photographs.folder / "weights.json", Weights)
    encoder = encoders.load(key, weights, encoders.Machine(threads=2))
    vector = embed_image((photographs.root / "a.jpg").read_bytes(), "a.jpg", encoder, key)
    np.testing.assert_array_equal(vector, stage["embedding"][0].as_py())
