import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookalike.io import store
from lookalike.io.formats.records import EmbedTiming, Weights
from lookalike.io.formats.tables import EMBEDDINGS, TRUTH
from lookalike.job.errors import LookalikeError


def truth(*rows: tuple[str, str]) -> pa.Table:
    return pa.table({"query_id": [row[0] for row in rows], "reference_id": [row[1] for row in rows]}, TRUTH.schema())


def test_the_footer_records_what_made_the_file(tmp_path: Path) -> None:
    path = tmp_path / "truth.parquet"
    store.write_table(truth(("q", "r")), path, TRUTH, {"made_by": "a test"})
    assert store.read_provenance(path) == {"format": "truth", "rows": 1, "made_by": "a test"}
    assert store.read_table(path, TRUTH).to_pylist() == [{"query_id": "q", "reference_id": "r"}]


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        store.write_table(truth(("q", "r")), tmp_path / name, TRUTH, {})
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write() -> None:
        with store.atomic(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file where a folder should be")
    with pytest.raises(LookalikeError, match=r"truth\.parquet: cannot be written \(.*\)\. Check the folder"):
        store.write_table(truth(), tmp_path / "results/truth.parquet", TRUTH, {})


def test_a_killed_writer_leaves_the_old_file_intact(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    code = f"""
        import os, signal
        from lookalike.io import store
        with store.atomic({str(path)!r}) as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(store.__file__).parents[2])}
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=environment, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"query_id": ["q"]}), "no column 'reference_id'; a table of truth has query_id, reference_id."),
        (
            pa.table({"query_id": [1], "reference_id": ["r"]}),
            "column 'query_id' is int64; in a table of truth it is string.",
        ),
        (
            pa.table({"query_id": ["q"], "reference_id": ["r"], "score": [1.0]}),
            "a table of truth has no column 'score'.",
        ),
        (
            pa.table({"query_id": ["q"], "reference_id": pa.array([None], pa.string())}),
            "1 nulls in column 'reference_id'; a table of truth allows none.",
        ),
        (
            truth(("q", "r"), ("q", "r")),
            "duplicate query_id and reference_id 'q, r' (1 in total).",
        ),
    ],
)
def test_a_table_that_violates_its_schema_is_not_written(tmp_path: Path, table: pa.Table, message: str) -> None:
    path = tmp_path / "truth.parquet"
    with pytest.raises(LookalikeError) as caught:
        store.write_table(table, path, TRUTH, {})
    assert str(caught.value) == f"{path}: {message}"
    assert not path.exists()


def test_vectors_must_be_fixed_size_lists_of_floats(tmp_path: Path) -> None:
    table = pa.table({"image_id": ["a"], "sha256": ["x"], "embedding": pa.array([[1.0, 2.0]], pa.list_(pa.float64()))})
    with pytest.raises(LookalikeError, match=r"column 'embedding' is list<\w+: double>; in a table of"):
        store.write_table(table, tmp_path / "e.parquet", EMBEDDINGS, {})


def test_missing_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(LookalikeError, match=r"none\.parquet: does not exist"):
        store.read_table(tmp_path / "none.parquet", TRUTH)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(LookalikeError, match=r"bad\.parquet: is damaged"):
        store.read_table(tmp_path / "bad.parquet", TRUTH)
    pq.write_table(truth(), tmp_path / "foreign.parquet")
    with pytest.raises(LookalikeError, match=r"foreign\.parquet: has no provenance"):
        store.read_provenance(tmp_path / "foreign.parquet")


def test_a_json_record_is_read_as_written_and_refused_where_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    timing = EmbedTiming(images=10, seconds=4.0, load_seconds=1.0, device="CPU", batch_size=2)
    store.write_json(timing, path)
    assert store.read_json(path, EmbedTiming) == timing
    assert timing.images_per_second == 2.5
    assert json.loads(path.read_text())["images"] == 10
    with pytest.raises(LookalikeError, match=r"t\.json: is not a Weights file"):
        store.read_json(path, Weights)
    path.write_text(path.read_text().replace("4.0", "5.0"))
    with pytest.raises(LookalikeError, match=r"t\.json: is damaged, or was edited .* Delete it and run again"):
        store.read_json(path, EmbedTiming)
    path.write_text(json.dumps({"images": 1}))
    with pytest.raises(LookalikeError, match=r"t\.json: has no 'checksum'"):
        store.read_json(path, EmbedTiming)
    path.write_bytes(path.read_bytes() + b"\xff")
    with pytest.raises(LookalikeError, match=r"t\.json: is damaged .*utf-8.* Delete it and run again"):
        store.read_json(path, EmbedTiming)
    with pytest.raises(LookalikeError, match="does not exist"):
        store.read_json(tmp_path / "none.json", EmbedTiming)
