"""The `fetch_weights` stage: fetch weights once for all models that share them, and record their hashes."""

from pathlib import Path

from lookalike.config.models import from_key
from lookalike.embed import encoders, time_limit
from lookalike.io import store


def fetch_weights(key: str, out: str | Path, chunk_seconds: float = 300) -> None:
    """Fetch the weights of a key (``plan.Plan.weights_key``) unless they are cached, and write their hashes.

    ``chunk_seconds``: how long one chunk of a download may take.
    """
    entry = from_key(key)
    with time_limit.limited(chunk_seconds):
        store.write_json(encoders.family(entry).fetch(entry), out)
