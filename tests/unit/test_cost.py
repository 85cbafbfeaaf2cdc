"""What a run will cost, told before it starts: only what is known, and what is not known by name."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from conftest import REPOSITORY
from lookalike.config.datasets import Folder
from lookalike.embed import catalogue
from lookalike.io import store
from lookalike.io.formats.records import EmbedTiming
from lookalike.io.formats.tables import EMBEDDINGS
from lookalike.plan import cost
from lookalike.plan.cost import Cost, ModelCost
from lookalike.plan.plan import Plan
from lookalike.sample import counting

CATALOGUE = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
DIMENSION = 256  # of the model pixels


def plan(**sections: Any) -> Plan:
    return Plan.of(catalogue.merge(CATALOGUE, sections))


def write_embedded(folder: Path, shard: str, seconds: float, device: str = "cpu", key: str = "") -> None:
    """Vectors of ten images by pixels, and the timing of the job that embedded them."""
    values = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(10 * DIMENSION, np.float32)), DIMENSION)
    texts, sizes = pa.array([f"{number}.png" for number in range(10)]), pa.array([1] * 10, pa.int32())
    columns = {"image_id": texts, "sha256": texts, "width": sizes, "height": sizes, "embedding": values}
    provenance = {"key": key or plan().embedding_key("pixels")}
    vectors = folder / f"results/coco/embeddings/pixels/{shard}.parquet"
    store.write_table(pa.table(columns), vectors, EMBEDDINGS, provenance)
    timing = EmbedTiming(images=10, seconds=seconds, load_seconds=1, device=device, batch_size=8)
    store.write_json(timing, folder / f"results/logs/embed/coco/pixels/{shard}.json")


def test_the_issues_example_reads_as_one_line() -> None:
    models = tuple(ModelCost(f"m{number}", 150_000, 5400.0, "cpu", 566_000_000) for number in range(6))
    assert str(Cost("disc21", models)) == (
        "disc21: 6 models x 150,000 images to embed: about 9 h of embed jobs at the speed of earlier ones on cpu, "
        "3.4 GB of vectors"
    )


def test_what_is_not_known_is_named_and_not_counted() -> None:
    known = ModelCost("a", 1000, 60.0, "cpu", 2_000_000)
    assert str(Cost("d", (known, ModelCost("b", 500, None, "", None)))) == (
        "d: 1,500 images with 2 models to embed: about 60 s of embed jobs at the speed of earlier ones on cpu, plus b "
        "(not measured yet), 2.0 MB of vectors, plus b (dimension unknown)"
    )
    assert str(Cost("d", (ModelCost("b", 500, None, "", None),))) == (
        "d: 1 model x 500 images to embed: time unknown, since no such job has run yet, size of the vectors unknown "
        "until the first are computed"
    )
    assert str(Cost("d", (ModelCost("a", None, None, "", None),))) == (
        "d: 1 model to embed with; the number of images is unknown until they are sampled"
    )
    assert str(Cost("d", (ModelCost("b", 12_034, 60.0, "cpu", 2_000_000, approximate=True),))) == (
        "d: 1 model x about 12,000 images to embed: about 60 s of embed jobs at the speed of earlier ones on cpu, "
        "2.0 MB of vectors"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (89, "89 s"), (120, "2 min"), (5399, "90 min"), (9 * 3600, "9 h"), (72 * 3600, "3 days")],
)
def test_durations_have_a_unit_that_people_would_choose(seconds: float, text: str) -> None:
    assert cost.duration(seconds) == text


def test_sizes_have_a_decimal_unit() -> None:
    assert [cost.file_size(size) for size in (400, 30_720, 2_500_000, 3_400_000_000)] == [
        "0.4 kB",
        "30.7 kB",
        "2.5 MB",
        "3.4 GB",
    ]


def test_images_come_from_what_the_configuration_expects(tmp_path: Path) -> None:
    known = plan()
    (disc21,) = cost.estimate(known, cost.missing_jobs(known, "disc21", tmp_path), folder=tmp_path)
    assert {model.images for model in disc21.models} == {150_000 + 1448}
    (copies,) = cost.estimate(known, cost.missing_jobs(known, "flickr30k-copies", tmp_path), folder=tmp_path)
    assert {model.images for model in copies.models} == {10_000 + 6000}
    (tiles,) = cost.estimate(known, [("photo-tiles-copies", "pixels", "references-00000")], folder=tmp_path)
    assert tiles.models == (ModelCost("pixels", None, None, "", None),)


def test_images_that_no_configuration_tells_are_counted(tmp_path: Path, image_folder: Callable[..., Any]) -> None:
    image_folder(tmp_path / "photos/more", 7)
    known = plan(
        datasets={
            "own": {"kind": "folder", "root": str(tmp_path / "photos")},
            "own-copies": {"kind": "copies", "of": "own", "queries": 20, "without_match": 2},
        }
    )
    for shard, images in (("references-00000", 7 - 2), ("queries-00000", 20 + 2)):
        jobs = [("own-copies", "pixels", shard)]
        (copies,) = cost.estimate(known, jobs, folder=tmp_path, count=counting.count)
        size = images * DIMENSION * 4
        assert copies.models == (ModelCost("pixels", images, None, "", size, approximate=images == 5),)
    (disc21,) = cost.estimate(known, cost.missing_jobs(known, "disc21", tmp_path), folder=tmp_path, count=broken)
    assert not disc21.models[0].approximate, "what the configuration expects is not counted"


def broken(_: Any) -> dict[str, int]:
    raise AssertionError("counted without need")


def test_tiles_are_counted_without_decoding_a_photograph() -> None:
    entry = plan().config.datasets["photo-tiles"]
    made = 172  # by `make demo`; flat tiles are left out of them
    assert made <= counting.count(entry)["references"] <= 1.2 * made


def test_a_folder_is_counted_as_it_is_sampled(tmp_path: Path, image_folder: Callable[..., Any]) -> None:
    image_folder(tmp_path / "photos", 5)
    image_folder(tmp_path / "photos/queries", 3)
    image_folder(tmp_path / "photos/@eaDir", 4)  # thumbnails that a NAS keeps
    (tmp_path / "photos/notes.txt").write_text("")
    (tmp_path / "photos/cycle").symlink_to(tmp_path / "photos")
    entry = folder_entry(root=tmp_path / "photos", queries=tmp_path / "photos/queries")
    assert counting.count(entry) == {"references": 5, "queries": 3}
    assert counting.count(folder_entry(root=tmp_path / "photos", sample=2)) == {"references": 2}


def test_what_cannot_be_counted_quickly_stays_unknown(
    tmp_path: Path, image_folder: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    image_folder(tmp_path / "archived", 2)
    (tmp_path / "archived/photos.zip").write_bytes(b"")
    assert counting.count(folder_entry(root=tmp_path / "archived")) == {}
    assert counting.count(folder_entry(root=tmp_path / "missing")) == {}
    image_folder(tmp_path / "huge", 2)
    monkeypatch.setattr(counting, "SECONDS", -1.0)
    assert counting.count(folder_entry(root=tmp_path / "huge", sample=1)) == {}


def folder_entry(**keys: Any) -> Folder:
    return Folder.model_validate({"kind": "folder"} | {key: str(value) for key, value in keys.items()}, strict=False)


def test_of_a_half_embedded_data_set_only_the_rest_counts(tmp_path: Path) -> None:
    known = plan(datasets={"coco": {"shards": {"images": 4}}}, experiments={"coco": {"models": ["pixels"]}})
    for shard in ("images-00000", "images-00001"):
        write_embedded(tmp_path, shard, seconds=2.0)
    rest = cost.missing_jobs(known, "coco", tmp_path)
    assert [shard for _, _, shard in rest] == ["images-00002", "images-00003"]
    (coco,) = cost.estimate(known, rest, folder=tmp_path)
    assert coco.models == (ModelCost("pixels", 2500, 500.0, "cpu", 2500 * DIMENSION * 4),)


def test_a_shard_that_exists_is_counted_unless_it_is_sampled_again(tmp_path: Path) -> None:
    shard = tmp_path / "results/coco/sample/shards/images-00000.parquet"
    shard.parent.mkdir(parents=True)
    pq.write_table(pa.table({"image_id": [str(number) for number in range(4990)]}), shard)
    jobs = [("coco", "pixels", "images-00000")]
    for resampled, images in (((), 4990), (("coco",), 5000)):
        (coco,) = cost.estimate(plan(), jobs, folder=tmp_path, resampled=resampled)
        assert coco.models[0].images == images
    (coco,) = cost.estimate(plan(), jobs, folder=tmp_path, roles={"coco": {"references": 7}}, resampled=("coco",))
    assert coco.models[0].images == 7


def test_a_speed_is_that_of_the_present_settings_on_the_device_of_the_last_job(tmp_path: Path) -> None:
    assert cost.measured(plan(), "pixels", tmp_path) is None
    write_embedded(tmp_path, "images-00000", seconds=0.001, key='{"family": "pixels", "size": 4}')
    assert cost.measured(plan(), "pixels", tmp_path) is None
    for number, (seconds, device) in enumerate([(1.0, "cuda"), (4.0, "cpu"), (6.0, "cpu")], start=1):
        write_embedded(tmp_path, f"images-{number:05d}", seconds, device)
        timing = tmp_path / f"results/logs/embed/coco/pixels/images-{number:05d}.json"
        os.utime(timing, (4e9 + number, 4e9 + number))
    assert cost.measured(plan(), "pixels", tmp_path) == cost.Measured(2.0, "cpu", DIMENSION)


def test_a_damaged_shard_is_left_to_the_job_that_reads_it(tmp_path: Path) -> None:
    shard = tmp_path / "results/coco/sample/shards/images-00000.parquet"
    shard.parent.mkdir(parents=True)
    shard.write_bytes(b"PAR1 damaged PAR1")
    (coco,) = cost.estimate(plan(), [("coco", "pixels", "images-00000")], folder=tmp_path)
    assert coco.models[0].images == 5000
