"""Weight files from a URL: downloaded whole, and accepted only with the SHA-256 of the model's entry.

Nothing here changes a number: it provides the file that the entry means, or an error.
"""

import hashlib
import logging
import time
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.request import urlopen

from lookalike.embed import time_limit
from lookalike.io import store
from lookalike.job.errors import LookalikeError

log = logging.getLogger(__name__)
LEAST, CHUNK = 1 << 16, 1 << 20  # bytes: to arrive within the time limit, and the most to read at once
TRIES = 3


def fetched(path: Path, url: str | None, sha256: str, untrusted: str) -> Path:
    """The file with this hash; it is downloaded if it is missing or its hash differs.

    ``untrusted`` ends the message about a file with another hash.
    """
    from huggingface_hub import constants

    if url and not constants.HF_HUB_OFFLINE:
        if not path.exists():
            _download(path, url, sha256, untrusted)
        elif store.sha256_file(path) != sha256:
            log.warning("%s: its SHA-256 is not that of the model's entry, perhaps cut short: fetching it again", path)
            try:
                _download(path, url, sha256, untrusted)
            except LookalikeError as error:  # ``checked`` reports the file itself below
                log.warning("%s", error)
    return checked(path, sha256, untrusted)


def existing(path: Path) -> Path:
    """The file. Raises LookalikeError if it is missing."""
    if not path.is_file():
        raise LookalikeError(
            f"{path}: no such file. Download it from its authors, add a 'url' to the model's entry, or fix its 'path'."
        )
    return path


def checked(path: Path, sha256: str, untrusted: str) -> Path:
    """The file. Raises LookalikeError if it is missing or its hash differs."""
    actual = store.sha256_file(existing(path))
    if actual != sha256:
        raise LookalikeError(f"{path}: its SHA-256 is {actual}, but the model's entry says {sha256}. {untrusted}")
    return path


class _IncompleteError(Exception):
    """A download broke off, stalled, or had a size other than announced."""


def _download(path: Path, url: str, sha256: str, untrusted: str) -> None:
    """Download the file, with retries. It gets its final name only once its hash is confirmed."""
    manually = f"download the file yourself and put it at {path}"
    for attempt in range(1, TRIES + 1):
        log.info("fetching %s", url)
        try:
            with _opened(url) as response, store.atomic(path) as temporary:
                _receive(response, temporary, sha256, untrusted)
            return
        except _IncompleteError as incomplete:
            log.warning("%s: %s (attempt %d of %d)", url, incomplete, attempt, TRIES)
            reason = str(incomplete)
        except (OSError, HTTPException) as error:
            reason = str(error)
            break
    raise LookalikeError(f"{url}: cannot be fetched: {reason}. Run fetch_weights with network access, or {manually}.")


def _receive(response: HTTPResponse, file: Path, sha256: str, untrusted: str) -> None:
    announced, digest, count = response.length, hashlib.sha256(), 0
    with file.open("wb") as out:
        for chunk in _chunks(response):
            out.write(chunk)
            digest.update(chunk)
            count += len(chunk)
    if announced not in (None, count):
        raise _IncompleteError(f"received {count:,} of {announced:,} bytes")
    if (actual := digest.hexdigest()) != sha256:
        message = f"the SHA-256 of the {count:,} bytes received is {actual}, but the model's entry says {sha256}"
        if announced is None:  # it may have been cut short
            raise _IncompleteError(message)
        raise LookalikeError(f"{response.url}: {message}. {untrusted}")


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    """Yield a response as it arrives. Gives up on a connection that sends less than LEAST bytes in the time limit."""
    patience = time_limit.CHUNK_SECONDS.get()
    started, count = time.monotonic(), 0
    while True:
        try:
            chunk = response.read1(CHUNK)
        except (OSError, HTTPException) as error:
            raise _IncompleteError(f"the connection broke: {error}") from None
        if not chunk:
            return
        count += len(chunk)
        if count >= LEAST:
            started, count = time.monotonic(), 0
        elif time.monotonic() - started > patience:
            raise _IncompleteError(f"received less than {LEAST:,} bytes in {patience:g} seconds")
        yield chunk


def _opened(url: str) -> HTTPResponse:
    response: HTTPResponse = urlopen(url, timeout=time_limit.CHUNK_SECONDS.get())
    return response
