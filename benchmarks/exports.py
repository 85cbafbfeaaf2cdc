"""Which architectures can be exported to ONNX: the table of docs/engines.md.

Every output of every tiny network of tests/architectures.yaml and tests/tiny.py is exported as the workflow does it,
and compared with torch. A minute or two of CPU for ten networks.

Prints a line for each network, and at the end the architectures by result, as a Markdown table.

    python benchmarks/exports.py --markdown table.md

With --full-size, models of the catalogue instead, at their full size with random weights, each in a process of its own:
minutes of CPU, and up to 14 GB of memory for BLIP-2.

    python benchmarks/exports.py --full-size efficientnet-b7 vit-large blip2-opt-2.7b
"""

import argparse
import json
import logging
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("workflow_scripts", "tests", "tests/unit"))

import transformers
import yaml
from full_size import build
from test_architectures import NETWORKS, OUTPUTS, save

import tiny
from lookalike.embed import encoders
from lookalike.embed.export import ExportJob, export
from lookalike.io import store
from lookalike.io.formats.exports import Export
from lookalike.job.errors import LookalikeError
from lookalike.job.usage import peak_memory_mb

CATALOGUE = yaml.safe_load((Path(__file__).parents[1] / "config.yaml").read_text())["models"]
FEATURES = {feature: pooling for feature, pooling in OUTPUTS.values() if pooling in ("none", "mean")}
SHORT = {"hidden_states[-1]": "hidden", "last_hidden_state": "last", "pooler_output": "pooler"}


def exported(entry: dict[str, Any], work: Path, batch_size: int = 16) -> Export | None:
    """What the export stage records of an output; None where the network has no such output."""
    key = json.dumps(entry)
    parsed = encoders.parse(key)
    weights = encoders.family(parsed).fetch(parsed)
    store.write_json(weights, work / "weights.json")
    out = work / entry.get("feature", "") / "export.json"
    job = ExportJob(str(work / "weights.json"), str(out), parsed.export_key(), "", batch_size, os.cpu_count() or 1)
    try:
        export(job)
    except LookalikeError:
        return None
    return store.read_json(out, Export)


def row(name: str, work: Path) -> list[str]:
    """An architecture's row of the table."""
    folder = tiny.MAKERS[name](work / name) if name in tiny.MAKERS else save(name, work / name)
    started = time.perf_counter()
    if name == "blip2":
        records = {"Q-Former": exported({"family": name, "checkpoint": str(folder)}, work)}
    else:
        entry = {"family": "transformers", "checkpoint": str(folder)}
        records = {
            SHORT.get(feature, feature): exported({**entry, "feature": feature, "pooling": pooling}, work)
            for feature, pooling in FEATURES.items()
        }
    seconds = time.perf_counter() - started
    known = {feature: record for feature, record in records.items() if record}
    networks = [record.network for record in known.values() if record.network]
    reasons = {record.reason: [] for record in known.values() if not record.network}
    for feature, record in known.items():
        if not record.network:
            reasons[record.reason].append(feature)
    whys = [f"{', '.join(features)}: {reason}" for reason, features in reasons.items()]
    return [
        name,
        ", ".join(feature for feature, record in known.items() if record.network) or "-",
        f"{max(network.difference for network in networks):.0e}" if networks else "-",
        ("yes" if all(network.rows_equal for network in networks) else "no") if networks else "-",
        f"{seconds / max(1, len(known)):.1f}",
        "; ".join(whys).replace(str(work), "").replace("|", "/") or ("" if known else "no such output is accepted"),
    ]


def full_size(name: str, work: Path) -> str:
    """A model of the catalogue, exported: a line of Markdown."""
    build(name, work / name)
    entry = {**CATALOGUE[name]["embed"], "checkpoint": str(work / name)}
    entry.pop("revision", None)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        batch_size = CATALOGUE[name]["runtime"]["batch_size"]
        record, cpu, memory = alone.submit(_measured, entry, work, batch_size).result()
    assert record, f"{name} cannot be loaded"
    if not record.network:
        return f"| {name} | torch: {record.reason} |"
    size = sum(path.stat().st_size for path in (work / entry.get("feature", "")).glob("network.onnx*"))
    equal = "yes" if record.network.rows_equal else "no"
    cells = (name, f"{size / 1e9:.2f}", f"{record.network.difference:.1e}", equal, f"{cpu:.0f}", f"{memory / 1024:.1f}")
    return f"| {' | '.join(cells)} |"


def _measured(entry: dict[str, Any], work: Path, batch_size: int) -> tuple[Export | None, float, float]:
    """What the export stage records, the CPU seconds of this process so far, and its peak memory in MB."""
    return exported(entry, work, batch_size), time.process_time(), peak_memory_mb()


def summary(rows: list[list[str]]) -> str:
    """The architectures by result, as a Markdown table."""
    results: dict[str, list[str]] = {}
    for name, outputs, _, equal, _, torch_instead in rows:
        result = torch_instead or "exported"
        if outputs != "-":
            result = "exported" if equal == "yes" else "exported; vectors depend on the batch in the last bits"
            result += f"; torch for {torch_instead}" if torch_instead else ""
        results.setdefault(result, []).append(name)
    by_count = sorted(results.items(), key=lambda item: -len(item[1]))
    lines = ["| result | architectures |", "| --- | --- |"]
    lines += [f"| {result} | {len(names)}: {', '.join(names)} |" for result, names in by_count]
    return "\n".join([*lines, ""])


def main() -> None:
    """Export, and print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=[*tiny.MAKERS, *NETWORKS])
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    parser.add_argument("--full-size", nargs="+", metavar="MODEL", help="these models of the catalogue instead")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if options.full_size:
        print("| model | GB | difference | bit-equal in every batch | CPU seconds | GB of memory |")
        for name in options.full_size:
            with tempfile.TemporaryDirectory() as temporary:
                os.environ["LOOKALIKE_CACHE"] = f"{temporary}/cache"
                print(full_size(name, Path(temporary)), flush=True)
        return
    rows = []
    print("architecture | exported outputs | largest difference | rows equal | seconds | torch instead")
    for name in options.networks:
        with tempfile.TemporaryDirectory() as temporary:
            os.environ["LOOKALIKE_CACHE"] = f"{temporary}/cache"
            rows.append(row(name, Path(temporary)))
        print(" | ".join(rows[-1]), flush=True)
    print(table := summary(rows))
    if options.markdown:
        options.markdown.write_text(table)


if __name__ == "__main__":
    main()
