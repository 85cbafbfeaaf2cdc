"""Intact files of another sample, search or shard are refused, with a remedy that works."""

from pathlib import Path

import pyarrow as pa
import pytest

from lookalike.io import identity, store
from lookalike.io.formats.tables import IMAGES, MANIFEST, NEIGHBORS, REJECTED, TRUTH
from lookalike.job.errors import LookalikeError
from lookalike.sample.sample import SampleJob, sample
from tables import images_table, neighbors_table, rejected_table, truth_table


def write_sample(folder: Path, query: str) -> tuple[Path, Path]:
    images, truth = images_table(["r"], [query]), truth_table([(query, "r")])
    footer = {identity.SAMPLE: identity.hash_sample(images, truth)}
    store.write_table(images, folder / "images.parquet", IMAGES, footer)
    store.write_table(truth, folder / "truth.parquet", TRUTH, footer)
    return folder / "images.parquet", folder / "truth.parquet"


def test_truth_of_another_sample_is_refused(tmp_path: Path) -> None:
    images, truth = write_sample(tmp_path / "own", "q")
    _, other = write_sample(tmp_path / "other", "p")
    identity.check_sample(images, truth)
    with pytest.raises(LookalikeError, match=rf"^{other}: was made from another sample .* --forcerun {images}$"):
        identity.check_sample(images, truth, other)
    with pytest.raises(LookalikeError, match=r"^comparisons\.json: was made from another sample"):
        identity.check_sample(images, records={"comparisons.json": identity.sample_of(other)})


def test_the_same_sample_has_the_same_hash_and_another_truth_another_hash() -> None:
    images = images_table(["r", "s"], ["q"])
    truth, other = truth_table([("q", "r")]), truth_table([("q", "s")])
    assert identity.hash_sample(images, truth) == identity.hash_sample(images, truth_table([("q", "r")]))
    assert identity.hash_sample(images, truth) != identity.hash_sample(images, other)


def test_shards_that_an_index_was_not_built_from_are_named(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.parquet" for number in range(2)]
    for path in paths:
        store.write_table(rejected_table([path.stem]), path, REJECTED, {})
    indexed = identity.shards(paths)
    identity.check_shards(paths, indexed, "flat.ids.parquet")
    store.write_table(rejected_table(["another"]), paths[1], REJECTED, {})
    with pytest.raises(LookalikeError, match=rf"^{paths[1]}: is not the shard that .* --forcerun flat\.ids\.parquet$"):
        identity.check_shards(paths, indexed, "flat.ids.parquet")
    with pytest.raises(LookalikeError, match=r"1\.parquet: is not the shard"):
        identity.check_shards(paths[:1], indexed, "flat.ids.parquet")


def test_tables_of_two_searches_are_refused(tmp_path: Path) -> None:
    for name, seed in (("neighbors", 1), ("candidates", 1), ("other", 2)):
        footer = {"shards_sha256": str(seed), "policy": name}
        store.write_table(neighbors_table({"q": [("r", 0.5)]}), tmp_path / name, NEIGHBORS, footer)
    identity.check_search(tmp_path / "neighbors", tmp_path / "candidates")
    with pytest.raises(LookalikeError, match=r"other: was not written together with .*neighbors. Search again"):
        identity.check_search(tmp_path / "neighbors", tmp_path / "other")


def test_rejected_images_of_another_shard_are_refused(tmp_path: Path) -> None:
    for name, shard in (("0", "a"), ("0.rejected", "a"), ("1.rejected", "b")):
        store.write_table(rejected_table([]), tmp_path / name, REJECTED, {"shard_sha256": shard})
    identity.check_rejected([tmp_path / "0"], [tmp_path / "0.rejected"])
    with pytest.raises(LookalikeError, match=r"1\.rejected: was not written together with .* --forcerun .*0$"):
        identity.check_rejected([tmp_path / "0"], [tmp_path / "1.rejected"])


def test_files_that_do_not_record_what_they_were_made_from_are_refused(tmp_path: Path) -> None:
    """Two missing records would compare as equal."""
    for name, table, format in (
        ("images", images_table(["r"], ["q"]), IMAGES),
        ("truth", truth_table([]), TRUTH),
        ("neighbors", neighbors_table({}), NEIGHBORS),
        ("candidates", neighbors_table({}), NEIGHBORS),
        ("0", rejected_table([]), REJECTED),
        ("0.rejected", rejected_table([]), REJECTED),
    ):
        store.write_table(table, tmp_path / name, format, {})
    message = "does not record what it was made from .* Delete it and run again"
    with pytest.raises(LookalikeError, match=f"images: {message}"):
        identity.check_sample(tmp_path / "images", tmp_path / "truth")
    with pytest.raises(LookalikeError, match=f"neighbors: {message}"):
        identity.check_search(tmp_path / "neighbors", tmp_path / "candidates")
    with pytest.raises(LookalikeError, match=f"0: {message}"):
        identity.check_rejected([tmp_path / "0"], [tmp_path / "0.rejected"])


def test_images_that_were_made_with_other_settings_are_not_sampled(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.parquet"
    keys = [f'{{"kind": "copies", "of": "photos", "queries": 6, "seed": {seed}}}' for seed in (0, 1)]
    table = images_table(["r"], []).append_column("source", pa.nulls(1, pa.string()))
    store.write_table(table, manifest, MANIFEST, {"key": keys[1]})
    jobs = [SampleJob("copies", key, manifest, tmp_path / "images.parquet", tmp_path / "truth.parquet") for key in keys]
    with pytest.raises(LookalikeError, match=rf"{manifest}: .* made with other settings .* --forcerun {manifest}$"):
        sample(jobs[0])
    sample(jobs[1])
