import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from conftest import MakePictures, picture
from lookalike import models, store
from lookalike.embedding import embed_shard
from lookalike.errors import LookalikeError
from lookalike.formats import EMBEDDINGS, REJECTED, SHARD, EmbedTiming, Weights

PIXELS = '{"family": "pixels", "size": 4}'


class Shard:
    """A shard file over a folder, and its embedding."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root
        self.sample()
        store.write_json(Weights(source="none", revision="", files={}), folder / "weights.json")

    def sample(self) -> None:
        """Look at the folder."""
        paths = sorted(self.root.iterdir())
        names, sizes = [path.name for path in paths], [path.stat().st_size for path in paths]
        rows = {"image_id": names, "root": [str(self.root)] * len(names), "path": names, "bytes": sizes}
        store.write_table(pa.table(rows, SHARD.schema()), self.folder / "shard.parquet", SHARD, {})

    def embed(self, name: str = "out", **settings: Any) -> tuple[pa.Table, pa.Table]:
        out, rejected = self.folder / f"{name}.parquet", self.folder / f"{name}.rejected.parquet"
        defaults = {
            "model": "pixels",
            "key": PIXELS,
            "batch_size": 4,
            "threads": 2,
            "gpu": False,
            "on_bad_image": "reject",
        }
        embed_shard(
            shard=str(self.folder / "shard.parquet"),
            weights=str(self.folder / "weights.json"),
            out=str(out),
            rejected_out=str(rejected),
            timing_out=str(self.folder / "timing.json"),
            **(defaults | settings),
        )
        return store.read_table(out, EMBEDDINGS), store.read_table(rejected, REJECTED)


@pytest.fixture
def shard(tmp_path: Path, make_pictures: MakePictures) -> Shard:
    return Shard(tmp_path, make_pictures(tmp_path / "pictures", 11))


def test_every_picture_gets_the_vector_of_its_own_pixels(shard: Shard) -> None:
    embedded, rejected = shard.embed()
    assert rejected.num_rows == 0
    encoder = models.load(PIXELS, Weights(source="", revision="", files={}), models.Machine())
    for row in embedded.to_pylist():
        expected = encoder.encode(encoder.prepare(picture(int(row["image_id"][1:-4])))[None])[0]
        np.testing.assert_array_equal(row["embedding"], expected)
    assert embedded.num_rows == 11
    assert embedded["sha256"][0].as_py() == store.sha256_file(shard.root / embedded["image_id"][0].as_py())


@pytest.mark.parametrize(("batch_size", "threads"), [(1, 1), (3, 2), (11, 4), (64, 1)])
def test_batches_and_threads_change_no_row(shard: Shard, batch_size: int, threads: int) -> None:
    expected, _ = shard.embed()
    assert shard.embed("other", batch_size=batch_size, threads=threads)[0].equals(expected)


def test_bad_pictures_are_listed_with_their_reasons_and_counts_add_up(
    shard: Shard, caplog: pytest.LogCaptureFixture
) -> None:
    (shard.root / "p3.png").write_bytes(b"no picture")
    shard.sample()
    (shard.root / "p5.png").unlink()
    with caplog.at_level(logging.INFO, "lookalike"):
        embedded, rejected = shard.embed()
    assert rejected.to_pylist() == [
        {"image_id": "p3.png", "path": "p3.png", "reason": "is text, not a picture"},
        {
            "image_id": "p5.png",
            "path": "p5.png",
            "reason": "the file is gone: it was there when the data set was sampled",
        },
    ]
    assert embedded.num_rows + rejected.num_rows == 11
    assert "9 embedded + 2 rejected = 11 in the shard" in caplog.text
    assert "embedded 11 of 11 pictures" in caplog.text


def test_a_bad_picture_is_fatal_where_the_configuration_says_so(shard: Shard) -> None:
    (shard.root / "p3.png").write_bytes(b"no picture")
    shard.sample()
    with pytest.raises(LookalikeError) as caught:
        shard.embed(on_bad_image="fail")
    assert str(caught.value) == (
        "p3.png: is text, not a picture. Mend or remove the picture, or set on_bad_image: reject."
    )
    assert not (shard.folder / "out.parquet").exists()


def test_a_missing_root_stops_the_job_rather_than_rejecting_everything(shard: Shard) -> None:
    shard.root.rename(shard.root.with_name("elsewhere"))
    with pytest.raises(LookalikeError, match=r"that folder does not exist now\. Bring it back"):
        shard.embed()


def test_a_picture_that_changed_since_it_was_sampled_stops_the_job(shard: Shard) -> None:
    picture(99, (61, 48)).save(shard.root / "p3.png")
    with pytest.raises(LookalikeError, match=r"p3\.png: has changed since the data set was sampled: it had \d+ bytes"):
        shard.embed()


def test_pictures_that_a_run_made_and_somebody_removed_are_not_rejected(shard: Shard) -> None:
    (shard.root / "manifest.parquet").write_bytes(b"")
    (shard.root / "p3.png").unlink()
    with pytest.raises(LookalikeError, match=r"p3\.png: is gone, and 0 more .* again: --forcerun make_images"):
        shard.embed()


def test_numbers_that_are_not_finite_stop_the_job_and_name_the_picture(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = models.load

    def load(*arguments: Any) -> Any:
        encoder = real(*arguments)
        encode = encoder.encode

        def broken(batch: Any) -> Any:
            vectors = encode(batch)
            vectors[1, 0] = np.nan
            return vectors

        encoder.encode = broken  # type: ignore[method-assign]
        return encoder

    monkeypatch.setattr(models, "load", load)
    with pytest.raises(LookalikeError, match=r"p1\.png: the model gave NaN or infinite numbers for this picture"):
        shard.embed()


def test_the_footer_and_the_timing_say_how_it_was_made(shard: Shard) -> None:
    shard.embed(key='{"family": "pixels", "stored_dtype": "float16"}')
    footer = store.read_provenance(shard.folder / "out.parquet")
    assert (footer["made_by"], footer["model"]) == ("lookalike embed", "pixels")
    assert footer["key"] == '{"family": "pixels", "stored_dtype": "float16"}'
    assert footer["dtypes"] == {"compute": "float32", "stored": "float16"}
    assert footer["weights"] == {"source": "none", "revision": "", "files": {}}
    assert footer["rows"] == 11
    assert set(footer["versions"]) == {"numpy", "pillow", "pyarrow"}
    kind = store.read_table(shard.folder / "out.parquet", EMBEDDINGS).schema.field("embedding").type
    assert kind == pa.list_(pa.float16(), 256)
    timing = store.read_json(shard.folder / "timing.json", EmbedTiming)
    assert (timing.images, timing.batch_size, timing.device) == (11, 4, "CPU (2 threads)")
    assert timing.images_per_second > 0
    assert set(timing.stages) == {"read", "decode", "preprocess", "wait", "forward", "write"}
    assert timing.stages["wait"] + timing.stages["forward"] + timing.stages["write"] <= timing.seconds


@pytest.mark.parametrize("overlaps", [True, False])
def test_memory_is_bounded_by_the_batch_and_not_by_the_number_of_pictures(
    tmp_path: Path, make_pictures: MakePictures, monkeypatch: pytest.MonkeyPatch, overlaps: bool
) -> None:
    alive: set[int] = set()
    most = 0
    real = models.load

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

    monkeypatch.setattr(models, "load", load)
    embedded, _ = Shard(tmp_path, make_pictures(tmp_path / "many", 40)).embed(batch_size=3)
    assert embedded.num_rows == 40
    assert 3 <= most <= 3 * 3 + 2  # a batch, two more ahead, and one in each thread


def test_an_empty_shard_gives_empty_tables(tmp_path: Path, make_pictures: MakePictures) -> None:
    embedded, rejected = Shard(tmp_path, make_pictures(tmp_path / "none", 0)).embed()
    assert (embedded.num_rows, rejected.num_rows) == (0, 0)
    assert embedded.schema.field("embedding").type.list_size == 16
