"""Tests on a cluster start Snakemake as users do."""

import pytest

from workflow.conftest import Tree


@pytest.fixture(autouse=True)
def as_users_start_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a fork, Snakemake 9 loses track of grouped jobs here: "BUG: Out of jobs ready to be started"."""
    monkeypatch.setattr(Tree, "forked", False)
