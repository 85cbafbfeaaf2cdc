"""How fast exact search is, next to what the machine's matrix product allows, on vectors drawn at random.

  product   one matrix product of all queries with all references, in blocks, and nothing else
  flat      the search stage's own: neighbors and the candidates of candidates in one pass
  scan      the same out of Parquet shards, reading included
  faiss     FAISS' IndexFlatIP, neighbors alone

All are measured in turn, several times, and the medians are printed: their ratios, not their seconds, can be held
against another machine's.

    python benchmarks/search.py --references 150000 --queries 1448 --dimensions 768 --rounds 3
"""

import argparse
import hashlib
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow_scripts"))

import faiss
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from lookalike.io import store, vectors
from lookalike.io.formats.tables import EMBEDDINGS
from lookalike.search import exact
from lookalike.search.candidates import PAIRS_PER_QUERY, Candidates

K = 11  # neighbors: the default's ten, and one to see a tie with
SHARD = 25_000  # references in a Parquet shard

Floats = NDArray[np.float32]


def drawn(seed: int, count: int, dimensions: int) -> Floats:
    """Unit vectors, (count, dimensions)."""
    return vectors.unit(np.random.default_rng(seed).standard_normal((count, dimensions), np.float32))


def write_shards(references: Floats, folder: Path) -> list[str]:
    """The references as embedding shards."""
    paths = []
    for start in range(0, len(references), SHARD):
        part = references[start : start + SHARD]
        ids = [f"r{number}" for number in range(start, start + len(part))]
        values = pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), part.shape[1])
        paths.append(str(folder / f"references-{start // SHARD:05d}.parquet"))
        table = pa.table(
            {"image_id": ids, "sha256": [hashlib.sha256(one.encode()).hexdigest() for one in ids], "embedding": values}
        )
        store.write_table(table, paths[-1], EMBEDDINGS, {})
    return paths


def ways(references: Floats, queries: Floats, shards: list[str]) -> dict[str, Callable[[], object]]:
    """What is measured, by name."""
    nobody = np.full(len(queries), -1)
    everything = [np.ones(store.read_columns(path, "image_id").num_rows, np.bool_) for path in shards]
    index = faiss.IndexFlatIP(references.shape[1])
    index.add(references)

    def candidates() -> list[Candidates]:
        return [Candidates(PAIRS_PER_QUERY * len(queries), np.zeros(len(queries), np.float32))]

    def product() -> None:
        for block in vectors.split(references):
            for start in range(0, len(queries), exact.QUERIES):
                queries[start : start + exact.QUERIES] @ block.T

    return {
        "product": product,
        "flat": lambda: exact.search(queries, vectors.split(references), K, nobody, candidates()),
        "scan": lambda: exact.search(queries, vectors.blocks(shards, everything), K, nobody, candidates()),
        "faiss": lambda: index.search(queries, K),
    }


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", type=int, default=150_000)
    parser.add_argument("--queries", type=int, default=1_448)
    parser.add_argument("--dimensions", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    references = drawn(0, options.references, options.dimensions)
    queries = drawn(1, options.queries, options.dimensions)
    with tempfile.TemporaryDirectory() as folder:
        measured = ways(references, queries, write_shards(references, Path(folder)))
        rounds = [{name: seconds(work) for name, work in measured.items()} for _ in range(options.rounds)]
    medians = {name: statistics.median(one[name] for one in rounds) for name in measured}
    operations = 2 * options.references * options.queries * options.dimensions

    size = f"{options.references:,} x {options.dimensions} by {options.queries:,}"
    table = Table("way", "seconds", "GFLOP/s", "speed / product", title=f"Exact search, {size}")
    for name, median in medians.items():
        ratio = statistics.median(one["product"] / one[name] for one in rounds)
        table.add_row(name, f"{median:.2f}", f"{operations / median / 1e9:.0f}", f"{ratio:.2f}")
    Console(width=100).print(table)
    threads = faiss.omp_get_max_threads()
    print(f"{platform.machine()}, FAISS {faiss.__version__}, NumPy {np.__version__}, {threads} threads")


if __name__ == "__main__":
    main()
