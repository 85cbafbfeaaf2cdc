"""Exported networks in the user's cache, so that another working folder does not export them again.

Whatever goes wrong with the cache is only logged: the network is then exported, or not kept.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from pathlib import Path

from lookalike.embed.file_hashes import cache_folder
from lookalike.io import store
from lookalike.io.formats.exports import Network
from lookalike.io.formats.records import Weights
from lookalike.job.errors import LookalikeError

log = logging.getLogger(__name__)

RECORD = "network.json"
WHERE = frozenset({"checkpoint", "revision", "path", "url"})  # of the key: contents count, not where they are from


def folder_of(key: str, code: str, weights: Weights) -> Path | None:
    """Where a network is cached, by all that its export depends on; None without a home directory."""
    settings = {name: value for name, value in json.loads(key).items() if name not in WHERE}
    versions = store.versions("torch", "transformers", "onnx", "onnxscript")
    identity = json.dumps([settings, code, dict(sorted(weights.files.items())), versions], sort_keys=True)
    try:
        return cache_folder() / "exports" / hashlib.sha256(identity.encode()).hexdigest()[:32]
    except RuntimeError as error:
        log.info("exported networks are not cached: %s", error)
        return None


def restore(cached: Path | None, folder: Path) -> Network | None:
    """Copy a cached network to ``folder``; None if it is missing or damaged, which the log says."""
    if cached is None or not (cached / RECORD).is_file():
        return None
    try:
        network = store.read_json(cached / RECORD, Network)
        for name, expected in network.files.items():
            _place(cached / name, folder / name)
            if store.sha256_file(folder / name) != expected:
                raise LookalikeError(f"{cached / name}: is damaged")
    except (LookalikeError, OSError) as error:
        log.warning("the cached export cannot be used, exporting again: %s", error)
        return None
    log.info("exported before: %s", cached)
    return network


def save(network: Network, folder: Path, cached: Path | None) -> None:
    """Keep an exported network in the cache: all of it, or nothing."""
    if cached is None:
        return
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=cached.parent, prefix=".new-"))
    except OSError as error:
        log.info("the export is not cached: %s", error)
        return
    try:
        for name in network.files:
            _place(folder / name, temporary / name)
        store.write_json(network, temporary / RECORD)
        shutil.rmtree(cached, ignore_errors=True)  # a damaged one
        temporary.rename(cached)
    except (LookalikeError, OSError) as error:
        log.info("the export is not cached: %s", error)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _place(source: Path, target: Path) -> None:
    """Link a file, or copy it to another disk."""
    with store.atomic(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
