"""Weights: fetched where the network is, once for all models that share them, and recorded by hash."""

from pathlib import Path

from lookalike.config.models import from_key
from lookalike.embed import encoders
from lookalike.io import store


def fetch_weights(key: str, out: str | Path) -> None:
    """Fetch the weights of a key (``plan.Plan.weights_key``) where they are not here, and write down what they are."""
    entry = from_key(key)
    store.write_json(encoders.family(entry).fetch(entry), out)
