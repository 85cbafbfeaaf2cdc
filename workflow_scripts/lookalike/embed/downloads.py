"""Files of weights at an address: fetched whole, and only what has the SHA-256 that an entry names.

Nothing of this module changes a number: what it leaves is the file that is meant, or an error.
"""

import hashlib
import logging
import time
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.request import urlopen

from lookalike.embed.file_hashes import sha256 as remembered_sha256
from lookalike.io import store
from lookalike.job.errors import LookalikeError

log = logging.getLogger(__name__)
PATIENCE = 60.0  # seconds without a byte, or for LEAST bytes
LEAST, CHUNK = 1 << 16, 1 << 20  # bytes
TRIES = 3
UNTRUSTED = "It is not used unless they agree. Download it again; change 'sha256' only where you trust the new file."


def fetched(path: Path, url: str | None, sha256: str, untrusted: str = UNTRUSTED) -> Path:
    """A file of this SHA-256, downloaded where it is missing or another one. Raises LookalikeError where it cannot be.

    ``untrusted`` is what to do about a file of another SHA-256.
    """
    from huggingface_hub import constants

    if url and not constants.HF_HUB_OFFLINE:
        if not path.exists():
            _download(path, url, sha256, untrusted)
        elif store.sha256_file(path) != sha256:
            log.warning("%s: is not the file of this SHA-256, perhaps incomplete: fetching it again", path)
            try:
                _download(path, url, sha256, untrusted)
            except LookalikeError as error:  # what is wrong with the file is said below
                log.warning("%s", error)
    return checked(path, sha256, untrusted)


def checked(path: Path, sha256: str, untrusted: str = UNTRUSTED, *, remembered: bool = False) -> Path:
    """The file, if it has this SHA-256; one that is ``remembered`` is not read again while its dates stay."""
    existing(path)
    found = remembered_sha256(path) if remembered else store.sha256_file(path)
    if found != sha256:
        raise LookalikeError(f"{path}: its SHA-256 is {found}, and the model's entry says {sha256}. {untrusted}")
    return path


def existing(path: Path) -> Path:
    """The file. Raises LookalikeError where it is missing."""
    if not path.is_file():
        raise LookalikeError(
            f"{path}: there is no such file. Download it from where its authors publish it, give the model's entry a "
            "'url', or fix its 'path'."
        )
    return path


class _NotWholeError(Exception):
    """A transfer broke off, stalled, or brought another number of bytes than was announced."""


def _download(path: Path, url: str, sha256: str, untrusted: str) -> None:
    """Fetch a file, again where it did not come whole. It takes its name only when it is the one that is meant."""
    manually = f"download the file yourself and put it at {path}"
    for attempt in range(1, TRIES + 1):
        log.info("fetching %s", url)
        try:
            with _opened(url) as answer, store.atomic(path) as temporary:
                _receive(answer, temporary, sha256, untrusted)
            return
        except _NotWholeError as broken:
            log.warning("%s: %s (try %d of %d)", url, broken, attempt, TRIES)
            reason = str(broken)
        except (OSError, HTTPException) as error:
            reason = str(error)
            break
    raise LookalikeError(f"{url}: cannot be fetched: {reason}. Run fetch_weights where the network is, or {manually}.")


def _receive(answer: HTTPResponse, file: Path, sha256: str, untrusted: str) -> None:
    announced, digest, count = answer.length, hashlib.sha256(), 0
    with file.open("wb") as out:
        for chunk in _chunks(answer):
            out.write(chunk)
            digest.update(chunk)
            count += len(chunk)
    if announced not in (None, count):
        raise _NotWholeError(f"{count:,} of {announced:,} bytes came")
    if (found := digest.hexdigest()) != sha256:
        message = f"what came, {count:,} bytes, has the SHA-256 {found}, and the model's entry says {sha256}"
        if announced is None:  # it may have been cut
            raise _NotWholeError(message)
        raise LookalikeError(f"{answer.url}: {message}. {untrusted}")


def _chunks(answer: HTTPResponse) -> Iterator[bytes]:
    """What a server sends, as it comes. A connection is given up that brings less than LEAST bytes in PATIENCE."""
    started, count = time.monotonic(), 0
    while True:
        try:
            chunk = answer.read1(CHUNK)
        except (OSError, HTTPException) as error:
            raise _NotWholeError(f"the connection broke: {error}") from None
        if not chunk:
            return
        count += len(chunk)
        if count >= LEAST:
            started, count = time.monotonic(), 0
        elif time.monotonic() - started > PATIENCE:
            raise _NotWholeError(f"less than {LEAST:,} bytes came in {PATIENCE:g} seconds")
        yield chunk


def _opened(url: str) -> HTTPResponse:
    answer: HTTPResponse = urlopen(url, timeout=PATIENCE)
    return answer
