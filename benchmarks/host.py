"""What the CPU cores deliver to a GPU, measured without one: a stand-in computes as fast as a card would, and sleeps.

The images go through the embed stage as with a GPU: they are read, decoded, resized and collected into batches while
the stand-in is busy. For each number of threads a line says

  images/s    what came out, and for what share of the time the stand-in was busy
  CPU ms      of an image, all threads and processes together: N cores deliver no more than N / CPU ms
  main ms     of an image in the main thread, which collects batches: no number of cores delivers more than 1 / main ms
  at N cores  the smaller of both

Processes prepare the images (``embed/workers.py``), one a thread, and starting them is included.

    python benchmarks/host.py --rate 3000 --cores 16
"""

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow_scripts"))

import numpy as np
from numpy.typing import NDArray

from lookalike.embed import embed, encoders

spec = importlib.util.spec_from_file_location("embed_stage", Path(__file__).with_name("embed.py"))
assert spec
assert spec.loader
stage = sys.modules["embed_stage"] = importlib.util.module_from_spec(spec)  # workflow_scripts/ has an embed.py too
spec.loader.exec_module(stage)


class StandIn:
    """Prepares images as a model does, and takes as long as a card for them; the vectors are zeros."""

    overlaps = True
    compute_dtype = "float16"
    device = "a stand-in that sleeps"

    def __init__(self, model: Any, rate: float) -> None:
        self.prepare, self.dimension, self.versions, self.rate = model.prepare, model.dimension, model.versions, rate
        self.geometry = model.geometry  # which processes prepare images with
        self.busy = self.free_at = 0.0

    def launch(self, prepared: Sequence[NDArray[Any]]) -> Callable[[], encoders.Computed]:
        """Collect a batch as for a card, in ordinary memory, and let it take its time."""
        batch = stage.torch.from_numpy(np.stack(prepared))
        seconds = len(batch) / self.rate
        self.busy += seconds
        self.free_at = max(self.free_at, time.perf_counter()) + seconds
        done = self.free_at

        def wait() -> encoders.Computed:
            time.sleep(max(0.0, done - time.perf_counter()))
            return np.zeros((len(batch), self.dimension), np.float32), {"forward": seconds}

        return wait


def cpu_seconds() -> float:
    """CPU time of this process and of those that it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    """Measure each number of threads, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=stage.CLIP)
    parser.add_argument("--size", default="500x375", metavar="WIDTHxHEIGHT")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=3000, help="images a second that the stand-in computes")
    parser.add_argument("--threads", type=int, nargs="+", default=[os.cpu_count() or 1])
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--cores", type=int, default=16, help="to scale to")
    chosen = parser.parse_args()
    stage.transformers.logging.set_verbosity_error()
    stage.transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        stage.build(chosen.model, work / "model")
        entry = {**stage.CATALOGUE[chosen.model]["embed"], "checkpoint": str(work / "model")}
        entry.pop("revision", None)
        key = json.dumps(entry)
        weights = encoders.family(encoders.parse(key)).fetch(encoders.parse(key))
        model = encoders.load(key, weights, encoders.Machine(1))
        width, height = (int(side) for side in chosen.size.split("x"))
        rows = stage.image_folder(work / "images", (width, height), chosen.images)
        print(f"| threads | images/s | stand-in busy | CPU ms | main ms | at {chosen.cores} cores |\n|{' --- |' * 6}")
        for threads in chosen.threads:
            stand_in: Any = StandIn(model, chosen.rate)
            embed.embed_rows(rows.slice(0, 200), stand_in, batch_size=chosen.batch_size, threads=threads)  # warms up
            stand_in.busy = 0.0
            wall, cpu, main_thread = time.perf_counter(), cpu_seconds(), time.thread_time()
            embed.embed_rows(rows, stand_in, batch_size=chosen.batch_size, threads=threads)
            wall = time.perf_counter() - wall
            each = (cpu_seconds() - cpu) / rows.num_rows
            of_main = (time.thread_time() - main_thread) / rows.num_rows
            bound = min(chosen.cores / each, 1 / of_main)
            shown = [threads, f"{rows.num_rows / wall:.0f}", f"{stand_in.busy / wall:.0%}"]
            print("|", *(f"{cell} |" for cell in [*shown, f"{each * 1e3:.2f}", f"{of_main * 1e3:.3f}", f"{bound:.0f}"]))
    print(stage.describe_machine((os.getloadavg()[0],) * 2))


if __name__ == "__main__":
    main()
