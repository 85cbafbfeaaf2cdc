"""Which architectures can be exported to ONNX: the table of docs/engines.md.

Every output of every tiny network of tests/architectures.yaml and tests/tiny.py is exported as the workflow does it,
and compared with torch. A minute or two of CPU for ten networks.

Prints a line for each network, and at the end the architectures by result, as a Markdown table.

    python benchmarks/exports.py --markdown table.md
"""

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("workflow_scripts", "tests", "tests/unit"))

import transformers
from test_architectures import NETWORKS, OUTPUTS, save

import tiny
from lookalike.embed import encoders
from lookalike.embed.export import ExportJob, export
from lookalike.io import store
from lookalike.io.formats.exports import Export
from lookalike.job.errors import LookalikeError

FEATURES = {feature: pooling for feature, pooling in OUTPUTS.values() if pooling in ("none", "mean")}
SHORT = {"hidden_states[-1]": "hidden", "last_hidden_state": "last", "pooler_output": "pooler"}


def exported(entry: dict[str, Any], work: Path) -> Export | None:
    """What the export stage records of an output; None where the network has no such output."""
    key = json.dumps(entry)
    parsed = encoders.parse(key)
    weights = encoders.family(parsed).fetch(parsed)
    store.write_json(weights, work / "weights.json")
    out = work / entry.get("feature", "") / "export.json"
    job = ExportJob(str(work / "weights.json"), str(out), parsed.export_key(), "", 16, os.cpu_count() or 1)
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
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
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
