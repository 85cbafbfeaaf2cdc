"""Tests on a cluster start Snakemake as users do."""

import pytest

from workflow.conftest import Tree


@pytest.fixture(autouse=True)
def as_users_start_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a fork, Snakemake forgets groups of jobs nearly every time; started as users do, rarely (``LOST``)."""
    monkeypatch.setattr(Tree, "forked", False)
