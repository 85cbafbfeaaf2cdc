"""The measure stage: one model's neighbors on one data set, as numbers with intervals."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lookalike import agreement, formats, store
from lookalike.errors import LookalikeError
from lookalike.formats import Estimate
from lookalike.metrics import at_k, rank
from lookalike.statistics import NOTHING, estimate, group_codes

CHAIN = "chain"  # copies made by two or three operations in a row
STRENGTHS = ("light", "medium", "heavy")


def measure(
    *,
    neighbors: str | Path,
    truth: str | Path,
    images: str | Path,
    rejected: Sequence[str | Path],
    timings: Sequence[str | Path],
    search_timing: str | Path,
    out: str | Path,
    dataset: str,
    model: str,
    index: str,
    k: int,
) -> None:
    """Write the ``formats.Metrics`` of one model and index on one data set to ``out``.

    ``neighbors`` holds k + 1 rows per query. ``timings`` and ``search_timing`` lie beside the logs: where one is
    missing, what it would tell is left out.
    """
    sample = store.read_table(images, formats.IMAGES)
    refused = sample.filter(pc.is_in(sample["image_id"], value_set=_rejected_ids(rejected, sample)))
    references, rejected_references = _count(sample, "reference"), _count(refused, "reference")
    ranking = rank(
        store.read_table(neighbors, formats.NEIGHBORS),
        store.read_table(truth, formats.TRUTH),
        sample,
        searched=references - rejected_references,
        kept=k + 1,
        where=neighbors,
    )
    counted = sample.take(ranking.counted)
    groups = group_codes(counted["group"].to_pylist())
    outcomes = at_k(ranking, k)
    agreed, baselines = agreement.estimates(
        agreement.scales(sample, k),
        store.read_table(neighbors, formats.NEIGHBORS),
        sample,
        searched=references - rejected_references,
        kept=k + 1,
    )

    def estimates(among: npt.NDArray[np.bool_]) -> dict[str, Estimate]:
        return {
            name: NOTHING if values is None else estimate(values[among], groups[among])
            for name, values in outcomes.items()
        }

    record = formats.Metrics(
        dataset=dataset,
        model=model,
        index=index,
        references=references,
        queries=_count(sample, "query"),
        groups=len(set(groups.tolist())),
        rejected_references=rejected_references,
        rejected_queries=_count(refused, "query"),
        metrics=estimates(np.ones(counted.num_rows, dtype=np.bool_)) | agreed,
        breakdowns={
            column: {value: estimates(among) for value, among in parts.items()}
            for column, parts in _breakdowns(counted).items()
        },
        baselines=baselines,
        timing=_embed_timing(timings) | _search_timing(search_timing),
    )
    store.write_json(record, out)


def _count(images: pa.Table, role: str) -> int:
    return int(pc.sum(images[role]).as_py() or 0)


def _rejected_ids(paths: Sequence[str | Path], sample: pa.Table) -> pa.Array:
    """Ids of the pictures that could not be embedded; each must be of the sample, or the counts would not add up."""
    rejected = [pa.array([], formats.STRING)]
    for path in paths:
        ids = store.read_table(path, formats.REJECTED)["image_id"]
        strangers = ids.filter(pc.invert(pc.is_in(ids, value_set=sample["image_id"].combine_chunks())))
        if len(strangers):
            raise LookalikeError(
                f"{path}: rejected picture '{strangers[0]}' is not in the sample, so this file belongs to another "
                "one. Delete it and the embeddings beside it, and run again."
            )
        rejected += ids.chunks
    return pa.concat_arrays(rejected)


def _breakdowns(queries: pa.Table) -> dict[str, dict[str, npt.NDArray[np.bool_]]]:
    """Column -> value -> (q,) bool, which queries have that value. Strengths are of single operations only."""
    if "operations" not in queries.column_names:
        return {}
    made_by = [(text or "").split(" + ") for text in queries["operations"].to_pylist()]
    operations = np.array([CHAIN if len(steps) > 1 else steps[0].partition(":")[0] for steps in made_by], dtype=object)
    strengths = np.array(["" if len(steps) > 1 else steps[0].partition(":")[2] for steps in made_by], dtype=object)
    present = {
        "operations": [*sorted(set(operations) - {"", CHAIN}), *({CHAIN} & set(operations))],
        "strength": [strength for strength in STRENGTHS if strength in strengths],
    }
    columns = {"operations": operations, "strength": strengths}
    return {
        column: {value: columns[column] == value for value in values} for column, values in present.items() if values
    }


def _embed_timing(paths: Sequence[str | Path]) -> dict[str, Any]:
    shards = [store.read_json(path, formats.EmbedTiming) for path in paths if Path(path).exists()]
    if not shards:
        return {}
    images, seconds = sum(shard.images for shard in shards), sum(shard.seconds for shard in shards)
    return {
        "embed": {
            "images": images,
            "seconds": seconds,
            "images_per_second": images / seconds if seconds else None,
            "load_seconds": sum(shard.load_seconds for shard in shards),
            "device": " + ".join(sorted({shard.device for shard in shards})),
        }
    }


def _search_timing(path: str | Path) -> dict[str, Any]:
    if not Path(path).exists():
        return {}
    search = store.read_json(path, formats.SearchTiming)
    return {
        "search": {
            "queries": search.queries,
            "seconds": search.seconds,
            "queries_per_second": search.queries / search.seconds if search.seconds else None,
            "index_bytes": search.index_bytes,
        }
    }
