"""How long *measure* and *compare* take with many queries, and how much memory: two models of simulated results.

DISC21's protocol has 50,000 queries, one in five with a match, and the ten best pairs per query of each model.

    python benchmarks/compare.py --queries 50000
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow_scripts"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np
import pyarrow as pa

from lookalike.compare.compare import CompareJob, compare
from lookalike.io import identity, store
from lookalike.io.formats.tables import IMAGES, INDEX_IMAGES, NEIGHBORS, TRUTH
from lookalike.measure.measure import MeasureJob, measure
from lookalike.metrics.evaluation import Results
from tables import MADE, images_table, neighbors_table, seen_table, truth_table

K, MODELS = 10, ("first", "second")


def search(folder: Path, queries: list[str], references: list[str], matched: int, seed: int) -> Results:
    """Write simulated neighbors: of 10 queries with a match, 7 have it first."""
    random = np.random.default_rng(seed)
    count = len(queries)
    score = -np.sort(-random.uniform(0.2, 0.8, (count, K + 1)), axis=1)
    found = (
        np.arange(count)[:, None] + random.integers(1, len(references) // (K + 1), (count, K + 1)).cumsum(axis=1)
    ) % (len(references))
    right = np.flatnonzero(random.random(matched) < 0.7)
    found[right, 0], score[right, 0] = right, random.uniform(0.6, 1, len(right)).clip(score[right, 1])
    row, rank = np.divmod(np.arange(count * (K + 1)), K + 1)
    names = (pa.array(queries).take(row), pa.array(rank + 1, pa.int32()), pa.array(references).take(found.ravel()))
    columns = [*names, pa.array(score.ravel(), pa.float32())]
    table = pa.table(dict(zip(NEIGHBORS.columns, columns, strict=True)), NEIGHBORS.schema())
    names_of = ("neighbors", "candidates", "training", "candidates_sn")
    results = Results(*(folder / f"{name}.parquet" for name in names_of))
    footer = MADE | {"model": folder.name, "index": "flat", "k": K, "key": json.dumps({"family": "pixels"})}
    store.write_table(table, results.neighbors, NEIGHBORS, footer)
    store.write_table(table.filter(pa.array(rank < K)), results.candidates, NEIGHBORS, footer)
    for absent in (results.training, results.candidates_sn):
        store.write_table(neighbors_table({}), absent, NEIGHBORS, footer | {identity.ROLE: identity.ABSENT})
    return results


def main() -> None:
    """Simulate, measure, compare, and print seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=50_000)
    count = parser.parse_args().queries
    queries, matched = [f"Q{row:06d}" for row in range(count)], count // 5
    references = [f"R{row:06d}" for row in range(max(count, 10 * K))]
    with tempfile.TemporaryDirectory() as folder:
        images, truth, seen = (Path(folder) / f"{name}.parquet" for name in ("images", "truth", "seen"))
        store.write_table(images_table(references, queries), images, IMAGES, MADE)
        store.write_table(truth_table(list(zip(queries[:matched], references, strict=False))), truth, TRUTH, MADE)
        store.write_table(seen_table(), seen, INDEX_IMAGES, MADE)
        results = [
            search(Path(folder) / model, queries, references, matched, seed) for seed, model in enumerate(MODELS)
        ]
        metrics = [Path(folder) / f"{model}.json" for model in MODELS]
        for model, files, out in zip(MODELS, results, metrics, strict=True):
            started = time.perf_counter()
            where = {"results": files, "truth": truth, "images": images, "seen": seen, "timings": [], "out": out}
            measure(
                MeasureJob(**where, search_timing=out, dataset="simulated", model=model, index="flat", k=K)  # type: ignore[arg-type]
            )
            print(f"measure {model}: {time.perf_counter() - started:.1f} s")
        started = time.perf_counter()
        compare(
            CompareJob(
                experiment="simulated",
                metrics=metrics,
                results=results,
                truth=truth,
                images=images,
                models=MODELS,
                architectures={},
                leaderboard_out=Path(folder) / "leaderboard.csv",
                comparisons_out=Path(folder) / "comparisons.json",
            )
        )
        print(f"compare: {time.perf_counter() - started:.1f} s")
    print(f"memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB")


if __name__ == "__main__":
    main()
