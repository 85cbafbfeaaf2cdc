"""Checkpoints from the Hugging Face Hub or local folders: fetched once, hashed, and rejected if they change.

Only safetensors files are accepted: unpickling can run code. This module changes no number: it returns the recorded
files or raises an error.
"""

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lookalike.config.models import is_commit, is_path
from lookalike.embed import time_limit
from lookalike.embed.file_hashes import sha256 as remembered_sha256
from lookalike.io import store
from lookalike.io.formats.records import Weights
from lookalike.job.errors import LookalikeError, did_you_mean

log = logging.getLogger(__name__)

SETTINGS = ("config.json", "preprocessor_config.json", "processor_config.json")
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
AGAIN = "run fetch_weights again on a machine with network access (snakemake --forcerun fetch_weights)"


def fetch(checkpoint: str, revision: str, *, code: bool = False, parts: tuple[str, ...] = ()) -> Weights:
    """Fetch a checkpoint's settings and weights into the cache and return their hashes.

    ``code``: also fetch its Python files. ``parts``: of sharded weights, fetch only the files with tensors whose names
    start with one of these prefixes. Raises LookalikeError if anything is missing, gated or damaged.
    """
    if folder := _local_folder(checkpoint):
        names = _wanted(checkpoint, folder, [path.name for path in folder.iterdir()], code, parts)
        return Weights(source=f"folder {checkpoint}", revision="", files=_hashes(folder, names))
    from huggingface_hub import constants

    with time_limit.watched(Path(constants.HF_HUB_CACHE), checkpoint):
        folder, names = _download(checkpoint, revision, code, parts)
    return Weights(source=f"hub {checkpoint}", revision=folder.name, files=_hashes(folder, names))


def check_available(checkpoint: str, revision: str, *, code: bool = False, parts: tuple[str, ...] = ()) -> None:
    """Raise LookalikeError if ``fetch`` would need the network. Reads no weights, so it does not detect damage."""
    folder = _local_folder(checkpoint) or _snapshot(checkpoint, revision)
    if not folder:
        raise LookalikeError(
            f"{checkpoint}: revision '{revision}' is not in the Hugging Face cache. A run with network access "
            "downloads it."
        )
    _wanted(checkpoint, folder, [path.name for path in folder.iterdir()], code, parts)


def pinned(checkpoint: str, revision: str) -> bool | None:
    """Whether the revision is a full commit hash and so cannot change. None for a local folder."""
    return None if Path(checkpoint).is_dir() or is_path(checkpoint) else is_commit(revision)


def locate(checkpoint: str, weights: Weights) -> Path:
    """Return the folder with the recorded files, offline. Raises LookalikeError if a file is missing or different."""
    folder = _local_folder(checkpoint) or _cached_folder(checkpoint, weights)
    remedy = f"Restore the recorded files, or {AGAIN}."
    for name, sha256 in weights.files.items():
        path = folder / name
        if not path.is_file():
            raise LookalikeError(f"{path}: has been removed since fetch_weights recorded it. {remedy}")
        if _sha256(path) != sha256:
            raise LookalikeError(f"{path}: has changed since fetch_weights recorded it, or is damaged. {remedy}")
    added = {name for name in (*SETTINGS, WEIGHTS) if (folder / name).is_file()} - set(weights.files)
    if added and not weights.revision:
        raise LookalikeError(
            f"{folder}: {', '.join(sorted(added))} was added after fetch_weights ran. Remove it, or {AGAIN}."
        )
    return folder


def read_settings(path: Path) -> dict[str, Any]:
    """Read a JSON file of a checkpoint. Raises LookalikeError if it does not hold a JSON object."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # a ValueError also for a number with thousands of digits
        raise LookalikeError(f"{path}: is damaged: {error}. Fetch the checkpoint again.") from None
    if not isinstance(settings, dict):
        raise LookalikeError(f"{path}: is damaged: it does not hold a JSON object. Fetch the checkpoint again.")
    return settings


def weight_files(folder: Path, parts: tuple[str, ...] = ()) -> list[str]:
    """Names of a checkpoint's weight files; with ``parts``, only of those that hold matching tensors."""
    if (folder / WEIGHTS).is_file():
        return [WEIGHTS]
    weight_map = read_settings(folder / INDEX).get("weight_map", {})
    return sorted({file for tensor, file in weight_map.items() if not parts or tensor.startswith(parts)})


def _local_folder(checkpoint: str) -> Path | None:
    folder = Path(checkpoint)
    if folder.is_dir():
        return folder
    if is_path(checkpoint):
        raise LookalikeError(
            f"{checkpoint}: this folder does not exist. Fix the model's 'checkpoint', or restore the folder."
        )
    return None


def _wanted(
    checkpoint: str, folder: Path, present: Iterable[str], code: bool, parts: tuple[str, ...]
) -> tuple[str, ...]:
    """The subset of the ``present`` files that loading needs."""
    present = set(present)
    if "config.json" not in present:
        raise LookalikeError(f"{checkpoint}: has no config.json, so transformers cannot load it.")
    if not present & {WEIGHTS, INDEX}:
        raise LookalikeError(_no_safetensors(checkpoint))
    weights = [WEIGHTS] if WEIGHTS in present else [INDEX, *weight_files(folder, parts)]
    if missing := [name for name in weights if name not in present]:
        raise LookalikeError(f"{folder}: {INDEX} lists {missing[0]}, which is missing. Copy the whole checkpoint.")
    scripts = sorted(name for name in present if name.endswith(".py")) if code else []
    return (*(name for name in SETTINGS if name in present), *weights, *scripts)


def _no_safetensors(checkpoint: str) -> str:
    return (
        f"{checkpoint}: has no {WEIGHTS}. Loading other formats can run code, so they are rejected. "
        "Convert it once, in Python: AutoModel.from_pretrained(...).save_pretrained('FOLDER'). Copy its "
        "preprocessor_config.json to the same folder, and set 'checkpoint' to that folder."
    )


def fetch_file(checkpoint: str, revision: str, name: str) -> tuple[Path, str]:
    """Bring one file of a checkpoint here; its path, and the commit that it is of, empty for a local folder."""
    if folder := _local_folder(checkpoint):
        return _in_folder(folder, name), ""
    from huggingface_hub import HfApi, hf_hub_download

    try:
        with _hub_errors(checkpoint, revision):
            info = HfApi().model_info(checkpoint, revision=revision, files_metadata=True)
            names = sorted(file.rfilename for file in info.siblings or [])
            if name not in names:
                alike = [other for other in names if Path(other).suffix == Path(name).suffix]
                raise LookalikeError(f"{checkpoint}: has no file '{name}'.{did_you_mean(name, alike)}")
            path = _get(checkpoint, info, name)
            if revision != info.sha:  # lets the cache resolve the branch or tag offline
                hf_hub_download(checkpoint, name, revision=revision)
    except _UnreachableError as error:
        path = cached_file(checkpoint, revision, name, f"the Hub cannot be reached ({error}), and ")
        log.warning("%s: the Hub cannot be reached; using %s", checkpoint, path)
    return path, path.parents[name.count("/")].name


def cached_file(checkpoint: str, revision: str, name: str, reason: str = "") -> Path:
    """The path of one file of a checkpoint on this machine. Raises LookalikeError if it would have to be fetched."""
    if folder := _local_folder(checkpoint):
        return _in_folder(folder, name)
    from huggingface_hub import constants, try_to_load_from_cache

    cached = try_to_load_from_cache(checkpoint, name, revision=revision)
    if not isinstance(cached, str):
        raise LookalikeError(
            f"{checkpoint}: {reason}{name} of revision '{revision}' is not in the cache {constants.HF_HUB_CACHE}. "
            "Run fetch_weights with network access."
        )
    return Path(cached)


def _in_folder(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise LookalikeError(f"{folder / name}: no such file. Fix the model's 'file' or 'checkpoint'.")
    return folder / name


def _hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
    return {name: _sha256(folder / name) for name in names}


def _sha256(path: Path) -> str:
    """Code is always hashed afresh, because it runs: others may be able to write to the folder of cached hashes."""
    return store.sha256_file(path) if path.suffix == ".py" else remembered_sha256(path)


# --- the hub ---


def _cached_folder(checkpoint: str, weights: Weights) -> Path:
    from huggingface_hub import constants, try_to_load_from_cache

    for name in weights.files:
        cached = try_to_load_from_cache(checkpoint, name, revision=weights.revision)
        if not isinstance(cached, str):
            raise LookalikeError(
                f"{checkpoint}: {name} of revision {weights.revision} is not in the cache {constants.HF_HUB_CACHE}. "
                f"Make the cache readable from this machine (HF_HOME sets its location), or {AGAIN}."
            )
    return Path(cached).parent


def _download(checkpoint: str, revision: str, code: bool, parts: tuple[str, ...]) -> tuple[Path, tuple[str, ...]]:
    """Download files missing from the cache; return the folder, whose name is the commit hash, and the file names."""
    from huggingface_hub import HfApi, hf_hub_download

    api = HfApi()
    try:
        with _hub_errors(checkpoint, revision):
            info = _with_safetensors(
                api, checkpoint, api.model_info(checkpoint, revision=revision, files_metadata=True)
            )
            present = {file.rfilename: file for file in info.siblings or []}
            if "config.json" in present:
                folder = _get(checkpoint, info, "config.json").parent
                if WEIGHTS not in present and INDEX in present:
                    _get(checkpoint, info, INDEX)
            else:
                folder = Path()
            names = _wanted(checkpoint, folder, present, code, parts)
            for name in names:
                _get(checkpoint, info, name)
            if revision != info.sha:  # lets the cache resolve the branch or tag offline
                hf_hub_download(checkpoint, "config.json", revision=revision)
    except _UnreachableError as error:
        return _from_cache(checkpoint, revision, code, parts, str(error))
    return folder, names


def _get(checkpoint: str, info: Any, name: str) -> Path:
    """Download one file of a commit, unless it is cached, and compare its hash with the Hub's."""
    from huggingface_hub import hf_hub_download

    path = Path(hf_hub_download(checkpoint, name, revision=info.sha))
    lfs = next(file.lfs for file in info.siblings if file.rfilename == name)
    if lfs and _sha256(path) != lfs.sha256:
        raise LookalikeError(f"{path}: is damaged: its hash differs from the Hub's. Delete it and {AGAIN}.")
    return path


class _UnreachableError(Exception):
    """The Hub cannot be reached; the message says why."""


@contextmanager
def _hub_errors(checkpoint: str, revision: str) -> Iterator[None]:
    """Turn the Hub's errors into messages for people, or _UnreachableError."""
    from huggingface_hub import HfApi, errors
    from huggingface_hub.utils import httpx

    endpoint = HfApi().endpoint
    try:
        yield
    except errors.HFValidationError as error:
        raise LookalikeError(f"{checkpoint}: is neither a valid Hub name nor a local folder: {error}") from None
    except errors.GatedRepoError:
        raise LookalikeError(
            f"{checkpoint}: is gated. Accept its terms at {endpoint}/{checkpoint}, log in (hf auth login, or "
            "HF_TOKEN), and run again."
        ) from None
    except errors.RevisionNotFoundError:
        raise LookalikeError(
            f"{checkpoint}: has no revision '{revision}'. Use one of its branches, tags or full commit hashes."
        ) from None
    except errors.RepositoryNotFoundError:
        raise LookalikeError(_unknown(checkpoint, endpoint)) from None
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, httpx.TransportError) as error:
        raise _UnreachableError(f"{type(error).__name__}: {error}") from None
    except errors.HfHubHTTPError as error:
        if error.response.status_code == 401:
            raise LookalikeError(_unknown(checkpoint, endpoint)) from None
        reason = str(error).splitlines()[0]
        raise LookalikeError(f"{checkpoint}: the Hub responded: {reason} Try again later.") from None


def _unknown(checkpoint: str, endpoint: str) -> str:
    return (
        f"{checkpoint}: the Hub has no such model, or it is private. Check the name at {endpoint}; for a private "
        "model, log in (hf auth login, or HF_TOKEN)."
    )


def _from_cache(
    checkpoint: str, revision: str, code: bool, parts: tuple[str, ...], reason: str
) -> tuple[Path, tuple[str, ...]]:
    """The folder and file names of an earlier download, for when the Hub is unreachable."""
    from huggingface_hub import constants

    folder = _snapshot(checkpoint, revision)
    if not folder:
        raise LookalikeError(
            f"{checkpoint}: the Hub is unreachable ({reason}), and revision '{revision}' is not in the cache "
            f"{constants.HF_HUB_CACHE}. Run fetch_weights on a machine with network access."
        )
    log.warning("%s: the Hub is unreachable; using commit %s from the cache", checkpoint, folder.name)
    return folder, _wanted(checkpoint, folder, [path.name for path in folder.iterdir()], code, parts)


def _snapshot(checkpoint: str, revision: str) -> Path | None:
    """The cached folder of a revision, or None."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(checkpoint, "config.json", revision=revision)
    return Path(cached).parent if isinstance(cached, str) else None


def _with_safetensors(api: Any, checkpoint: str, info: Any) -> Any:
    """Return ``info``, or that of the Hub's own safetensors conversion if the owners published none.

    The Hub's bot offers the conversion as a pull request, which transformers loads too. It is used only if it was made
    from this exact commit: an older commit may have different weights.
    """
    from huggingface_hub import errors

    present = {file.rfilename for file in info.siblings or []}
    if present & {WEIGHTS, INDEX} or "config.json" not in present:
        return info
    try:
        requests = list(
            api.get_repo_discussions(
                checkpoint, author="SFconvertbot", discussion_type="pull_request", discussion_status="open"
            )
        )
    except errors.HfHubHTTPError:  # its discussions may be disabled
        return info
    for request in requests:
        reference = request.git_reference
        history = api.list_repo_commits(checkpoint, revision=reference)
        if len(history) > 1 and history[1].commit_id == info.sha:
            log.info("%s: no safetensors; using the Hub's conversion, %s", checkpoint, reference)
            return api.model_info(checkpoint, revision=reference, files_metadata=True)
        log.warning(
            "%s: %s is a safetensors conversion of a different commit; to use it, set revision: %s",
            checkpoint,
            reference,
            reference,
        )
    return info
