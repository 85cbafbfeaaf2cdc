"""The vector store: what was computed once is not computed again, and nothing in it can change a number."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, features
from typer.testing import CliRunner

from conftest import REPOSITORY, largest_file
from lookalike.cli.main import app
from lookalike.embed import batches, embed, encoders
from lookalike.embed.batches import Embedded, ShardImage
from lookalike.embed.embed import EmbedJob, embed_shard
from lookalike.embed.reuse import embed_missing
from lookalike.io import content_hashes, store, vector_store
from lookalike.io.formats.records import EmbedTiming, Weights
from lookalike.io.formats.tables import EMBEDDINGS, REJECTED, SHARD
from lookalike.io.vector_store import VectorStore
from lookalike.job.errors import LookalikeError
from lookalike.measure import measure
from lookalike.plan.cost import file_size

PIXELS = '{"family": "pixels", "size": 4}'


class Counting:
    """An encoder that counts what it encodes; its vector is the image's pixels."""

    dimension, device, overlaps, compute_dtype = 48, "a device", False, "float32"
    versions: ClassVar[dict[str, str]] = {"library": "1"}

    def __init__(self, then: Any = None) -> None:
        self.seen, self.batches, self.then = 0, 0, then

    def prepare(self, image: Image.Image) -> np.ndarray:
        return np.asarray(image).reshape(-1)

    def encode(self, batch: np.ndarray) -> np.ndarray:
        self.seen, self.batches = self.seen + len(batch), self.batches + 1
        if self.then:
            self.then(self)
        return batch.astype(np.float32)


class Jobs:
    """Embed jobs about folders of tiny images, which share one store."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, folder / "store"
        self.photos = folder / "photos"
        self.photos.mkdir()
        store.write_json(Weights(source="none", revision="", files={}), folder / "weights.json")

    def add(self, *numbers: int) -> "Jobs":
        for number in numbers:
            write(self.photos / f"{number:05}.bmp", number)
        return self

    def sample(self, paths: list[Path], name: str = "shard") -> Path:
        rows = {"image_id": [path.name for path in paths], "root": [str(path.parent) for path in paths]}
        rows |= {"path": rows["image_id"], "bytes": [path.stat().st_size for path in paths]}
        rows["content_hash"] = [content_hashes.of_file(path) for path in paths]
        store.write_table(pa.table(rows, SHARD.schema()), self.folder / f"{name}.shard", SHARD, {})
        return self.folder / f"{name}.shard"

    def job(self, name: str = "shard", **settings: Any) -> EmbedJob:
        defaults: dict[str, Any] = {"key": PIXELS, "code": "c0de", "vector_store": str(self.store)}
        return EmbedJob(
            shard=str(self.folder / f"{name}.shard"),
            weights=str(self.folder / "weights.json"),
            out=str(self.folder / f"{name}.parquet"),
            rejected_out=str(self.folder / f"{name}.rejected"),
            timing_out=str(self.folder / f"{name}.json"),
            **({"model": "some", "batch_size": 4, "threads": 2, "gpu": False} | defaults | settings),
        )

    def embed(self, name: str = "shard", encoder: Any = None, **settings: Any) -> int:
        """Embed the photos as one shard, as Snakemake would: without its old files. The images that were computed."""
        if not (self.folder / f"{name}.shard").exists():
            self.sample(sorted(self.photos.iterdir()), name)
        encoder = encoder or Counting()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(encoders, "load", lambda *_: encoder)
            job = self.job(name, **settings)
            Path(job.out).unlink(missing_ok=True)
            embed_shard(job)
        return int(encoder.seen)

    def again(self, **settings: Any) -> int:
        """Sample and embed anew."""
        (self.folder / "shard.shard").unlink(missing_ok=True)
        return self.embed(**settings)

    def bytes(self, name: str = "shard") -> tuple[bytes, bytes]:
        return (self.folder / f"{name}.parquet").read_bytes(), (self.folder / f"{name}.rejected").read_bytes()

    def timing(self) -> EmbedTiming:
        return store.read_json(self.folder / "shard.json", EmbedTiming)

    def tables(self) -> list[Path]:
        return sorted(self.store.glob("*/*.parquet"))


def write(path: Path, number: int) -> None:
    pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path)


@pytest.fixture
def _written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch is on disk once it is computed."""
    monkeypatch.setattr(vector_store, "SECONDS", -1)


def without_store(jobs: Jobs) -> tuple[bytes, bytes]:
    """The files of the shard if nothing is stored."""
    jobs.embed("plain", vector_store=None)
    (jobs.folder / "plain.shard").unlink()
    return jobs.bytes("plain")


def test_one_new_image_among_a_thousand_is_the_only_one_computed(jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert jobs.add(*range(1000)).embed() == 1000
    assert (jobs.timing().images, jobs.timing().from_store) == (1000, 0)
    assert jobs.add(1000).again() == 1
    assert (jobs.timing().images, jobs.timing().from_store) == (1, 1000)
    assert "1 vectors computed + 1000 from the vector store = 1001" in caplog.messages
    assert jobs.bytes() == without_store(jobs)


def test_a_shard_is_the_same_to_the_byte_with_and_without_a_store(jobs: Jobs) -> None:
    """Also with rejected images, duplicates, and images of which only some are stored."""
    jobs.add(*range(30))
    jobs.embed()
    for name, content in (("00004a", b"no image"), ("00031", (jobs.photos / "00007.bmp").read_bytes())):
        (jobs.photos / f"{name}.bmp").write_bytes(content)
    write(jobs.photos / "00000a.bmp", 77)
    write(jobs.photos / "00099.bmp", 77)
    assert jobs.again() == 1
    assert jobs.bytes() == without_store(jobs)
    assert store.read_table(jobs.folder / "shard.rejected", REJECTED).num_rows == 1


def test_equal_bytes_have_equal_vectors_in_other_data_sets_and_under_other_names(jobs: Jobs) -> None:
    class Rounding(Counting):
        """A network, whose vectors depend on the batch in the last bits."""

        def encode(self, batch: np.ndarray) -> np.ndarray:
            return super().encode(batch) * np.float32(1 + self.batches * 1e-6)

    jobs.add(*range(10)).embed(encoder=Rounding())
    other = jobs.folder / "other"
    other.mkdir()
    paths = [other / f"renamed{number}.bmp" for number in (7, 3, 50)]
    for path, number in zip(paths, (7, 3, 50), strict=True):
        write(path, number)
    jobs.sample(paths, "elsewhere")
    assert jobs.embed("elsewhere", Rounding()) == 1
    first, second = (
        {row["sha256"]: row["embedding"] for row in store.read_table(jobs.folder / name, EMBEDDINGS).to_pylist()}
        for name in ("shard.parquet", "elsewhere.parquet")
    )
    assert len(first.keys() & second.keys()) == 2
    assert all(first[sha256] == second[sha256] for sha256 in first.keys() & second.keys())


@pytest.mark.parametrize(
    "settings",
    [
        {"code": "other"},
        {"key": '{"family": "pixels", "size": 5}'},
        {"encoder": type("Newer", (Counting,), {"versions": {"library": "2"}})},
        {"encoder": type("OtherEngine", (Counting,), {"engine": "library"})},
        {"encoder": type("Half", (Counting,), {"compute_dtype": "float16"})},
        {"encoder": type("OtherCpu", (Counting,), {"instructions": "avx512f"})},
        {"encoder": type("ExportedAgain", (Counting,), {"export": "other network"})},
        {"weights": "changed"},
    ],
    ids=str,
)
def test_nothing_is_reused_of_other_code_settings_weights_or_engines(jobs: Jobs, settings: dict[str, Any]) -> None:
    jobs.add(*range(9)).embed()
    if settings.pop("weights", None):
        store.write_json(Weights(source="none", revision="", files={"a": "b"}), jobs.folder / "weights.json")
    if encoder := settings.pop("encoder", None):
        settings["encoder"] = encoder()
    assert jobs.embed(**settings) == 9


def test_nothing_is_reused_that_another_decoder_decoded(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution updates libjpeg, and Pillow stays as it is."""
    jobs.add(*range(9)).embed()
    monkeypatch.setattr(features, "version", lambda name: "2.0" if name == "libjpeg_turbo" else None)
    assert jobs.embed() == 9


def test_a_model_under_another_name_shares_its_vectors(jobs: Jobs) -> None:
    jobs.add(*range(9)).embed()
    assert jobs.embed(model="same") == 0


def test_vectors_of_a_users_function_are_never_reused(jobs: Jobs) -> None:
    """It may read files that nobody watches."""
    key = '{"family": "python", "factory": "encoder:create"}'
    jobs.add(*range(9)).embed(key=key)
    assert jobs.embed(key=key) == 9
    assert not jobs.store.exists()


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_vector_store import Counting, Jobs, encoders, vector_store, embed_shard
jobs = Jobs.__new__(Jobs)
jobs.folder, jobs.store = Path(sys.argv[1]), Path(sys.argv[1]) / "store"
vector_store.SECONDS = -1
{patch}
encoders.load = lambda *_: Counting({then})
embed_shard(jobs.job(*sys.argv[2:]))
"""


def process(folder: Path, *names: str, then: str = "None", patch: str = "") -> "subprocess.Popen[bytes]":
    code = KILLED.format(tests=str(REPOSITORY / "tests/unit"), then=then, patch=patch)
    path = os.pathsep.join([str(REPOSITORY / "workflow_scripts"), str(REPOSITORY / "tests")])
    return subprocess.Popen([sys.executable, "-c", code, str(folder), *names], env={**os.environ, "PYTHONPATH": path})


KILL = "os.kill(os.getpid(), signal.SIGKILL)"


def test_a_killed_shard_resumes_with_what_it_lacks(jobs: Jobs) -> None:
    jobs.add(*range(30)).sample(sorted(jobs.photos.iterdir()))
    running = process(jobs.folder, then=f"lambda encoder: encoder.batches == 5 and {KILL}")
    assert running.wait() == -signal.SIGKILL
    encoder = Counting()
    assert jobs.embed(encoder=encoder) == 30 - 3 * 4  # a fourth batch was computed, but not fetched
    assert encoder.batches == 5  # of 4, 4, 4, 4 and 2 images: the same as in an undisturbed run
    assert jobs.bytes() == without_store(jobs)
    assert len(jobs.tables()) == 1  # the finished shard: what the killed attempt left is removed
    assert not list(jobs.store.glob("*/.*"))


@pytest.mark.parametrize("where", ["store._seal", "vector_store._write_keys", "vector_store.os.link"])
def test_a_writer_killed_in_the_middle_of_a_file_harms_nothing(jobs: Jobs, where: str) -> None:
    jobs.add(*range(12)).sample(sorted(jobs.photos.iterdir()))
    patch = f"from lookalike.io import store\n{where} = lambda *_: {KILL}"
    if where == "store._seal":  # of the store's second file; the first was the weights' and the shard's
        patch = f"from lookalike.io import store\nseal = store._seal\nstore._seal = lambda path: {KILL} or seal(path)"
    assert process(jobs.folder, patch=patch).wait() == -signal.SIGKILL
    assert jobs.embed() == (0 if where == "vector_store.os.link" else 12)
    assert jobs.bytes() == without_store(jobs)
    vector_store.prune(jobs.store, 0)
    assert not list(jobs.store.glob("*/.*.tmp"))
    assert jobs.embed() == 0


def test_what_was_computed_before_an_error_or_an_interrupt_is_kept(jobs: Jobs) -> None:
    def interrupt(encoder: Counting) -> None:
        if encoder.batches == 3:
            raise KeyboardInterrupt

    jobs.add(*range(12))
    with pytest.raises(KeyboardInterrupt):
        jobs.embed(encoder=Counting(interrupt))
    assert jobs.embed() == 8


def test_jobs_that_write_at_once_disturb_neither_each_other_nor_readers(jobs: Jobs) -> None:
    """Four processes with overlapping shards, all of them writing after every batch, while the store is pruned."""
    jobs.add(*range(200))
    paths = sorted(jobs.photos.iterdir())
    names = [f"part{number}" for number in range(4)]
    for number, name in enumerate(names):
        jobs.sample(paths[number * 40 : number * 40 + 80], name)
    running = [process(jobs.folder, name) for name in names]
    assert [one.wait() for one in running] == [0, 0, 0, 0]
    for name in names:
        finished = jobs.bytes(name)
        assert jobs.embed(name, vector_store=None) == 80
        assert finished == jobs.bytes(name)
    assert jobs.embed() == 0
    assert jobs.bytes() == without_store(jobs)


@pytest.mark.usefixtures("_written_at_once")
@pytest.mark.parametrize("linked", [True, False])
def test_a_flipped_bit_costs_time_and_changes_no_vector(
    jobs: Jobs, linked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not linked:
        monkeypatch.setattr(os, "link", _no_links)
    jobs.add(*range(8)).embed()
    expected = without_store(jobs)
    shutil.copytree(jobs.store, jobs.folder / "good")
    draw = np.random.default_rng(0)
    computed = set()
    for _ in range(25):
        shutil.rmtree(jobs.store)
        shutil.copytree(jobs.folder / "good", jobs.store)
        files = sorted(path for path in jobs.store.glob("*/*") if path.is_file())
        path = files[draw.integers(len(files))]
        content = bytearray(path.read_bytes())
        content[draw.integers(len(content))] ^= 1 << draw.integers(8)
        path.write_bytes(content)
        computed.add(jobs.embed())
        assert jobs.bytes() == expected
    assert len(computed) > 1


def test_a_page_that_a_flipped_bit_hides_moves_no_vector_to_another_image(tmp_path: Path) -> None:
    count, dimension = 6000, 256
    hashes = [f"{number:064x}" for number in np.random.default_rng(0).permutation(1 << 20)[:count]]
    values = np.random.default_rng(0).standard_normal((count, dimension), np.float32)
    images = [ShardImage(sha256, sha256, sha256, (4, 4)) for sha256 in hashes]
    kept = VectorStore(tmp_path, dict.fromkeys(vector_store.DECIDES))
    kept.add(batches.table(images, values))
    kept.flush()
    (path,) = tmp_path.glob("*/*.parquet")
    pages = pq.ParquetFile(path).metadata.row_group(0).column(4)
    assert pages.path_in_schema.startswith("embedding")
    content = bytearray(path.read_bytes())
    content[pages.data_page_offset + 1] ^= 1 << 1  # the type in the page's header, which has no checksum: it is skipped
    path.write_bytes(content)
    assert not list(VectorStore(tmp_path, kept.provenance).take(hashes, dimension))


def test_a_link_overwritten_with_another_models_shard_gives_none_of_its_vectors(jobs: Jobs) -> None:
    """``cp`` writes into the file that the store links to."""
    paths = sorted(jobs.add(*range(9)).photos.iterdir())
    jobs.sample(paths[:4])
    jobs.embed()
    jobs.sample(paths[:2] + paths[4:], "foreign")
    jobs.embed(
        "foreign", type("Negative", (Counting,), {"encode": lambda _, batch: -batch.astype(np.float32)})(), code="b"
    )
    (linked,) = [path for path in jobs.tables() if path.samefile(jobs.folder / "shard.parquet")]
    linked.write_bytes((jobs.folder / "foreign.parquet").read_bytes())
    jobs.sample(paths[:3])
    assert jobs.embed() == 3
    jobs.sample(paths, "all")
    assert jobs.embed("all") == 6
    assert jobs.bytes("all") == without_store(jobs)


@pytest.mark.usefixtures("_written_at_once")
@pytest.mark.parametrize("size", [0, 7, 100])
def test_files_cut_short_are_passed_over(jobs: Jobs, size: int) -> None:
    jobs.add(*range(8)).embed()
    for path in jobs.store.glob("*/*"):
        if path.suffix == ".keys" or size:
            content = path.read_bytes()
            path.unlink()
            path.write_bytes(content[:size])
    assert jobs.embed() in (8 if size == 0 else 0, 8)
    assert jobs.bytes() == without_store(jobs)


def _no_links(*_: Any) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_a_full_disk_keeps_no_shard_from_being_embedded(jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    kept = VectorStore(jobs.store, dict.fromkeys(vector_store.DECIDES))
    jobs.add(*range(3)).embed(vector_store=None)
    table = store.read_table(jobs.folder / "shard.parquet", EMBEDDINGS)
    with largest_file(100):
        for _ in range(2):
            kept.add(table)
            kept.flush()
    (warning,) = caplog.messages  # said once
    assert "if this job is killed, the next attempt computes its vectors again" in warning
    assert "cannot be written" in warning
    assert not list(jobs.store.glob("*/*"))


@pytest.mark.usefixtures("_written_at_once")
def test_where_the_store_cannot_be_written_the_job_says_so_and_goes_on(
    jobs: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    jobs.store.write_text("in the way")
    assert jobs.add(*range(9)).embed() == 9
    assert any("vector store: if this job is killed" in message for message in caplog.messages)
    assert jobs.bytes() == without_store(jobs)


def test_a_disk_too_full_for_the_shard_ends_the_job_with_its_path(jobs: Jobs) -> None:
    jobs.add(*range(1000)).sample(sorted(jobs.photos.iterdir()))
    with largest_file(70_000), pytest.raises(LookalikeError, match=r"shard\.parquet: cannot be written"):
        jobs.embed(threads=1)


@pytest.mark.usefixtures("_written_at_once")
@pytest.mark.parametrize("calls", [1, 2])
def test_the_store_can_be_deleted_while_jobs_run(jobs: Jobs, calls: int) -> None:
    def delete(encoder: Counting) -> None:
        if encoder.batches == calls:
            shutil.rmtree(jobs.store)

    jobs.add(*range(0, 40, 2)).embed()
    jobs.add(*range(40))
    assert jobs.again(encoder=Counting(delete)) == 40
    assert jobs.bytes() == without_store(jobs)
    assert jobs.embed() == 0


def test_jobs_that_cut_a_data_set_into_other_shards_compute_nothing(jobs: Jobs) -> None:
    """Each of them takes its vectors out of the old shard's file and leaves a smaller one to the others."""
    jobs.add(*range(60)).embed()
    paths = sorted(jobs.photos.iterdir())
    for number in range(3):
        jobs.sample(paths[number * 20 : number * 20 + 20], f"part{number}")
    (jobs.folder / "shard.parquet").unlink()

    class Meanwhile(VectorStore):
        """One that is looked up before another job replaces its file, and read afterwards."""

        def take(self, hashes: Any, dimension: int) -> Any:
            embed.VectorStore = VectorStore
            assert jobs.embed("part1") == 0
            return super().take(hashes, dimension)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embed, "VectorStore", Meanwhile)
        assert jobs.embed("part0") == 0
    assert jobs.embed("part2") == 0
    assert len(jobs.tables()) == 3


@pytest.mark.usefixtures("_written_at_once")
def test_without_hard_links_the_computed_vectors_are_kept_in_files(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", _no_links)
    jobs.add(*range(9)).embed()
    assert jobs.embed() == 0
    assert jobs.add(10).again() == 1
    assert jobs.again() == 0


def test_the_store_takes_no_space_for_finished_shards_and_keeps_only_what_no_shard_has(jobs: Jobs) -> None:
    jobs.add(*range(9)).embed()
    (linked,) = jobs.tables()
    assert linked.samefile(jobs.folder / "shard.parquet")
    assert vector_store.usage(jobs.store).own_bytes == linked.with_suffix(".keys").stat().st_size
    (jobs.photos / "00003.bmp").unlink()
    assert jobs.add(20).again() == 1
    stored = {path: store.read_table(path, EMBEDDINGS)["image_id"].to_pylist() for path in jobs.tables()}
    assert sorted(map(len, stored.values())) == [1, 9]
    assert ["00003.bmp"] in stored.values()
    assert jobs.add(3).again() == 0
    assert len(jobs.tables()) == 1  # the shard; the single vector is in it again
    assert jobs.embed() == 0
    assert len(jobs.tables()) == 1


def test_pruning_removes_what_no_shard_shares_and_is_old(jobs: Jobs) -> None:
    jobs.add(*range(9)).embed()
    jobs.embed(code="older")
    jobs.embed(code="new")
    assert len(jobs.tables()) == 3
    assert vector_store.usage(jobs.store).vectors == 27
    assert vector_store.prune(jobs.store, days=1) == 0
    assert len(jobs.tables()) == 3
    freed = vector_store.prune(jobs.store, days=0)
    (left,) = jobs.tables()
    assert left.samefile(jobs.folder / "shard.parquet")
    assert freed > 2 * (left.stat().st_size - 100)
    assert len(list(jobs.store.iterdir())) == 1
    assert jobs.embed(code="new") == 0


def test_the_doctor_says_the_size_and_prunes(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(jobs.folder)
    jobs.store = jobs.folder / vector_store.FOLDER
    jobs.add(*range(9)).embed(vector_store=vector_store.FOLDER)
    jobs.embed(code="newer", vector_store=vector_store.FOLDER)
    size = file_size(vector_store.usage(jobs.store).own_bytes)
    assert f"vector store: 18 vectors in results/vector_store, which take {size}" in doctor()
    freed = file_size(sum(path.stat().st_size for path in jobs.store.glob("*/*") if path.stat().st_nlink == 1) - 9 * 16)
    said = doctor("--prune-store", "0")
    assert f"vector store: {freed} freed" in said
    assert "vector store: 9 vectors" in said


def doctor(*options: str) -> str:
    return CliRunner().invoke(app, ["doctor", *options]).output


def test_looking_images_up_reads_no_vectors(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among a thousand shards, only the one that has an image is opened."""
    jobs.add(*range(3)).embed()
    (shard,) = jobs.tables()
    keys = np.frombuffer(shard.with_suffix(".keys").read_bytes(), vector_store.KEYS)
    draw = np.random.default_rng(0)
    for number in range(1000):
        other = keys.copy()
        other["image_id"], other["sha256"] = draw.integers(0, 1 << 63, (2, len(keys)))
        (shard.parent / f"{number:04}.keys").write_bytes(other.tobytes())
    opened = []
    read_batches = store.read_batches
    monkeypatch.setattr(
        store,
        "read_batches",
        lambda path, *columns, rows: opened.append(path) or read_batches(path, *columns, rows=rows),
    )
    assert jobs.add(3).again() == 1
    assert opened == [shard]


def test_speed_is_unknown_where_most_vectors_were_not_computed(jobs: Jobs) -> None:
    jobs.add(*range(40)).embed()
    assert jobs.timing().representative
    speed = measure._embed_timing([jobs.folder / "shard.json"])["embed"]
    assert speed["images"] == 40
    jobs.add(*range(40, 60)).again()
    assert measure._embed_timing([jobs.folder / "shard.json"]) == {}
    jobs.add(*range(60, 200)).again()
    assert measure._embed_timing([jobs.folder / "shard.json"])["embed"]["images"] == 140


def test_speed_is_unknown_where_stored_images_were_read_in_between(jobs: Jobs) -> None:
    jobs.add(*range(4)).embed()
    for number in range(4):
        (jobs.photos / f"{number:05}.bmp").rename(jobs.photos / f"renamed{number}.bmp")
    assert jobs.add(*range(10, 30)).again() == 20
    assert (jobs.timing().images, jobs.timing().from_store) == (20, 4)
    assert not jobs.timing().representative


def test_looking_up_changed_files_does_not_count_as_computing(jobs: Jobs) -> None:
    nothing = Embedded([], np.empty((0, 48), np.float32), [], {}, 1)
    rows = store.read_table(jobs.sample(sorted(jobs.add(1).photos.iterdir())), SHARD)
    kept = VectorStore(jobs.store, dict.fromkeys(vector_store.DECIDES))
    assert embed_missing(rows, kept, 1, lambda *_: nothing)[1].seconds > 0


def test_a_duplicate_of_another_shards_image_leaves_the_speed_known(jobs: Jobs) -> None:
    jobs.add(0).embed()
    (jobs.photos / "00000.bmp").rename(jobs.photos / "renamed.bmp")
    assert jobs.add(*range(10, 110)).again() == 100
    assert (jobs.timing().from_store, jobs.timing().representative) == (1, True)
