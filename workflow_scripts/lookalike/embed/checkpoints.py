"""Checkpoints of the Hugging Face hub or of local folders: fetched once, recorded by hash, and refused when changed.

Only safetensors files are weights here: a pickle can run code. Nothing of this module changes a number: what it hands
out are the files that were recorded, or an error.
"""

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lookalike.config.models import is_commit, is_path
from lookalike.embed.file_hashes import sha256 as remembered_sha256
from lookalike.io import store
from lookalike.io.formats.records import Weights
from lookalike.job.errors import LookalikeError

log = logging.getLogger(__name__)

SETTINGS = ("config.json", "preprocessor_config.json", "processor_config.json")
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
AGAIN = "run fetch_weights again where the network is (snakemake --forcerun fetch_weights)"


def fetch(checkpoint: str, revision: str, *, code: bool = False, parts: tuple[str, ...] = ()) -> Weights:
    """Bring a checkpoint's settings and weights here, and say by hash what they are.

    ``code``: its Python files too. ``parts``: of weights in several files, only those that hold tensors whose names
    begin with one of these. Raises LookalikeError for what is missing, gated or damaged.
    """
    if folder := _local_folder(checkpoint):
        names = _wanted(checkpoint, folder, [path.name for path in folder.iterdir()], code, parts)
        return Weights(source=f"folder {checkpoint}", revision="", files=_hashes(folder, names))
    folder, names = _download(checkpoint, revision, code, parts)
    return Weights(source=f"hub {checkpoint}", revision=folder.name, files=_hashes(folder, names))


def look(checkpoint: str, revision: str, *, code: bool = False, parts: tuple[str, ...] = ()) -> None:
    """Raise LookalikeError where ``fetch`` would need the network. No weights are read, so a damaged file passes."""
    folder = _local_folder(checkpoint) or _snapshot(checkpoint, revision)
    if not folder:
        raise LookalikeError(
            f"{checkpoint}: revision '{revision}' is not in the cache of the hub's library. A run fetches it where the "
            "network is."
        )
    _wanted(checkpoint, folder, [path.name for path in folder.iterdir()], code, parts)


def pinned(checkpoint: str, revision: str) -> bool | None:
    """Whether a checkpoint stays the same: its revision is a commit. None for a local folder, which has no revision."""
    return None if Path(checkpoint).is_dir() or is_path(checkpoint) else is_commit(revision)


def locate(checkpoint: str, weights: Weights) -> Path:
    """The folder that holds the recorded files, without using the network. Raises LookalikeError for any other file."""
    folder = _local_folder(checkpoint) or _cached_folder(checkpoint, weights)
    recorded = ", or ".join(["Bring back the files that were recorded", AGAIN])
    for name, sha256 in weights.files.items():
        path = folder / name
        if not path.is_file():
            raise LookalikeError(f"{path}: is gone since fetch_weights recorded it. {recorded}.")
        if _sha256(path) != sha256:
            raise LookalikeError(f"{path}: is changed or damaged: fetch_weights recorded another. {recorded}.")
    added = {name for name in (*SETTINGS, WEIGHTS) if (folder / name).is_file()} - set(weights.files)
    if added and not weights.revision:
        raise LookalikeError(f"{folder}: {', '.join(sorted(added))} came after fetch_weights. Remove it, or {AGAIN}.")
    return folder


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON file of a checkpoint. Raises LookalikeError where it is none."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # ValueError: also of a number of thousands of digits
        raise LookalikeError(f"{path}: is damaged: {error}. Fetch the checkpoint again.") from None
    if not isinstance(settings, dict):
        raise LookalikeError(f"{path}: is damaged: it holds no mapping. Fetch the checkpoint again.")
    return settings


def weight_files(folder: Path, parts: tuple[str, ...] = ()) -> list[str]:
    """Names of the files with a checkpoint's weights, or of those among them that hold a tensor of ``parts``."""
    if (folder / WEIGHTS).is_file():
        return [WEIGHTS]
    named = read_settings(folder / INDEX).get("weight_map", {})
    return sorted({file for tensor, file in named.items() if not parts or tensor.startswith(parts)})


def _local_folder(checkpoint: str) -> Path | None:
    folder = Path(checkpoint)
    if folder.is_dir():
        return folder
    if is_path(checkpoint):
        raise LookalikeError(f"{checkpoint}: there is no such folder. Mend the model's 'checkpoint', or bring it back.")
    return None


def _wanted(
    checkpoint: str, folder: Path, present: Iterable[str], code: bool, parts: tuple[str, ...]
) -> tuple[str, ...]:
    """The files that loading needs, of those that a local folder has."""
    present = set(present)
    if "config.json" not in present:
        raise LookalikeError(f"{checkpoint}: has no config.json, so it is no checkpoint that transformers can read.")
    if not present & {WEIGHTS, INDEX}:
        raise LookalikeError(_no_safetensors(checkpoint))
    weights = [WEIGHTS] if WEIGHTS in present else [INDEX, *weight_files(folder, parts)]
    if missing := [name for name in weights if name not in present]:
        raise LookalikeError(f"{folder}: {INDEX} names {missing[0]}, which is missing. Copy the whole checkpoint.")
    scripts = sorted(name for name in present if name.endswith(".py")) if code else []
    return (*(name for name in SETTINGS if name in present), *weights, *scripts)


def _no_safetensors(checkpoint: str) -> str:
    return (
        f"{checkpoint}: has no {WEIGHTS}. Other formats can run code when they are read, so they are not. "
        "Convert it once, in Python: AutoModel.from_pretrained(...).save_pretrained('FOLDER'), copy its "
        "preprocessor_config.json to the same folder, and name that folder as the checkpoint."
    )


def _hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
    return {name: _sha256(folder / name) for name in names}


def _sha256(path: Path) -> str:
    """Of code, which runs, the file is always read: a cache folder may be one that others can write to."""
    return store.sha256_file(path) if path.suffix == ".py" else remembered_sha256(path)


# --- the hub ---


def _cached_folder(checkpoint: str, weights: Weights) -> Path:
    from huggingface_hub import constants, try_to_load_from_cache

    for name in weights.files:
        found = try_to_load_from_cache(checkpoint, name, revision=weights.revision)
        if not isinstance(found, str):
            raise LookalikeError(
                f"{checkpoint}: {name} of revision {weights.revision} is not in the cache {constants.HF_HUB_CACHE}. "
                f"Make it readable from this machine (HF_HOME says where it is), or {AGAIN}."
            )
    return Path(found).parent


def _download(checkpoint: str, revision: str, code: bool, parts: tuple[str, ...]) -> tuple[Path, tuple[str, ...]]:
    """Download what is not in the cache; returns the folder, which is named after the commit, and the files' names."""
    from huggingface_hub import HfApi, errors, hf_hub_download
    from huggingface_hub.utils import httpx

    api = HfApi()
    try:
        info = _with_safetensors(api, checkpoint, api.model_info(checkpoint, revision=revision, files_metadata=True))
        present = {file.rfilename: file for file in info.siblings or []}

        def get(name: str) -> Path:
            path = Path(hf_hub_download(checkpoint, name, revision=info.sha))
            lfs = present[name].lfs
            if lfs and _sha256(path) != lfs.sha256:
                raise LookalikeError(f"{path}: is damaged: its hash is not the hub's. Delete it and {AGAIN}.")
            return path

        if "config.json" in present:
            folder = get("config.json").parent
            if WEIGHTS not in present and INDEX in present:
                get(INDEX)
        else:
            folder = Path()
        names = _wanted(checkpoint, folder, present, code, parts)
        for name in names:
            get(name)
        if revision != info.sha:  # by its name too, which the cache then knows when the hub cannot be reached
            hf_hub_download(checkpoint, "config.json", revision=revision)
    except errors.HFValidationError as error:
        raise LookalikeError(f"{checkpoint}: is no name on the hub, and no folder here: {error}") from None
    except errors.GatedRepoError:
        raise LookalikeError(
            f"{checkpoint}: its owners ask you to agree to their terms first. Do so at "
            f"{api.endpoint}/{checkpoint}, log in (hf auth login, or HF_TOKEN), and run again."
        ) from None
    except errors.RevisionNotFoundError:
        raise LookalikeError(
            f"{checkpoint}: has no revision '{revision}'. Name a branch, a tag or a whole commit hash of it."
        ) from None
    except errors.RepositoryNotFoundError:
        raise LookalikeError(_unknown(checkpoint, api.endpoint)) from None
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, httpx.TransportError) as error:
        return _from_cache(checkpoint, revision, code, parts, f"{type(error).__name__}: {error}")
    except errors.HfHubHTTPError as error:
        if error.response.status_code == 401:
            raise LookalikeError(_unknown(checkpoint, api.endpoint)) from None
        reason = str(error).splitlines()[0]
        raise LookalikeError(f"{checkpoint}: the hub answered: {reason} Try again later.") from None
    return folder, names


def _unknown(checkpoint: str, endpoint: str) -> str:
    return (
        f"{checkpoint}: the hub has no such model, or it is private. Check the name at {endpoint}; for a private one, "
        "log in (hf auth login, or HF_TOKEN)."
    )


def _from_cache(
    checkpoint: str, revision: str, code: bool, parts: tuple[str, ...], reason: str
) -> tuple[Path, tuple[str, ...]]:
    """What an earlier download left, where the hub cannot be reached."""
    from huggingface_hub import constants

    folder = _snapshot(checkpoint, revision)
    if not folder:
        raise LookalikeError(
            f"{checkpoint}: the hub cannot be reached ({reason}), and revision '{revision}' is not in the cache "
            f"{constants.HF_HUB_CACHE}. Run fetch_weights where the network is."
        )
    log.warning("%s: the hub cannot be reached; using commit %s from the cache", checkpoint, folder.name)
    return folder, _wanted(checkpoint, folder, [path.name for path in folder.iterdir()], code, parts)


def _snapshot(checkpoint: str, revision: str) -> Path | None:
    """The folder of a revision in the cache, where an earlier download left one."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(checkpoint, "config.json", revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def _with_safetensors(api: Any, checkpoint: str, info: Any) -> Any:
    """``info``, or that of the hub's own conversion to safetensors where the owners published none.

    The hub's bot offers it as a pull request, which transformers itself loads too. It is taken only where it was made
    from this very commit: older weights would be other weights.
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
    except errors.HfHubHTTPError:  # a model may have its discussions closed
        return info
    for request in requests:
        reference = request.git_reference
        history = api.list_repo_commits(checkpoint, revision=reference)
        if len(history) > 1 and history[1].commit_id == info.sha:
            log.info("%s: no safetensors; taking the hub's conversion, %s", checkpoint, reference)
            return api.model_info(checkpoint, revision=reference, files_metadata=True)
        log.warning(
            "%s: %s converts another commit to safetensors; to use it, set revision: %s",
            checkpoint,
            reference,
            reference,
        )
    return info
