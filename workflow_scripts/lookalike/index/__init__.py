"""Indexes: built from embedding shards that belong together, and searched. Ids ride along with the vectors."""

from lookalike.index.building import build
from lookalike.index.checks import check_index, check_same, check_shards
from lookalike.index.searching import nearest, search
from lookalike.index.vectors import unit

__all__ = ["build", "check_index", "check_same", "check_shards", "nearest", "search", "unit"]
