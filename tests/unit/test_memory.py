"""Large images wait for each other, and a shortage of memory rejects none."""

import io
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import REPOSITORY
from lookalike.io import images
from lookalike.job import memory

MB = 1 << 20


def png(mode: str, size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def test_threads_never_exceed_the_budget_except_one_that_runs_alone() -> None:
    budget, held, history = memory.Budget(100), [], []
    lock = threading.Lock()

    def hold(size: int) -> None:
        with budget.share() as take:
            take(size)
            with lock:
                held.append(size)
                history.append(list(held))
            time.sleep(0.01)
            with lock:
                held.remove(size)

    threads = [threading.Thread(target=hold, args=(size,)) for size in (40, 50, 60, 250, 30, 100, 20) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(history) == len(threads)
    assert [sizes for sizes in history if sum(sizes) > 100 and len(sizes) > 1] == []
    assert max(map(len, history)) > 1


def test_an_image_reserves_its_memory_before_it_is_decoded() -> None:
    reserved: list[int] = []
    for mode in ("RGB", "L", "RGBA"):
        images.decode(png(mode, (100, 50)), reserve=reserved.append)
    assert reserved == [4 * 5_000, 5 * 5_000, 8 * 5_000]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_decoding_takes_no_more_than_was_reserved(tmp_path: Path, mode: str) -> None:
    size = (6_000, 5_000)
    (tmp_path / "a.png").write_bytes(png(mode, size))
    code = (
        "import resource, sys; from lookalike.io import images; data = images.read('', sys.argv[1])\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10\n"
        "before, sizes = peak(), []; images.decode(data, reserve=sizes.append); print(peak() - before, *sizes)"
    )
    ran = [sys.executable, "-c", code, str(tmp_path / "a.png")]
    out = subprocess.run(ran, cwd=REPOSITORY / "workflow_scripts", capture_output=True, text=True, check=True).stdout
    took, reserved = map(int, out.split())
    assert took <= reserved + 40 * MB  # strips and the decoder's own


def test_a_shortage_of_memory_is_an_error_and_not_a_bad_image(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = png("RGB", (60, 48))
    with pytest.raises(images.BadImage, match="damaged"):
        images.decode(whole[:-60])
    monkeypatch.setattr(memory, "AT_ONCE", 1 << 60)  # more than any machine can allocate
    assert np.asarray(images.decode(whole)).shape == (48, 60, 3)
    with pytest.raises(MemoryError, match="memory is short"):
        images.decode(whole[:-60])


PEAK = """
import json, re, sys
import numpy as np, pyarrow as pa
from lookalike.embed import embed, encoders
from lookalike.io import content_hashes
from lookalike.io.formats.tables import SHARD
from lookalike.job import memory
from pathlib import Path

folder, count, memory.AT_ONCE = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
names = sorted(path.name for path in folder.iterdir())[:count]
columns = {
    "image_id": names,
    "root": [str(folder)] * count,
    "path": names,
    "bytes": [(folder / name).stat().st_size for name in names],
    "content_hash": [content_hashes.of_file(folder / name) for name in names],
}
rows = pa.table(columns, SHARD.schema())
key = json.dumps({"family": "pixels"})
encoder = encoders.load(key, None, encoders.Machine(4, False))
done = embed.embed_rows(rows, encoder, batch_size=16, threads=4)
assert len(done.images) == count, done.rejected
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024)
"""


def test_four_threads_of_large_images_hold_no_more_than_the_budget(tmp_path: Path) -> None:
    """Four images of 20 megapixels: decoded side by side, each takes 80 MB."""
    whole = png("RGB", (5_000, 4_000))
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(whole + bytes([number]))  # other bytes, and so computed anew

    def peak(count: int, budget: int) -> int:
        ran = [sys.executable, "-c", PEAK, str(tmp_path), str(count), str(budget)]
        out = subprocess.run(ran, cwd=REPOSITORY / "workflow_scripts", capture_output=True, text=True, check=True)
        return int(out.stdout)

    single, bounded, unbounded = peak(1, 100 * MB), peak(4, 100 * MB), peak(4, 1 << 40)
    assert bounded < single + 60  # small blocks that each thread keeps
    assert unbounded > single + 60  # otherwise the budget would make no difference
